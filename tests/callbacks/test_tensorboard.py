"""TensorBoard's own reader finds in the event files what Keras's callback would have written."""

import builtins
import gc
import json
import os
from collections import defaultdict

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from tensorboard.util.tensor_util import make_ndarray

import fanin
from fanin.callbacks import Callback, CallbackList, TensorBoard


def steps(folder):
    """Tag -> the steps at which it was written, in all files of a folder."""
    found = defaultdict(list)
    for name in sorted(os.listdir(folder)):
        for event in EventFileLoader(str(folder / name)).Load():
            for value in event.summary.value:
                found[value.tag].append(event.step)
    return dict(found)


def reader(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0, "images": 0}).Reload()


def scalars(folder, tag):
    return [event.value for event in reader(folder).Scalars(tag)]


def test_tags_and_steps_are_those_of_keras(tmp_path):
    """Expected is what keras.callbacks.TensorBoard 3.15.1 on TensorFlow wrote for this very training."""
    model = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(3, name="one"), fanin.layers.Dense(2, name="two")],
                             name="net")  # fmt: skip
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((10, 4), "float32"), np.ones((10, 2), "float32")
    board = TensorBoard(tmp_path, histogram_freq=2, write_images=True, update_freq="batch", write_steps_per_second=True)
    model.fit(x, y, epochs=3, batch_size=4, validation_data=(x, y), callbacks=[board], verbose=0)
    model.evaluate(x, y, callbacks=[board], verbose=0)
    weights = [f"net/{layer}/{weight}" for layer in ("one", "two") for weight in ("kernel", "bias")]
    kinds = ("loss", "mae", "learning_rate", "steps_per_second")
    assert steps(tmp_path / "train") == {
        "keras": [0],
        **{f"batch_{name}": list(range(1, 10)) for name in ("loss", "mae", "steps_per_second")},
        **{f"epoch_{name}": [0, 1, 2] for name in kinds},
        **{f"{path}/{kind}": [0, 2] for path in weights for kind in ("histogram", "image")},
    }
    assert steps(tmp_path / "validation") == {
        "evaluation_loss_vs_iterations": [3, 6, 9, 9],
        "evaluation_mae_vs_iterations": [3, 6, 9, 9],
        "epoch_loss": [0, 1, 2],
        "epoch_mae": [0, 1, 2],
    }


def test_numbers_are_those_of_the_history(model, data, tmp_path):
    board = TensorBoard(tmp_path)
    history = model().fit(*data, epochs=4, validation_data=data, callbacks=board, verbose=0).history
    for name in ("loss", "mae"):
        np.testing.assert_allclose(scalars(tmp_path / "train", f"epoch_{name}"), history[name], rtol=1e-6)
        found = scalars(tmp_path / "validation", f"epoch_{name}")
        np.testing.assert_allclose(found, history[f"val_{name}"], rtol=1e-6)
    assert scalars(tmp_path / "train", "epoch_learning_rate") == pytest.approx([0.1] * 4)


def test_batches_are_written_every_so_often(model, data, tmp_path):
    board = TensorBoard(tmp_path, update_freq=2)
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    model().fit(*data, epochs=2, batch_size=4, callbacks=[board, Look()], verbose=0)
    assert steps(tmp_path / "train")["batch_loss"] == [2, 4, 6]
    np.testing.assert_allclose(scalars(tmp_path / "train", "batch_loss"), seen[1::2], rtol=1e-6)
    assert not CallbackList(TensorBoard(tmp_path)).wants("on_train_batch_end")


def test_histograms_and_pictures_of_weights(model, data, tmp_path):
    made = model()
    board = TensorBoard(tmp_path, histogram_freq=1, write_images=True)
    made.fit(*data, callbacks=board, verbose=0)
    kernel = made.get_weights()[0]
    found = reader(tmp_path / "train")
    histogram = found.Histograms("net/dense/kernel/histogram")[0].histogram_value
    assert (histogram.num, histogram.min, histogram.max) == (4.0, float(kernel.min()), float(kernel.max()))
    assert histogram.sum == pytest.approx(float(kernel.sum()), abs=1e-6)
    picture = found.Images("net/dense/kernel/image")[0]
    assert (picture.height, picture.width) == (4, 1)  # (4, 1) without its axis of one is a vector, and stands upright
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_a_wide_picture_lies_on_its_side(tmp_path):
    made = fanin.Sequential([fanin.Input((5,)), fanin.layers.Dense(2)], name="net")
    made.compile("sgd", "mse")
    board = TensorBoard(tmp_path, histogram_freq=1, write_images=True)
    made.fit(np.ones((2, 5)), np.ones((2, 2)), callbacks=board, verbose=0)
    picture = reader(tmp_path / "train").Images("net/dense/kernel/image")[0]
    assert (picture.height, picture.width) == (2, 5)


def test_the_graph_is_what_tensorboard_reads_from_keras(model, data, tmp_path):
    made = model()
    made.fit(*data, callbacks=TensorBoard(tmp_path), verbose=0)
    found = reader(tmp_path / "train")
    config = json.loads(make_ndarray(found.Tensors("keras")[0].tensor_proto).item())
    assert config == json.loads(made.to_json())
    assert found.summary_metadata["keras"].plugin_data.plugin_name == "graph_keras_model"
    assert [node.name for node in keras_model_to_graph_def(config).node] == ["net/input_layer", "net/dense"]


def test_the_graph_of_a_functional_model(data, tmp_path):
    inputs = fanin.Input((4,), name="in")
    one, two = (fanin.layers.Dense(1, name=name)(inputs) for name in ("one", "two"))
    made = fanin.models.Model(inputs, fanin.layers.Add(name="sum")([one, two]), name="net")
    made.compile("sgd", "mse")
    made.fit(*data, callbacks=TensorBoard(tmp_path), verbose=0)
    config = json.loads(make_ndarray(reader(tmp_path / "train").Tensors("keras")[0].tensor_proto).item())
    edges = {node.name: list(node.input) for node in keras_model_to_graph_def(config).node}
    assert edges["net/sum"] == ["net/one", "net/two"]
    assert edges["net/one"] == ["net/in"]


def test_a_model_with_a_call_of_its_own_has_no_graph(data, tmp_path):
    class Own(fanin.models.Model):
        def __init__(self):
            super().__init__()
            self.dense = fanin.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    made = Own()
    made.compile("sgd", "mse")
    made.fit(*data, callbacks=TensorBoard(tmp_path, histogram_freq=1), verbose=0)
    assert "keras" not in steps(tmp_path / "train")
    assert "own/dense/kernel/histogram" in steps(tmp_path / "train")


def test_torch_modules_and_torch_optimizers(data, tmp_path):
    inner = fanin.Sequential([fanin.layers.Dense(1, name="last")], name="inner")
    made = fanin.Sequential([fanin.Input((4,)), torch.nn.Linear(4, 3), inner], name="net")
    groups = [{"params": made.layers[0].parameters()}, {"params": inner.parameters(), "lr": 0.5}]
    made.compile(torch.optim.SGD(groups, lr=0.25), "mse")
    with pytest.warns(UserWarning, match="TensorBoard: no graph is written"):
        made.fit(*data, validation_data=data, callbacks=TensorBoard(tmp_path, histogram_freq=1), verbose=0)
    found = steps(tmp_path / "train")
    assert {"net/0/weight/histogram", "net/inner/last/kernel/histogram"} <= found.keys()
    assert scalars(tmp_path / "train", "epoch_learning_rate_1") == [0.5]
    assert steps(tmp_path / "validation") == {"epoch_loss": [0]}  # torch's optimizers do not count iterations
    made.fit(*data, callbacks=TensorBoard(tmp_path / "other", write_graph=False), verbose=0)


def test_weights_that_are_not_finite(model, data, tmp_path):
    made = model()
    made.set_weights([np.array([[1.0], [np.nan], [np.inf], [2.0]]), np.array([np.nan])])
    made.fit(*data, callbacks=TensorBoard(tmp_path, histogram_freq=1, write_images=True), verbose=0)
    assert np.isnan(scalars(tmp_path / "train", "epoch_loss")[0])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupt_loses_nothing(model, data, tmp_path, error):
    class Interrupt(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise error

    board = TensorBoard(tmp_path, update_freq=1)
    with pytest.raises(error):
        model().fit(*data, batch_size=4, callbacks=[board, Interrupt()], verbose=0)
    assert steps(tmp_path / "train")["batch_loss"] == [1, 2, 3]
    assert not board._writers
    gc.collect()  # a file that is still open would warn


def test_each_epoch_is_on_disk_when_it_ends(model, data, tmp_path):
    seen = []

    class Look(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(len(steps(tmp_path / "train").get("epoch_loss", [])))

    model().fit(*data, epochs=3, callbacks=[TensorBoard(tmp_path), Look()], verbose=0)
    assert seen == [0, 1, 2]


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'fanin\[tensorboard\]'.*No module named 'tensorboard'"):
        TensorBoard()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"profile_batch": 5}, "profile_batch must be 0, found 5; use torch.profiler"),
        ({"embeddings_freq": 1}, "not supported; use torch's SummaryWriter"),
        ({"embeddings_metadata": "a.tsv"}, "not supported; use torch's SummaryWriter"),
        ({"update_freq": "batches"}, "update_freq must be 'batch', 'epoch' or a number of batches, found 'batches'"),
        ({"update_freq": 0}, "update_freq must be"),
        ({"update_freq": True}, "update_freq must be"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        TensorBoard(**arguments)


def test_nothing_is_written_before_training(tmp_path):
    TensorBoard(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
