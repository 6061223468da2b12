"""The simple layers against real Keras: outputs, gradients, masks, configs, weights, shapes, archives."""

import inspect
import math

import keras
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.layers.base.variables import own_weights
from fanin.saving import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EASY = settings(derandomize=True, deadline=None, max_examples=100, phases=[Phase.generate])
PAIR = [(5, 3, 4), (5, 3, 4)]
RANKS = [(5, 4), (5, 3, 4), (5, 1, 3, 1)]
ROWS = [
    ("Activation", {"activation": "gelu"}, (5, 3)),
    ("Activation", {"activation": None}, (5, 3)),
    ("ReLU", {}, (5, 3)),
    ("ReLU", {"max_value": 0.9, "negative_slope": 0.3, "threshold": 0.2}, (5, 3)),
    ("ReLU", {"max_value": 6}, (5, 3, 4)),
    ("LeakyReLU", {}, (5, 3)),
    ("LeakyReLU", {"negative_slope": 0.01}, (5, 3, 4)),
    ("PReLU", {}, (5, 3)),
    ("PReLU", {"alpha_initializer": "ones", "alpha_regularizer": "l2", "alpha_constraint": "non_neg"}, (5, 3, 4)),
    ("PReLU", {"shared_axes": [1, 3]}, (5, 3, 4, 2)),
    ("PReLU", {"shared_axes": 2}, (5, 3, 4)),
    ("ELU", {}, (5, 3)),
    ("ELU", {"alpha": 0.4}, (5, 3)),
    ("Softmax", {}, (5, 3)),
    ("Softmax", {"axis": 1}, (5, 3, 4)),
    ("Softmax", {"axis": [1, 2]}, (5, 3, 4)),
    ("Dropout", {"rate": 0.3}, (5, 3)),
    ("Dropout", {"rate": 0.3, "noise_shape": [None, 1, 4], "seed": 5}, (5, 3, 4)),
    ("AlphaDropout", {"rate": 0.3}, (5, 3)),
    ("AlphaDropout", {"rate": 0, "noise_shape": [None, 1, 4], "seed": 5}, (5, 3, 4)),
    ("GaussianDropout", {"rate": 0.3}, (5, 3)),
    ("GaussianDropout", {"rate": 1, "seed": 5}, (5, 3)),
    ("GaussianNoise", {"stddev": 0.3}, (5, 3)),
    ("GaussianNoise", {"stddev": 0.3, "seed": 5}, (5, 3)),
    ("Flatten", {}, (5, 3, 4)),
    ("Flatten", {}, (5,)),
    ("Flatten", {"data_format": "channels_first"}, (5, 3, 4, 2)),
    ("Reshape", {"target_shape": [6, -1]}, (5, 3, 4)),
    ("Reshape", {"target_shape": [-1]}, (5, 3, 4)),
    ("Reshape", {"target_shape": [2, 2, 3]}, (5, 12)),
    ("Rescaling", {"scale": 0.5}, (5, 3)),
    ("Rescaling", {"scale": [1.0, 2.0, 3.0], "offset": -1.5}, (5, 3)),
    ("Identity", {}, (5, 3)),
    ("UnitNormalization", {}, (5, 3)),
    ("UnitNormalization", {"axis": 1}, (5, 3, 4)),
    ("UnitNormalization", {"axis": [1, -1]}, (5, 3, 4)),
    ("ActivityRegularization", {"l1": 0.25, "l2": 0.5}, (5, 3)),
    ("Masking", {}, (5, 3, 4)),
    ("Masking", {"mask_value": 0.5}, (5, 3, 4)),
    *((kind, {}, shapes) for kind in ("Add", "Multiply", "Average", "Maximum", "Minimum") for shapes in (PAIR, RANKS)),
    ("Add", {}, [(5, 3)]),
    ("Subtract", {}, PAIR),
    ("Subtract", {}, [(5, 4), (5, 3, 4)]),
    ("Concatenate", {}, [(5, 3), (5, 2), (5, 1)]),
    ("Concatenate", {"axis": 1}, [(5, 3, 4), (5, 2, 4)]),
]
every_row = pytest.mark.parametrize(
    ("kind", "arguments", "shape"), ROWS, ids=[f"{r[0]}{i}" for i, r in enumerate(ROWS)]
)


def pair(kind, arguments, shape, **kwargs):
    """The same layer in Keras and here, built, with equal random weights."""
    theirs = getattr(keras.layers, kind)(**arguments, name="same", **kwargs)
    ours = getattr(fanin.layers, kind)(**arguments, name="same", **kwargs)
    for layer in (theirs, ours):
        if not layer.built:  # as a call does; those without weights are built from the start
            layer.build(shape)
    values = [np.random.normal(size=weight.shape).astype("f4") for weight in theirs.weights]
    theirs.set_weights(values)
    ours.set_weights(values)
    return theirs, ours


def draw(shape):
    """Random numbers, a third of them rounded, so that ties, zeros and mask values come up."""
    values = np.random.normal(size=shape)
    values = np.where(np.random.uniform(size=shape) < 0.3, np.round(2 * values) / 2, values)
    return torch.from_numpy(values.astype("f4"))


def close(ours, theirs, bound=1e-6):
    """Within some roundings of float32: sums and exponentials may be done in another order."""
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


def run(layer, given, weights):
    """Outputs, losses, and the gradients of one scalar in all inputs and weights."""
    sources = [tensor.clone().requires_grad_() for tensor in (given if isinstance(given, list) else [given])]
    outputs = layer(sources if isinstance(given, list) else sources[0], training=False)
    direction = torch.arange(outputs.numel()).reshape(outputs.shape).cos()
    total = (outputs * direction).sum() + sum(layer.losses)
    gradients = torch.autograd.grad(total, [*sources, *weights])
    return outputs.detach(), [loss.detach() for loss in layer.losses], list(gradients)


@every_row
def test_outputs_gradients_and_losses(kind, arguments, shape):
    theirs, ours = pair(kind, arguments, shape)
    for _ in range(3):
        given = [draw(one) for one in shape] if isinstance(shape, list) else draw(shape)
        found = run(ours, given, ours.weights)
        close(found, run(theirs, given, [weight.value for weight in theirs.weights]))
        assert found[0].shape == ours.compute_output_shape(shape)


@every_row
def test_configs(kind, arguments, shape):
    theirs, ours = pair(kind, arguments, shape)
    config, expected = plain(ours.get_config()), plain(theirs.get_config())
    assert config == expected
    if kind != "ELU":  # it has no get_config in Keras, which then puts the arguments first
        assert list(config) == list(expected)
    assert plain(keras.saving.serialize_keras_object(theirs)) == plain(fanin.saving.serialize_keras_object(ours))
    assert plain(type(theirs).from_config(ours.get_config()).get_config()) == expected
    assert plain(type(ours).from_config(theirs.get_config()).get_config()) == config


ONLY_KERAS = ("shared_object_id", "quantization_config", "input_axes", "output_axes")


def plain(config):
    """Tuples as lists; without what fanin leaves out, and without float32's rounding of factors."""
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items() if key not in ONLY_KERAS}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return float(np.float32(config)) if isinstance(config, float) else config


@every_row
def test_defaults_and_order_of_arguments(kind, arguments, shape):
    def signature(layer):
        named = inspect.signature(layer.__init__).parameters.values()
        return [(p.name, p.default) for p in named if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]

    assert signature(getattr(fanin.layers, kind)) == signature(getattr(keras.layers, kind))


@every_row
def test_weights(kind, arguments, shape):
    theirs, ours = pair(kind, arguments, shape)
    assert [(name, tuple(w.shape)) for name, w in own_weights(ours)] == [(w.name, w.shape) for w in theirs.weights]
    assert ours.count_params() == theirs.count_params()
    assert ours.built == theirs.built
    assert ours.supports_masking == theirs.supports_masking
    fresh = getattr(fanin.layers, kind)(**arguments)
    assert fresh.built == getattr(keras.layers, kind)(**arguments).built
    if not fresh.built:
        fresh.build(shape)
    assert all(np.array_equal(a, b) for a, b in zip(fresh.get_weights(), initial(kind, arguments, shape), strict=True))


def initial(kind, arguments, shape):
    layer = getattr(keras.layers, kind)(**arguments)
    layer.build(shape)
    return layer.get_weights()


# --- shapes -----------------------------------------------------------------------------------------------------------

sizes = st.one_of(st.none(), st.integers(1, 4))
shapes = st.lists(sizes, max_size=3).map(tuple)


def symbolic_shape(lib, layer, given):
    """The shape that a call on symbols gives, or the kind of error."""
    inputs = [lib.Input(batch_shape=shape) for shape in given]
    try:
        return tuple(layer(inputs if len(inputs) > 1 else inputs[0]).shape)
    except ValueError:
        return "ValueError"


@EASY
@given(batch=sizes, rest=shapes, kind=st.sampled_from(["Flatten", "ReLU", "Identity", "Dropout", "Rescaling"]))
def test_shapes_of_one_input(batch, rest, kind):
    arguments = {"Dropout": {"rate": 0.5}, "Rescaling": {"scale": 2.0}}.get(kind, {})
    theirs, ours = getattr(keras.layers, kind)(**arguments), getattr(fanin.layers, kind)(**arguments)
    shape = (batch, *rest)
    assert ours.compute_output_shape(shape) == tuple(theirs.compute_output_shape(shape))
    assert symbolic_shape(fanin, ours, [shape]) == symbolic_shape(keras, theirs, [shape])


@EASY
@given(
    batch=sizes,
    rest=shapes,
    target=st.lists(st.integers(-1, 4), max_size=3).filter(lambda target: target.count(-1) < 2),
)
def test_shapes_of_reshape(batch, rest, target):
    theirs, ours = keras.layers.Reshape(target), fanin.layers.Reshape(target)
    expected = symbolic_shape(keras, theirs, [(batch, *rest)])
    assert symbolic_shape(fanin, ours, [(batch, *rest)]) == expected
    if expected != "ValueError" and None not in (batch, *rest):
        x = torch.arange(math.prod((batch, *rest)), dtype=torch.float32).reshape(batch, *rest)
        assert torch.equal(ours(x), theirs(x))


@EASY
@given(
    batches=st.lists(st.sampled_from([None, None, 2, 2, 3]), min_size=2, max_size=3),
    rests=st.lists(st.lists(st.sampled_from([None, 1, 3, 3, 3]), max_size=2).map(tuple), min_size=3, max_size=3),
    kind=st.sampled_from(["Add", "Maximum", "Subtract"]),
)
def test_shapes_of_merges(batches, rests, kind):
    given = [(batch, *rest) for batch, rest in zip(batches, rests, strict=False)]
    theirs, ours = getattr(keras.layers, kind)(), getattr(fanin.layers, kind)()
    expected = symbolic_shape(keras, theirs, given)
    assert symbolic_shape(fanin, ours, given) == expected
    if expected != "ValueError":
        assert ours.compute_output_shape(given) == theirs.compute_output_shape(given)


@EASY
@given(
    rank=st.integers(1, 3),
    axis=st.integers(-3, 2),
    values=st.lists(st.sampled_from([None, 2, 2, 2, 3]), min_size=9, max_size=9),
    count=st.integers(2, 3),
)
def test_shapes_of_concatenate(rank, axis, values, count):
    given = [tuple(values[rank * i : rank * (i + 1)]) for i in range(count)]
    ours = fanin.layers.Concatenate(axis)
    found = symbolic_shape(fanin, ours, given)
    fits = -rank <= axis < rank and all(
        len({size for size in column if size is not None}) < 2
        for place, column in enumerate(zip(*given, strict=True))
        if place != axis % rank
    )
    assert (found != "ValueError") == fits
    if fits:
        theirs = keras.layers.Concatenate(axis)
        assert found == symbolic_shape(keras, theirs, given) == theirs.compute_output_shape(given)


# --- masks ------------------------------------------------------------------------------------------------------------


def masks(shape, chance):
    return torch.from_numpy(np.random.uniform(size=shape) < chance)


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (True, True, True), (False, True, True)])
@pytest.mark.parametrize("kind", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
def test_masks_of_merges(kind, given):
    if kind == "Subtract":
        given = given[:2]
    for _ in range(5):
        inputs = [draw((4, 3, 2)) for _ in given]
        for x, masked in zip(inputs, given, strict=True):
            if masked:
                x._keras_mask = masks((4, 3), 0.5)
        theirs, ours = getattr(keras.layers, kind)(), getattr(fanin.layers, kind)()
        expected, found = theirs(inputs), ours(inputs)
        close(found, expected)
        mask = getattr(expected, "_keras_mask", None)
        if mask is None:
            assert getattr(found, "_keras_mask", None) is None
        else:
            assert torch.equal(found._keras_mask, mask)


def test_masks_of_merges_along_the_other_axis():
    inputs = [draw((4, 3, 2)), draw((4, 5, 2))]
    inputs[1]._keras_mask = masks((4, 5), 0.5)
    expected, found = (lib.layers.Concatenate(1)(inputs) for lib in (keras, fanin))
    assert torch.equal(found, expected)
    assert torch.equal(found._keras_mask, expected._keras_mask)


@pytest.mark.parametrize("value", [0.0, 0.5, [0.5, -0.5]])
def test_masking(value):
    x = torch.from_numpy(np.random.choice([0.0, 0.5, -0.5], size=(50, 4, 2)).astype("f4"))
    theirs, ours = keras.layers.Masking(value), fanin.layers.Masking(value)
    found, expected = ours(x), theirs(x)
    assert torch.equal(found, expected)
    assert torch.equal(found._keras_mask, expected._keras_mask)
    assert torch.equal(ours.compute_mask(x), theirs.compute_mask(x))
    assert 0 < found._keras_mask.sum() < found._keras_mask.numel()


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 3, 5)), (-1, (5,)), (1, (1, 3, 5)), ([1, 2], (4, 1, 5))])
def test_masks_of_softmax(axis, shape, dtype):
    x, mask = draw((4, 3, 5)), masks(shape, 0.6).to(dtype)
    if len(shape) == 3:
        mask[0] = 0  # nothing left of the first row
    found, expected = (lib.layers.Softmax(axis)(x, mask=mask) for lib in (fanin, keras))
    close(found, expected)


# --- random numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7, 1.0])
def test_dropout_drops_and_scales_alike(rate, seed):
    x = torch.full((400, 500), 3.0)
    kept = []
    for lib in (fanin, keras):
        found = lib.layers.Dropout(rate, seed=seed)(x, training=True)
        assert set(found.unique().tolist()) <= {0.0, (x[0, 0] / (1 - rate)).item() if rate < 1 else 0.0}
        kept.append((found != 0).double().mean().item())
    five_sigma = 5 * math.sqrt(rate * (1 - rate) / x.numel())
    assert max(abs(fraction - (1 - rate)) for fraction in kept) <= five_sigma


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("noise_shape", [(None, 1, None), (1, None, None), (30, 40, 1), [None, None, None]])
def test_dropout_shares_its_noise_along_the_same_axes(noise_shape, seed):
    x = torch.ones(30, 40, 50)
    for lib in (fanin, keras):
        dropped = lib.layers.Dropout(0.4, noise_shape, seed)(x, training=True) == 0
        alike = [bool((dropped == dropped.narrow(axis, 0, 1)).all()) for axis in range(3)]
        assert alike == [size == 1 for size in noise_shape]
        count = math.prod(full if size is None else size for size, full in zip(noise_shape, x.shape, strict=True))
        assert abs(dropped.double().mean().item() - 0.4) < 5 * math.sqrt(0.24 / count)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7])
def test_alpha_dropout_drops_and_restores_alike(rate, seed):
    """One of the two values for inputs of 3 is that of the kept; Keras computes both in float32."""
    x = torch.full((400, 500), 3.0)
    found = [lib.layers.AlphaDropout(rate, seed=seed)(x, training=True) for lib in (fanin, keras)]
    close(found[0].unique(), found[1].unique())
    for one in found:
        kept = (one > 0).double().mean().item()
        assert abs(kept - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / x.numel())


def test_alpha_dropout_shares_its_noise_along_the_same_axes():
    x = torch.ones(30, 40, 50)
    for lib in (fanin, keras):
        dropped = lib.layers.AlphaDropout(0.4, (None, 1, None))(x, training=True) < 0
        assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
        assert abs(dropped.double().mean().item() - 0.4) < 5 * math.sqrt(0.24 / (30 * 50))


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_gaussian_dropout_has_the_same_distribution(rate, seed):
    x = torch.full((400, 500), 3.0)
    deviation = math.sqrt(rate / (1 - rate))
    for lib in (fanin, keras):
        factors = lib.layers.GaussianDropout(rate, seed=seed)(x, training=True).double() / 3
        assert abs(factors.mean().item() - 1) < 5 * deviation / math.sqrt(x.numel())
        assert abs(factors.std().item() / deviation - 1) < 5 / math.sqrt(2 * x.numel())
        inside = ((factors - 1).abs() < deviation).double().mean().item()
        assert abs(inside - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / x.numel())


@pytest.mark.parametrize("seed", [None, 7])
def test_gaussian_noise_has_the_same_distribution(seed):
    x = torch.full((400, 500), 3.0)
    for lib in (fanin, keras):
        noise = lib.layers.GaussianNoise(0.5, seed=seed)(x, training=True).double() - 3
        assert abs(noise.mean().item()) < 5 * 0.5 / math.sqrt(x.numel())
        assert abs(noise.std().item() - 0.5) < 5 * 0.5 / math.sqrt(2 * x.numel())
        assert abs((noise.abs() < 0.5).double().mean().item() - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / x.numel())


# --- archives ---------------------------------------------------------------------------------------------------------


def chain(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((6, 4)),
            layers.Rescaling(0.5, [0.1, 0.2, 0.3, 0.4]),
            layers.GaussianNoise(0.1, seed=3),
            layers.GaussianDropout(0.1, seed=5),
            layers.Masking(-1.0),
            layers.Dense(8),
            layers.PReLU(alpha_initializer="glorot_uniform", shared_axes=[1]),
            layers.Dropout(0.5, (None, 1, None), seed=4),
            layers.Reshape((-1, 16)),
            layers.Dense(8),
            layers.LeakyReLU(0.1),
            layers.PReLU(alpha_initializer="glorot_uniform"),
            layers.Flatten(),
            layers.ActivityRegularization(0.1),
            layers.ELU(0.5),
            layers.UnitNormalization(),
            layers.Dropout(0.1),
            layers.AlphaDropout(0.1, (None, 16)),
            layers.Identity(),
            layers.Dense(5),
            layers.ReLU(6.0, 0.1),
            layers.Activation("gelu"),
            layers.Softmax(),
        ]
    )


@pytest.mark.filterwarnings("ignore:Layer 'reshape.*' .*mask:UserWarning")
@pytest.mark.filterwarnings("ignore:Layer 'flatten.*' .*mask:UserWarning")
@pytest.mark.parametrize("writer", ["keras", "fanin"])
def test_archives_cross_over(tmp_path, writer):
    """Random layers have no numbers in archives: Keras writes the group of such a layer, empty."""
    path = str(tmp_path / "m.keras")
    model = chain(keras if writer == "keras" else fanin)
    model.save(path)
    loaded = load_model(path) if writer == "keras" else keras.saving.load_model(path)
    x = draw((7, 6, 4))
    close(*(torch.as_tensor(np.asarray(m.predict(x.numpy(), verbose=0))) for m in (model, loaded)))
    ours, theirs = (loaded, model) if writer == "keras" else (model, loaded)
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert plain(one.get_config()) == plain(other.get_config())
