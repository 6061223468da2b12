"""Every exception that fanin defines, in one tree.

::

    EagerLayerError(RuntimeError, AttributeError)   a graph question to a layer that was only called on real tensors
    NotYetError(RuntimeError, ValueError, AttributeError)   a property without a value yet: not called, not compiled
    SymbolicValueError(TypeError)                   a symbolic tensor used where only a number can go (`if x:`)
    NotTraceableError(RuntimeError)                 a step that cannot be compiled; it then runs eagerly
    DataError(ValueError)                           data or labels that cannot be trained on, row named
    FormatError(ValueError)                         a file that cannot be read; names file and member
    +-- UnsafeError                                 it asks for code or for other files
    +-- CorruptError                                bytes do not say what the format says
    +-- TooLargeError                               it asks for more memory than its size or the limit justifies
    +-- MismatchError                               it does not fit the model, or names what fanin lacks
    +-- VersionError                                it was written by a format newer than this release

Everything else is a ValueError, TypeError or RuntimeError with a message that names the layer, the argument, and
what was found against what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EagerLayerError(RuntimeError, AttributeError):
    """A layer that was only ever called on real tensors was asked about its graph.

    A RuntimeError, as TensorFlow 1.4 documents it, and an AttributeError, so that `hasattr` and `inspect` work.
    """


class NotYetError(RuntimeError, ValueError, AttributeError):
    """A property has no value yet: its layer was never called, or its model is not compiled.

    An AttributeError, so that `hasattr`, `inspect` and `torch.jit.trace`, which read every property, work.
    """


class SymbolicValueError(TypeError):
    """A symbolic tensor has no value yet: it cannot decide an `if`, become a number or an array."""


class NotTraceableError(RuntimeError):
    """A computation cannot be compiled as one straight line: it depends on values, or changes what Python keeps."""


class DataError(ValueError):
    """Training data that would spoil the weights: not finite, out of range, or of the wrong length or shape."""


class FormatError(ValueError):
    """A file cannot be read. Nothing was loaded or changed."""


class UnsafeError(FormatError):
    """The file asks for code to run, or for another file to be read."""


class CorruptError(FormatError):
    """The file does not hold what its format promises."""


class TooLargeError(FormatError):
    """The file asks for more memory than its size, or the limit, justifies."""


class MismatchError(FormatError):
    """The file does not fit the model, or holds what fanin does not know."""


class VersionError(FormatError):
    """The file was written by a newer format than this release reads."""


def nearest(name: object, known: Iterable[str], count: int = 3) -> str:
    """Say which known names come close to `name`: " Did you mean 'relu', 'elu'?", or list a few of them.

    Returns a sentence with a leading space, ready to append to an error message.
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name).lower(), names, n=count, cutoff=0.5)
    if close:
        return " Did you mean " + ", ".join(repr(c) for c in close) + "?"
    shown = ", ".join(repr(n) for n in names[:40])
    return f" Known names: {shown}." if names else ""
