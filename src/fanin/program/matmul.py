"""What counts as a product of two matrices here, and how large one is."""

from __future__ import annotations

from typing import Any

from torch import fx

from fanin.program.effects import aten

# relu(addmm(b, x, w)) in one operation; private to torch, None where it has none
ADDMM_RELU: Any = getattr(getattr(aten, "_addmm_activation", None), "default", None)
# Their last two arguments are the factors; a bias comes first.
PRODUCTS = (aten.mm.default, aten.addmm.default, ADDMM_RELU)


def multiplications(node: fx.Node) -> int:
    """Of a product (B, I) @ (I, U): B I U."""
    factors: Any = node.args[-2:]
    x, kernel = (one.meta["val"] for one in factors)
    return int(x.shape[0] * x.shape[1] * kernel.shape[1])
