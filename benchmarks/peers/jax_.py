"""JAX by hand: a step under jit, the same step in a scan over the epoch, and a prediction under jit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import EPSILON, RATE, Case, data, weights
from benchmarks.clock import Record, per_step


def forward(params: Any, x: Any, dtype: Any) -> Any:
    """The outputs, products in `dtype`."""
    x = x.astype(dtype)
    for number, (kernel, bias) in enumerate(params):
        x = x @ kernel.astype(dtype) + bias.astype(dtype)
        if number + 1 < len(params):
            x = jnp.maximum(x, 0)
    return x.astype(jnp.float32)


def _loss(params: Any, x: Any, y: Any, dtype: Any) -> Any:
    logs = jax.nn.log_softmax(forward(params, x, dtype))
    return -jnp.take_along_axis(logs, y[:, None], 1).mean()


def _start(case: Case) -> Any:
    params = jax.tree.map(jnp.asarray, weights(case))
    return params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)


def _step(state: Any, x: Any, y: Any, dtype: Any) -> Any:
    """One step of Adam: the new state and the loss."""
    params, first, second, count = state
    loss, gradients = jax.value_and_grad(_loss)(params, x, y, dtype)
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
    rate = RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON), params, first, second)
    return (params, first, second, count), loss


def stepper(case: Case) -> Callable[[Any, Any], Any]:
    """A jitted step as a function of a batch."""
    state, dtype = _start(case), jnp.dtype(case.dtype)
    run = jax.jit(lambda state, x, y: _step(state, x, y, dtype), donate_argnums=0)

    def step(x: Any, y: Any) -> Any:
        nonlocal state
        state, loss = run(state, x, y)
        return loss

    return step


def train_step(case: Case) -> Record:
    """One jitted call for each step, which takes its batch by index."""
    dtype = jnp.dtype(case.dtype)

    @partial(jax.jit, donate_argnums=0)
    def run(state: Any, x: Any, y: Any, index: Any) -> Any:
        return _step(state, x[index], y[index], dtype)

    x, y = map(jnp.asarray, data(case))
    random, state = np.random.default_rng(0), _start(case)

    def epoch() -> float:
        nonlocal state
        losses = []
        for index in random.permutation(len(x)).astype("int32").reshape(case.steps, case.batch):
            state, loss = run(state, x, y, index)
            losses.append(loss)
        jax.block_until_ready(state)
        return float(np.mean(losses))

    return per_step(epoch, case)


def train_scan(case: Case) -> Record:
    """One jitted call for each epoch: a scan over the batches of a permutation."""
    dtype = jnp.dtype(case.dtype)

    @partial(jax.jit, donate_argnums=0)
    def run(state: Any, x: Any, y: Any, order: Any) -> Any:
        return jax.lax.scan(lambda state, index: _step(state, x[index], y[index], dtype), state, order)

    x, y = map(jnp.asarray, data(case))
    random, state = np.random.default_rng(0), _start(case)

    def epoch() -> float:
        nonlocal state
        order = random.permutation(len(x)).astype("int32").reshape(case.steps, case.batch)
        state, losses = run(state, x, y, order)
        jax.block_until_ready(state)
        return float(np.mean(losses))

    return per_step(epoch, case)


def predict(case: Case) -> Callable[[Any], Any]:
    """The jitted forward pass, waited for."""
    params, dtype = jax.tree.map(jnp.asarray, weights(case)), jnp.dtype(case.dtype)
    run = jax.jit(lambda params, x: forward(params, x, dtype))
    return lambda rows: np.asarray(run(params, rows))
