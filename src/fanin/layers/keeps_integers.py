"""Layers that move or join numbers and compute nothing."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from fanin.graph.symbolic import symbols_in
from fanin.layers.base.layer import Layer


class KeepsIntegers(Layer):
    """A layer that hands integers on as integers; floats get the compute dtype, as in every layer."""

    def _output_specs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        spec = super()._output_specs(args, kwargs)
        joined = functools.reduce(torch.promote_types, [symbol.dtype for symbol in symbols_in(args[0])])
        return spec if joined.is_floating_point or self.casts_integers else replace(spec, dtype=joined)
