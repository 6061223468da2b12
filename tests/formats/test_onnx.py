"""ONNX files, run by ONNX Runtime at several batch sizes against the model itself and against numpy."""

import importlib.util
import os
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import fanin
from fanin import activations
from fanin.formats.onnx import export_onnx
from fanin.graph.tree import leaves, tree_map
from fanin.layers import Dense

generator = np.random.default_rng(0)
TRAINING_ONLY = {"Dropout", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}


def normal(*shape):
    return (2 * generator.normal(size=shape)).astype("f4")


def exported(model, path, **kwargs):
    """The file and a session on it. Users see no warning, and no line on either stream."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(model, path, **kwargs)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    for node in graph.graph.node:
        assert node.op_type not in TRAINING_ONLY
        for attribute in node.attribute:
            assert not (attribute.name == "training_mode" and attribute.i)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return graph, onnxruntime.InferenceSession(path, options)


def compare(model, session, make, sizes=(1, 2, 5, 0), tolerance=1e-5):
    for size in sizes:
        given = make(size)
        feed = dict(zip([i.name for i in session.get_inputs()], leaves(given), strict=True))
        got = session.run(None, feed)
        with torch.no_grad():
            wanted = list(leaves(model(tree_map(torch.tensor, given))))
        for a, b in zip(got, wanted, strict=True):
            assert a.shape == tuple(b.shape)
            np.testing.assert_allclose(a, b.numpy(), rtol=tolerance, atol=tolerance)


def names(session):
    return [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]


def test_a_chain_with_dropout_and_batch_normalization(tmp_path, capfd):
    model = fanin.Sequential(
        [
            fanin.Input((3,), name="features"),
            Dense(4, "relu", activity_regularizer="l2"),
            fanin.layers.BatchNormalization(),
            fanin.layers.Dropout(0.5),
            fanin.layers.GaussianNoise(0.5),
            fanin.layers.GaussianDropout(0.5),
            fanin.layers.AlphaDropout(0.5),
            fanin.layers.RMSNormalization(),
            fanin.layers.UnitNormalization(),
            nn.BatchNorm1d(4),
            nn.Dropout(0.5),
            Dense(2, "softmax", name="probabilities"),
        ]
    )
    model.compile("adam", "categorical_crossentropy")
    model.fit(normal(20, 3), np.eye(2, dtype="f4")[[0, 1] * 10], verbose=0)
    capfd.readouterr()
    path = str(tmp_path / "m.onnx")
    state, modes = torch.get_rng_state(), [part.training for part in model.modules()]
    model(torch.ones(2, 3))
    losses = [loss.item() for loss in model.losses]
    graph, session = exported(model, path)
    assert capfd.readouterr() == ("", "")
    assert [loss.item() for loss in model.losses] == losses
    assert names(session) == (["features"], ["probabilities"])
    assert session.get_inputs()[0].shape == ["batch", 3]
    compare(model, session, lambda size: normal(size, 3))
    x = normal(7, 3)
    np.testing.assert_allclose(session.run(None, {"features": x})[0], model.predict(x, verbose=0), atol=1e-6)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in model.modules()]
    assert os.listdir(tmp_path) == ["m.onnx"]
    text = graph.SerializeToString()
    assert b"/home" not in text
    assert b".py" not in text  # no paths of this machine
    before = (tmp_path / "m.onnx").read_bytes()
    export_onnx(model, path, verbose=False)
    assert (tmp_path / "m.onnx").read_bytes() == before


def test_a_graph_with_several_inputs_and_outputs(tmp_path):
    """Two open sizes, a layer used twice, an input that is an output too, names that stand in each other's way."""
    one, two = fanin.Input((3,), name="relu"), fanin.Input((None, 4), name="0.kernel")
    shared = Dense(5, "tanh", name="addmm")
    pieces = [shared(one), torch.mean(Dense(5, "relu")(two), 1), shared(one * 2)]
    joined = fanin.layers.Concatenate(name="0.kernel_1")(pieces)
    model = fanin.Model([one, two], [Dense(2, "relu", name="out")(joined), joined, one])
    _, session = exported(model, str(tmp_path / "m.onnx"))
    assert names(session) == (["relu", "0.kernel"], ["out", "0.kernel_1", "relu_1"])
    assert [i.shape for i in session.get_inputs()] == [["batch", 3], ["batch", "0.kernel_1", 4]]
    compare(model, session, lambda size: [normal(size, 3), normal(size, size + 2, 4)])


def test_a_graph_with_named_ends(tmp_path):
    one, two = fanin.Input((3,), name="a"), fanin.Input((2,), dtype="int32", name="b")
    embedded = fanin.layers.Flatten()(fanin.layers.Embedding(9, 3)(two))
    model = fanin.Model({"x": one, "y": two}, {"z": Dense(2, name="z")(fanin.layers.Concatenate()([one, embedded]))})
    _, session = exported(model, tmp_path / "m.onnx")
    assert names(session) == (["a", "b"], ["z"])
    compare(model, session, lambda n: {"x": normal(n, 3), "y": generator.integers(0, 9, (n, 2)).astype("i4")})


def test_all_activations(tmp_path):
    found = sorted({activations.get(name).__name__ for name in activations.family.names()} - {"threshold"})
    x = fanin.Input((6,))
    model = fanin.Model(x, [fanin.layers.Activation(name, name=f"{name}_")(x) for name in found])
    assert len(found) > 25
    _, session = exported(model, str(tmp_path / "m.onnx"))
    assert names(session)[1] == [f"{name}_" for name in found]
    compare(model, session, lambda size: normal(size, 6) * 10.0**size, sizes=(1, 2, 0))


def test_layers_around_dense(tmp_path):
    layers = fanin.layers
    x = fanin.Input((6,))
    square = layers.Reshape((2, 3))(x)
    outputs = [
        layers.ReLU(2.0, 0.1, 0.2)(x),
        layers.LeakyReLU()(x),
        layers.ELU()(x),
        layers.PReLU()(x),
        layers.Softmax()(x),
        layers.LayerNormalization()(x),
        layers.Rescaling(2.0, 1.0)(x),
        layers.Flatten()(square),
        Dense(3, kernel_constraint="non_neg")(square),
        layers.add([x, Dense(6)(x)]),
        layers.maximum([x, layers.Identity()(-x)]),
        fanin.Sequential([Dense(4, "relu"), fanin.Sequential([Dense(2)])])(x),
    ]
    model = fanin.Model(x, outputs)
    _, session = exported(model, str(tmp_path / "m.onnx"))
    compare(model, session, lambda size: normal(size, 6), sizes=(1, 3))


def test_any_module_with_an_example(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Sequential(Dense(2), nn.Dropout())

        def forward(self, a, b):
            return self.left(a) + self.right(b), a

    module = Two()
    module.right(torch.ones(2, 5))
    module.train()
    path = str(tmp_path / "m.onnx")
    _, session = exported(module, path, input_signature=(np.zeros((7, 3), "f4"), torch.zeros(7, 5)))
    assert module.training
    assert module.right[1].training
    assert names(session) == (["input_0", "input_1"], ["output_0", "output_1"])
    for size in (1, 4):
        a, b = normal(size, 3), normal(size, 5)
        got = session.run(None, {"input_0": a, "input_1": b})
        module.eval()
        np.testing.assert_allclose(got[0], module(torch.tensor(a), torch.tensor(b))[0].detach(), rtol=1e-5, atol=1e-6)
        module.train()
        np.testing.assert_array_equal(got[1], a)


def test_signatures_of_all_kinds(tmp_path):
    path = str(tmp_path / "m.onnx")
    layer = Dense(2)
    layer(torch.ones(4, 3))
    _, session = exported(layer, path)  # the shape that it was built for
    compare(layer, session, lambda size: normal(size, 3))
    plain = nn.Linear(3, 2)
    spec = fanin.InputSpec(shape=(4, 3), dtype="float32")
    _, session = exported(plain, path, input_signature=spec)
    assert session.get_inputs()[0].shape == [4, 3]  # an InputSpec says what is open
    _, session = exported(plain, path, input_signature=[fanin.Input((3,), name="x")], opset_version=20)
    assert session.get_inputs()[0].name == "x"
    assert onnx.load(path).opset_import[0].version == 20


def test_verbose_says_where_the_file_is(tmp_path, capfd):
    export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", verbose=True, input_signature=torch.ones(1, 3))
    assert "Saved artifact at" in capfd.readouterr().out


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_without_the_packages(tmp_path, monkeypatch, missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(ImportError, match=rf"needs {missing}: pip install 'fanin\[onnx\]'"):
        export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", input_signature=torch.ones(1, 3))
    assert os.listdir(tmp_path) == []


def test_a_name_of_another_format_is_refused(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), Dense(2)])
    for name in ("model.tflite", "model.keras", "model.pt2"):
        with pytest.raises(ValueError, match=rf"Exporting writes ONNX; the path '.*/{name}' ends as files of another"):
            model.export(tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_bad_calls(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match="has no weights yet"):
        export_onnx(fanin.Sequential([Dense(2)]), path)
    with pytest.raises(ValueError, match="are not known: give input_signature"):
        export_onnx(nn.Linear(3, 2), path)
    with pytest.raises(TypeError, match="expected Inputs, InputSpecs, tensors or arrays, found 'x'"):
        export_onnx(nn.Linear(3, 2), path, input_signature="x")
    with pytest.raises(ValueError, match="needs shape and dtype"):
        export_onnx(nn.Linear(3, 2), path, input_signature=fanin.InputSpec(ndim=2))
    with pytest.raises(FileNotFoundError):
        export_onnx(nn.Linear(3, 2), tmp_path / "no" / "m.onnx", input_signature=torch.ones(1, 3))
    assert os.listdir(tmp_path) == []


def test_what_onnx_lacks_leaves_the_old_file_and_the_model(tmp_path):
    class Eigen(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x):
            return torch.linalg.eigvals(self.drop(x))

    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    module = Eigen()
    with pytest.raises(RuntimeError, match="'Eigen' cannot be written as ONNX"):
        export_onnx(module, path, input_signature=torch.ones(2, 3, 3))
    assert path.read_bytes() == b"old"
    assert module.training
    assert module.drop.training
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_weights_beyond_two_gigabytes_are_refused_at_once(tmp_path):
    class Large(nn.Module):
        def state_dict(self, *args, **kwargs):
            return {"w": torch.empty(2**31, device="meta")}

    with pytest.raises(ValueError, match=r"take 8.0 GB"):
        export_onnx(Large(), tmp_path / "m.onnx", input_signature=torch.ones(1))
