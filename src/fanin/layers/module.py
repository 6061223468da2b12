"""Any `torch.nn.Module` as a layer."""

from __future__ import annotations

from typing import Any

from torch import nn

from fanin.layers.base.layer import Layer
from fanin.layers.base.scope import current

_SAME_SHAPE = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Softsign, nn.Softmax, nn.LogSoftmax, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid,
    nn.Dropout, nn.AlphaDropout, nn.Identity, nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm,
)  # fmt: skip


class TorchModule(Layer):
    """A layer around an nn.Module, so that it takes part in graphs, `fit` and `summary`.

    fanin.Sequential wraps modules by itself. The module runs in train mode where the layer's call does.

    Args:
        module: the module; its weights are the layer's.
        **kwargs: name (default the module's class, in snake case) and the other arguments of a layer.

    >>> import torch
    >>> TorchModule(nn.Linear(3, 2))(torch.ones(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, module: nn.Module, **kwargs: Any):
        if not isinstance(module, nn.Module):
            raise TypeError(f"TorchModule: expected a torch.nn.Module, found {module!r}.")
        super().__init__(**kwargs)
        self.module = module
        self.built = True

    def call(self, inputs: Any) -> Any:
        """module(inputs), in the train or eval mode of this call."""
        return run_module(self.module, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Known for Linear and for modules that keep the shape.

        Others are tried on tensors without memory, or, if they decide by values, on zeros and ones.
        """
        module = self.module
        if isinstance(module, nn.Linear):
            if input_shape[-1] not in (None, module.in_features):
                raise ValueError(
                    f"Layer {self.name!r} takes a last dimension of {module.in_features}, "
                    f"found shape {tuple(input_shape)}."
                )
            return (*input_shape[:-1], module.out_features)
        if isinstance(module, _SAME_SHAPE):
            return tuple(input_shape)
        return super().compute_output_shape(input_shape)

    def _says_shape(self) -> bool:
        known = isinstance(self.module, (nn.Linear, *_SAME_SHAPE))
        return known or type(self).compute_output_shape is not TorchModule.compute_output_shape


def run_module(module: nn.Module, inputs: Any) -> Any:
    """module(inputs), in the mode that the enclosing fanin call asks for, if it asks; in a trial, in eval mode."""
    scope = current.scope
    training = None if scope is None else scope.training and not scope.trial
    if training is None or training == module.training:
        return module(inputs)
    module.train(training)
    try:
        return module(inputs)
    finally:
        module.train(not training)
