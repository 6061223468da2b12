"""Whole models in files, under Keras's names: `fanin.models.load_model` is `fanin.saving.load_model`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fanin.formats import archive, legacy
from fanin.models.model import Model


def save_model(model: Model, filepath: str, overwrite: bool = True) -> None:
    """As `model.save(filepath, overwrite)`."""
    model.save(filepath, overwrite=overwrite)


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model in a file: a `.keras` archive that fanin or Keras 3 wrote, or the `.h5` of Keras 1 to 3.

    Args:
        filepath: the file; what it begins with tells its format.
        custom_objects: name -> class or function, for what is not registered.
        compile: whether to compile it as it was, with the optimizer's state, so that training goes on where it stopped.
        safe_mode: kept for Keras; True and False do the same, as no code from a file ever runs.

    Raises OSError for a path that cannot be read, else a FormatError that names file and part; see `fanin.errors`.
    No code from the file runs and nothing is imported by a name in it. The global random state is left alone.
    """
    read = legacy.load_model if legacy.is_hdf5_file(filepath) else archive.load_model
    return read(filepath, custom_objects, compile)
