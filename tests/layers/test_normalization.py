"""Normalization: statistics taken from data of every form, against numpy in float64."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

import fanin
from fanin.errors import DataError
from fanin.layers import Dense, Input, Normalization, normalization

EASY = settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
X = np.random.default_rng(0).normal(5, 3, (40, 3)).astype("f4")


def check(layer, x=X):
    """That the layer normalizes X by X's own statistics. Three float32 roundings, and that of the mean."""
    exact = x.astype("f8")
    np.testing.assert_allclose(layer.mean, exact.mean(0), rtol=1e-7)
    np.testing.assert_allclose(layer.variance, exact.var(0), rtol=1e-7)
    np.testing.assert_allclose(layer(x), (exact - exact.mean(0)) / exact.std(0), rtol=1e-6, atol=1e-6)


FORMS = {
    "array": lambda x: x,
    "tensor": torch.from_numpy,
    "float64": lambda x: x.astype("f8"),
    "batches": lambda x: [x[:7], x[7:8], x[8:]],
    "empty batches": lambda x: [x[:0], x[:7], x[7:], x[:0]],
    "generator": lambda x: (torch.from_numpy(part) for part in np.split(x, [9, 11])),
    "pairs": lambda x: [(part, np.zeros(len(part))) for part in np.split(x, [9, 11])],
    "loader": lambda x: DataLoader(TensorDataset(torch.from_numpy(x), torch.zeros(len(x))), batch_size=7, shuffle=True),
    "loader without targets": lambda x: DataLoader(torch.from_numpy(x), batch_size=7),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("built", [False, True])
def test_adapt_to_data_of_every_form(form, built):
    layer = Normalization()
    if built:
        layer.build((None, 3))
    layer.adapt(FORMS[form](X))
    check(layer)
    layer.adapt(FORMS[form](2 * X))  # in place of the first, not added to it
    check(layer, 2 * X)


def test_large_arrays_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(normalization, "_CHUNK", 10)
    layer = Normalization()
    assert [len(part) for part in layer._batches(X)] == [3] * 13 + [1]
    layer.adapt(X)
    check(layer)
    rows = Normalization(axis=0)
    rows.adapt(X)
    np.testing.assert_allclose(rows.mean, X.mean(1), rtol=1e-6)


@EASY
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_any_axes_in_any_number_of_batches(data, seed):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    signed = [axis - data.draw(st.sampled_from([0, len(shape)])) for axis in axes]
    given_axis = data.draw(st.sampled_from([signed, tuple(signed), *signed[:1]])) if signed else None
    axes = tuple(sorted(a % len(shape) for a in ([given_axis] if isinstance(given_axis, int) else given_axis or ())))
    batches = np.random.default_rng(seed).normal(3, 2, (data.draw(st.integers(1, 3)), *shape))
    layer = Normalization(axis=given_axis, dtype="float64")
    layer.adapt(list(batches))
    others = (0, *(axis + 1 for axis in range(len(shape)) if axis not in axes))
    mean, variance = batches.mean(others), batches.var(others)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.variance, variance, rtol=1e-10, atol=1e-15)
    spread = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    deviation = np.maximum(np.sqrt(variance), 1e-7).reshape(spread)
    expected = (batches[0] - mean.reshape(spread)) / deviation
    np.testing.assert_allclose(layer(batches[0]), expected, rtol=1e-6, atol=1e-8)
    known = Normalization(axis=given_axis, mean=mean, variance=variance, dtype="float64")
    np.testing.assert_allclose(known(batches[0]), expected, rtol=1e-6, atol=1e-8)
    back = Normalization(axis=given_axis, mean=mean, variance=variance, invert=True, dtype="float64")
    np.testing.assert_allclose(back(expected), batches[0], rtol=1e-9)


def test_the_sum_over_batches_keeps_float64_of_a_large_mean():
    x = np.random.default_rng(0).normal(0, 1e-3, (100_000, 2)) + 1000
    layer = Normalization(dtype="float64")
    layer.adapt(np.array_split(x, 999))
    np.testing.assert_allclose(layer.variance, x.var(0), rtol=1e-8)


def test_before_adapting_it_changes_nothing():
    layer = Normalization()
    assert torch.equal(layer(torch.from_numpy(X)), torch.from_numpy(X))
    assert [(name, tuple(w.shape), w.dtype) for name, w in layer.named_buffers()] == [
        ("mean", (3,), torch.float32),
        ("variance", (3,), torch.float32),
        ("count", (), torch.int32),
    ]
    assert layer.trainable_weights == []
    assert len(layer.weights) == 3


def test_given_values_are_no_weights():
    layer = Normalization(mean=[1.0, 2.0, 3.0], variance=np.array([4, 4, 4]))
    np.testing.assert_allclose(layer(X), (X - [1, 2, 3]) / 2, rtol=1e-6)
    assert layer.weights == []
    assert layer.state_dict() == {}
    assert copy.deepcopy(layer).double().mean.dtype == torch.float64
    with pytest.raises(ValueError, match="has its mean and variance from its arguments: it cannot adapt"):
        layer.adapt(X)
    assert Normalization(mean=3.0, variance=2.0)(X).shape == X.shape
    twin = Normalization.from_config(layer.get_config())
    assert torch.equal(twin(X), Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0] * 3)(X))


def test_what_rows_taught_holds_for_sequences_of_them():
    layer = Normalization()
    layer.adapt(X)
    torch.testing.assert_close(layer(X.reshape(4, 10, 3)).reshape(40, 3), layer(X))


def test_a_constant_feature_is_not_divided_by_zero():
    layer = Normalization()
    layer.adapt(np.full((5, 2), 7.0))
    assert layer(np.array([[7.0, 7.0]])).tolist() == [[0.0, 0.0]]


def test_a_model_adapts_copies_and_goes_on():
    layer = Normalization()
    model = fanin.Sequential([Input((3,)), layer, Dense(2)])
    before = model.predict(X, verbose=0)
    layer.adapt(X)
    after = model.predict(X, verbose=0)
    assert np.abs(after - before).max() > 0.1
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        check(twin)
    fresh = Normalization()
    fresh.load_state_dict(layer.state_dict())
    check(fresh)
    assert layer.compute_mask(X, mask := torch.ones(40)) is mask


def test_float32_data_is_not_rounded_to_16_bits_first():
    layer = Normalization(dtype="mixed_bfloat16")
    x = X + np.float32(1000)
    layer.adapt(x)
    for given_x in (x, torch.from_numpy(x)):
        y = layer(given_x)
        assert y.dtype == torch.bfloat16
        exact = x.astype("f8")
        expected = (exact - exact.mean(0)) / exact.std(0)
        np.testing.assert_allclose(y.double(), expected, rtol=2**-8, atol=1e-4)


def test_a_variance_beyond_float16_still_counts():
    layer = Normalization(mean=0.0, variance=1e6, axis=None, dtype="mixed_float16")
    y = layer(torch.tensor([[2000.0, -500.0]], dtype=torch.float16))
    assert y.dtype == torch.float16
    assert y.tolist() == [[2.0, -0.5]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integers(dtype):
    x = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    layer = Normalization()
    layer.adapt(x)
    np.testing.assert_allclose(layer(x), (x - x.mean(0)) / x.std(0), rtol=1e-6)


# --- refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.ones((0, 3)), ValueError, "the data to adapt to is empty"),
        ([], ValueError, "the data to adapt to is empty"),
        (np.array([[1.0, np.nan, 2.0]]), DataError, "holds NaN or Inf"),
        ([X, X * np.float32(np.inf)], DataError, "holds NaN or Inf"),
        ([X, X[:, :2]], ValueError, "expected axis -1 to have size 3, found 2"),
        (X[:, :2], ValueError, "expected axis -1 to have size 3, found 2"),
        (np.float32(1.0), ValueError, "axis -1 does not exist in an input of rank 0"),
        ([[1.0, 2.0, 3.0]], TypeError, "takes batches that are arrays, found 1.0"),
        (3, TypeError, "takes an array or batches of them, found 3"),
        ("text", TypeError, "takes an array or batches of them, found 'text'"),
        (np.array([["a"]]), TypeError, "expected an array of numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_data_that_is_refused_changes_nothing(data, error, message):
    layer = Normalization(name="norm")
    layer.adapt(X)
    with pytest.raises(error, match=f"(?i)layer 'norm'.*{message}"):
        layer.adapt(data)
    check(layer)
    fresh = Normalization(name="norm")
    if message.endswith("size 3, found 2") and not isinstance(data, list):
        return  # fits a layer that is not built
    with pytest.raises(error, match=f"(?i)layer 'norm'.*{message}"):
        fresh.adapt(data)
    assert (fresh.built, fresh.weights) == (False, [])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mean": 1.0}, ValueError, "mean and variance go together, found mean=1.0 and variance=None"),
        ({"mean": [1.0, 2.0], "variance": 1.0}, ValueError, "the same shape"),
        ({"mean": [[1.0]], "variance": [[1.0]]}, ValueError, "at most 1 axes"),
        ({"mean": 1.0, "variance": -1.0}, ValueError, "variance must not be negative, found -1.0"),
        ({"mean": "a", "variance": "b"}, TypeError, "expected an array of numbers"),
        ({"axis": 1.5}, TypeError, "axis must be an integer or several, found 1.5"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"Normalization.*{message}"):
        Normalization(**arguments)


def test_shapes_that_are_refused():
    with pytest.raises(ValueError, match="'norm': axis 2 does not exist in an input of rank 2"):
        Normalization(axis=2, name="norm")(X)
    with pytest.raises(ValueError, match="'norm': the sizes of axes"):
        Normalization(name="norm").build((None, None))
    with pytest.raises(ValueError, match=r"shape \(2,\) do not broadcast to the sizes \(3,\) of axis=\(-1,\)"):
        Normalization(mean=[1.0, 2.0], variance=[1.0, 1.0])(X)
    layer = Normalization(axis=[1, -1])
    layer(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=4"):
        layer(np.ones((2, 3, 5, 4)))
