"""Columns of tables: numbers, missing values and categories, against scikit-learn's transformers."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fanin.errors import MismatchError
from fanin.sklearn.columns import Columns, learn

RANDOM = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])


def numbers(rows=50, columns=4, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (rows, columns)) * [10.0**i for i in range(columns)]
    x[rng.random(x.shape) < missing] = np.nan
    return x


@pytest.mark.parametrize("standardize", [True, False])
def test_numbers_with_missing_values(standardize):
    x, new = numbers(), numbers(seed=1)
    x[:, 2] = np.arange(50)  # complete here, not in the new rows
    found = learn(x, standardize=standardize)
    scaler = StandardScaler().fit(x)
    imputer = SimpleImputer().fit(x)
    expected = imputer.transform(new)
    expected = scaler.transform(expected) if standardize else expected
    missing = MissingIndicator(error_on_new=False).fit(x).transform(new)
    assert found.width == 4 + 3
    np.testing.assert_allclose(found.transform(new), np.hstack([expected, missing]), rtol=1e-12, atol=1e-12)
    assert not np.isnan(found.transform(new)).any()


def test_weights_count_as_repeated_rows():
    frame = pd.DataFrame(numbers(30, 2), columns=["a", "b"]).assign(c=list("abcde" * 6))
    weight = np.random.default_rng(0).integers(0, 4, 30)
    weighted = learn(frame.iloc[weight > 0], weight[weight > 0].astype(float), most=3)
    repeated = learn(frame.iloc[np.repeat(np.arange(30), weight)], most=3)
    np.testing.assert_allclose(weighted.transform(frame), repeated.transform(frame), rtol=1e-12, atol=1e-12)
    assert weighted.categories == repeated.categories


def test_constant_and_empty_columns():
    x = np.array([[1.0, np.nan, 2.0], [1.0, np.nan, 4.0]])
    found = learn(x)
    np.testing.assert_array_equal(found.transform(x), [[0, 0, -1, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(found.transform(np.array([[3.0, 5.0, 3.0]])), [[2, 5, 0, 0]])


@RANDOM
@given(st.lists(st.sampled_from(["x", "y", "zebra", ""]), min_size=1), st.lists(st.sampled_from(["x", "q", "zebra"])))
def test_categories_are_those_of_one_hot_encoding(seen, new):
    frame, later = (pd.DataFrame({"c": pd.Series(values, dtype=object)}) for values in (seen, new))
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(frame)
    found = learn(frame)
    np.testing.assert_array_equal(found.transform(frame), reference.transform(frame))
    if new:
        np.testing.assert_array_equal(found.transform(later), reference.transform(later))


@pytest.mark.parametrize(
    ("values", "later", "expected"),
    [
        (["a", None, "b", np.nan], ["b", None, "c"], [[0, 0, 1], [1, 0, 0], [0, 0, 0]]),
        (pd.Categorical([3, 1, None]), pd.Categorical([1, 2, 3]), [[1, 0, 0], [0, 0, 0], [0, 1, 0]]),
        (pd.array(["a", pd.NA], dtype="string"), ["a", "b"], [[0, 1], [0, 0]]),
        (pd.cut([1, 5, 9], [0, 4, 10]), pd.cut([2, 20], [0, 4, 10]), [[1, 0], [0, 0]]),
        ([("a", 1), ("b", 2)], [("b", 2)], [[0, 1]]),
    ],
)
def test_kinds_of_categories(values, later, expected):
    found = learn(pd.DataFrame({"c": values}))
    np.testing.assert_array_equal(found.transform(pd.DataFrame({"c": later})), expected)


@pytest.mark.parametrize(
    "values",
    [[1, 2, 3], [1.5, None, 2.0], pd.array([1, None, 3], dtype="Int64"), pd.array([True, None, False]), [True, False]],
)
def test_kinds_of_numbers(values):
    frame = pd.DataFrame({"n": values, "m": np.float32(1)})
    found = learn(frame)
    x = pd.to_numeric(pd.Series(values)).astype("Float64").to_numpy(float, na_value=np.nan)
    assert found.numbers == (0, 1)
    np.testing.assert_allclose(found.transform(frame)[:, 0], np.nan_to_num((x - np.nanmean(x)) / np.nanstd(x)))


def test_numbers_that_are_categories():
    """One value has one column, whether it comes as an int, a float beside a missing one, or a bool."""
    x = np.array([[1.0, 7.0], [2.0, 8.0], [np.nan, 9.0]])
    frame = pd.DataFrame({"a": [1, 2, None], "b": [7, 8, 9]})
    for table, chosen in [(x, [0]), (frame, ["a"]), (frame.astype({"a": "Int64"}), ["a"]), (frame, (0,))]:
        found = learn(table, categorical=chosen)
        assert found.numbers == (1,)
        np.testing.assert_array_equal(found.transform(table)[:, 1:], np.eye(3))
    found = learn(frame, categorical=["a"])
    later = pd.DataFrame({"a": [2, 1], "b": [7, 8]})
    assert later.dtypes["a"] != frame.dtypes["a"]
    np.testing.assert_array_equal(found.transform(later)[:, 1:], [[0, 1, 0], [1, 0, 0]])


def test_the_most_frequent_categories_are_kept():
    frame = pd.DataFrame({"c": ["a"] * 3 + ["b"] * 5 + ["c"] * 4 + [None]})
    assert learn(frame, most=2).categories == {0: ["b", "c"]}
    assert learn(frame).categories == {0: [None, "a", "b", "c"]}
    assert learn(frame, most=2).transform(frame).sum() == 9
    heavy = np.array([1.0] * 3 + [1.0] * 5 + [0.1] * 4 + [9.0])
    assert learn(frame, heavy, most=2).categories == {0: [None, "b"]}


@pytest.mark.parametrize(
    ("given", "asked", "expected"), [("f4", None, "f4"), ("f8", None, "f8"), ("f8", "float32", "f4")]
)
def test_dtypes(given, asked, expected):
    x = numbers(missing=0).astype(given)
    for table in (x, pd.DataFrame(x)):
        assert learn(table, dtype=asked).transform(table).dtype == expected


def test_the_table_is_left_alone():
    x = numbers()
    frame = pd.DataFrame(x.copy())
    before = x.copy()
    for table in (x, frame):
        learn(table).transform(table)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(frame.to_numpy(), before)


@pytest.mark.parametrize(
    ("frame", "chosen", "message"),
    [
        ({"d": pd.to_datetime(["2024-01-01"])}, None, "Column 'd' holds datetime64.*turn it into numbers"),
        ({"a": [1 + 2j]}, None, "Column 'a' holds complex128"),
        ({"a": [1], "b": [2]}, ["c"], r"categorical_features: expected names of \['a', 'b'\] or places .* 'c'"),
        ({"a": [1]}, [1], "places from 0 to 0, found 1"),
        ({"a": [1]}, [True], "found True"),
        ({"a": [np.inf]}, None, "infinity"),
    ],
)
def test_columns_that_are_refused(frame, chosen, message):
    with pytest.raises(ValueError, match=message):
        learn(pd.DataFrame(frame), categorical=chosen)


def test_config_and_back():
    frame = pd.DataFrame(numbers(), columns=list("abcd")).assign(e=["x", None] * 25, f=np.arange(50) % 3)
    frame["g"] = pd.cut(frame["a"], 3)
    found = learn(frame, categorical=["b", "f"], most=5)
    config = json.loads(json.dumps(found.get_config()))
    again = Columns.from_config(config, 7)
    np.testing.assert_array_equal(again.transform(frame), found.transform(frame))
    for wrong in (6, 8, 2**60):
        with pytest.raises(MismatchError, match=f"each of {wrong} places once"):
            Columns.from_config(config, wrong)
