"""One contract for all layers: every class of the layer family answers the same questions, each on every row."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import fx, nn

import fanin
from fanin.layers import Input, Masking
from fanin.layers.base.layer import family
from fanin.layers.base.variables import own_weights
from fanin.masks import get_mask
from fanin.registry import deserialize, serialize


class Row(NamedTuple):
    """Arguments, the shape of an input (a list for several), and the names of the weights, in order."""

    arguments: dict[str, Any]
    shape: Any
    weights: tuple[str, ...] = ()
    integers: bool = False


PAIR = [(2, 3, 4), (2, 3, 4)]
ROWS = {
    "Activation": [Row({"activation": "tanh"}, (2, 3)), Row({"activation": "glu"}, (2, 3, 4))],
    "ActivityRegularization": [Row({"l1": 0.1, "l2": 0.2}, (2, 3))],
    "Add": [Row({}, PAIR), Row({}, [(2, 4), (2, 1, 4), (2, 3, 1)])],
    "AlphaDropout": [
        Row({"rate": 0.5}, (20, 30)),
        Row({"rate": 0.5, "seed": 3, "noise_shape": [None, 1, None]}, (20, 2, 9)),
    ],
    "Average": [Row({}, PAIR), Row({}, [(2, 3)])],
    "BatchNormalization": [
        Row({}, (2, 3, 4), ("gamma", "beta", "moving_mean", "moving_variance")),
        Row({"axis": 1, "scale": False}, (2, 3, 4), ("beta", "moving_mean", "moving_variance")),
    ],
    "Concatenate": [Row({}, [(2, 3), (2, 5)]), Row({"axis": 1}, [(2, 3, 4), (2, 1, 4), (2, 2, 4)])],
    "Dense": [
        Row({"units": 5, "activation": "tanh"}, (2, 3), ("kernel", "bias")),
        Row({"units": 5, "use_bias": False}, (2, 3, 4), ("kernel",)),
    ],
    "Dropout": [
        Row({"rate": 0.5}, (20, 30)),
        Row({"rate": 0.5, "seed": 3, "noise_shape": [None, 1, None]}, (20, 2, 9)),
    ],
    "ELU": [Row({"alpha": 0.5}, (2, 3))],
    "Embedding": [Row({"input_dim": 5, "output_dim": 4}, (2, 3), ("embeddings",), integers=True)],
    "Flatten": [Row({}, (2, 3, 4)), Row({"data_format": "channels_first"}, (2, 3, 4))],
    "GaussianDropout": [Row({"rate": 0.5}, (20, 30)), Row({"rate": 0.5, "seed": 3}, (20, 30))],
    "GaussianNoise": [Row({"stddev": 0.5}, (20, 30)), Row({"stddev": 0.5, "seed": 3}, (20, 30))],
    "Identity": [Row({}, (2, 3, 4))],
    "LayerNormalization": [
        Row({}, (2, 3, 4), ("gamma", "beta")),
        Row({"axis": [1, 2], "center": False}, (2, 3, 4), ("gamma",)),
    ],
    "LeakyReLU": [Row({"negative_slope": 0.2}, (2, 3))],
    "Masking": [Row({"mask_value": 0.5}, (2, 3, 4))],
    "Maximum": [Row({}, PAIR)],
    "Minimum": [Row({}, PAIR)],
    "Multiply": [Row({}, PAIR)],
    "Normalization": [
        Row({}, (2, 3, 4), ("mean", "variance", "count")),
        Row({"mean": [1.0, 2.0, 3.0], "variance": [1.0, 2.0, 3.0]}, (2, 3)),
    ],
    "PReLU": [
        Row({"alpha_constraint": None}, (2, 3, 4), ("alpha",)),
        Row({"shared_axes": [1]}, (2, 3, 4), ("alpha",)),
    ],
    "RMSNormalization": [
        Row({}, (2, 3, 4), ("scale",)),
        Row({"axis": [1], "epsilon": 0.1}, (2, 3, 4), ("scale",)),
    ],
    "ReLU": [Row({"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}, (2, 3))],
    "Rescaling": [Row({"scale": 2.0, "offset": [1.0, 2.0, 3.0]}, (2, 3))],
    "Reshape": [Row({"target_shape": [6, -1]}, (2, 3, 4))],
    "Softmax": [Row({}, (2, 3)), Row({"axis": [1, 2]}, (2, 3, 4))],
    "Subtract": [Row({}, PAIR)],
    "UnitNormalization": [Row({}, (2, 3)), Row({"axis": [1, 2]}, (2, 3, 4))],
}
REGISTERED = sorted({family.lookup(name).__name__ for name in family.names()} - {"InputLayer"})
CASES = [pytest.param(name, row, id=f"{name}{i}") for name in REGISTERED for i, row in enumerate(ROWS.get(name, []))]
RANDOM = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise")

every_row = pytest.mark.parametrize(("kind", "row"), CASES)


def test_every_layer_has_a_row():
    assert [name for name in REGISTERED if not ROWS.get(name)] == []


def make(kind, row, **kwargs):
    return family.lookup(kind)(**row.arguments, **kwargs)


def each(function, shape):
    """function(shape), for a list of shapes a list."""
    return [function(one) for one in shape] if isinstance(shape, list) else function(shape)


def data(row, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        if row.integers:
            return torch.randint(5, shape, generator=generator)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return each(draw, row.shape)


def symbols(row):
    return each(lambda shape: Input(shape[1:], dtype="int64" if row.integers else None), row.shape)


def built(kind, row, **kwargs):
    """A layer that is built, with random weights."""
    layer = make(kind, row, **kwargs).eval()
    layer(data(row))
    with torch.no_grad():
        for weight in layer.weights:
            if weight.is_floating_point():
                weight.uniform_(0.5, 1.5)
    return layer


@every_row
def test_shapes_are_known_without_running(kind, row):
    layer = make(kind, row)
    outputs = layer(data(row))
    assert layer.compute_output_shape(row.shape) == tuple(outputs.shape)
    unknown = each(lambda shape: (None, *shape[1:]), row.shape)
    symbol = make(kind, row)(symbols(row))
    assert layer.compute_output_shape(unknown) == symbol.shape == (None, *outputs.shape[1:])
    assert symbol.dtype == outputs.dtype


@every_row
def test_integers_have_one_dtype_on_tensors_and_on_symbols(kind, row):
    x = each(lambda shape: torch.ones(shape, dtype=torch.int64), row.shape)
    symbol = make(kind, row)(each(lambda shape: Input(shape[1:], dtype="int64"), row.shape))
    assert make(kind, row)(x).dtype == symbol.dtype


@every_row
def test_config_says_all_and_is_plain_data(kind, row):
    layer = make(kind, row, trainable=False, name="mine", dtype="mixed_bfloat16")
    config = layer.get_config()
    assert config["name"] == "mine"
    assert config["trainable"] is False
    before = copy.deepcopy(config)
    assert json.loads(json.dumps(config)) == config
    assert type(layer).from_config(config).get_config() == config == before
    again = deserialize(json.loads(json.dumps(serialize(layer))))
    assert type(again) is type(layer)
    assert again.get_config() == config
    assert {key: config[key] for key in row.arguments} == row.arguments


@every_row
def test_calls_on_tensors_and_on_symbols_are_one(kind, row):
    layer = built(kind, row)
    x = data(row)
    twin = make(kind, row)
    if isinstance(row.shape, list):
        twin(symbols(row))
        model = fx.GraphModule(nn.ModuleDict({twin.name: twin}), twin.graph)
        inputs = x
    else:
        model = fanin.Sequential([symbols(row), twin])
        inputs = [x]
    twin.set_weights(layer.get_weights())
    for training in (False, True):
        torch.manual_seed(0)
        expected = layer.train(training)(x)
        torch.manual_seed(0)
        assert torch.equal(model.train(training)(*inputs), expected)


@every_row
def test_training_and_inference(kind, row):
    layer = built(kind, row)
    x = data(row)
    quiet = layer(x)
    assert torch.equal(layer(x), quiet)
    assert torch.equal(layer.train()(x, training=False), quiet)
    if kind in RANDOM:
        assert not torch.equal(layer(x), quiet)
        assert not torch.equal(layer.eval()(x, training=True), quiet)
        assert not torch.equal(layer(x, training=True), layer(x, training=True))


@every_row
@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_inputs_and_weights(kind, row, training):
    layer = built(kind, row)
    if row.integers:
        x = data(row)
        sources = []
    else:
        x = each(lambda tensor: tensor.requires_grad_(), data(row, torch.float64))
        sources = x if isinstance(x, list) else [x]
    outputs = layer.double()(x, training=training)
    found = torch.autograd.grad(outputs.square().sum(), [*sources, *layer.trainable_weights])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert all(bool(gradient.any()) for gradient in found[: len(sources)])


@every_row
@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"])
def test_policies(kind, row, policy):
    layer = make(kind, row, dtype=policy)
    x = data(row, torch.float64)
    outputs = layer(x)
    assert outputs.dtype == layer.dtype_policy.compute
    assert {w.dtype for w in layer.weights if w.is_floating_point()} <= {layer.dtype_policy.variable}
    assert make(kind, row, dtype=policy)(symbols(row)).dtype == outputs.dtype
    exact = make(kind, row, dtype="float64")
    exact(x)
    exact.set_weights(layer.get_weights())
    if kind not in RANDOM:
        bound = {"float32": 2**-20, "float64": 0.0, "mixed_bfloat16": 2**-4}[policy]
        largest = exact.eval()(x).abs().max().item()
        torch.testing.assert_close(layer.eval()(x).double(), exact(x), rtol=0, atol=bound * max(1, largest))


@every_row
def test_weights_count_names_and_order(kind, row):
    layer = built(kind, row)
    assert tuple(key for key, _ in own_weights(layer)) == row.weights == tuple(layer.state_dict())
    assert layer.count_params() == sum(weight.numel() for weight in layer.weights)
    assert [tuple(value.shape) for value in layer.get_weights()] == [tuple(w.shape) for w in layer.weights]


@every_row
def test_trainable_is_a_switch(kind, row):
    layer = built(kind, row)
    before = layer.trainable_weights
    layer.trainable = False
    assert layer.trainable_weights == []
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    layer.trainable = True
    assert [id(w) for w in layer.trainable_weights] == [id(w) for w in before]
    frozen = make(kind, row, trainable=False)
    frozen(data(row))
    assert frozen.trainable_weights == []
    assert not frozen.trainable


@every_row
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_share_nothing_and_go_on_alike(kind, row, copied):
    layer = built(kind, row)
    x = data(row)
    layer(x, training=True)  # whatever state that leaves
    twin = copied(layer)
    assert twin.get_config() == layer.get_config()
    for training in (False, True):
        torch.manual_seed(0)
        expected = layer(x, training=training)
        torch.manual_seed(0)
        assert torch.equal(twin(x, training=training), expected)
    assert not {w.data_ptr() for w in twin.weights} & {w.data_ptr() for w in layer.weights}
    unbuilt = copied(make(kind, row))
    assert unbuilt(x).shape == layer(x).shape


@every_row
def test_a_state_dict_fills_a_layer_that_is_not_built(kind, row):
    layer = built(kind, row)
    twin = make(kind, row).eval()
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(data(row)), layer(data(row)))


@every_row
def test_masks(kind, row):
    """On tensors and on symbols: a layer lets the mask through, makes its own, or says that it ends."""
    if row.integers:
        return  # masks begin behind Embedding
    layer, x = built(kind, row), data(row)
    shape = each(lambda shape: shape if kind == "Softmax" else shape[:-1], row.shape)  # Softmax: what to keep of a row
    masks = each(lambda shape: torch.arange(torch.Size(shape).numel()).reshape(shape) % 2 == 0, shape)
    sources = each(Masking(), symbols(row))
    if not layer.handles_masks():
        with pytest.warns(UserWarning, match="does not support masking"):
            assert get_mask(layer(x, mask=masks)) is None
        with pytest.warns(UserWarning, match="does not support masking"):
            assert make(kind, row)(sources).mask is None
        return
    found, symbol = get_mask(layer(x, mask=masks)), make(kind, row)(sources).mask
    if layer.makes_masks():
        assert torch.equal(found, layer.compute_mask(x, masks))
        assert symbol.shape == (None, *found.shape[1:])
        assert found.dtype == symbol.dtype == torch.bool
    else:
        assert found is masks
        assert symbol is sources.mask
