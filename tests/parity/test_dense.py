"""Dense against real Keras, on random configurations: outputs, gradients, losses, configs, shapes."""

import keras
import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin

EASY = settings(derandomize=True, deadline=None, max_examples=80, phases=[Phase.generate])
SMOOTH = ["linear", "tanh", "sigmoid", "softplus", "gelu", "silu", "softmax", "elu", "selu", "relu", "softsign", "mish"]

configurations = st.fixed_dictionaries(
    {
        "units": st.integers(1, 8),
        "activation": st.sampled_from([None, *SMOOTH]),
        "use_bias": st.booleans(),
        "kernel_initializer": st.sampled_from(["glorot_uniform", "he_normal", "orthogonal", "ones"]),
        "bias_initializer": st.sampled_from(["zeros", "ones", "random_normal"]),
        "kernel_regularizer": st.sampled_from([None, "l1", "l2", "orthogonal_regularizer"]),
        "bias_regularizer": st.sampled_from([None, "l1", "l2"]),
        "activity_regularizer": st.sampled_from([None, "l1", "l2"]),
        "kernel_constraint": st.sampled_from([None, "max_norm", "non_neg", "unit_norm", "min_max_norm"]),
        "bias_constraint": st.sampled_from([None, "non_neg"]),
    }
)


def pair(arguments, shape, seed):
    """The same layer in Keras and here, with equal random weights, and an input."""
    rng = np.random.default_rng(seed)
    theirs, ours = keras.layers.Dense(**arguments), fanin.layers.Dense(**arguments)
    theirs.build((None, *shape[1:]))
    ours.build((None, *shape[1:]))
    values = [rng.normal(size=weight.shape).astype("float32") for weight in theirs.get_weights()]
    theirs.set_weights(values)
    ours.set_weights(values)
    return theirs, ours, rng.normal(size=shape).astype("float32")


def close(ours, theirs, bound=1e-6):
    """Within 1e-6 of the largest number: float32 products may sum in another order."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound * max(1.0, np.abs(theirs).max(initial=0.0)))


@EASY
@given(
    arguments=configurations,
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    seed=st.integers(0, 2**20),
)
def test_outputs_gradients_and_losses(arguments, shape, seed):
    if arguments["units"] == 1 and arguments["kernel_regularizer"] == "orthogonal_regularizer":
        arguments = {**arguments, "kernel_regularizer": "l2"}  # Keras divides 0 by 0
    if shape[-1] == 1 and arguments["kernel_regularizer"] == "orthogonal_regularizer":
        arguments = {**arguments, "kernel_regularizer": "l2"}
    theirs, ours, x = pair(arguments, shape, seed)
    found, expected = ours(torch.from_numpy(x)), theirs(torch.from_numpy(x))
    assert found.shape == expected.shape == (*shape[:-1], arguments["units"])
    close(found.detach(), expected.detach())
    ours_losses, their_losses = ours.losses, theirs.losses
    assert len(ours_losses) == len(their_losses)
    close(sorted(v.item() for v in ours_losses), sorted(v.item() for v in their_losses), 2e-6)
    direction = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=found.shape).astype("float32"))
    got = torch.autograd.grad((found * direction).sum() + sum(ours_losses, torch.zeros(())), ours.weights)
    want = torch.autograd.grad(
        (expected * direction).sum() + sum(their_losses, torch.zeros(())), [w.value for w in theirs.weights]
    )
    for one, other in zip(got, want, strict=True):
        close(one, other, 1e-5)


@EASY
@given(arguments=configurations, input_dim=st.integers(1, 9))
def test_configs_are_equal_but_for_what_older_versions_cannot_read(arguments, input_dim):
    theirs = keras.layers.Dense(**arguments, name="same").get_config()
    ours = fanin.layers.Dense(**arguments, name="same").get_config()
    assert theirs.pop("quantization_config") is None
    for key in ("kernel_initializer", "bias_initializer"):
        for axes in ("input_axes", "output_axes"):
            assert theirs[key]["config"].pop(axes, None) is None
    assert list(ours) == list(theirs)
    assert _floats(ours) == _floats(theirs)
    again = keras.layers.Dense.from_config(ours)
    back = fanin.layers.Dense.from_config(theirs)
    again.build((None, input_dim))
    back.build((None, input_dim))
    assert [tuple(w.shape) for w in again.weights] == [tuple(w.shape) for w in back.weights]


def _floats(config):
    """Keras rounds some factors to float32."""
    if isinstance(config, dict):
        return {key: _floats(value) for key, value in config.items()}
    return float(np.float32(config)) if isinstance(config, float) else config


@EASY
@given(
    kind=st.sampled_from(["int8", "uint8", "int32", "int64", "float64", "bool", "float16"]),
    seed=st.integers(0, 1000),
    policy=st.sampled_from(["float32", "float64", "bfloat16", "mixed_bfloat16"]),
)
def test_other_input_dtypes_and_policies(kind, seed, policy):
    theirs, ours, x = pair({"units": 3, "activation": "tanh", "dtype": policy}, (4, 5), seed)
    x = (x * 3).astype(kind)
    found, expected = ours(x), theirs(x.astype("float32"))
    assert str(found.dtype).removeprefix("torch.") == ours.compute_dtype == theirs.compute_dtype
    assert ours.dtype == theirs.variable_dtype
    kernel, bias = (weight.double().detach().numpy() for weight in ours.weights)
    x = x.astype("float64")
    # tanh is no steeper than 1, so a rounding of the sum is not enlarged; Keras's float64 product is as float32's here.
    scale = max(1.0, (abs(x) @ abs(kernel) + abs(bias)).max())
    eps = 2**-8 if "bfloat16" in policy else 2**-24
    close(found.detach().double(), expected.detach().double(), 4 * eps * scale)
    if policy == "float64":
        close(found.detach(), np.tanh(x @ kernel + bias), 4 * 2**-53 * scale)


@EASY
@given(shape=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=3), last=st.integers(1, 5))
def test_shapes_are_known_without_running(shape, last):
    full = (*shape, last)
    theirs, ours = keras.layers.Dense(4), fanin.layers.Dense(4)
    assert ours.compute_output_shape(full) == tuple(theirs.compute_output_shape(full))
    symbol = ours(fanin.Input(batch_shape=full))
    assert symbol.shape == tuple(theirs(keras.Input(batch_shape=full)).shape)
    assert ours.count_params() == theirs.count_params() == 4 * last + 4
