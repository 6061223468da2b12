"""BatchNormalization against its formula in float64, and what becomes of its statistics."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import fanin
from fanin.layers import BatchNormalization, Dense, Input
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.step import Step
from fanin.training.swapped import swapped

EASY = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])
STATISTICS = ("moving_mean", "moving_variance")


def made(shape, **arguments):
    """A float64 layer, built for the shape, with random weights."""
    layer = BatchNormalization(**{"dtype": "float64", **arguments})
    layer.build(shape)
    layer.set_weights([np.random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
    return layer


def expected(x, mean, variance, layer):
    """The formula, on C as the last axis."""
    y = (x - mean) / np.sqrt(variance + layer.epsilon)
    y = y if layer.gamma is None else y * layer.gamma.detach().numpy()
    return y if layer.beta is None else y + layer.beta.detach().numpy()


@EASY
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple),
    axis=st.integers(-4, 3),
    momentum=st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    center=st.booleans(),
    scale=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_the_formula_along_any_axis(shape, axis, momentum, center, scale, seed):
    axis = axis % (2 * len(shape)) - len(shape)
    np.random.seed(seed)
    layer = made(shape, axis=axis, momentum=momentum, epsilon=0.01, center=center, scale=scale)
    mean, variance = layer.moving_mean.numpy().copy(), layer.moving_variance.numpy().copy()
    for training in (False, True, True, False):
        x = np.random.normal(2.0, 3.0, shape)
        last = np.moveaxis(x, axis, -1)
        if training:
            rows = last.reshape(-1, last.shape[-1])
            found = expected(last, rows.mean(0), rows.var(0), layer)
            mean = mean * momentum + rows.mean(0) * (1 - momentum)
            variance = variance * momentum + rows.var(0) * (1 - momentum)
        else:
            found = expected(last, mean, variance, layer)
        y = layer(torch.from_numpy(x), training=training).detach().numpy()
        np.testing.assert_allclose(y, np.moveaxis(found, -1, axis), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-12)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_finite_differences(masked):
    layer = made((4, 3, 2))
    mask = torch.tensor([[True, True, False]] * 2 + [[False, True, True]] * 2) if masked else None

    def run(x, gamma, beta):
        weights = {"gamma": gamma, "beta": beta, **{name: getattr(layer, name).clone() for name in STATISTICS}}
        return torch.func.functional_call(layer, weights, (x,), {"training": True, "mask": mask})

    inputs = torch.randn(4, 3, 2, dtype=torch.float64), torch.rand(2).double() + 1, torch.rand(2).double()
    assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in inputs])


# --- masks ----------------------------------------------------------------------------------------------------


def test_what_is_masked_does_not_count():
    layer, twin = made((None, None, 2)), made((None, 2))
    twin.set_weights(layer.get_weights())
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    mask = torch.rand(4, 3) > 0.5
    x[~mask] = torch.nan
    y, rows = layer(x, training=True, mask=mask), twin(x[mask], training=True)
    torch.testing.assert_close(y[mask], rows)
    for name in STATISTICS:
        torch.testing.assert_close(getattr(layer, name), getattr(twin, name))
    assert layer.compute_mask(x, mask) is mask


def test_a_batch_in_which_nothing_counts_changes_nothing():
    layer = made((None, 3))
    before = layer.get_weights()
    x = torch.randn(4, 3, dtype=torch.float64)
    y = layer(x, training=True, mask=torch.zeros(4))
    torch.testing.assert_close(y, layer(x, training=False))
    assert layer(x[:0], training=True).shape == (0, 3)
    assert all((a == b).all() for a, b in zip(layer.get_weights(), before, strict=True))


def test_one_row_is_its_own_mean():
    layer = made((None, 3), momentum=0.0)
    x = torch.randn(1, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x, training=True)[0], layer.beta)
    assert torch.equal(layer.moving_mean, x[0])
    assert (layer.moving_variance == 0).all()


def test_a_mask_has_one_axis_less():
    with pytest.raises(ValueError, match=r"'batch_normalization'.*one axis less.*mask of shape \(4, 3\)"):
        BatchNormalization()(torch.ones(4, 3), mask=torch.ones(4, 3))


# --- the moving statistics ------------------------------------------------------------------------------------


def test_they_are_buffers_that_change_in_place():
    layer = BatchNormalization()
    x = torch.randn(5, 3, requires_grad=True)
    layer(x, training=False)
    assert [name for name, _ in layer.named_buffers()] == list(STATISTICS)
    held = [getattr(layer, name) for name in STATISTICS]
    assert (held[0] == 0).all()
    assert (held[1] == 1).all()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        before = [tensor.clone() for tensor in held]
        with mode():
            layer(x, training=True)
        for name, tensor, old in zip(STATISTICS, held, before, strict=True):
            assert getattr(layer, name) is tensor
            assert not torch.equal(tensor, old)
            assert not tensor.requires_grad
    layer(x, training=True).sum().backward()  # after the modes the layer still trains


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_its_own(copied):
    layer = BatchNormalization()
    x = torch.randn(5, 3)
    layer(x, training=True)
    twin = copied(layer)
    before = layer.get_weights()
    twin(x, training=True)
    assert all((a == b).all() for a, b in zip(layer.get_weights(), before, strict=True))
    assert not torch.equal(twin.moving_mean, layer.moving_mean)


def test_an_inference_call_and_a_training_call_share_one_backward():
    layer = BatchNormalization()
    x = torch.randn(5, 3, requires_grad=True)
    (layer(x, training=False) + layer(x, training=True)).sum().backward()


def test_the_mode_is_that_of_the_module():
    layer = BatchNormalization()
    x = torch.randn(50, 3) + 5
    assert layer(x).mean().abs() < 1e-4
    layer.eval()
    before = layer.get_weights()
    assert layer(x).mean() > 3
    assert all((a == b).all() for a, b in zip(layer.get_weights(), before, strict=True))


def test_a_record_does_not_hold_the_batch():
    layer = BatchNormalization()
    x = torch.randn(5, 3)
    held = weakref.ref(x)
    y = layer(x, training=True)
    del x, y
    gc.collect()
    assert held() is None


def test_statistics_are_float32_under_mixed_bfloat16():
    layer = BatchNormalization(dtype="mixed_bfloat16", momentum=0.0)
    x = (torch.randn(4096, 3) + 100).bfloat16()
    y = layer(x, training=True)
    assert y.dtype == torch.bfloat16
    assert {weight.dtype for weight in layer.weights} == {torch.float32}
    exact = x.double()
    np.testing.assert_allclose(layer.moving_mean, exact.mean(0), rtol=1e-6)
    # Rounding of x - mean: 2^-24 of 100, against a spread of 1.
    np.testing.assert_allclose(layer.moving_variance, exact.var(0, correction=0), rtol=1e-4)
    reference = (exact - exact.mean(0)) / (exact.var(0, correction=0) + 1e-3).sqrt()
    np.testing.assert_allclose(y.detach().double(), reference, rtol=2**-8, atol=1e-4)


def test_the_variance_is_right_where_the_mean_is_large():
    layer = BatchNormalization(momentum=0.0)
    x = torch.randn(1000, 2, dtype=torch.float64) * 0.1 + 1000
    layer(x.float(), training=True)
    np.testing.assert_allclose(layer.moving_variance, x.float().double().var(0, correction=0), rtol=1e-3)


# --- frozen, and updates --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* has no weights that train")
def test_freezing_a_model_stops_updates_and_thawing_brings_them_back():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (10, 4)), rng.normal(size=(10, 4))
    layer = BatchNormalization()
    model = fanin.Sequential([Input((4,)), layer])

    def train_moves():
        model.compile("sgd", "mse")
        before = model.predict(x, verbose=0)
        model.train_on_batch(x, y)
        return np.abs(model.predict(x, verbose=0) - before).max()

    assert [update is getattr(layer, name) for update, name in zip(model.updates, STATISTICS, strict=True)]
    model.trainable = False
    assert model.updates == layer.updates == []
    assert train_moves() == 0
    model.trainable = True
    assert len(model.updates) == len(layer.updates) == 2
    assert train_moves() > 1e-3
    layer.trainable = False
    assert model.updates == []
    assert train_moves() == 0


def test_a_frozen_layer_is_in_inference_mode():
    layer = made((None, 3))
    x = torch.randn(5, 3, dtype=torch.float64)
    inference = layer(x, training=False)
    layer.trainable = False
    before = layer.get_weights()
    assert torch.equal(layer(x, training=True), inference)
    assert all((a == b).all() for a, b in zip(layer.get_weights(), before, strict=True))
    layer.trainable = True
    assert not torch.equal(layer(x, training=True), inference)


def test_a_layer_without_gamma_and_beta_can_be_frozen():
    layer = BatchNormalization(center=False, scale=False)
    x = torch.randn(5, 3)
    layer(x, training=True)
    assert layer.gamma is layer.beta is None
    assert layer.trainable
    assert len(layer.updates) == 2
    layer.trainable = False
    before = layer.get_weights()
    layer(x, training=True)
    assert layer.updates == []
    assert all((a == b).all() for a, b in zip(layer.get_weights(), before, strict=True))


def test_updates_of_symbolic_calls():
    layer = BatchNormalization()
    one, two, three = (Input((4,)) for _ in range(3))
    layer(one)
    layer(two, training=True)
    layer(three, training=False)
    assert len(layer.updates) == 4
    assert len(layer.get_updates_for(one)) == len(layer.get_updates_for(two)) == 2
    assert layer.get_updates_for(three) == layer.get_updates_for(None) == []
    assert (layer.moving_mean == 0).all()


def test_updates_after_each_kind_of_real_call():
    layer = BatchNormalization()
    for training in (True, False, None):
        layer(torch.randn(5, 3), training=training)
        assert [update is getattr(layer, n) for update, n in zip(layer.updates, STATISTICS, strict=True)] == [True] * 2


def test_attach_leaves_the_statistics_to_the_call():
    layer = BatchNormalization(momentum=0.0)
    optimizer = torch.optim.SGD([*layer.parameters()], lr=0.1)
    fanin.attach(optimizer, layer)
    x = torch.randn(5, 3)
    layer(x, training=True).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.moving_mean, x.mean(0))


# --- as a part of a step --------------------------------------------------------------------------------------


def step_of(layers, x):
    model = fanin.Sequential(layers)
    model(x)
    compiled = Compiled("sgd", "mse")
    batch = Batch(x, torch.randn(len(x), 2), None, len(x))
    compiled.bind(model, (None, 2), batch.y)
    model.train()
    return model, Step(model, compiled.compute_loss, compiled.measuring.measure), batch


def test_a_step_changes_statistics_in_place():
    model, step, batch = step_of([BatchNormalization(), Dense(2)], torch.randn(6, 3))
    twin, moving = copy.deepcopy(model), model.layers[0].moving_mean
    before = moving.clone()
    step.train(step.live_state([]), batch)
    twin(batch.x)
    assert model.layers[0].moving_mean is moving
    assert not torch.equal(moving, before)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_step_traces_to_one_graph():
    model, step, batch = step_of([BatchNormalization(), Dense(2)], torch.randn(6, 3))
    own = [*model.parameters(), *model.buffers()]

    def run(given, x, y):
        stands_in = [g.detach().clone().requires_grad_(o.requires_grad) for g, o in zip(given, own, strict=True)]
        with swapped(model, dict(zip(map(id, own), stands_in, strict=True))):
            result = step.train(step.live_state([]), Batch(x, y, None, 6))
        return [result.loss, *result.gradients.values(), *stands_in[len(list(model.parameters())) :]]

    arguments = [one.detach().clone() for one in own], batch.x, batch.y
    other = [one.detach() + (not one.requires_grad) for one in own], batch.x * 2, batch.y
    traced = make_fx(run, tracing_mode="fake")(*arguments)
    for given_arguments in (arguments, other):
        for found, wanted in zip(traced(*given_arguments), run(*given_arguments), strict=True):
            torch.testing.assert_close(found, wanted)
    assert len(layer_updates(model)) == 2


def layer_updates(model):
    return [update for update in model.updates if not hasattr(update, "fake_mode")]


def test_it_compiles_whole():
    layer, twin = BatchNormalization(), BatchNormalization()
    x = torch.randn(6, 3)
    for training in (True, False):
        layer.train(training), twin.train(training)
        torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), twin(x))
    torch.testing.assert_close(layer.moving_mean, twin.moving_mean)


def test_rows_of_a_vmap():
    layer = made((None, 3))
    layer.eval()
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


# --- arguments and shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"renorm": True}, ValueError, "renorm=True is not supported"),
        ({"synchronized": True}, ValueError, "synchronized=True is not supported"),
        ({"axis": [1, 2]}, ValueError, r"axis must be one integer, found \[1, 2\]"),
        ({"axis": 1.5}, TypeError, "axis must be an integer"),
        ({"momentum": 1.5}, ValueError, r"momentum must be a number in \[0, 1\], found 1\.5"),
        ({"epsilon": -1e-3}, ValueError, r"epsilon must be a number in \[0, inf\), found -0\.001"),
        ({"epsilon": np.nan}, ValueError, "epsilon must be a number in .*, found nan"),
        ({"moment": 0.9}, TypeError, "unknown arguments: moment"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"BatchNormalization.*{message}"):
        BatchNormalization(**arguments)


def test_shapes_that_are_refused():
    with pytest.raises(ValueError, match="'bn': axis 2 does not exist in an input of rank 2"):
        BatchNormalization(axis=2, name="bn")(torch.ones(2, 3))
    with pytest.raises(ValueError, match="'bn': axis 2 does not exist in an input of rank 2"):
        BatchNormalization(axis=2, name="bn").compute_output_shape((None, 3))
    with pytest.raises(ValueError, match="'bn': the sizes of axes"):
        BatchNormalization(name="bn").build((None, None))
    layer = BatchNormalization(name="bn")
    layer(torch.ones(2, 3))
    for shape in ((2, 4), (3,)):
        with pytest.raises(ValueError, match="layer 'bn' is incompatible"):
            layer(torch.ones(shape))
    assert layer(torch.ones(2, 5, 3)).shape == layer.compute_output_shape((2, 5, 3)) == (2, 5, 3)


def test_integers_and_the_axis_of_old_configs():
    layer = BatchNormalization.from_config({"axis": [3], "name": "old", "trainable": True, "dtype": "float32"})
    assert layer.axis == 3
    assert layer(torch.arange(24).reshape(1, 2, 3, 4)).dtype == torch.float32


def test_the_config_makes_an_equal_layer():
    layer = BatchNormalization(
        1, 0.9, 0.1, beta_initializer="ones", gamma_regularizer="l2", beta_constraint="non_neg", trainable=False
    )
    twin = BatchNormalization.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert not twin.trainable
