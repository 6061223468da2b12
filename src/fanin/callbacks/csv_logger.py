"""The numbers of each epoch in a file of comma-separated values."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable
from typing import Any

from fanin.callbacks.base import Callback, Logs


class CSVLogger(Callback):
    """Writes the numbers of each epoch as a row: epoch, then the names in alphabetical order.

    Args:
        filename: the file; its folder must exist.
        separator: one character, "," by default.
        append: whether an existing file goes on; by default it is replaced.

    Without validation there are columns for it all the same; what an epoch does not give is "NA". A row is in the file
    as soon as its epoch is over, and the file is closed in between. Appended rows follow the columns of the file;
    numbers that it has no column for are left out, with a warning. Raises ValueError for another separator, and before
    training for a file to append to that does not begin with the column "epoch". After Keras's `CSVLogger`.

    >>> import fanin, pathlib, tempfile, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.csv")
    ...     _ = model.fit(torch.ones(4, 2), torch.ones(4), epochs=2, callbacks=CSVLogger(path), verbose=0)
    ...     print([line.split(",")[0] for line in path.read_text().split()])
    ['epoch', '0', '1']
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False):
        super().__init__()
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"CSVLogger: separator must be one character, found {separator!r}.")
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self.keys: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin the file, or read which columns it has."""
        self.keys = None
        with open(self.filename, "a" if self.append else "w", encoding="utf-8"):
            pass  # a file that cannot be written to fails now, not after an epoch
        with open(self.filename, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file, delimiter=self.sep), [])
        if header and header[0] != "epoch":
            raise ValueError(
                f"CSVLogger: cannot append to {self.filename!r}: expected its first column, separated by {self.sep!r}, "
                f"to be 'epoch', found {header[0]!r}."
            )
        self.keys = header[1:] if header else None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the epoch's row."""
        numbers = logs or {}
        begins = self.keys is None
        if self.keys is None:
            self.keys = _columns(numbers)
        left_out = sorted(numbers.keys() - set(self.keys))
        if left_out:
            warnings.warn(f"CSVLogger: {self.filename!r} has no column for {', '.join(left_out)}.", stacklevel=2)
        with open(self.filename, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.sep)
            if begins:
                writer.writerow(["epoch", *self.keys])
            writer.writerow([epoch, *(_shown(numbers.get(key, "NA")) for key in self.keys)])


def _columns(numbers: Logs) -> list[str]:
    """The names in order; where the first epoch had no validation, a column for each number of a later one."""
    names = sorted(numbers)
    if not any(name.startswith("val_") for name in names):
        names += [f"val_{name}" for name in names]
    return names


def _shown(value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0:
        return f'"[{", ".join(map(str, value))}]"'
    return value
