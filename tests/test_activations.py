"""Activations: closed forms, arguments, names, JSON, registration."""

import functools
import json
import math

import pytest
import torch
from torch import nn

import fanin
from fanin import activations
from fanin.activations import of_torch
from fanin.registry import custom_object_scope, register_keras_serializable

X = torch.tensor([-30.0, -7.0, -3.0, -1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0, 5.0, 6.0, 7.0, 30.0])


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# (name, keyword arguments, the formula for one number)
FORMS = [
    ("linear", {}, lambda v: v),
    ("relu", {}, lambda v: max(v, 0.0)),
    ("relu", {"negative_slope": 0.1}, lambda v: v if v > 0 else 0.1 * v),
    ("relu", {"max_value": 5.0}, lambda v: min(max(v, 0.0), 5.0)),
    ("relu", {"max_value": 6}, lambda v: min(max(v, 0.0), 6.0)),
    ("relu", {"threshold": 1.0}, lambda v: v if v > 1 else 0.0),
    ("relu", {"threshold": -1.0}, lambda v: v if v > -1 else 0.0),
    (
        "relu",
        {"negative_slope": 0.5, "max_value": 5.0, "threshold": 1.0},
        lambda v: min(v, 5.0) if v > 1 else 0.5 * (v - 1),
    ),
    ("leaky_relu", {}, lambda v: v if v > 0 else 0.2 * v),
    ("leaky_relu", {"negative_slope": 0.3}, lambda v: v if v > 0 else 0.3 * v),
    ("relu6", {}, lambda v: min(max(v, 0.0), 6.0)),
    ("elu", {}, lambda v: v if v > 0 else math.expm1(v)),
    ("elu", {"alpha": 0.5}, lambda v: v if v > 0 else 0.5 * math.expm1(v)),
    ("celu", {}, lambda v: v if v > 0 else math.expm1(v)),
    ("celu", {"alpha": 2.0}, lambda v: v if v > 0 else 2 * math.expm1(v / 2)),
    ("selu", {}, lambda v: SELU_SCALE * (v if v > 0 else SELU_ALPHA * math.expm1(v))),
    ("sigmoid", {}, sigmoid),
    ("tanh", {}, math.tanh),
    ("silu", {}, lambda v: v * sigmoid(v)),
    ("swish", {}, lambda v: v * sigmoid(v)),
    ("gelu", {}, lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2))),
    (
        "gelu",
        {"approximate": True},
        lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    ),
    ("mish", {}, lambda v: v * math.tanh(math.log1p(math.exp(v)))),
    ("softplus", {}, lambda v: math.log1p(math.exp(v))),
    ("squareplus", {}, lambda v: (v + math.sqrt(v * v + 4)) / 2),
    ("squareplus", {"b": 1.0}, lambda v: (v + math.sqrt(v * v + 1)) / 2),
    ("softsign", {}, lambda v: v / (1 + abs(v))),
    ("exponential", {}, math.exp),
    ("log_sigmoid", {}, lambda v: -math.log1p(math.exp(-v))),
    ("tanh_shrink", {}, lambda v: v - math.tanh(v)),
    ("hard_sigmoid", {}, lambda v: min(max(v / 6 + 0.5, 0.0), 1.0)),
    ("hard_silu", {}, lambda v: v * min(max(v / 6 + 0.5, 0.0), 1.0)),
    ("hard_swish", {}, lambda v: v * min(max(v / 6 + 0.5, 0.0), 1.0)),
    ("hard_tanh", {}, lambda v: min(max(v, -1.0), 1.0)),
    ("hard_shrink", {}, lambda v: v if abs(v) > 0.5 else 0.0),
    ("hard_shrink", {"threshold": 1.0}, lambda v: v if abs(v) > 1 else 0.0),
    ("soft_shrink", {}, lambda v: math.copysign(max(abs(v) - 0.5, 0.0), v)),
    ("soft_shrink", {"threshold": 1.0}, lambda v: math.copysign(max(abs(v) - 1, 0.0), v)),
    ("sparse_sigmoid", {}, lambda v: min(max((v + 1) / 2, 0.0), 1.0)),
    ("sparse_plus", {}, lambda v: 0.0 if v <= -1 else v if v >= 1 else (v + 1) ** 2 / 4),
    ("threshold", {"threshold": 0.5, "default_value": -2.0}, lambda v: v if v > 0.5 else -2.0),
]


@pytest.mark.parametrize(("name", "arguments", "form"), FORMS)
def test_closed_form(name, arguments, form):
    found = getattr(activations, name)(X, **arguments)
    expected = torch.tensor([form(v) for v in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=2e-6)


def test_every_name_has_a_closed_form_here():
    along_an_axis = {"softmax", "log_softmax", "sparsemax", "glu"}
    assert {name for name, _, _ in FORMS} | along_an_axis == set(activations.family.names())


@pytest.mark.parametrize("name", activations.family.names())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_input_are_kept(name, dtype):
    x = torch.randn(4, 6, dtype=torch.float64).to(dtype)
    before = x.clone()
    arguments = (0.5, 0.0) if name == "threshold" else ()
    y = activations.get(name)(x, *arguments)
    assert y.dtype == dtype
    assert y.shape == ((4, 3) if name == "glu" else (4, 6))
    assert torch.equal(x, before)


def test_relu_is_one_torch_call():
    class Count(torch.overrides.TorchFunctionMode):
        calls = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.calls += 1
            return function(*args, **(kwargs or {}))

    with Count() as count:
        activations.relu(X)
    assert count.calls == 1


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), None])
def test_softmax_sums_to_one_and_does_not_overflow(axis):
    x = torch.randn(3, 4, dtype=torch.float64) * 10 + 1e4
    y = activations.softmax(x, axis)
    axes = tuple(range(2)) if axis is None else axis
    torch.testing.assert_close(y.sum(axes), torch.ones_like(y.sum(axes)))
    e = (x - x.max()).exp()
    torch.testing.assert_close(y, e / e.sum(axes, keepdim=True))
    torch.testing.assert_close(activations.log_softmax(x, axis).exp(), y)


def test_glu():
    x = torch.randn(5, 8)
    a, b = x.chunk(2, dim=1)
    torch.testing.assert_close(activations.glu(x), a * torch.sigmoid(b))
    a, b = x.t().chunk(2, dim=0)
    torch.testing.assert_close(activations.glu(x.t(), axis=0), a * torch.sigmoid(b))
    with pytest.raises(RuntimeError):
        activations.glu(torch.randn(5, 3))


def simplex_projection(x):
    """By bisection on tau, in float64: sum(max(x - tau, 0)) falls from above 1 to 0 between max(x) - 1 and max(x)."""
    low, high = x.max() - 1, x.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (x - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (x - low).clamp(min=0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sparsemax_is_the_nearest_point_of_the_simplex(axis):
    x = torch.randn(40, 7, dtype=torch.float64)
    found = activations.sparsemax(x, axis)
    torch.testing.assert_close(found.sum(axis), torch.ones_like(found.sum(axis)))
    expected = torch.stack([simplex_projection(row) for row in x.unbind(1 - axis % 2)], dim=1 - axis % 2)
    torch.testing.assert_close(found, expected)


def test_sparsemax_with_ties_and_its_gradient():
    assert activations.sparsemax(torch.ones(4)).tolist() == [0.25] * 4
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activations.sparsemax, x)


@pytest.mark.parametrize("name", activations.family.names())
def test_gradient(name):
    arguments = (0.4, 0.1) if name == "threshold" else ()
    x = (torch.randn(3, 6, dtype=torch.float64) * 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: activations.get(name)(x, *arguments), x)


@pytest.mark.parametrize(("top", "slopes"), [(6, [0, 0, 1, 0, 0]), (7, [0, 0, 1, 1, 1]), (None, [0, 0, 1, 1, 1])])
def test_slopes_of_relu_where_it_bends(top, slopes):
    x = torch.tensor([-1.0, 0.0, 1.0, 6.0, 7.0], requires_grad=True)
    activations.relu(x, max_value=top).sum().backward()
    assert x.grad.tolist() == slopes


# --- names ------------------------------------------------------------------------------------------------------------


def test_get():
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.get("silu") is activations.silu
    assert activations.get("hard_swish") is activations.hard_silu is activations.hard_swish
    assert activations.get(torch.sin) is torch.sin
    assert isinstance(activations.get(nn.ReLU), nn.ReLU)
    module = nn.PReLU()
    assert activations.get(module) is module
    function_form = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
    assert activations.get(function_form) is activations.relu


def test_get_refuses():
    with pytest.raises(ValueError, match=r"Unknown activation 'rleu'.*'relu'"):
        activations.get("rleu")
    with pytest.raises(TypeError, match="3"):
        activations.get(3)


@pytest.mark.parametrize("name", activations.family.names())
def test_json_round_trip(name):
    written = activations.serialize(activations.get(name))
    assert written == {"swish": "silu", "hard_swish": "hard_silu"}.get(name, name)
    assert activations.deserialize(json.loads(json.dumps(written))) is activations.get(name)


def test_serialize_none_and_deserialize_none():
    assert activations.deserialize(None) is activations.linear
    assert activations.serialize(None) is None
    assert activations.serialize("relu") == "relu"


def test_registered_function_and_class():
    @register_keras_serializable("tests")
    def cubed(x):
        return x**3

    @register_keras_serializable("tests")
    class Power:
        def __init__(self, exponent):
            self.exponent = exponent

        def __call__(self, x):
            return x**self.exponent

        def get_config(self):
            return {"exponent": self.exponent}

    assert activations.serialize(cubed)["config"] == "tests>cubed"
    assert activations.deserialize(activations.serialize(cubed)) is cubed
    assert activations.get("tests>cubed") is cubed
    written = json.loads(json.dumps(activations.serialize(Power(4))))
    assert written["registered_name"] == "tests>Power"
    assert activations.deserialize(written).exponent == 4


def test_custom_objects():
    def mine(x):
        return -x

    assert activations.deserialize("mine", custom_objects={"mine": mine}) is mine
    with custom_object_scope({"mine": mine}):
        assert activations.get("mine") is mine
    with pytest.raises(ValueError, match="mine"):
        activations.get("mine")


class WithoutConfig:
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda x: x, "lambda"),
        (nn.RReLU(), r"module RReLU.*no get_config"),
        (functools.partial(activations.leaky_relu, negative_slope=0.1), "no get_config"),
        (WithoutConfig(), "no get_config"),
    ],
)
def test_what_no_file_can_bring_back_is_refused(value, reason):
    with pytest.raises(ValueError, match=reason):
        activations.serialize(value)


def test_code_in_a_config_is_refused():
    config = {"module": "builtins", "class_name": "function", "config": {"class_name": "__lambda__"}}
    with pytest.raises(ValueError, match="lambda"):
        activations.deserialize(config)


# --- PyTorch's own ----------------------------------------------------------------------------------------------------

OF_TORCH = [function for functions in of_torch._FUNCTIONS.values() for function in functions]
MODULES = [make() for make in of_torch._MODULES.values()]


@pytest.mark.parametrize(
    "given", [*OF_TORCH, *MODULES, nn.ReLU(inplace=True)], ids=lambda one: getattr(one, "__name__", None) or repr(one)
)
def test_torchs_own_is_saved_as_what_computes_the_same(given):
    x = torch.linspace(-8, 8, 1000)
    expected = given(x.clone())
    torch.testing.assert_close(activations.deserialize(activations.serialize(given))(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("given", [nn.LeakyReLU(), nn.ELU(alpha=2.0), nn.GELU("tanh"), nn.Softmax(dim=0), nn.PReLU()])
def test_a_module_of_torch_that_no_function_equals_is_not_saved(given):
    with pytest.raises(ValueError, match="Cannot save the module"):
        activations.serialize(given)


def test_a_model_with_torchs_activations_is_saved(tmp_path):
    model = fanin.Sequential(
        [
            fanin.Input((3,)),
            fanin.layers.Dense(4, activation=torch.nn.functional.relu),
            fanin.layers.Dense(2, activation=nn.Tanh()),
            fanin.layers.Activation(torch.sigmoid),
        ]
    )
    model.save(tmp_path / "model.keras")
    x = torch.randn(5, 3)
    torch.testing.assert_close(fanin.models.load_model(tmp_path / "model.keras")(x), model(x), rtol=0, atol=0)
