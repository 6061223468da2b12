"""Rows 5 to 14: every argument of Dense, its order, default, forms and refusals."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

import fanin
from fanin import activations, constraints, initializers, regularizers
from fanin.layers import Dense, Layer

ORDER = {
    "units": inspect.Parameter.empty,
    "activation": None,
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
    "lora_rank": None,
    "lora_alpha": None,
}


def test_order_and_defaults_are_those_of_the_pages():
    parameters = inspect.signature(Dense.__init__).parameters
    found = {name: p.default for name, p in list(parameters.items())[1:] if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert found == ORDER
    assert list(found) == list(ORDER)


def test_all_arguments_by_position():
    layer = Dense(
        3, "relu", False, "ones", "ones", regularizers.L2(0.1), None, regularizers.L1(0.1), constraints.NonNeg(), None
    )
    y = layer(torch.ones(2, 4))
    assert torch.equal(y, torch.full((2, 3), 4.0))
    assert layer.bias is None
    assert len(layer.losses) == 2


def test_arguments_are_attributes_of_the_same_name():
    layer = Dense(3, bias_regularizer="l2", kernel_constraint="non_neg", activity_regularizer="l1")
    for name in ORDER:
        assert hasattr(layer, name)
    assert layer.units == 3
    assert layer.activation is activations.linear
    assert layer.use_bias is True
    assert isinstance(layer.kernel_initializer, initializers.GlorotUniform)
    assert isinstance(layer.bias_initializer, initializers.Zeros)
    assert layer.kernel_regularizer is None
    assert isinstance(layer.bias_regularizer, regularizers.L2)
    assert isinstance(layer.activity_regularizer, regularizers.L1)
    assert isinstance(layer.kernel_constraint, constraints.NonNeg)
    assert layer.bias_constraint is None


# --- 5 units ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [1, 7, np.int64(3), np.int32(3), np.uint8(3)])
def test_units_is_a_positive_integer(units):
    layer = Dense(units)
    assert layer(torch.ones(2, 4)).shape == (2, int(units))
    assert type(layer.units) is int
    assert type(layer.get_config()["units"]) is int


@pytest.mark.parametrize("units", [True, np.True_, 2.0, np.float32(2), "3", 0, -1, None, [3], (3,)])
def test_other_units_are_refused(units):
    with pytest.raises(ValueError, match="units must be a positive integer") as caught:
        Dense(units)
    assert repr(units) in str(caught.value)


# --- 6 activation -----------------------------------------------------------------------------------------

KERAS_ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus",
    "swish", "tanh", "tanh_shrink",
]  # fmt: skip


@pytest.mark.parametrize("name", KERAS_ACTIVATIONS)
def test_activation_by_name(name):
    x = torch.randn(3, 4)
    layer = Dense(6, activation=name)
    y = layer(x)
    linear = Dense(6, weights=layer.get_weights())
    assert torch.equal(y, activations.get(name)(linear(x)))
    assert Dense.from_config(layer.get_config()).activation is layer.activation


class Cube(torch.nn.Module):
    def forward(self, x):
        return x**3


class CubeLayer(Layer):
    def call(self, inputs):
        return inputs**3


@pytest.mark.parametrize("cube", [lambda x: x**3, Cube(), CubeLayer()], ids=["function", "module", "layer"])
def test_activation_that_is_a_function_a_module_or_a_layer(cube):
    x = torch.randn(3, 4)
    layer = Dense(5, activation=cube)
    y = layer(x)
    assert torch.equal(y, Dense(5, weights=layer.get_weights())(x) ** 3)


def test_an_activation_with_weights_trains_with_the_layer():
    layer = Dense(5, activation=torch.nn.PReLU())
    layer(torch.randn(3, 4)).sum().backward()
    assert "activation.weight" in layer.state_dict()
    assert layer.activation.weight.grad is not None


def test_unknown_activations_are_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"'rellu'.*'relu'"):
        Dense(3, activation="rellu")
    with pytest.raises((ValueError, TypeError)):
        Dense(3, activation=3)


# --- 7, 8 bias and initializers ---------------------------------------------------------------------------


def test_use_bias():
    with_bias, without = Dense(3), Dense(3, use_bias=False)
    for layer in (with_bias, without):
        layer.build((None, 4))
    assert [tuple(w.shape) for w in with_bias.weights] == [(4, 3), (3,)]
    assert torch.equal(with_bias.bias, torch.zeros(3))
    assert [tuple(w.shape) for w in without.weights] == [(4, 3)]
    assert without.bias is None
    assert list(without.state_dict()) == ["kernel"]


def test_the_default_kernel_is_glorot_uniform():
    layer = Dense(300)
    layer.build((None, 200))
    limit = math.sqrt(6 / (200 + 300))
    kernel = layer.kernel.detach()
    assert kernel.abs().max() <= limit
    n = kernel.numel()
    # The largest of n uniform draws reaches (1 - 20 / n) of the limit with probability 1 - exp(-20).
    assert kernel.abs().max() >= limit * (1 - 20 / n)
    # Mean and mean square of n draws, each within five standard deviations.
    assert abs(kernel.mean()) <= 5 * limit / math.sqrt(3 * n)
    assert abs(kernel.square().mean() - limit**2 / 3) <= 5 * limit**2 * math.sqrt(4 / 45 / n)


@pytest.mark.parametrize(
    "identifier",
    [
        "ones",
        "Ones",
        initializers.Ones,
        initializers.Ones(),
        {"class_name": "Ones", "config": {}},
        {"module": "keras.initializers", "class_name": "Ones", "config": {}, "registered_name": None},
        lambda shape, dtype=None: torch.ones(shape, dtype=dtype),
        torch.ones(4, 3),
        np.ones((4, 3)),
    ],
    ids=["name", "class name", "class", "instance", "Keras 2", "Keras 3", "callable", "tensor", "array"],
)
def test_forms_of_an_initializer(identifier):
    layer = Dense(3, kernel_initializer=identifier)
    layer.build((None, 4))
    assert torch.equal(layer.kernel, torch.ones(4, 3))
    assert layer.kernel.dtype == torch.float32


def test_bias_initializer_gets_the_shape_of_the_bias():
    layer = Dense(3, bias_initializer=lambda shape, dtype=None: torch.arange(shape[0], dtype=dtype))
    layer.build((None, 4))
    assert layer.bias.tolist() == [0.0, 1.0, 2.0]


def test_an_initializer_of_the_wrong_shape_is_refused():
    layer = Dense(3, kernel_initializer=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"(?s)2, 3.*4, 3|4, 3.*2, 3"):
        layer.build((None, 4))
    assert layer.weights == []
    assert not layer.built


def test_an_initializer_tensor_stays_its_owners():
    mine = torch.ones(4, 3)
    layer = Dense(3, kernel_initializer=mine)
    layer.build((None, 4))
    with torch.no_grad():
        layer.kernel.zero_()
    assert torch.equal(mine, torch.ones(4, 3))


# --- 9 regularizers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regularizer", "formula"),
    [
        (regularizers.L1(0.3), lambda w: 0.3 * np.abs(w).sum()),
        (regularizers.L2(0.3), lambda w: 0.3 * (w**2).sum()),
        (regularizers.L1L2(0.2, 0.4), lambda w: 0.2 * np.abs(w).sum() + 0.4 * (w**2).sum()),
        (lambda w: w.sum(), lambda w: w.sum()),
    ],
    ids=["l1", "l2", "l1l2", "own"],
)
def test_kernel_and_bias_regularizers(regularizer, formula):
    layer = Dense(3, kernel_regularizer=regularizer, bias_regularizer=regularizer, bias_initializer="random_normal")
    assert layer.losses == []
    for _ in range(3):
        layer(torch.ones(2, 4))
    kernel, bias = layer.get_weights()
    assert len(layer.losses) == 2
    assert layer.losses[0].item() == pytest.approx(formula(kernel.astype(np.float64)), rel=1e-5, abs=1e-6)
    assert layer.losses[1].item() == pytest.approx(formula(bias.astype(np.float64)), rel=1e-5, abs=1e-6)


def test_the_orthogonal_regularizer_reaches_the_kernel():
    layer = Dense(2, kernel_regularizer=regularizers.OrthogonalRegularizer(1.0), kernel_initializer="identity")
    layer.build((None, 2))
    assert layer.losses[0].item() == pytest.approx(0.0, abs=1e-7)
    layer.set_weights([np.ones((2, 2)), np.zeros(2)])
    assert layer.losses[0].item() == pytest.approx(1.0, rel=1e-6)


class Largest(regularizers.Regularizer):
    def __call__(self, x):
        return x.abs().max()


def test_your_own_regularizer_class():
    layer = Dense(2, kernel_regularizer=Largest())
    layer.build((None, 3))
    assert layer.losses[0] == layer.kernel.abs().max()


# --- 10 activity ------------------------------------------------------------------------------------------


def test_the_activity_regularizer_sees_the_output_after_the_activation_over_the_batch():
    layer = Dense(3, activation="relu", activity_regularizer=regularizers.L2(0.5))
    x = torch.randn(8, 4)
    y = layer(x)
    assert (y == 0).any()
    (loss,) = layer.losses
    assert loss.item() == pytest.approx(0.5 * y.detach().double().square().sum().item() / 8, rel=1e-5)
    loss.backward()
    assert layer.kernel.grad.abs().sum() > 0


def test_one_activity_loss_for_each_call():
    layer = Dense(3, activity_regularizer="l2")
    with fanin.collect_losses() as record:
        layer(torch.ones(2, 4))
        layer(torch.zeros(5, 4))
        assert len(layer.losses) == 2
    assert len(record.losses) == 2
    a, b = fanin.Input((4,)), fanin.Input((4,))
    fresh = Dense(3, activity_regularizer="l2")
    fresh(a), fresh(b)
    assert len(fresh.losses) == 2
    assert len(fresh.get_losses_for(a)) == len(fresh.get_losses_for(b)) == 1


def test_an_empty_batch_has_a_finite_activity_loss():
    layer = Dense(3, activity_regularizer="l2")
    layer(torch.ones(0, 4))
    assert layer.losses[0].item() == 0.0


# --- 11 constraints ---------------------------------------------------------------------------------------


def _train_once(layer: Dense) -> None:
    model = fanin.Sequential([fanin.Input((4,)), layer])
    model.compile(fanin.optimizers.SGD(5.0), "mse")
    model.fit(np.ones((8, 4)), -np.ones((8, 3)), epochs=2, verbose=0)


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        ("non_neg", lambda w: (w >= 0).all()),
        (constraints.MaxNorm(0.1), lambda w: (w.norm(dim=0) <= 0.1 * (1 + 1e-5)).all()),
        (constraints.UnitNorm(), lambda w: torch.allclose(w.norm(dim=0), torch.ones(w.shape[1:]), atol=1e-5)),
        (constraints.MinMaxNorm(0.2, 0.4), lambda w: ((w.norm(dim=0) > 0.19) & (w.norm(dim=0) < 0.41)).all()),
        (lambda w: w.clamp(-0.01, 0.01), lambda w: (w.abs() <= 0.01).all()),
    ],
    ids=["non_neg", "max_norm", "unit_norm", "min_max_norm", "own"],
)
def test_constraints_hold_after_each_update(constraint, holds):
    in_fit = Dense(3, kernel_constraint=constraint, bias_constraint="non_neg")
    _train_once(in_fit)
    assert holds(in_fit.kernel.detach())
    assert (in_fit.bias >= 0).all()

    layer = Dense(3, kernel_constraint=constraint, bias_constraint="non_neg")
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0)
    fanin.attach(optimizer, layer)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(torch.ones(8, 4)) + 1).square().mean().backward()
        optimizer.step()
        assert holds(layer.kernel.detach())
        assert (layer.bias >= 0).all()


def test_weight_clipping_of_a_wgan_critic_in_a_plain_loop():
    clip = 0.01
    rules = dict.fromkeys(("kernel_constraint", "bias_constraint"), lambda w: w.clamp(-clip, clip))
    critic = fanin.Sequential([Dense(16, "relu", **rules), Dense(1, **rules)])
    real, generated = torch.randn(64, 2) + 3, torch.randn(64, 2)
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-3)
    fanin.attach(optimizer, critic)
    gaps = []
    for _ in range(60):
        optimizer.zero_grad()
        gap = critic(real).mean() - critic(generated).mean()
        (-gap).backward()
        optimizer.step()
        gaps.append(gap.item())
        assert all((w.abs() <= clip).all() for w in critic.weights)
    assert gaps[-1] > gaps[1]
    assert gaps[-1] > 0


# --- 14 keywords ------------------------------------------------------------------------------------------


def test_keywords_of_every_layer():
    layer = Dense(3, name="mine", trainable=False, dtype="float64", input_shape=(4,))
    assert layer.name == "mine"
    assert layer.trainable is False
    assert layer.dtype == "float64"
    assert layer.batch_input_shape == (None, 4)
    layer.build((None, 4))
    assert layer.trainable_weights == []
    assert layer.kernel.dtype == torch.float64


def test_weights_are_used_when_the_layer_is_built():
    kernel, bias = np.arange(12.0).reshape(4, 3), np.arange(3.0)
    layer = Dense(3, weights=[kernel, bias])
    assert layer(torch.eye(4)).tolist() == (kernel + bias).tolist()
    wrong = Dense(3, weights=[kernel.T, bias])
    with pytest.raises(ValueError, match=r"kernel.*\(4, 3\).*\(3, 4\)"):
        wrong(torch.eye(4))
    assert not wrong.built
    assert wrong.weights == []


@pytest.mark.parametrize(
    "dtype", ["float64", torch.float64, np.float64, fanin.DTypePolicy("float64"), np.dtype("float64")]
)
def test_forms_of_dtype(dtype):
    layer = Dense(3, dtype=dtype)
    assert layer(torch.ones(2, 4)).dtype == torch.float64
    assert layer.dtype == "float64"


@pytest.mark.parametrize(("name", "compute"), [("mixed_bfloat16", torch.bfloat16), ("mixed_float16", torch.float16)])
def test_a_mixed_policy_keeps_float32_weights_and_computes_in_16_bits(name, compute):
    layer = Dense(3, dtype=name, bias_initializer="ones")
    x = torch.randn(5, 4)
    for shape in [(5, 4), (5, 1, 4)]:
        y = layer(x.reshape(shape))
        assert y.dtype == compute
        y.float().square().sum().backward()
    assert layer.dtype == "float32"
    assert layer.compute_dtype == str(compute).removeprefix("torch.")
    assert layer.kernel.dtype == layer.bias.dtype == layer.kernel.grad.dtype == torch.float32
    exact = x.double() @ layer.kernel.double() + layer.bias.double()
    # Each operand is rounded to half a unit in the last place, and so is the result.
    terms = x.double().abs() @ layer.kernel.double().abs() + 1
    assert ((layer(x).double() - exact).abs() <= 2 * torch.finfo(compute).eps * terms).all()


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="unitz"):
        Dense(3, unitz=4)
    with pytest.raises(TypeError, match=r"alpha.*beta"):
        Dense(3, beta=1, alpha=2)


def test_two_ways_to_say_the_shape_are_refused():
    with pytest.raises(ValueError, match="only one of"):
        Dense(3, input_shape=(4,), input_dim=4)


@pytest.mark.parametrize("shape", [4, "4", (4.0,), (-1,), (True,)])
def test_an_input_shape_that_is_none_is_refused(shape):
    with pytest.raises(ValueError, match="expected a tuple of sizes"):
        Dense(3, input_shape=shape)
