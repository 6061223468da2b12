"""The compiled prediction of any module: a snapshot, for serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fanin.kernels.rows import rows_key
from fanin.layers.base.convert import tensors_on
from fanin.layers.base.devices import device_of
from fanin.layers.base.variables import to_numpy
from fanin.program import Program
from fanin.training.prediction import FLOAT32, ArrayFunction, Prediction, array_function


class CompiledPrediction:
    """A snapshot of a module, compiled for prediction. Made by `compile_predict`.

    It has its own copies of the weights, packed where that makes products faster. So the module may be trained on;
    `refresh` takes a new snapshot.
    """

    def __init__(self, module: nn.Module, example: Any):
        self.module = module
        self._example = example
        self.refresh()

    def refresh(self) -> None:
        """Take a new snapshot of the module."""
        self._prediction = Prediction(self.module, is_snapshot=True)
        self._home = device_of(self.module)
        self._by_shape: dict[Any, ArrayFunction] = {}
        self(self._example)
        self._prediction.guard_snapshot()

    @property
    def programs(self) -> list[Program]:
        """The programs made so far, one for each shape of input; `print()` shows one, `stats()` what it costs."""
        return self._prediction.programs

    def __call__(self, x: Any) -> Any:
        """The outputs: numpy arrays for arrays, tensors for tensors."""
        found = self._by_shape.get(x.shape) if type(x) is np.ndarray and x.dtype == FLOAT32 else None
        if found is not None and rows_key() is None and x.flags.c_contiguous:
            return found(x)[0]
        given = tensors_on(x, self._home, "x")
        outputs = self._prediction(given)
        if any(isinstance(one, Tensor) for one in pytree.tree_leaves(x)):
            return outputs
        if type(x) is np.ndarray and x.dtype == FLOAT32 and self._home.type == "cpu" and rows_key() is None:
            known = self._prediction.program(given)
            if known is not None and isinstance(outputs, Tensor) and outputs.dtype != torch.bfloat16:
                self._by_shape[x.shape] = array_function(known[0])
        return pytree.tree_map(lambda one: to_numpy(one) if isinstance(one, Tensor) else one, outputs)


def compile_predict(module: nn.Module, example: Any) -> CompiledPrediction:
    """Compile a module for prediction.

    Args:
        module: any module; eval mode and no gradients are used, whatever its mode.
        example: an input, tensor or array (B, ...), or a structure of them. Inputs of other shapes get programs of
            their own when they first come.

    Returns a function of inputs like `example`: arrays give arrays, tensors give tensors.

    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    >>> predict = compile_predict(module, torch.zeros(1, 3))
    >>> predict(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """
    return CompiledPrediction(module, example)
