"""Training on a device that has no float64, such as Apple's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from device_cases import X, Y, model, trained

from fanin import dtypes, layers, optimizers


@pytest.fixture(autouse=True)
def _float32_at_most(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dtypes, "_WITHOUT_FLOAT64", {"second"})
    torch.ops.second.allow_float64(False)
    yield
    torch.ops.second.allow_float64(True)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam", "adamax", "torch", "schedule"])
def test_training_needs_none(optimizer: str) -> None:
    makers = {
        "torch": lambda made: torch.optim.AdamW(made.parameters(), lr=0.001),
        "schedule": lambda made: optimizers.Adam(optimizers.schedules.CosineDecay(0.01, 5)),
    }
    make = makers.get(optimizer, lambda made: optimizer)
    there, here = (trained(device, make, [layers.BatchNormalization])[0] for device in ("second", "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)


def test_wide_arrays_and_weights_of_classes() -> None:
    made = model().to("second")
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    made.fit(X.astype("float64"), Y, class_weight={1: 2.0}, verbose=0)
    assert made.predict(X.astype("float64"), verbose=0).dtype == np.float32


def test_normalization_adapts() -> None:
    layer = layers.Normalization()
    layer.build((None, 8))
    layer.to("second").adapt(torch.from_numpy(X).to("second"))
    np.testing.assert_allclose(layer.mean.cpu(), X.mean(0), rtol=1e-4, atol=1e-6)
