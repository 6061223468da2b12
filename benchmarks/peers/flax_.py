"""Flax NNX: a jitted step over nnx.Linear layers, with optax's Adam."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.cases import EPSILON, RATE, Case, data, weights
from benchmarks.clock import Record, per_step


class Net(nnx.Module):
    """Linear layers with relu between; float32 weights, products in the case's precision."""

    def __init__(self, case: Case) -> None:
        made = []
        for kernel, bias in weights(case):
            layer = nnx.Linear(*kernel.shape, dtype=jnp.dtype(case.dtype), rngs=nnx.Rngs(0))
            layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
            made.append(layer)
        self.layers = nnx.List(made)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x).astype(jnp.float32)


def _loss(net: Net, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()


@nnx.jit
def _step(net: Net, optimizer: Any, x: Any, y: Any, index: Any) -> Any:
    loss, gradients = nnx.value_and_grad(_loss)(net, x[index], y[index])
    optimizer.update(net, gradients)
    return loss


def train(case: Case) -> Record:
    """One jitted call for each step; `cached_partial` spares it the walk over the modules, as Flax advises."""
    net = Net(case)
    optimizer = nnx.Optimizer(net, optax.adam(RATE, eps=EPSILON), wrt=nnx.Param)
    step = nnx.cached_partial(_step, net, optimizer)
    x, y = map(jnp.asarray, data(case))
    random = np.random.default_rng(0)

    def epoch() -> float:
        order = random.permutation(len(x)).astype("int32").reshape(case.steps, case.batch)
        losses = [step(x, y, index) for index in order]
        jax.block_until_ready(nnx.state(net))
        return float(np.mean(losses))

    return per_step(epoch, case)
