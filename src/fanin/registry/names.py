"""How Keras turns the name of a class into that of a thing."""

from __future__ import annotations

import re


def snake_case(name: str) -> str:
    """ "GlorotUniform" -> "glorot_uniform", "L1L2" -> "l1l2", "LeakyReLU" -> "leaky_re_lu", as Keras names things."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
