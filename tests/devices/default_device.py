"""Everything with `torch.set_default_device`: what is made without a device lands there, and the rest copes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from device_cases import LOGITS, X, Y, model, trained

import fanin
from fanin import adapters, layers, metrics, optimizers


@pytest.fixture(autouse=True)
def _second_by_default() -> Iterator[None]:
    torch.set_default_device("second")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_training_and_files(tmp_path: Path, policy: str) -> None:
    fanin.config.set_dtype_policy(policy)
    numbers, made = trained(
        "second",
        lambda made: optimizers.Adam(optimizers.schedules.CosineDecay(0.1, 10), clipnorm=1.0),
        [lambda: layers.Dropout(0.5, seed=1), layers.BatchNormalization],
        validation_split=0.2,
        class_weight={0: 2.0},
    )
    assert np.isfinite(numbers).all()
    one_row = [made.predict(X[:1], verbose=0) for _ in range(2)]
    np.testing.assert_array_equal(*one_row)
    assert made.predict(X, deterministic=True, verbose=0).shape == (100, 3)
    for name in ("m.keras", "m.weights.h5", "m.safetensors"):
        save = made.save if name == "m.keras" else made.save_weights
        save(tmp_path / name)
    loaded = fanin.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].kernel.device.type == "second"
    loaded.fit(X, Y, verbose=0)
    for name in ("m.weights.h5", "m.safetensors"):
        loaded.load_weights(tmp_path / name)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), made.predict(X, verbose=0))


def test_a_model_on_the_cpu_stays_there() -> None:
    numbers, made = trained("cpu", lambda made: "adam")
    torch.set_default_device(None)
    expected, _ = trained("cpu", lambda made: "adam")
    assert made.layers[0].kernel.device.type == "cpu"
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-6)


def test_compiled_modules() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 1100), torch.nn.Dropout(0.5), torch.nn.Linear(1100, 3))
    for device in ("second", "cpu"):
        module.to(device)
        step = fanin.compile_step(module, torch.nn.functional.cross_entropy, torch.optim.AdamW(module.parameters()))
        assert all(np.isfinite(step(X, Y).item()) for _ in range(3))
        assert len(step.programs) == 1
        assert fanin.compile_predict(module, X)(X[:2]).shape == (2, 3)


def test_what_has_no_weights_of_its_own() -> None:
    assert layers.Normalization(mean=1.0, variance=2.0)(X).device.type == "second"
    adapted = layers.Normalization()
    adapted.adapt(X)
    np.testing.assert_allclose(adapted.mean.cpu(), X.mean(0), rtol=1e-5, atol=1e-6)
    area = metrics.AUC()
    area.update_state(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.4]))
    assert float(area.result()) == 1.0


def test_adapters_and_onnx(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    adapters.add(module, "ann", rank=4)
    adapters.save(module, "ann", tmp_path / "ann")
    adapters.remove(module, "ann")
    adapters.load(module, tmp_path / "ann", "ann")
    with adapters.rows(module, ["ann", None] * 50):
        assert module(torch.from_numpy(X).to("second")).shape == (100, 3)
    made = model()
    made.compile("adam", LOGITS)
    made.export(tmp_path / "m.onnx")
    assert "onnx" in sys.modules
