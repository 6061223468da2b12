"""The peers of the benchmarks do the same work: equal predictions, equal losses where no order of rows matters."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fanin

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
cases = importlib.import_module("benchmarks.cases")
peers = importlib.import_module("benchmarks.peers")

pytest.importorskip("onnx")

# All rows in one batch: an epoch is a step, and no order of rows can matter.
ONE_BATCH = cases.Case("one-batch", "", (20, 32, 32, 4), 64, (), steps=1, epochs=5)
MANY = cases.Case("many", "", (20, 32, 32, 4), 16, (), steps=20, epochs=2)
ROWS = cases.Case("rows", "", (20, 32, 32, 4), 8, ())

# In a process of its own, as Keras has one backend in a process, and JAX minds what others fork.
ELSEWHERE = """
import json, sys
from benchmarks import cases, peers
train, rows = (cases.Case(*fields) for fields in json.loads(sys.argv[1]))
found, contestant = {}, peers.PEERS[sys.argv[2]]
if contestant.train:
    found["losses"] = peers.find(contestant.train)(train)["losses"]
if contestant.predict:
    found["outputs"] = peers.find(contestant.predict)(rows)(cases.data(rows)[0]).tolist()
print(json.dumps(found))
"""


def installed(name: str) -> bool:
    return all(find_spec(package) for package in peers.PEERS[name].peer.needs)


def alone(name: str) -> bool:
    return name.startswith(("keras", "jax", "flax"))


def here(kind: str) -> list[str]:
    """The peers that can train or predict in this process; torch.compile takes too long for a test."""
    return [
        name
        for name, contestant in peers.PEERS.items()
        if getattr(contestant, kind)
        and name != "torch-compile"
        and (name != "fanin-call" or hasattr(fanin, "compile_predict"))
        and not alone(name)
        and installed(name)
    ]


def losses_of(name: str, case: Any) -> list[float]:
    record = peers.find(peers.PEERS[name].train)(case)
    assert record["us"] > 0
    assert len(record["losses"]) == case.epochs + 1
    found: list[float] = record["losses"]
    return found


def closed_form(case: Any) -> list[float]:
    """The losses of the same steps in float64: softmax cross-entropy, and Adam as Kingma and Ba give it."""
    x, y = cases.data(case)
    x, hot = x.astype(float), np.eye(case.widths[-1])[y]
    params = [part.astype(float) for pair in cases.weights(case) for part in pair]
    first, second = [0 * part for part in params], [0 * part for part in params]
    losses = []
    for step in range(1, case.epochs + 2):
        inputs, before = [x], []
        for place in range(0, len(params), 2):
            before.append(inputs[-1] @ params[place] + params[place + 1])
            inputs.append(np.maximum(before[-1], 0))
        shifted = before[-1] - before[-1].max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        losses.append(float(-(hot * logs).sum(1).mean()))
        slope, gradients = (np.exp(logs) - hot) / len(x), []
        for place in reversed(range(len(before))):
            gradients[:0] = [inputs[place].T @ slope, slope.sum(0)]
            slope = (slope @ params[2 * place].T) * (inputs[place] > 0)
        for i, gradient in enumerate(gradients):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            root = np.sqrt(second[i] / (1 - 0.999**step)) + cases.EPSILON
            params[i] = params[i] - cases.RATE * first[i] / (1 - 0.9**step) / root
    return losses


# An epsilon inside or outside of Adam's correction for bias, which libraries differ in, moves the later losses: a
# weight's step is RATE * g / (|g| + k * EPSILON), k from 1 to 1 / sqrt(1 - 0.999), and the gradients are about 1e-3.
NEAR = 2e-4


@pytest.mark.parametrize("name", [name for name in here("train") if name != "sklearn"])
def test_losses_are_those_of_the_closed_form(name: str) -> None:
    np.testing.assert_allclose(losses_of(name, ONE_BATCH), closed_form(ONE_BATCH), rtol=NEAR)


@pytest.mark.parametrize("name", here("train"))
def test_losses_fall_and_every_epoch_takes_all_rows(name: str) -> None:
    losses = losses_of(name, MANY)
    assert losses[0] > losses[1] > losses[2]
    if name != "sklearn":  # which draws other first weights
        # The mean over an epoch hangs a little on the order of the rows.
        assert losses == pytest.approx(losses_of("torch", MANY), rel=0.03)


@pytest.mark.parametrize("name", ["fanin", "torch"])
def test_half_precision_trains_nearly_alike(name: str) -> None:
    wide = cases.Case("wide", "", (20, 256, 256, 4), 64, (), steps=1, epochs=5)  # fanin has small products in float32
    losses = losses_of(name, replace(wide, dtype="bfloat16"))
    assert losses == pytest.approx(closed_form(wide), rel=2.0**-7)  # one rounding of bfloat16
    assert losses != pytest.approx(closed_form(wide), rel=1e-5), "this was float32"


@pytest.mark.parametrize("name", ["torch", *(["fanin"] if hasattr(fanin, "compile_step") else [])])
def test_a_torch_module_with_norm_and_dropout_trains(name: str) -> None:
    case = cases.Case("module", "", (20, 32, 32, 4), 16, (), steps=20, epochs=2, norm=True)
    losses = losses_of(name, case)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", here("predict"))
def test_predictions_agree(name: str) -> None:
    rows, _ = cases.data(ROWS)
    outputs = peers.find(peers.PEERS[name].predict)(ROWS)(rows)
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_allclose(outputs, exact(rows), rtol=0, atol=1e-4)


def exact(rows: Any) -> Any:
    *hidden, (last, end) = cases.weights(ROWS)
    for kernel, bias in hidden:
        rows = np.maximum(rows.astype(float) @ kernel + bias, 0)
    return rows @ last + end


@pytest.mark.parametrize("name", [name for name in peers.PEERS if alone(name) and installed(name)])
def test_peers_in_processes_of_their_own_do_the_same(name: str) -> None:
    fields = [
        [case.name, "", case.widths, case.batch, [], "float32", case.steps, case.epochs] for case in (ONE_BATCH, ROWS)
    ]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps(fields), name], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **peers.PEERS[name].peer.environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found
    if "losses" in found:
        np.testing.assert_allclose(found["losses"], closed_form(ONE_BATCH), rtol=NEAR)
    if "outputs" in found:
        np.testing.assert_allclose(found["outputs"], exact(cases.data(ROWS)[0]), rtol=0, atol=1e-4)
