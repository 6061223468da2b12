"""From the columns of a table to the numbers that a network takes in.

What was learned about the columns is plain data, so that a file can hold it without code. scikit-learn's StandardScaler
finds mean and scale (with sample weights, over missing values); its encoders of categories are not used, because their
state cannot be saved without pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array

from fanin import arguments
from fanin.errors import MismatchError

Array = np.ndarray[Any, Any]
Plain = str | int | float
Category = Plain | None  # None: the value is missing

FLOATS = (np.float64, np.float32)
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Columns:
    """What was learned about the columns of a table with I columns.

    ::

        a number x        (x - shift) / scale, with `fill` in the place of a missing x
        `incomplete`      one more column for numbers that were missing somewhere: 1 where x is missing
        a category c      one column of 0 and 1 for each known value; none of them is 1 for any other value

    Attributes:
        numbers: the places of the columns of numbers, in order.
        shift, scale, fill: one number for each of them.
        incomplete: which of them had missing values, as positions within `numbers`.
        categories: the other columns: place -> values, None among them if some were missing.
        dtype: "float32" or "float64", that of the result.
    """

    numbers: tuple[int, ...]
    shift: Array
    scale: Array
    fill: Array
    incomplete: tuple[int, ...]
    categories: Mapping[int, Sequence[Category]]
    dtype: str

    @property
    def width(self) -> int:
        """The number of columns of the result."""
        return len(self.numbers) + len(self.incomplete) + sum(map(len, self.categories.values()))

    def transform(self, table: Any) -> Array:
        """(B, I) -> (B, width), without missing values."""
        result = np.zeros((len(table), self.width), self.dtype)
        x = read_numbers(table, self.numbers)
        missing = np.isnan(x)
        at = len(self.numbers)
        np.subtract(np.where(missing, self.fill, x), self.shift, out=result[:, :at], casting="same_kind")
        result[:, :at] /= self.scale
        result[:, at : at + len(self.incomplete)] = missing[:, list(self.incomplete)]
        at += len(self.incomplete)
        for place, values in self.categories.items():
            known = codes(column(table, place), values)
            rows = np.flatnonzero(known >= 0)
            result[rows, at + known[rows]] = 1
            at += len(values)
        return result

    def get_config(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "numbers": list(self.numbers),
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "fill": self.fill.tolist(),
            "incomplete": list(self.incomplete),
            "categories": [[place, list(values)] for place, values in self.categories.items()],
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config: Any, count: int) -> Columns:
        """What `get_config` described, for a table with `count` columns; else a MismatchError."""
        keys = ("numbers", "shift", "scale", "fill", "incomplete", "categories", "dtype")
        if not isinstance(config, dict) or sorted(config) != sorted(keys) or config["dtype"] not in DTYPES:
            raise MismatchError(f"columns: expected an object of {', '.join(keys)}, with a dtype of {DTYPES}.")
        known, given = config["numbers"], config["categories"]
        categories = {place: values for place, values in given}  # noqa: C416 - pairs, or an error
        places, incomplete = [*known, *categories], config["incomplete"]
        each_once = len(places) == count and {type(place) for place in [*places, *incomplete]} == {int}
        if not each_once or sorted(places) != list(range(count)):
            raise MismatchError(f"columns: expected each of {count} places once, found {str(places)[:80]}.")
        for place, values in categories.items():
            plain = isinstance(values, list) and all(value is None or isinstance(value, Plain) for value in values)
            if not plain or not values or len(set(values)) != len(values):
                raise MismatchError(
                    f"columns: expected different values of category {place}, found {str(values)[:80]}."
                )
        if incomplete != sorted(set(incomplete)) or not set(incomplete) <= set(range(len(known))):
            raise MismatchError(
                f"columns: incomplete must be places among {len(known)} numbers, found {str(incomplete)[:80]}."
            )
        shift, scale, fill = (
            checked_numbers(config[key], f"columns: {key}", len(known)) for key in ("shift", "scale", "fill")
        )
        if not (scale > 0).all():
            raise MismatchError("columns: every scale must be positive.")
        return cls(tuple(known), shift, scale, fill, tuple(incomplete), categories, config["dtype"])


def checked_numbers(values: Any, what: str, count: int | None = None) -> Array:
    """A list of `count` numbers as an array, else a MismatchError."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise MismatchError(f"{what}: expected a list of numbers, found {str(values)[:80]}.")
    if count is not None and len(values) != count:
        raise MismatchError(f"{what}: expected {count} numbers, found {len(values)}.")
    return np.asarray(values, dtype=np.float64)


def learn(
    table: Any,
    weight: Array | None = None,
    standardize: bool = True,
    categorical: Iterable[Any] | None = None,
    most: int | None = None,
    dtype: str | None = None,
) -> Columns:
    """The `Columns` of a table.

    Args:
        table: an array of floats or a DataFrame, (B, I).
        weight: the weight of each row, (B,).
        standardize: whether numbers get mean 0 and variance 1; a missing one becomes the mean in either case.
        categorical: names or places of columns of numbers that are categories. Other columns are always.
        most: how many values of a category are told apart: the most frequent ones.
        dtype: of the result; None for that of the numbers.

    Raises ValueError for a wrong `most`, for unknown names and places, and for a column that is neither numbers nor
    categories, such as one of dates.
    """
    if most is not None and not arguments.is_whole(most, 1):
        raise ValueError(f"max_categories must be a positive integer or None, found {most!r}.")
    chosen = _places(table, () if categorical is None else categorical)
    kinds = _kinds(table)
    numbers = tuple(place for place, kind in enumerate(kinds) if kind in "biuf" and place not in chosen)
    for place, kind in enumerate(kinds):
        if kind not in "biufOU":
            raise ValueError(
                f"Column {_name(table, place)!r} holds {column(table, place).dtype}: turn it into numbers, strings or "
                "categories first."
            )
    x = read_numbers(table, numbers)
    mean, scale = mean_and_scale(x, weight)
    none = np.zeros_like(mean)
    categories = {
        place: _frequent(column(table, place), weight, most) for place in range(len(kinds)) if place not in numbers
    }
    return Columns(
        numbers,
        shift=mean if standardize else none,
        scale=scale if standardize else none + 1,
        fill=mean,
        incomplete=tuple(int(place) for place in np.flatnonzero(np.isnan(x).any(axis=0))),
        categories=categories,
        dtype=dtype or x.dtype.name,
    )


def mean_and_scale(x: Array, weight: Array | None) -> tuple[Array, Array]:
    """Weighted mean and standard deviation (1 where it is 0) of each column of x (B, F); 0 and 1 without any value."""
    if not x.shape[1]:
        return np.zeros(0), np.ones(0)
    empty = np.isnan(x).all(axis=0)
    scaler = StandardScaler().fit(np.where(empty, 0.0, x), sample_weight=weight)
    return scaler.mean_, scaler.scale_


def is_frame(table: Any) -> bool:
    """Whether this is a pandas DataFrame, which has columns of different kinds."""
    return hasattr(table, "iloc") and getattr(table, "ndim", 0) == 2


def column(table: Any, place: int) -> Any:
    """One column of an array or DataFrame."""
    return table.iloc[:, place] if is_frame(table) else table[:, place]


def read_numbers(table: Any, places: Sequence[int]) -> Array:
    """Columns of numbers as floats, NaN where one is missing. ValueError for infinity and for what is no number."""
    if not is_frame(table):
        return np.asarray(table[:, list(places)])
    if not places:
        return np.empty((len(table), 0))
    found: Array = check_array(table.iloc[:, list(places)], dtype=FLOATS, ensure_all_finite="allow-nan", input_name="X")
    return found


def codes(values: Any, known: Sequence[Category]) -> Array:
    """For each value its position among the known ones, or -1."""
    numbered, distinct = _factorized(values)
    position = {value: at for at, value in enumerate(known)}
    found = [position.get(_plain(value), -1) for value in distinct]
    return np.asarray([*found, position.get(None, -1)])[numbered]


def _factorized(values: Any) -> tuple[Array, Iterable[Any]]:
    """For each value the number of its kind, -1 where it is missing; and the kinds."""
    if hasattr(values, "factorize"):
        return values.factorize()  # type: ignore[no-any-return]
    distinct, numbered = np.unique(values, return_inverse=True)
    return np.where(np.isnan(values), -1, numbered), distinct


def _plain(value: Any) -> Category:
    """A value as JSON has it; True == 1 == 1.0 stay equal, and what JSON lacks (an interval) becomes its string."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, Plain) else str(value)


def _frequent(values: Any, weight: Array | None, most: int | None) -> list[Category]:
    """The most frequent values of a column, missing ones counted as None, in the order of their names."""
    numbered, distinct = _factorized(values)
    kinds = [*map(_plain, distinct), None]
    counts = np.bincount(np.where(numbered < 0, len(kinds) - 1, numbered), weight, minlength=len(kinds))
    found = [at for at in np.argsort([str(kind) for kind in kinds], kind="stable") if counts[at] > 0]
    kept = sorted(found, key=lambda at: -counts[at])[:most]
    return [kinds[at] for at in found if at in set(kept)]


def _kinds(table: Any) -> list[str]:
    """numpy's letter for the kind of each column: b, i, u, f for numbers, O or U for categories."""
    return [dtype.kind for dtype in table.dtypes] if is_frame(table) else ["f"] * table.shape[1]


def _name(table: Any, place: int) -> Any:
    return table.columns[place] if is_frame(table) else place


def _places(table: Any, chosen: Iterable[Any]) -> set[int]:
    """Names and places of columns as places."""
    names = list(table.columns) if is_frame(table) else []
    found = set()
    for item in chosen:
        is_place = arguments.is_whole(item, 0) and item < table.shape[1]
        if item not in names and not is_place:
            known = f"names of {names} or " if names else ""
            raise ValueError(
                f"categorical_features: expected {known}places from 0 to {table.shape[1] - 1}, found {item!r}."
            )
        found.add(names.index(item) if item in names else int(item))
    return found
