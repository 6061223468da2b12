"""Dtype policies: in which dtype a layer keeps its weights, and in which it computes.

The six names follow Keras's `DTypePolicy`: four plain dtypes, and the two mixed policies, which keep float32 weights
and compute in 16 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fanin.errors import nearest

FLOATS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
DTYPES = {
    **FLOATS,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_WITHOUT_FLOAT64 = {"mps"}  # kinds of devices
_MIXED = {"mixed_float16": torch.float16, "mixed_bfloat16": torch.bfloat16}


def as_dtype(value: str | torch.dtype | np.dtype[Any] | type) -> torch.dtype:
    """A torch dtype from a name ("float32"), a torch dtype, or a numpy dtype or type.

    Raises ValueError for anything else, naming it.
    """
    if isinstance(value, torch.dtype):
        return value
    name = value
    if not isinstance(value, str):
        try:
            name = np.dtype(value).name
        except TypeError:
            raise ValueError(f"Expected a dtype or its name, found {value!r}.") from None
    if name not in DTYPES:
        raise ValueError(f"Unknown dtype {value!r}.{nearest(name, DTYPES)}")
    return DTYPES[str(name)]


def widest_float(device: torch.device | str | None = None) -> torch.dtype:
    """The dtype of sums over many rows, and of what steps are worked out in: float64, or float32 on devices without."""
    kind = "cpu" if device is None else torch.device(device).type
    return torch.float32 if kind in _WITHOUT_FLOAT64 else torch.float64


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype without its "torch." prefix: "float32"."""
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


class DTypePolicy:
    """The dtypes of one layer: `variable_dtype` of its weights, `compute_dtype` of its arithmetic.

    Args:
        name: float16, bfloat16, float32, float64, mixed_float16 or mixed_bfloat16.

    Raises ValueError for another name. After Keras's `DTypePolicy`.

    >>> DTypePolicy("mixed_bfloat16").compute_dtype
    'bfloat16'
    """

    __slots__ = ("compute", "name", "variable")

    def __init__(self, name: str):
        if name in _MIXED:
            self.variable, self.compute = torch.float32, _MIXED[name]
        elif name in FLOATS:
            self.variable = self.compute = FLOATS[name]
        else:
            raise ValueError(f"Unknown dtype policy {name!r}.{nearest(name, [*FLOATS, *_MIXED])}")
        self.name = name

    @property
    def variable_dtype(self) -> str:
        """The name of the dtype that weights are stored in."""
        return dtype_name(self.variable)

    @property
    def compute_dtype(self) -> str:
        """The name of the dtype that the layer computes in."""
        return dtype_name(self.compute)

    def moved_to(self, dtype: torch.dtype) -> DTypePolicy:
        """The policy after `module.to(dtype)`: unchanged if its weights already have that dtype, else the plain one."""
        return self if dtype == self.variable else DTypePolicy(dtype_name(dtype))

    def get_config(self) -> dict[str, Any]:
        """Plain JSON data: {"name": ...}."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        """The policy that `get_config` described."""
        return cls(config["name"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name!r}>"


def as_policy(value: Any) -> DTypePolicy:
    """A policy from a policy, its name, a dtype (torch's or numpy's) or the config that Keras writes.

    Raises ValueError for anything else, naming it.
    """
    if isinstance(value, DTypePolicy):
        return value
    if isinstance(value, str):
        return DTypePolicy(value)
    if isinstance(value, dict):
        found = value.get("config", {}).get("name") if value.get("class_name") == "DTypePolicy" else None
        if not isinstance(found, str):
            raise ValueError(f"Expected the config of a DTypePolicy, found {value!r}.")
        return DTypePolicy(found)
    return DTypePolicy(dtype_name(as_dtype(value)))
