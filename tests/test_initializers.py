"""Initializers: values, distributions, seeds, dtypes, errors, names, JSON."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch

from fanin import config, initializers
from fanin.initializers.random import Random
from fanin.registry import register_keras_serializable

CLASSES = sorted({cls.__name__ for cls in initializers.family._table.values()} - {"Initializer"})
RANDOM = [name for name in CLASSES if isinstance(getattr(initializers, name)(), Random)]


def moments_fit(x, mean, stddev, fourth=3.0):
    """Mean and variance within 5 standard errors; `fourth` is the fourth central moment over stddev^4."""
    x = x.double()
    assert abs(x.mean() - mean) < 5 * stddev / math.sqrt(x.numel())
    assert abs(x.var() - stddev**2) < 5 * stddev**2 * math.sqrt((fourth - 1) / x.numel())


# --- the same values every time ---------------------------------------------------------------------------------------


def test_deterministic_values():
    assert initializers.Zeros()((2, 2)).tolist() == [[0, 0], [0, 0]]
    assert initializers.Ones()((2,)).tolist() == [1, 1]
    assert initializers.Constant(2.5)((2,)).tolist() == [2.5, 2.5]
    assert initializers.Constant(7)(()).item() == 7
    assert initializers.Identity(2.0)((2, 3)).tolist() == [[2, 0, 0], [0, 2, 0]]
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        initializers.Identity()((2, 2, 2))


def test_constant_keeps_all_bits():
    assert initializers.Constant(0.1)((), "float64").item() == 0.1


def test_stft_is_the_fourier_basis():
    real, imag = initializers.STFT("real", None, None), initializers.STFT("imag", None, None)
    frame = torch.randn(8, dtype=torch.float64)
    spectrum = torch.complex(*(frame @ side((8, 1, 5), "float64")[:, 0] for side in (real, imag)))
    torch.testing.assert_close(spectrum, torch.fft.rfft(frame))


def test_stft_window_and_scaling():
    n, window = 10, torch.hann_window(10, periodic=True, dtype=torch.float64)
    for scaling, scale in (("density", window.square().sum().sqrt()), ("spectrum", window.abs().sum()), (None, 1.0)):
        found = initializers.STFT("real", "hann", scaling, periodic=True)((n, 1, 4), "float64")
        assert found.shape == (n, 1, 4)
        torch.testing.assert_close(found[:, 0, 0], window / scale)
    given = initializers.STFT(window=window.tolist())
    torch.testing.assert_close(given((n, 1, 4)), initializers.STFT(periodic=True)((n, 1, 4)))
    assert json.loads(json.dumps(given.get_config()))["window"] == window.tolist()


@pytest.mark.parametrize(
    "arguments", [{"side": "left"}, {"window": "han"}, {"scaling": "x"}], ids=["side", "window", "scaling"]
)
def test_stft_refuses(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments.values()))):
        initializers.STFT(**arguments)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
def test_stft_refuses_shapes(shape):
    with pytest.raises(ValueError, match="STFT makes"):
        initializers.STFT()(shape)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        initializers.STFT(window=[1.0, 2.0, 1.0])((4, 1, 3))


# --- distributions ----------------------------------------------------------------------------------------------------

SHAPE = (300, 500)


def test_random_normal():
    moments_fit(initializers.RandomNormal(1.0, 2.0)(SHAPE), 1.0, 2.0)


def test_random_uniform():
    x = initializers.RandomUniform(-1.0, 3.0)(SHAPE)
    assert x.min() >= -1
    assert x.max() <= 3
    moments_fit(x, 1.0, 4 / math.sqrt(12), fourth=1.8)


def test_truncated_normal():
    x = initializers.TruncatedNormal(1.0, 2.0)((1000, 1000))
    assert x.min() >= -3
    assert x.max() <= 5
    assert x.min() < -2.99  # the tails are there
    assert x.max() > 4.99
    moments_fit(x, 1.0, 2 * 0.87962566103423978)


@pytest.mark.parametrize("end", [0, 1])
def test_truncated_normal_never_leaves_its_bounds(monkeypatch, end):
    """Not even by rounding, at the very ends of the uniform draw that it is made from."""
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *ends, generator=None: self.fill_(ends[end]))
    for stddev in (0.01 * i for i in range(1, 400)):
        for mean in (0.0, 1.0, -3.0, 0.1):
            x = initializers.TruncatedNormal(mean, stddev)((4,), "float64")
            assert mean - 2 * stddev <= x.min()
            assert x.max() <= mean + 2 * stddev


FANS = {"fan_in": 300, "fan_out": 500, "fan_avg": 400}


@pytest.mark.parametrize("mode", FANS)
@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal", "normal"])
def test_variance_scaling(mode, distribution):
    x = initializers.VarianceScaling(3.0, mode, distribution)(SHAPE)
    stddev = math.sqrt(3.0 / FANS[mode])
    moments_fit(x, 0.0, stddev)
    if distribution == "uniform":
        assert stddev * math.sqrt(3) * 0.999 < x.abs().max() <= stddev * math.sqrt(3) * (1 + 1e-6)
    elif distribution != "untruncated_normal":
        assert x.abs().max() <= 2 * stddev / 0.87962566103423978 * (1 + 1e-6)
    else:
        assert x.abs().max() > 3 * stddev


@pytest.mark.parametrize(
    ("name", "variance", "uniform"),
    [
        ("glorot_uniform", 2 / 800, True),
        ("glorot_normal", 2 / 800, False),
        ("he_uniform", 2 / 300, True),
        ("he_normal", 2 / 300, False),
        ("lecun_uniform", 1 / 300, True),
        ("lecun_normal", 1 / 300, False),
    ],
)
def test_presets(name, variance, uniform):
    x = initializers.get(name)(SHAPE)
    moments_fit(x, 0.0, math.sqrt(variance))
    assert x.abs().max() <= math.sqrt(variance) * (math.sqrt(3) if uniform else 2 / 0.87962566103423978) * (1 + 1e-6)


def test_glorot_uniform_bound():
    limit = math.sqrt(6 / (300 + 500))
    x = initializers.GlorotUniform()(SHAPE)
    assert 0.999 * limit < x.abs().max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (2, 3, 4), (2, 2, 9)])
def test_orthogonal(shape):
    q = initializers.Orthogonal(gain=2.0)(shape, "float64").reshape(-1, shape[-1])
    product = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    torch.testing.assert_close(product, 4 * torch.eye(len(product), dtype=torch.float64))


def test_orthogonal_has_no_preferred_sign():
    corners = torch.stack([initializers.Orthogonal()((2, 2))[0, 0] for _ in range(200)])
    assert 50 < int((corners > 0).sum()) < 150  # 7 standard errors


def test_orthogonal_needs_a_matrix():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        initializers.Orthogonal()((3,))


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((), (1, 1)), ((5,), (5, 5)), ((2, 3), (2, 3)), ((3, 3, 16, 32), (144, 288)), ((0, 3), (0, 3))],
)
def test_compute_fans(shape, fans):
    assert initializers.compute_fans(shape) == fans


def test_fan_axes_count_only_together():
    assert initializers.compute_fans((2, 3, 5), input_axes=[0], output_axes=[1, 2]) == (2, 15)
    assert initializers.compute_fans((2, 3, 5), input_axes=[0]) == (6, 10)
    wide = initializers.HeUniform(input_axes=[0], output_axes=[1, 2])
    assert wide((2, 300, 5)).abs().max() > math.sqrt(6 / 600) * 1.01
    assert wide.get_config() == {"seed": None, "input_axes": [0], "output_axes": [1, 2]}


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0)])
@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "random_normal", "random_uniform", "truncated_normal"])
def test_empty_and_scalar_shapes(name, shape):
    assert initializers.get(name)(shape).shape == shape


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANDOM)
def test_seeds(name):
    cls = getattr(initializers, name)
    seeded, unseeded, shape = cls(seed=5), cls(), (6, 6)
    state = torch.get_rng_state()
    first = seeded(shape)
    assert torch.equal(first, seeded(shape))
    assert torch.equal(first, cls(seed=np.int64(5))(shape))
    assert not torch.equal(first, cls(seed=6)(shape))
    assert torch.equal(state, torch.get_rng_state())  # a seeded draw leaves the global generator alone
    assert not torch.equal(unseeded(shape), unseeded(shape))
    torch.manual_seed(3)
    again = unseeded(shape)
    torch.manual_seed(3)
    assert torch.equal(again, unseeded(shape))
    assert torch.equal(seeded.clone()(shape), first)
    assert torch.equal(copy.deepcopy(seeded)(shape), first)
    assert torch.equal(pickle.loads(pickle.dumps(seeded))(shape), first)


@pytest.mark.parametrize("seed", [1.0, "1", True, [1], torch.Generator()])
def test_seed_must_be_an_integer(seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        initializers.GlorotUniform(seed=seed)


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_integer_is_a_seed(seed):
    assert initializers.RandomNormal(seed=seed)((2,)).isfinite().all()


# --- dtypes and devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", torch.float64, None])
def test_dtypes(name, dtype):
    shape = (4, 1, 3) if name == "STFT" else (4, 3)
    x = getattr(initializers, name)()(shape, dtype)
    assert x.dtype == (torch.float32 if dtype is None else getattr(torch, str(dtype).removeprefix("torch.")))
    assert x.shape == shape
    assert x.isfinite().all()
    assert not x.requires_grad


def test_floatx_is_the_default():
    config.set_floatx("bfloat16")
    assert initializers.GlorotUniform()((2, 2)).dtype == torch.bfloat16
    assert initializers.Zeros()((2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", RANDOM)
def test_sixteen_bits_are_rounded_from_float32(name):
    draw = getattr(initializers, name)(seed=1)
    assert torch.equal(draw((5, 4), "bfloat16"), draw((5, 4)).bfloat16())


@pytest.mark.parametrize("name", RANDOM)
def test_integers_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.*int32"):
        getattr(initializers, name)()((2, 2), "int32")


@pytest.mark.parametrize("name", CLASSES)
def test_default_device(name):
    arguments = {"seed": 1} if name in RANDOM else {}
    with torch.device("meta"):
        x = getattr(initializers, name)(**arguments)((4, 1, 3) if name == "STFT" else (4, 3))
    assert x.is_meta


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.VarianceScaling(scale=0), "scale must be positive.* 0"),
        (lambda: initializers.VarianceScaling(scale=-1.0), "scale must be positive.* -1"),
        (lambda: initializers.VarianceScaling(scale=math.nan), "finite"),
        (lambda: initializers.VarianceScaling(mode="fanin"), "'fanin'.*'fan_in'"),
        (lambda: initializers.VarianceScaling(distribution="gauss"), "'gauss'.*uniform"),
        (lambda: initializers.VarianceScaling(distribution=None), "None"),
        (lambda: initializers.VarianceScaling(input_axes=0, output_axes=1), "input_axes"),
        (lambda: initializers.RandomNormal(stddev=-1.0), "stddev.*-1"),
        (lambda: initializers.TruncatedNormal(stddev=-1.0), "stddev.*-1"),
        (lambda: initializers.RandomNormal(mean=math.inf), "mean.*inf"),
        (lambda: initializers.RandomNormal(mean="a"), "mean.*'a'"),
        (lambda: initializers.RandomUniform(1.0, 0.0), "minval"),
        (lambda: initializers.Orthogonal(gain=math.nan), "gain"),
        (lambda: initializers.Zeros()((2,), "float31"), "float31"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_base_class_fills_nothing():
    with pytest.raises(NotImplementedError, match="Initializer"):
        initializers.Initializer()((2,))


# --- values given directly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(2, 3)[::-1, ::-1],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).bfloat16()),
    ],
    ids=["tensor", "array", "reversed", "fortran", "parameter"],
)
def test_values_given_directly(values):
    expected = values.detach().float() if isinstance(values, torch.Tensor) else torch.tensor(values.copy()).float()
    initializer = initializers.get(values)
    found = initializer((2, 3))
    assert torch.equal(found, expected)
    assert not found.requires_grad
    found.zero_()
    assert torch.equal(initializer((2, 3), torch.float64), expected.double())  # a copy each time
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        initializer((3, 2))
    loaded = initializers.deserialize(json.loads(json.dumps(initializers.serialize(initializer))))
    assert torch.equal(loaded((2, 3)), expected)


def test_read_only_array():
    values = np.arange(3.0)
    values.flags.writeable = False
    assert initializers.get(values)((3,)).tolist() == [0, 1, 2]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("normal", "RandomNormal"),
        ("uniform", "RandomUniform"),
        ("one", "Ones"),
        ("zero", "Zeros"),
        ("IdentityInitializer", "Identity"),
        ("STFTInitializer", "STFT"),
        ("OrthogonalInitializer", "Orthogonal"),
        ("glorot_uniform", "GlorotUniform"),
        ("variance_scaling", "VarianceScaling"),
        ("stft", "STFT"),
    ],
)
def test_aliases(alias, name):
    assert type(initializers.get(alias)) is getattr(initializers, name)


def test_get():
    assert initializers.get(None) is None
    assert type(initializers.get(initializers.HeNormal)) is initializers.HeNormal
    he = initializers.HeNormal()
    assert initializers.get(he) is he

    def mine(shape, dtype=None):
        return torch.full(shape, 3.0, dtype=dtype)

    assert initializers.get(mine) is mine
    old = {"class_name": "RandomNormal", "config": {"mean": 1.0, "stddev": 2.0, "seed": 4}}
    assert initializers.get(old).get_config() == old["config"]
    with pytest.raises(ValueError, match=r"Unknown initializer 'glorot'.*'glorot_uniform'"):
        initializers.get("glorot")
    with pytest.raises(TypeError, match="3"):
        initializers.get(3)


def test_configs_of_tensorflow_1():
    fields = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None, "dtype": "float32"}
    found = initializers.get({"class_name": "VarianceScaling", "config": fields})
    assert found.distribution == "uniform"
    assert "dtype" in fields
    assert type(initializers.get({"class_name": "Zeros", "config": {"dtype": "float32"}})) is initializers.Zeros


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.Zeros(),
        initializers.Constant(2),
        initializers.Identity(3.0),
        initializers.RandomNormal(1.0, 2.0, 3),
        initializers.RandomUniform(1.0, 2.0, 3),
        initializers.TruncatedNormal(1.0, 2.0, 3),
        initializers.VarianceScaling(2.0, "fan_out", "normal", 3),
        initializers.VarianceScaling(input_axes=(0,), output_axes=[1]),
        initializers.GlorotUniform(np.int32(3)),
        initializers.HeNormal(),
        initializers.Orthogonal(2.0, 3),
        initializers.STFT("imag", "hamming", None, True),
    ],
    ids=lambda i: type(i).__name__,
)
def test_json_round_trip(initializer):
    written = json.loads(json.dumps(initializers.serialize(initializer)))
    assert written["module"] == "keras.initializers"
    loaded = initializers.deserialize(written)
    assert type(loaded) is type(initializer)
    assert loaded.get_config() == initializer.get_config() == initializer.clone().get_config()


def test_null_axes_are_left_out():
    assert initializers.GlorotUniform().get_config() == {"seed": None}
    assert list(initializers.VarianceScaling().get_config()) == ["seed", "scale", "mode", "distribution"]


def test_registered_function_and_class():
    @register_keras_serializable("tests")
    def threes(shape, dtype=None):
        return torch.full(shape, 3.0, dtype=dtype)

    @register_keras_serializable("tests")
    class Fill(initializers.Initializer):
        def __init__(self, value, dtype="kept"):
            self.value, self.dtype = value, dtype

        def __call__(self, shape, dtype=None):
            return torch.full(shape, self.value, dtype=dtype)

        def get_config(self):
            return {"value": self.value, "dtype": self.dtype}

    assert initializers.deserialize(initializers.serialize(threes)) is threes
    loaded = initializers.deserialize(json.loads(json.dumps(initializers.serialize(Fill(4.0)))))
    assert loaded((2,)).tolist() == [4.0, 4.0]
    assert loaded.dtype == "kept"
    assert initializers.deserialize("mine", custom_objects={"mine": Fill(1.0)})((1,)).item() == 1.0
    with pytest.raises(ValueError, match="lambda"):
        initializers.serialize(lambda shape, dtype=None: torch.zeros(shape))


def test_an_unregistered_class_is_found_by_custom_objects():
    class Mine(initializers.Initializer):
        def get_config(self):
            return {}

    described = initializers.serialize(Mine())
    assert described["registered_name"] == "Mine"
    assert isinstance(initializers.deserialize(described, custom_objects={"Mine": Mine}), Mine)
    with pytest.raises(ValueError, match="Mine"):
        initializers.deserialize(described)
