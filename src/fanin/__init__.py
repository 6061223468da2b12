"""fanin: Keras's Dense layer and its whole contract, native on PyTorch.

Keras's import paths work: `fanin.layers.Dense`, `fanin.Sequential`, `fanin.Input`, `fanin.optimizers.Adam`. A layer is
an ordinary `torch.nn.Module`, and any `torch.nn.Module` is a layer.
"""

from typing import TYPE_CHECKING

from fanin import (
    activations,
    adapters,
    backend,
    callbacks,
    config,
    constraints,
    errors,
    initializers,
    kernels,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    optimizers,
    regularizers,
    saving,
    utils,
)
from fanin.attach import attach
from fanin.constraints import constrain
from fanin.dtypes import DTypePolicy
from fanin.graph import SymbolicTensor
from fanin.initializers import Initializer
from fanin.layers import Input, InputSpec, Layer
from fanin.layers.base.scope import collect_losses
from fanin.losses import Loss
from fanin.metrics import Metric
from fanin.missing_names import explain
from fanin.models import Model, Sequential
from fanin.optimizers import Optimizer
from fanin.regularizers import Regularizer, penalty, regularize
from fanin.training.compile_step import compile_step
from fanin.training.prediction import compile_predict

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)

__version__ = "0.1.0"

__all__ = [
    "DTypePolicy",
    "Initializer",
    "Input",
    "InputSpec",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "SymbolicTensor",
    "__version__",
    "activations",
    "adapters",
    "attach",
    "backend",
    "callbacks",
    "collect_losses",
    "compile_predict",
    "compile_step",
    "config",
    "constrain",
    "constraints",
    "errors",
    "initializers",
    "kernels",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "optimizers",
    "penalty",
    "regularize",
    "regularizers",
    "saving",
    "utils",
]
