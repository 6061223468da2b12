"""fanin: `fit` and `predict` of a Sequential; `compile_step` and `compile_predict` of any module."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

import fanin
from benchmarks.cases import EPSILON, RATE, Case, data, weights
from benchmarks.clock import Record, between
from benchmarks.peers import torch_


def model(case: Case) -> Any:
    """Dense layers under the case's dtype policy."""
    policy = "mixed_bfloat16" if case.dtype == "bfloat16" else None
    *hidden, last = case.widths[1:]
    layers = [fanin.layers.Dense(units, "relu", dtype=policy) for units in hidden]
    made = fanin.Sequential([fanin.Input(case.widths[:1]), *layers, fanin.layers.Dense(last, dtype=policy)])
    made.set_weights([part for pair in weights(case) for part in pair])
    return made


def stepper(case: Case) -> Callable[..., Any]:
    """One step of fanin's model as a function of a batch."""
    return fanin.compile_step(model(case).train(), F.cross_entropy, fanin.optimizers.Adam(RATE, epsilon=EPSILON))


def train(case: Case) -> Record:
    """`fit`; for a case of plain torch its own module in `compile_step`, in the same loop as torch's."""
    if case.norm:
        net = torch_.module(case).train()
        return torch_.run(fanin.compile_step(net, F.cross_entropy, torch_.adam(net)), case)
    made = model(case)
    made.compile(
        fanin.optimizers.Adam(RATE, epsilon=EPSILON), fanin.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ends: list[float] = []
    clock = fanin.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    x, y = data(case)
    done = made.fit(x, y, batch_size=case.batch, epochs=case.epochs + 1, verbose=0, callbacks=[clock])
    return between(ends, done.history["loss"], case)


def predict(case: Case) -> Callable[[Any], Any]:
    """`model.predict`."""
    made = model(case)
    return lambda rows: made.predict(rows, batch_size=case.batch, verbose=0)


def call(case: Case) -> Callable[[Any], Any]:
    """The bare callable of `compile_predict`."""
    rows, _ = data(case)
    found: Callable[[Any], Any] = fanin.compile_predict(model(case), rows)
    return found
