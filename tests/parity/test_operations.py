"""Keras's operations and torch's functions in one graph format: each row in both directions, against real Keras.

Both libraries call the same kernels of torch; what differs is how a formula is put together: some roundings of float32.
"""

from __future__ import annotations

import json
import os
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import ops
from torch.nn import functional

import fanin

RANDOM = settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=40)
ROWS = 5
SHAPES = {"x": (4,), "y": (4,), "z": (3, 4), "i": (4,), "b": (4,)}
DTYPES = {"i": "int32", "b": "bool"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors:UserWarning"),  # by Keras's CountNonzero
    pytest.mark.filterwarnings("ignore:Tensor.T is deprecated:UserWarning"),
]


def symbols(lib):
    return {name: lib.Input(shape, dtype=DTYPES.get(name, "float32")) for name, shape in SHAPES.items()}


def data():
    numbers = np.random.default_rng(3)
    found = {name: numbers.normal(size=(ROWS, *shape)).astype("f4") for name, shape in SHAPES.items()}
    found["x"][0, 0] = found["y"][0, 1] = found["y"][0, 0] = 0.0
    return {**found, "i": numbers.integers(0, 4, (ROWS, 4)).astype("i4"), "b": found["x"] > 0}


def model_of(lib, make):
    """A model of all the symbols and of what is made of them."""
    given = symbols(lib)
    made = make(**given)
    return lib.Model(list(given.values()), [*made] if isinstance(made, (list, tuple)) else [made])


def outputs(model):
    found = model([torch.as_tensor(array) for array in data().values()])
    return [keras.ops.convert_to_numpy(value) for value in (found if isinstance(found, (list, tuple)) else [found])]


def entry(path):
    """The last operation in the archive."""
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    return [layer for layer in layers if layer["class_name"] != "InputLayer"][-1]


def agree(model, other):
    for one, two in zip(outputs(model), outputs(other), strict=True):
        assert one.shape == two.shape
        assert one.dtype.kind == two.dtype.kind  # integers are of 64 bits here, of 32 in Keras
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)


def round_trip(tmp_path, model, load, back):
    """Written by one library, read and written by the other, read by the first."""
    first, second = str(tmp_path / "first.keras"), str(tmp_path / "second.keras")
    model.save(first)
    other = load(first)
    agree(model, other)
    other.save(second)
    agree(model, back(second))
    return entry(first), entry(second)


# --- what people write with torch -------------------------------------------------------------------------------------

WRITTEN = {
    "Absolute": [lambda x, **_: abs(x), lambda x, **_: x.absolute()],
    "Add": [
        lambda x, y, **_: x + y, lambda x, **_: 1 + x, lambda x, **_: torch.ones(4) + x,
        lambda x, **_: x + np.arange(4, dtype="f4"), lambda x, i, **_: torch.add(input=x, other=i),
    ],
    "All": [lambda b, **_: b.all(), lambda b, **_: torch.all(b, dim=1, keepdim=True)],
    "Any": [lambda b, **_: b.any(-1), lambda z, **_: torch.any(z > 1, dim=(1, 2))],
    "Arctan2": [lambda x, y, **_: torch.atan2(x, y)],
    "Argmax": [lambda x, **_: x.argmax(1), lambda z, **_: torch.argmax(z, -1, keepdim=True)],
    "Argsort": [lambda x, **_: x.argsort(1)],
    "Cast": [lambda x, **_: x.double(), lambda b, **_: b.float(), lambda x, **_: x.to(torch.int32),
             lambda i, **_: i.bool()],
    "Celu": [lambda x, **_: functional.celu(x, 0.5)],
    "Clip": [lambda x, **_: x.clamp(-0.5, 1), lambda x, **_: torch.clip(x, min=0.0, max=0.5),
             lambda x, **_: functional.hardtanh(x, -0.5, 2.0)],
    "Concatenate": [lambda x, y, **_: torch.cat([x, y], -1), lambda z, **_: torch.concat((z, z), dim=1)],
    "Copy": [lambda x, **_: x.clone()],
    "CountNonzero": [lambda i, **_: torch.count_nonzero(i, dim=1)],
    "Cumsum": [lambda x, **_: x.cumsum(1)],
    "Einsum": [lambda x, z, **_: torch.einsum("bj,bij->bi", x, z)],
    "Elu": [lambda x, **_: functional.elu(x, 0.7)],
    "Equal": [lambda x, **_: x == 0, lambda x, **_: x == torch.zeros(4)],
    "Exp": [lambda x, **_: x.exp()],
    "ExpandDims": [lambda x, **_: x.unsqueeze(1), lambda z, **_: torch.unsqueeze(z, -2)],
    "Flip": [lambda z, **_: z.flip(1), lambda z, **_: torch.flip(z, [1, 2])],
    "FloorDivide": [lambda x, **_: x // 0.3, lambda x, **_: torch.full((4,), 2.0) // (1 + abs(x))],
    "FullLike": [lambda x, **_: torch.full_like(x, 3.0)],
    "Gelu": [lambda x, **_: functional.gelu(x), lambda x, **_: functional.gelu(x, approximate="tanh")],
    "GetItem": [
        lambda x, **_: x[:, 0], lambda z, **_: z[:, 1:3], lambda z, **_: z[..., ::2], lambda x, **_: x[:, None],
        lambda z, **_: z[:, -1, 1:], lambda x, **_: x[1], lambda x, **_: x[None], lambda x, **_: x[1:3],
        lambda z, **_: z[:, 2, ..., 0],
    ],
    "Glu": [lambda x, **_: functional.glu(x)],
    "Greater": [lambda x, y, **_: x > y, lambda x, **_: 0.5 < x],  # noqa: SIM300
    "GreaterEqual": [lambda x, **_: x >= 0.0],
    "HardTanh": [lambda x, **_: functional.hardtanh(x)],
    "LeakyRelu": [lambda x, **_: functional.leaky_relu(x), lambda x, **_: functional.leaky_relu(x, 0.3)],
    "Less": [lambda x, y, **_: x < y],
    "LessEqual": [lambda x, y, **_: torch.le(x, y)],
    "LogSigmoid": [lambda x, **_: functional.logsigmoid(x)],
    "LogSoftmax": [lambda x, **_: x.log_softmax(-1)],
    "Logaddexp": [lambda x, y, **_: torch.logaddexp(x, y)],
    "LogicalAnd": [lambda x, b, **_: b & (x < 1), lambda b, **_: torch.logical_and(b, b)],
    "LogicalNot": [lambda b, **_: ~b],
    "LogicalOr": [lambda x, b, **_: b | (x < -1)],
    "LogicalXor": [lambda x, b, **_: b ^ (x < 1)],
    "Logsumexp": [lambda x, **_: torch.logsumexp(x, 1, keepdim=True)],
    "Matmul": [lambda x, **_: x @ torch.ones(4, 2), lambda z, **_: torch.bmm(z, z.mT),
               lambda x, **_: torch.mm(x, torch.ones(4, 3))],
    "Max": [lambda x, **_: x.max(), lambda x, **_: torch.max(input=x, dim=1)[0], lambda x, **_: torch.max(x, 1).values,
            lambda z, **_: z.amax((1, 2))],
    "Maximum": [lambda x, y, **_: torch.maximum(x, y), lambda x, y, **_: torch.max(x, y),
                lambda x, **_: x.clamp(min=0.1)],
    "Mean": [lambda x, **_: x.mean(), lambda z, **_: z.mean((1, 2)),
             lambda x, **_: torch.mean(x, dim=-1, keepdim=True)],
    "Min": [lambda x, **_: x.min(1)[0]],
    "Minimum": [lambda x, **_: x.clamp_max(0.2), lambda x, y, **_: x.minimum(y)],
    "Mish": [lambda x, **_: functional.mish(x)],
    "Mod": [lambda x, **_: x % 0.7],
    "Moveaxis": [lambda z, **_: torch.movedim(z, 1, 2)],
    "Multiply": [lambda x, **_: 2.0 * x, lambda x, y, **_: x.mul(y)],
    "NanToNum": [lambda x, y, **_: torch.nan_to_num(x / y, posinf=2.0)],
    "Negative": [lambda x, **_: -x],
    "Norm": [lambda x, **_: x.norm(dim=1), lambda x, **_: torch.linalg.norm(x, 1, dim=-1), lambda z, **_: torch.norm(z),
             lambda x, **_: torch.linalg.vector_norm(x, 3, dim=1, keepdim=True)],
    "Normalize": [lambda x, **_: functional.normalize(x), lambda z, **_: functional.normalize(z, 3.0, dim=-1, eps=0.1)],
    "NotEqual": [lambda x, **_: x != 0.0],
    "OneHot": [lambda i, **_: functional.one_hot(i.long(), 5)],
    "OnesLike": [lambda x, **_: torch.ones_like(x), lambda x, **_: torch.ones_like(x, dtype=torch.bool)],
    "Pad": [lambda x, **_: functional.pad(x, (1, 2)), lambda z, **_: functional.pad(z, (0, 1, 2, 0))],
    "Power": [lambda x, **_: x**2, lambda x, **_: 2**x, lambda x, **_: torch.full((4,), 3.0) ** x],
    "Prod": [lambda x, **_: x.prod(1)],
    "Relu": [lambda x, **_: x.relu(), lambda x, **_: functional.relu(x), lambda x, **_: torch.relu(x)],
    "Repeat": [lambda x, **_: torch.repeat_interleave(x, 2, dim=1)],
    "Reshape": [
        lambda x, **_: x.reshape(-1, 2, 2), lambda z, **_: z.flatten(1), lambda x, **_: x.view((-1, 1, 4)),
        lambda x, **_: x.unflatten(1, (2, 2)), lambda z, **_: torch.flatten(z), lambda x, **_: x.view(-1),
    ],
    "Roll": [lambda x, **_: torch.roll(x, 1, 1)],
    "Round": [lambda x, **_: torch.round(x), lambda x, **_: x.round(decimals=1)],
    "Selu": [lambda x, **_: functional.selu(x)],
    "Sigmoid": [lambda x, **_: x.sigmoid(), lambda x, **_: functional.sigmoid(x)],
    "Silu": [lambda x, **_: functional.silu(x)],
    "Softmax": [lambda x, **_: x.softmax(-1), lambda z, **_: functional.softmax(z, dim=1)],
    "Softplus": [lambda x, **_: functional.softplus(x)],
    "Sort": [lambda x, **_: x.sort(1).values],
    "Split": [lambda x, **_: torch.split(x, 2, 1), lambda x, **_: x.chunk(3, dim=1), lambda z, **_: z.split([1, 2], 1)],
    "Sqrt": [lambda x, **_: abs(x).sqrt()],
    "Squeeze": [lambda x, **_: x[:, None].squeeze(1)],
    "Stack": [lambda x, y, **_: torch.stack([x, y], 1)],
    "Std": [lambda x, **_: x.std(1, correction=0), lambda z, **_: torch.std(z, (1, 2), unbiased=False)],
    "StopGradient": [lambda x, **_: x.detach()],
    "Subtract": [lambda x, **_: x - 1.5, lambda x, **_: 1 - x],
    "Sum": [lambda x, **_: x.sum(), lambda z, **_: z.sum((1, 2)), lambda i, **_: i.sum(1)],
    "Swapaxes": [lambda z, **_: z.transpose(1, 2), lambda z, **_: z.mT, lambda z, **_: torch.swapaxes(z, -1, 1)],
    "Take": [lambda x, **_: x[:, [0, 2, 2]], lambda i, **_: torch.arange(8.0).reshape(4, 2)[i],
             lambda z, **_: torch.index_select(z, 1, torch.tensor([2, 0]))],
    "TakeAlongAxis": [lambda x, i, **_: torch.take_along_dim(x, i.long(), 1)],
    "Tanh": [lambda x, **_: x.tanh(), lambda x, **_: functional.tanh(x)],
    "Tile": [lambda x, **_: torch.tile(x, (1, 2)), lambda z, **_: z.repeat(1, 2, 1)],
    "TopK": [lambda x, **_: x.topk(2)],
    "Transpose": [lambda z, **_: z.permute(0, 2, 1), lambda x, **_: x.T, lambda x, **_: x.t()],
    "TrueDivide": [lambda x, **_: x / 2, lambda x, **_: 1 / (1 + abs(x)), lambda i, **_: i / 4],
    "Unstack": [lambda z, **_: z.unbind(1)],
    "Var": [lambda x, **_: torch.var(x, 1, correction=0, keepdim=True)],
    "Where": [lambda x, b, **_: torch.where(b, x, 0.0), lambda x, y, b, **_: x.where(b, y),
              lambda x, b, **_: x.masked_fill(b, -9.0), lambda b, **_: torch.where(b, 1.0, 0.5)],
    "ZerosLike": [lambda x, **_: torch.zeros_like(x)],
}  # fmt: skip
CASES = [pytest.param(name, make, id=f"{name}{n}") for name, makes in WRITTEN.items() for n, make in enumerate(makes)]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_what_torch_writes_keras_reads(tmp_path, name, make):
    model = model_of(fanin, make)
    first, second = round_trip(tmp_path, model, keras.saving.load_model, fanin.saving.load_model)
    assert first["class_name"] == second["class_name"] == name
    assert first["module"] == second["module"]
    loaded = fanin.saving.load_model(str(tmp_path / "first.keras"))
    agree(model, loaded)
    loaded.save(tmp_path / "third.keras")
    assert entry(tmp_path / "third.keras")["class_name"] == name


def test_names_are_left_out_where_old_releases_do_not_take_them(tmp_path):
    """In Keras 3.6 a class of operations with arguments of its own, and two others, cannot be given a name."""
    x = fanin.Input((4,))
    model = fanin.Model(x, torch.trunc(x.mean(1, keepdim=True).detach() + x.exp()))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    named = {layer["class_name"] for layer in layers if "name" in layer["config"]}
    assert named == {"InputLayer", "Exp", "Add"}
    agree_on_x(model, keras.saving.load_model(str(tmp_path / "m.keras")))


def test_an_operation_without_a_name_is_no_layers_namesake(tmp_path):
    """Keras names it by its class, and two of one name are an error."""
    keras.utils.clear_session(free_memory=False)
    x = fanin.Input((4,))
    model = fanin.Model(x, fanin.layers.Dense(4, name="max")(x) + x.amax(1, keepdim=True))
    model.save(tmp_path / "m.keras")
    agree_on_x(model, keras.saving.load_model(str(tmp_path / "m.keras")))


def agree_on_x(model, other):
    x = data()["x"]
    np.testing.assert_allclose(model.predict(x, verbose=0), other.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


def test_infinite_numbers_reach_keras(tmp_path):
    x = fanin.Input((4,))
    shifted = x + torch.tensor([0.0, 1.0, -torch.inf, 2.0])
    model = fanin.Model(x, torch.where(x > 0.5, -torch.inf, shifted).softmax(-1))
    model.save(tmp_path / "m.keras")
    agree_on_x(model, keras.saving.load_model(str(tmp_path / "m.keras")))


# --- what Keras writes ------------------------------------------------------------------------------------------------

UNARY = """
    abs arccos arccosh arcsin arcsinh arctan arctanh ceil copy cos cosh exp expm1 floor isfinite isinf isnan log log10
    log1p log2 logical_not negative ravel reciprocal round sign sin sinh sqrt square tan tanh trunc erf erfinv rsqrt
    stop_gradient celu elu gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid log_softmax
    relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid squareplus
    tanh_shrink normalize all any argmax argmin count_nonzero max mean min amax amin prod sum var norm argsort flip
    nan_to_num ones_like zeros_like sort squeeze transpose
"""
BINARY = """
    add arctan2 divide divide_no_nan true_divide equal floor_divide greater greater_equal hypot less less_equal
    logaddexp logical_and logical_or logical_xor maximum minimum mod multiply not_equal power subtract
"""
READ = {
    **{name: (lambda x, name=name, **_: getattr(ops, name)(x)) for name in UNARY.split()},
    **{name: (lambda x, y, name=name, **_: getattr(ops, name)(x, y)) for name in BINARY.split()},
    "x + 1": lambda x, **_: x + 1,
    "2 * x": lambda x, **_: 2.0 * x,
    "x * array": lambda x, **_: x * np.arange(4, dtype="f4"),
    "x - tensor": lambda x, **_: x - ops.arange(4.0),
    "2 ** x": lambda x, **_: 2**x,
    "x @ tensor": lambda x, **_: x @ ops.ones((4, 2)),
    "i / 2": lambda i, **_: i / 2,
    "i + x": lambda i, x, **_: i + x,
    "~b": lambda b, **_: ~b,
    "x[:, 0]": lambda x, **_: x[:, 0],
    "x[..., None]": lambda x, **_: x[..., None],
    "z[:, 1:3, ::2]": lambda z, **_: z[:, 1:3, ::2],
    "maximum of a number": lambda x, **_: ops.maximum(0.1, x),
    "minimum with a number": lambda i, **_: ops.minimum(i, 1.5),
    "where": lambda x, i, **_: ops.where(i, x, -1.0),
    "where of numbers": lambda b, **_: ops.where(b, 1.0, 0.0),
    "mean over axes": lambda z, **_: ops.mean(z, axis=(1, 2), keepdims=True),
    "max over an axis": lambda z, **_: ops.max(z, axis=1),
    "std": lambda z, **_: ops.std(z, axis=(1, 2)),
    "logsumexp": lambda x, **_: ops.logsumexp(x, axis=-1),
    "norm": lambda x, **_: ops.norm(x, ord=1, axis=-1, keepdims=True),
    "normalize by 3": lambda x, **_: ops.normalize(x, axis=1, order=3, epsilon=0.1),
    "cumsum": lambda x, **_: ops.cumsum(x, axis=1),
    "softmax over an axis": lambda z, **_: ops.softmax(z, axis=1),
    "gelu, exact": lambda x, **_: ops.gelu(x, approximate=False),
    "leaky_relu by 0.01": lambda x, **_: ops.leaky_relu(x, 0.01),
    "threshold": lambda x, **_: ops.threshold(x, 0.1, -2.0),
    "round to 1": lambda x, **_: ops.round(x, 1),
    "clip": lambda x, **_: ops.clip(x, -0.5, 0.5),
    "cast": lambda x, **_: ops.cast(x, "int64"),
    "one_hot": lambda i, **_: ops.one_hot(i - 1, 4, axis=1),
    "one_hot of integers": lambda i, **_: ops.one_hot(i, 4, dtype="int32"),
    "concatenate": lambda x, y, **_: ops.concatenate([x, y], axis=1),
    "hstack": lambda x, y, **_: ops.hstack([x, y]),
    "vstack": lambda x, y, **_: ops.vstack([x, y]),
    "stack": lambda x, y, **_: ops.stack([x, y], axis=-1),
    "split": lambda x, **_: ops.split(x, 2, axis=-1),
    "split at places": lambda x, **_: ops.split(x, [1, 2], axis=1),
    "unstack": lambda z, **_: ops.unstack(z, axis=1),
    "reshape": lambda z, **_: ops.reshape(z, (-1, 12)),
    "expand_dims": lambda x, **_: ops.expand_dims(x, -1),
    "squeeze": lambda x, **_: ops.squeeze(ops.expand_dims(x, 1), axis=1),
    "transpose": lambda z, **_: ops.transpose(z, (0, 2, 1)),
    "reverse the axes": lambda z, **_: ops.transpose(z),
    "swapaxes": lambda z, **_: ops.swapaxes(z, 1, 2),
    "moveaxis": lambda z, **_: ops.moveaxis(z, 1, -1),
    "flip an axis": lambda z, **_: ops.flip(z, axis=2),
    "roll": lambda x, **_: ops.roll(x, 1, axis=1),
    "tile": lambda x, **_: ops.tile(x, (1, 2)),
    "repeat": lambda x, **_: ops.repeat(x, 2, axis=1),
    "pad": lambda x, **_: ops.pad(x, ((0, 0), (1, 2))),
    "take": lambda z, **_: ops.take(z, [[-1, 0], [1, 1]], axis=1),
    "take by a tensor": lambda z, i, **_: ops.take(z, i - 2, axis=-1),
    "take_along_axis": lambda x, i, **_: ops.take_along_axis(x, i - 2, axis=1),
    "einsum": lambda x, z, **_: ops.einsum("bj,bij->bi", x, z),
    "full_like": lambda x, **_: ops.full_like(x, 2.0),
    "ones_like of bool": lambda x, **_: ops.ones_like(x, dtype="bool"),
    "top_k": lambda x, **_: ops.top_k(x, 2),
    "activations.relu": lambda x, **_: keras.activations.relu(x, 0.1, 1.0, 0.2),
    "activations.swish": lambda x, **_: keras.activations.swish(x),
}


@pytest.mark.parametrize("name", READ)
def test_what_keras_writes_is_read(tmp_path, name):
    if name in ("arccosh", "log", "log2", "log10", "sqrt", "rsqrt"):
        make = lambda x, **_: getattr(ops, name)(1.5 + ops.abs(x))  # noqa: E731
    else:
        make = READ[name]
    with np.errstate(all="ignore"):
        model = model_of(keras, make)
        round_trip(tmp_path, model, fanin.saving.load_model, keras.saving.load_model)
    loaded = fanin.saving.load_model(str(tmp_path / "first.keras"))
    for one, other in zip(loaded.outputs, model.outputs, strict=True):
        assert tuple(one.shape) == tuple(other.shape)


def test_an_operation_that_is_not_known_is_named(tmp_path):
    model = model_of(keras, lambda x, **_: ops.fft((x, x)))
    model.save(tmp_path / "m.keras")
    with pytest.raises(fanin.errors.MismatchError, match=r"'FFT' \(module 'keras.src.ops.math'"):
        fanin.saving.load_model(tmp_path / "m.keras")


def test_places_that_do_not_exist_are_an_error(tmp_path):
    x, i = keras.Input((4,)), keras.Input((2,), dtype="int32")
    keras.Model([x, i], ops.take(x, i, axis=1)).save(tmp_path / "m.keras")
    loaded = fanin.saving.load_model(tmp_path / "m.keras")
    assert loaded([torch.ones(1, 4), torch.tensor([[-4, 3]])]).numel() == 2
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        loaded([torch.ones(1, 4), torch.tensor([[0, 4]])])


# --- random graphs ----------------------------------------------------------------------------------------------------

STEPS = [
    lambda lib, a, b: a + b,
    lambda lib, a, b: a * 0.5 - b,
    lambda lib, a, b: a / (1.0 + b**2),
    lambda lib, a, b: abs(a) % 0.75,
    lambda lib, a, b: (a > b) * a,
    lambda lib, a, b: a[:, 1:2] + b,
    lambda lib, a, b: a[..., None][:, :, 0],
    lambda lib, a, b: lib.layers.Dense(4, "tanh")(a),
    lambda lib, a, b: lib.layers.Concatenate()([a[:, :2], b[:, 2:]]),
    lambda lib, a, b: lib.layers.Multiply()([a, -b]),
]


def grown(lib, plan):
    """A graph in which each step takes two of the tensors before it."""
    made = [lib.Input((4,)), lib.Input((4,))]
    for step, one, other in plan:
        made.append(STEPS[step](lib, made[one % len(made)], made[other % len(made)]))
    return lib.Model(made[:2], [made[-1], made[-2] * 1.0])


@RANDOM
@given(plan=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8))
@pytest.mark.parametrize("writer", ["fanin", "keras"])
def test_random_graphs(tmp_path_factory, writer, plan):
    sides = [(fanin, fanin.saving.load_model), (keras, keras.saving.load_model)]
    (lib, _), (_, load) = sides if writer == "fanin" else sides[::-1]
    path = str(tmp_path_factory.mktemp("graphs") / "m.keras")
    model = grown(lib, plan)
    model.save(path)
    loaded = load(path)
    inputs = [data()["x"], data()["y"]]
    for one, other in zip(model.predict(inputs, verbose=0), loaded.predict(inputs, verbose=0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


ends = st.none() | st.integers(-4, 4)
parts = st.one_of(
    st.integers(-3, 2),
    st.builds(slice, ends, ends, st.none() | st.integers(1, 3)),
    st.just(None),
)


@RANDOM
@given(key=st.lists(parts, min_size=1, max_size=3), place=st.integers(0, 3), dots=st.booleans())
def test_random_keys(tmp_path_factory, key, place, dots):
    """Of (B, 3, 3): as numpy takes them; the batch is taken whole."""
    axes = [part for part in key if part is not None]
    key = [*key[:place], Ellipsis, *key[place:]] if dots else key
    if len(axes) > 2:
        return
    key = (slice(None), *key)
    array = np.random.default_rng(1).normal(size=(2, 3, 3)).astype("f4")
    folder = tmp_path_factory.mktemp("keys")
    x = fanin.Input((3, 3))
    model = fanin.Model(x, x[key] * 1.0)
    model.save(folder / "m.keras")
    for load in (fanin.saving.load_model, keras.saving.load_model):
        found = load(str(folder / "m.keras"))(torch.from_numpy(array))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), array[key])
