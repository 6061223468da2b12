"""Models that live on another device compute what they compute on the CPU, and take arrays from the host."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import LOGITS, X, Y, model, trained

import fanin
from fanin import adapters, callbacks, layers, optimizers
from fanin.training import preparation

TENSORS = torch.from_numpy(X).to("second")

OPTIMIZERS: dict[str, Any] = {
    **{name: (lambda made, name=name: name) for name in ("sgd", "adam", "rmsprop", "nadam", "adagrad", "lion")},
    "everything": lambda made: optimizers.Adam(
        0.01, clipnorm=1.0, use_ema=True, gradient_accumulation_steps=2, weight_decay=0.01
    ),
    "schedule": lambda made: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9),
    "torch.SGD": lambda made: torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9),
    "torch.Adam": lambda made: torch.optim.Adam(made.parameters(), lr=0.01, amsgrad=True),
    "torch.AdamW": lambda made: torch.optim.AdamW(made.parameters(), lr=0.01, fused=False),
    "torch.RMSprop": lambda made: torch.optim.RMSprop(made.parameters(), lr=0.01),
}
INNER: dict[str, Any] = {
    "batch normalization": layers.BatchNormalization,
    "layer normalization": layers.LayerNormalization,
    "prelu": layers.PReLU,
    "penalties": lambda: layers.Dense(
        16, kernel_regularizer="l2", kernel_constraint="max_norm", activity_regularizer="l1"
    ),
    "lora": lambda: layers.Dense(16, lora_rank=4),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_the_cpu(name: str) -> None:
    there, made = trained("second", OPTIMIZERS[name])
    here, _ = trained("cpu", OPTIMIZERS[name])
    assert made.layers[0].kernel.device.type == "second"
    np.testing.assert_allclose(there, here, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", INNER)
def test_layers_train_as_on_the_cpu(name: str) -> None:
    there, _ = trained("second", OPTIMIZERS["adam"], [INNER[name]], validation_split=0.2)
    here, _ = trained("cpu", OPTIMIZERS["adam"], [INNER[name]], validation_split=0.2)
    np.testing.assert_allclose(there, here, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("given", [{"class_weight": {0: 2.0}}, {"sample_weight": np.linspace(0, 1, 100)}])
def test_weights_of_rows(given: dict[str, Any]) -> None:
    there, here = (trained(device, OPTIMIZERS["sgd"], **given)[0] for device in ("second", "cpu"))
    np.testing.assert_allclose(there, here, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_policies_train(policy: str) -> None:
    fanin.config.set_dtype_policy(policy)
    try:
        numbers, made = trained("second", OPTIMIZERS["adam"])
    finally:
        fanin.config.set_dtype_policy("float32")
    assert np.isfinite(numbers).all()
    assert made._compiled_with.engine.programs


@pytest.mark.parametrize("rate", [0.5, 0.0])
def test_dropout_with_a_seed_draws_on_the_device(rate: float) -> None:
    layer = layers.Dropout(rate, seed=3).to("second")
    layer.train()
    first, second = layer(TENSORS), layer(TENSORS)
    assert first.device.type == "second"
    assert torch.equal(first.cpu(), second.cpu()) is (rate == 0)


def test_predict_in_every_way(tmp_path: Path) -> None:
    made, there = model(), model().to("second")
    expected = made.predict(X, verbose=0)
    whole = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", "float32", (100, 3))
    there.predict(X, verbose=0, out=whole)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    for found in (
        there.predict(X, verbose=0),
        there.predict(X, batch_size=7, verbose=0),
        there.predict(X, deterministic=True, verbose=0),
        there.predict_on_batch(X),
        np.concatenate([there.predict(row[None], verbose=0) for row in X]),
        there.predict(np.tile(X, (100, 1)), verbose=0)[-100:],
        fanin.compile_predict(there, X[:1])(X),
    ):
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert fanin.compile_predict(there, X)(TENSORS).device.type == "second"


def test_data_that_is_read_once_goes_batch_by_batch() -> None:
    there = model().to("second")
    there.compile("sgd", LOGITS)
    there.evaluate(X, Y, verbose=0)
    for stays, kind in ((True, "second"), (False, "cpu")):
        data = preparation.reader(there, stays=stays).arrays(X, Y, np.ones(100))
        assert {data.x.device.type, data.y.device.type, data.weight.device.type} == {kind}


def test_arrays_go_where_the_layer_is() -> None:
    there = model().to("second")
    np.testing.assert_allclose(there(X).detach().cpu(), model()(X).detach(), rtol=1e-5, atol=1e-6)
    first, second = layers.Input((8,)), layers.Input((8,))
    joined = fanin.Model({"a": first, "b": second}, layers.Dense(2)(layers.Concatenate()([first, second])))
    assert joined.to("second")({"a": X, "b": X}).device.type == "second"
    table = fanin.Model(first, layers.Dense(4)(first) * torch.arange(4.0)).to("second")  # a tensor of the graph follows
    assert table(X).device.type == "second"
    for layer in (layers.Normalization(), layers.LayerNormalization(), layers.BatchNormalization()):
        layer.build((None, 8))
        assert layer.to("second")(X).device.type == "second"
    with pytest.raises(RuntimeError, match="same device"):
        there(torch.from_numpy(X))  # tensors stay where they are, as in torch


def test_normalization_adapts_on_either_side() -> None:
    expected = layers.Normalization()
    expected.adapt(X)
    for data in (X, TENSORS):
        layer = layers.Normalization()
        layer.build((None, 8))
        layer.to("second").adapt(data)
        np.testing.assert_allclose(layer.mean.cpu(), expected.mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("as_arrays", [True, False])
def test_compile_step_is_the_plain_loop(as_arrays: bool) -> None:
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    ours.to("second")
    plain = copy.deepcopy(ours)
    x, y = TENSORS, torch.from_numpy(Y).to("second")
    step = fanin.compile_step(ours, torch.nn.functional.cross_entropy, torch.optim.Adam(ours.parameters(), lr=0.01))
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(plain(x), y)
        loss.backward()
        optimizer.step()
        found = step(X, Y) if as_arrays else step(x, y)
        assert found.device.type == "second"
        np.testing.assert_allclose(found.item(), loss.item(), rtol=1e-5)
    assert len(step.programs) == 1
    step.optimizer.step()  # torch's own goes on with the state
    step.optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(x, y)


def test_a_model_that_moves_goes_on() -> None:
    stays, moves = model(), model()
    for made in (stays, moves):
        made.compile("sgd", LOGITS)
    for device in ("cpu", "second", "cpu"):
        moves.to(device)
        losses = [made.fit(X, Y, shuffle=False, verbose=0).history["loss"][0] for made in (stays, moves)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        np.testing.assert_allclose(moves.predict(X, verbose=0), stays.predict(X, verbose=0), rtol=1e-4, atol=1e-5)


def test_callbacks_and_single_batches(tmp_path: Path) -> None:
    made = model().to("second")
    made.compile("adam", LOGITS, metrics=["accuracy"])
    given = [
        callbacks.EarlyStopping(restore_best_weights=True),
        callbacks.ReduceLROnPlateau(),
        callbacks.ModelCheckpoint(tmp_path / "kept.keras"),
        callbacks.TensorBoard(tmp_path, histogram_freq=1),
    ]
    made.fit(X, Y, epochs=2, verbose=0, validation_split=0.2, callbacks=given)
    assert np.isfinite([*made.train_on_batch(X, Y), *made.test_on_batch(X, Y)]).all()


def test_files_of_a_model_there(tmp_path: Path) -> None:
    _, made = trained("second", OPTIMIZERS["adam"])
    made.save(tmp_path / "m.keras")
    made.save_weights(tmp_path / "m.weights.h5")
    made.export(tmp_path / "m.onnx")
    loaded = fanin.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), made.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    again = model().to("second")
    again.load_weights(tmp_path / "m.weights.h5")
    assert again.layers[0].kernel.device.type == "second"
    np.testing.assert_allclose(again.predict(X, verbose=0), made.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    loaded.to("second").fit(X, Y, verbose=0)  # with the state of its optimizer
    again.set_weights(made.get_weights())
    assert copy.deepcopy(made).layers[0].kernel.device.type == "second"


def test_adapters_row_by_row() -> None:
    torch.manual_seed(0)
    here = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    for name in ("ann", "bob"):
        adapters.add(here, name, rank=4)
    for name, weight in here.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight)
    there = copy.deepcopy(here).to("second")
    names = ["ann", None, "bob", "ann"] * 25
    with adapters.rows(here, names), adapters.rows(there, names):
        np.testing.assert_allclose(
            there(TENSORS).detach().cpu(), here(torch.from_numpy(X)).detach(), rtol=1e-4, atol=1e-4
        )
        steps = [fanin.compile_step(one, torch.nn.functional.cross_entropy, "sgd") for one in (here, there)]
        for _ in range(3):
            first, second = (step(X, Y).item() for step in steps)
            assert first == pytest.approx(second, rel=1e-4)
