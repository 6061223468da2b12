"""Torch functions in archives: which may be named, how they come back, and what is refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional

import fanin
from fanin.errors import FormatError, MismatchError, UnsafeError
from fanin.graph.functions import _LISTS as LISTS
from fanin.graph.functions import SPACES, functions


def saved(tmp_path, model):
    """The model written and read again, and the entries of its layers in the file."""
    path = tmp_path / "m.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    return fanin.saving.load_model(path), layers


def changed(tmp_path, model, change):
    """Read an archive of the model whose last layer was changed."""
    path, other = tmp_path / "m.keras", tmp_path / "other.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as made:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config["config"]["layers"][-1])
                data = json.dumps(config).encode()
            made.writestr(name, data)
    return fanin.saving.load_model(other)


# --- the list ---------------------------------------------------------------------------------------------------------

NAMES = [(module, name) for module, names in LISTS.items() for name in names.split()]


def test_every_name_of_the_list_is_one_of_this_torch():
    assert [f"{module}.{name}" for module, name in NAMES if not hasattr(SPACES[module], name)] == []
    assert len(set(NAMES)) == len(NAMES)


def test_no_function_of_the_list_changes_a_tensor_or_draws_random_numbers():
    """torch itself says so, in the schemas of its operations."""
    looked_at = 0
    for _, name in NAMES:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            operation = getattr(packet, overload)
            arguments = [a for a in operation._schema.arguments if not a.kwarg_only]  # those of `out=` are
            if not arguments or str(arguments[0].type) != "Tensor":  # TorchScript has some for its lists
                continue
            assert not any(a.alias_info is not None and a.alias_info.is_write for a in arguments), operation
            assert torch.Tag.nondeterministic_seeded not in operation.tags, operation
            looked_at += 1
    assert looked_at > 300


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"), ("torch", "save"), ("torch", "compile"), ("torch", "rand_like"), ("torch", "relu_"),
        ("torch", "unbind"), ("torch", "chunk"), ("torch.Tensor", "add_"), ("torch.Tensor", "tolist"),
        ("torch.Tensor", "__reduce_ex__"), ("torch.nn.functional", "dropout"), ("os", "system"),
        ("builtins", "getattr"), ("operator", "attrgetter"), ("torch.Tensor", "data"), ("torch.hub", "load"),
    ],
)  # fmt: skip
def test_other_names_are_refused_before_anything_is_made(tmp_path, module, name):
    x = fanin.Input((4,))
    model = fanin.Model(x, functional.softmin(x, -1))

    def change(layer):
        layer.update(module=module, class_name=name)

    with pytest.raises(MismatchError, match=f"'{name}'.*register_keras_serializable"):
        changed(tmp_path, model, change)


@pytest.mark.parametrize(
    ("module", "name", "kwargs"),
    [
        ("torch.nn.functional", "relu", {"inplace": True}),
        ("torch.nn.functional", "elu", {"alpha": 1.0, "inplace": True}),
        ("torch", "exp", {"out": "x"}),
        ("torch", "ones_like", {"device": "cuda"}),
        ("torch", "zeros_like", {"requires_grad": True}),
        ("torch", "zeros_like", {"pin_memory": True}),
    ],
)
def test_other_options_are_refused(tmp_path, module, name, kwargs):
    x = fanin.Input((4,))
    model = fanin.Model(x, functional.softmin(x, -1))

    def change(layer):
        tensor = layer["inbound_nodes"][0]["args"][0]
        given = {key: tensor if value == "x" else value for key, value in kwargs.items()}
        layer.update(module=module, class_name=name, inbound_nodes=[{"args": [tensor], "kwargs": given}])

    with pytest.raises(UnsafeError, match=f"{module}.{name}.*{list(kwargs)[-1]}"):
        changed(tmp_path, model, change)


def test_in_place_is_refused_by_position_too(tmp_path):
    x = fanin.Input((4,))
    model = fanin.Model(x, functional.softmin(x, -1))

    def change(layer):
        layer.update(module="torch.nn.functional", class_name="relu")
        layer["inbound_nodes"][0] = {"args": [layer["inbound_nodes"][0]["args"][0], True], "kwargs": {}}

    with pytest.raises(UnsafeError, match="inplace"):
        changed(tmp_path, model, change)


@pytest.mark.parametrize(
    ("module", "name", "config", "args"),
    [
        ("torch", "lerp", {}, []),
        ("torch", "lerp", {}, ["x", None, {}]),
        ("torch", "lerp", {"name": "a\n"}, ["x", "y", "z"]),
        ("torch", "einsum", {}, [7, "x"]),
        ("operator", "getitem", {}, ["x", [{"class_name": "__slice__", "config": {"start": "x"}}]]),
        ("operator", "getitem", {}, ["x", [[1, [2]], "y"]]),
        ("keras.src.ops.numpy", "Mean", {"axis": {"class_name": "Dense", "config": {}}}, ["x"]),
        ("keras.src.ops.numpy", "Mean", {"axis": [0, [1]]}, ["x"]),
        ("keras.src.ops.numpy", "Mean", {"other": 1}, ["x"]),
        ("keras.src.ops.numpy", "Mean", {}, ["x", "x"]),
        ("keras.src.ops.numpy", "Cumsum", {"axis": None}, ["x"]),
        ("keras.src.ops.numpy", "Split", {"indices_or_sections": 10**12, "axis": 0}, ["x"]),
        ("keras.src.ops.numpy", "Split", {"indices_or_sections": 3, "axis": 1}, ["x"]),
        ("keras.src.ops.core", "Unstack", {"num": 3, "axis": 1}, ["x"]),
        ("keras.src.ops.core", "Cast", {"dtype": "float33"}, ["x"]),
        ("keras.src.ops.core", "Cast", {}, ["x"]),
        ("keras.src.ops.numpy", "Pad", {"pad_width": 7}, ["x"]),
        ("keras.src.ops.numpy", "Pad", {"pad_width": [[1, 1], [1, 1]], "mode": "reflect"}, ["x"]),
    ],
)
def test_arguments_that_fit_nothing_are_refused(tmp_path, module, name, config, args):
    x = fanin.Input((4,))
    model = fanin.Model(x, functional.softmin(x, -1))

    def change(layer):
        tensor = layer["inbound_nodes"][0]["args"][0]
        given = [tensor if arg == "x" else arg for arg in args]
        layer.update(module=module, class_name=name, config=config, inbound_nodes=[{"args": given, "kwargs": {}}])

    with pytest.raises(FormatError, match=r"other\.keras, config\.json"):
        changed(tmp_path, model, change)


@pytest.mark.parametrize(
    ("module", "name", "config"),
    [
        ("keras.src.ops.core", "Unstack", {"axis": 1}),
        ("keras.src.ops.numpy", "Split", {"indices_or_sections": 10**6, "axis": 1}),
    ],
)
def test_axes_of_a_million_entries_are_not_taken_apart(tmp_path, module, name, config):
    x = fanin.Input((10**6,))

    def change(layer):
        layer.update(module=module, class_name=name, config=config)
        layer["inbound_nodes"][0]["kwargs"] = {}

    with pytest.raises(MismatchError, match="1000000"):
        changed(tmp_path, fanin.Model(x, functional.softmin(x, -1)), change)


def test_names_of_arguments_are_not_code(tmp_path):
    """The graph becomes Python code, with the names of arguments in it."""

    @fanin.saving.register_keras_serializable(package="test_functions")
    class Anything(fanin.layers.Layer):
        def call(self, inputs, **kwargs):
            return inputs

        def compute_output_shape(self, input_shape):
            return input_shape

    x = fanin.Input((4,))
    model = fanin.Model(x, Anything()(x))

    def change(layer):
        layer["inbound_nodes"][0]["kwargs"] = {"a=print('run'), b": 1}

    with pytest.raises(MismatchError, match="no name of an argument"):
        changed(tmp_path, model, change)


# --- there and back ---------------------------------------------------------------------------------------------------

CALLS = {
    "torch.nn.functional.softmin": lambda x, i: functional.softmin(x, -1),
    "torch.nn.functional.layer_norm": lambda x, i: functional.layer_norm(x, (4,), torch.arange(4.0), None, 0.1),
    "torch.nn.functional.linear": lambda x, i: functional.linear(x, torch.ones(3, 4)),
    "torch.nn.functional.softplus": lambda x, i: functional.softplus(x, 2.0),
    "torch.nn.functional.pad": lambda x, i: functional.pad(x, (1, 0), value=2.0),
    "torch.nn.functional.softmax": lambda x, i: functional.softmax(x, -1, dtype=torch.float64),
    "torch.nn.functional.cosine_similarity": lambda x, i: functional.cosine_similarity(x, 2 + x, dim=-1),
    "torch.addmm": lambda x, i: torch.addmm(torch.ones(3), x, torch.ones(4, 3), alpha=2),
    "torch.add": lambda x, i: torch.add(x, x, alpha=3),
    "torch.div": lambda x, i: torch.div(x, 0.5, rounding_mode="floor"),
    "torch.lerp": lambda x, i: torch.lerp(x, x * x, 0.25),
    "torch.gather": lambda x, i: torch.gather(x, 1, i),
    "torch.cumprod": lambda x, i: torch.cumprod(x, 1),
    "torch.median": lambda x, i: torch.median(x, 1).values,
    "torch.std": lambda x, i: torch.std(x, 1),
    "torch.var_mean": lambda x, i: torch.stack(torch.var_mean(x, 1)),
    "torch.bitwise_and": lambda x, i: i & 3,
    "torch.logit": lambda x, i: torch.logit(torch.sigmoid(x)),
    "torch.Tensor.max": lambda x, i: x.max(1).indices,
    "torch.Tensor.sort": lambda x, i: torch.cat([*x.sort(1, descending=True)], 1),
    "torch.Tensor.expand": lambda x, i: x[:, None].expand(-1, 3, -1),
    "torch.Tensor.float_power": lambda x, i: x.abs().float_power(1.5),
    "torch.linalg.vector_norm": lambda x, i: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "torch.linalg.multi_dot": lambda x, i: torch.linalg.multi_dot([x, torch.ones(4, 2), torch.ones(2, 3)]),
    "torch.einsum": lambda x, i: torch.einsum(x, [0, 1], x, [0, 2], [0, 1, 2]),
    "operator.getitem": lambda x, i: x[[0, 1, 1], [2, 0, 3]],
    "torch.clamp": lambda x, i: torch.clamp(x, torch.zeros(4), torch.tensor([0.1, 0.2, float("inf"), 0.3])),
    "torch.nan_to_num": lambda x, i: torch.nan_to_num(x / 0.0, posinf=float("inf"), neginf=-3.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_that_keras_lacks_come_back(tmp_path, name):
    x, i = fanin.Input((4,)), fanin.Input((4,), dtype="int64")
    model = fanin.Model([x, i], [CALLS[name](x, i), x])
    loaded, layers = saved(tmp_path, model)
    module, _, function = name.rpartition(".")
    entry = next(layer for layer in layers if layer["class_name"] == function)
    assert entry["module"] == module
    data = torch.randn(5, 4), torch.randint(0, 4, (5, 4))
    torch.testing.assert_close(loaded([*data])[0], model([*data])[0], rtol=0, atol=0, equal_nan=True)
    assert [layer.name for layer in loaded._network.operations] == [op.name for op in model._network.operations]
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())


def test_infinite_numbers_go_into_strict_json(tmp_path):
    x = fanin.Input((2,))
    constant = torch.tensor([3.0, float("inf")])
    model = fanin.Model(x, torch.where(x > 0, x, -torch.inf) + constant + x.masked_fill(x < -1, torch.nan))
    loaded, _ = saved(tmp_path, model)
    data = torch.tensor([[0.5, 2.0], [-2.0, 0.3]])
    torch.testing.assert_close(loaded(data), model(data), rtol=0, atol=0, equal_nan=True)


def test_a_constant_of_integers_and_bfloat16_comes_back(tmp_path):
    x = fanin.Input((2,))
    model = fanin.Model(x, [x + torch.tensor([1, 2]), x.bfloat16() * torch.tensor([0.1, 3.0], dtype=torch.bfloat16)])
    loaded, _ = saved(tmp_path, model)
    data = torch.randn(3, 2)
    for one, other in zip(model(data), loaded(data), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# --- what cannot be saved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: torch.fft.fft(x).real, "torch.fft.fft"),
        (lambda x: x.add_(1), "torch.Tensor.add_"),
        (lambda x: functional.relu(x, inplace=True), "torch.nn.functional.relu with a value for 'inplace'"),
        (lambda x: torch.rand_like(x), "torch.rand_like"),
        (lambda x: x.to("cpu"), "torch.Tensor.to"),
        (lambda x: x + torch.tensor(torch.inf, dtype=torch.bfloat16), "a bfloat16 tensor with infinite numbers"),
    ],
)
def test_other_functions_are_not_saved(tmp_path, make, name):
    x = fanin.Input((4,))
    model = fanin.Model(x, make(x), name="mine")
    with pytest.raises(ValueError, match=rf"^Model 'mine', layer '\w+': {name}.*layers\.Layer of your own"):
        model.save(tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_the_way_out_works(tmp_path):
    @fanin.saving.register_keras_serializable(package="test_functions")
    class Spectrum(fanin.layers.Layer):
        def call(self, inputs):
            return torch.fft.rfft(inputs).abs()

    x = fanin.Input((4,))
    model = fanin.Model(x, Spectrum()(x) + 1.0)
    loaded, _ = saved(tmp_path, model)
    data = np.random.normal(size=(3, 4)).astype("f4")
    np.testing.assert_array_equal(loaded.predict(data, verbose=0), model.predict(data, verbose=0))


def test_a_name_of_the_list_finds_its_entry():
    assert functions.lookup("softmin").function is functional.softmin
