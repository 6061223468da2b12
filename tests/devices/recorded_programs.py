"""Programs that are recorded and played compute what they compute operation by operation.

The second device has no graphs of its own: `stand_in_graphs.py` stands in for them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import X, Y, model, trained
from stand_in_graphs import FUNCTIONS, Graph

import fanin
from fanin import layers, optimizers
from fanin.optimizers import fused
from fanin.program import Program, cuda_graph

ADAM = lambda made: "adam"  # noqa: E731


@pytest.fixture(autouse=True)
def _graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "_WARM_UP_RUNS", 2)
    monkeypatch.setattr(Graph, "made", 0)
    monkeypatch.setattr(Graph, "played", 0)
    monkeypatch.setattr(Graph, "lines", [])
    for name, stand_in in FUNCTIONS.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


def both(monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> tuple[list[float], list[float]]:
    """The numbers of a training without recordings, and with."""
    plain, _ = trained("second", *given, **options)
    assert Graph.made == 0
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    return plain, trained("second", *given, **options)[0]


@pytest.mark.parametrize(
    "optimizer",
    [
        ADAM,
        lambda made: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9),
        lambda made: optimizers.Adam(0.01, use_ema=True, gradient_accumulation_steps=2, global_clipnorm=1.0),
        lambda made: optimizers.LossScaleOptimizer(optimizers.Adam()),
        lambda made: torch.optim.AdamW(made.parameters(), lr=0.01),
        lambda made: torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9),
    ],
)
def test_training(monkeypatch: pytest.MonkeyPatch, optimizer: Any) -> None:
    plain, played = both(monkeypatch, optimizer, [layers.BatchNormalization, lambda: layers.Dropout(0.5, seed=1)])
    assert played == plain
    assert Graph.made >= 1
    assert Graph.played >= 3


@pytest.mark.parametrize(
    "optimizer", [ADAM, lambda made: "adamw", lambda made: torch.optim.Adam(made.parameters(), lr=0.01, amsgrad=True)]
)
def test_torchs_fused_kernels(monkeypatch: pytest.MonkeyPatch, optimizer: Any) -> None:
    monkeypatch.setattr(fused, "_DEVICES", ("cpu", "second"))
    plain, played = both(monkeypatch, optimizer)
    np.testing.assert_allclose(plain, trained("cpu", optimizer)[0], rtol=2e-5, atol=2e-5)
    assert played == plain
    assert any("_fused_adam" in line for line in Graph.lines)


def test_draws_without_a_seed_are_fresh_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, played = both(monkeypatch, ADAM, [lambda: layers.Dropout(0.5), lambda: layers.GaussianNoise(0.1)])
    assert played == plain


def test_what_changes_between_steps_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    torch.manual_seed(0)
    module = torch.nn.Linear(8, 3).to("second")
    step = fanin.compile_step(module, torch.nn.functional.cross_entropy, optimizers.SGD(0.0))
    batches = [(torch.from_numpy(X[rows]).to("second"), torch.from_numpy(Y[rows]).to("second")) for rows in np.split(
        np.arange(100), 10)]  # fmt: skip
    for x, y in batches:
        expected = torch.nn.functional.cross_entropy(module(x), y).item()
        assert step(x, y).item() == pytest.approx(expected, rel=1e-6)
    assert (Graph.made, Graph.played) == (1, 8)
    assert "a CUDA graph" in str(step.programs[0])
    before = module.weight.detach().clone()
    step.optimizer.learning_rate = 0.5
    first, second = step(*batches[0]), step(*batches[1])
    assert first.item() != second.item()  # results are new tensors
    assert not torch.equal(before, module.weight)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.zero_()
    assert step(*batches[2]).item() == pytest.approx(np.log(3.0), rel=1e-6)
    module.weight = torch.nn.Parameter(module.weight.detach().clone())  # other memory: recorded anew
    for x, y in batches:
        expected = torch.nn.functional.cross_entropy(module(x), y).item()
        assert step(x, y).item() == pytest.approx(expected, rel=1e-6)
    assert Graph.made == 2


def test_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    expected = model().predict(X, verbose=0)
    made = model().to("second")
    for _ in range(3):
        np.testing.assert_allclose(made.predict(X, batch_size=10, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert Graph.made == 1
    made.set_weights([np.zeros_like(one) for one in made.get_weights()])
    assert not made.predict(X, batch_size=10, verbose=0).any()


def test_what_cannot_be_recorded_runs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained("second", ADAM)
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    monkeypatch.setattr(Graph, "refuses", "addmm")
    assert trained("second", ADAM)[0] == plain
    assert Graph.made == 0


def test_values_of_the_host_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    on_host = torch.ones(())
    module = torch.nn.Linear(8, 3).to("second")
    predict = fanin.training.prediction.Prediction(module, lambda x: module(x) * on_host)
    x = torch.from_numpy(X).to("second")
    for number in range(4):
        on_host.fill_(number)
        torch.testing.assert_close(predict(x), module(x).detach() * number)
    assert Graph.made == 0


def test_what_waits_for_the_device_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says so in its debug mode, which is on for one run."""
    modes = [0]

    def double(x: torch.Tensor) -> torch.Tensor:
        if modes[-1] == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return torch.nn.functional.linear(x, torch.eye(8, device="second"))

    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    waits = Program(lambda x: [double(x)], (), [torch.ones(4, 8, device="second")])
    run = waits._run.__self__._run  # type: ignore[attr-defined]
    monkeypatch.setattr(waits._run.__self__, "_run", lambda *given: (double(given[0]), run(*given))[1])  # type: ignore[attr-defined]
    for _ in range(4):
        waits(torch.ones(4, 8, device="second"))
    assert modes == [0, "warn", 0]
    assert Graph.made == 0


def test_settings_that_choose_kernels_are_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "_DEVICE_TYPES", ("second",))
    program = Program(lambda x: [x @ x], (), [torch.ones(4, 4, device="second")])
    for precision in ("highest", "high", "highest"):
        torch.set_float32_matmul_precision(precision)
        for _ in range(4):
            program(torch.ones(4, 4, device="second"))
    assert Graph.made == 3
