"""Plain torch: the loop with fused Adam, and torch.compile of its model and loss; autocast for bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.cases import DROPPED, EPSILON, RATE, Case, data, weights
from benchmarks.clock import Record, per_step

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def module(case: Case) -> torch.nn.Sequential:
    """Linear layers with ReLU between, and before it LayerNorm, after it Dropout, where the case has them."""
    parts: list[torch.nn.Module] = []
    for kernel, bias in weights(case):
        if parts:
            norm = [torch.nn.LayerNorm(len(kernel))] if case.norm else []
            parts += [*norm, torch.nn.ReLU(), *([torch.nn.Dropout(DROPPED)] if case.norm else [])]
        layer = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.T))
            layer.bias.copy_(torch.from_numpy(bias))
        parts.append(layer)
    return torch.nn.Sequential(*parts)


def adam(net: torch.nn.Module) -> torch.optim.Adam:
    """The fused Adam of every torch loop here."""
    return torch.optim.Adam(net.parameters(), RATE, eps=EPSILON, fused=True)


def stepper(case: Case, prepare: Callable[[Step], Step] = lambda loss: loss) -> Step:
    """The step of the usual loop; `prepare` may compile its loss."""
    net = module(case).train()
    optimizer = adam(net)
    precision: Any = nullcontext
    if case.dtype == "bfloat16":
        precision = partial(torch.autocast, "cpu", torch.bfloat16)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with precision():
            return F.cross_entropy(net(x), y)

    prepared = prepare(loss)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        found = prepared(x, y)
        found.backward()
        optimizer.step()
        return found.detach()

    return step


def compiled_stepper(case: Case) -> Step:
    """The same step, model and loss in torch.compile: faster than all of it there, which breaks at `backward`."""
    return stepper(case, torch.compile)


def run(step: Step, case: Case) -> Record:
    """The loop: a new order each epoch, a batch by index_select, the mean of the losses."""
    x, y = map(torch.from_numpy, data(case))

    def epoch() -> float:
        total = torch.zeros(())
        for index in torch.randperm(len(x)).split(case.batch):
            total += step(x.index_select(0, index), y.index_select(0, index))
        return float(total) / case.steps

    return per_step(epoch, case)


def train(case: Case) -> Record:
    """The eager loop."""
    return run(stepper(case), case)


def train_compiled(case: Case) -> Record:
    """The loop with its model and loss in torch.compile."""
    return run(compiled_stepper(case), case)


def predict(case: Case) -> Callable[[Any], Any]:
    """The module in inference mode, its weights in the case's precision."""
    return _predictor(_net(case), case)


def predict_compiled(case: Case) -> Callable[[Any], Any]:
    """The same module in torch.compile."""
    return _predictor(torch.compile(_net(case)), case)


def _net(case: Case) -> torch.nn.Module:
    return module(case).eval().to(getattr(torch, case.dtype))


def _predictor(net: Any, case: Case) -> Callable[[Any], Any]:
    @torch.inference_mode()
    def exact(rows: Any) -> Any:
        return net(torch.from_numpy(rows)).numpy()

    @torch.inference_mode()
    def half(rows: Any) -> Any:
        return net(torch.from_numpy(rows).bfloat16()).float().numpy()

    return half if case.dtype == "bfloat16" else exact
