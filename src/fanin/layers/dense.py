"""The Dense layer."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fanin import activations, arguments, constraints, initializers, regularizers
from fanin.activations import linear
from fanin.kernels import Full, KernelScheme, Slot
from fanin.layers.activation_modules import as_module
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import Layer, family, pure
from fanin.layers.base.lora import LowRankLayer
from fanin.layers.base.rule import Rule
from fanin.weights import CONSTRAINTS, REGULARIZERS


@family.entry()
class Dense(LowRankLayer):
    """A densely connected layer: output = activation(inputs @ kernel + bias).

    Shapes: inputs (B, ..., I) -> (B, ..., U); kernel (I, U), bias (U,). For inputs of rank above 2 the product runs
    over the last axis: (B, d0, d1) gives (B, d0, U). B batch, I input_dim, U units.

    Args:
        units: U, a positive integer.
        activation: None (linear), a name such as "relu", a callable on tensors, a layer or an nn.Module.
        use_bias: whether there is a bias; without one, `bias` is None.
        kernel_initializer: name, class, instance, config, tensor or callable(shape, dtype). The default
            glorot_uniform draws from U(-l, l), l = sqrt(6 / (I + U)).
        bias_initializer: likewise.
        kernel_regularizer: penalty on the kernel, one entry in `losses`.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the output, divided by the batch size, one entry for each call.
        kernel_constraint: applied to the kernel after each update.
        bias_constraint: applied to the bias after each update.
        lora_rank: R, as for `enable_lora`: the kernel is frozen, and two small matrices (I, R) and (R, U) train.
        lora_alpha: the scale of LoRA is lora_alpha / lora_rank; default lora_rank.
        scheme: how the kernel is stored; default `Full()`, one matrix.
        **kwargs: name, trainable, dtype, input_shape, input_dim, batch_size, batch_input_shape, weights.

    Weights: `kernel`, `bias` (the keys of `state_dict`), in the policy's `variable_dtype`. Integers and float64 are
    cast to its `compute_dtype`. Before the first call, or a known input shape, the layer has no weights to read, but an
    optimizer may already hold its parameters.

    Raises ValueError for wrong units, unknown names, an input of rank 1 or of another last dimension than the kernel's;
    TypeError for an unknown argument. After Keras's `Dense` (3.6) and TensorFlow 1.4's.

    >>> layer = Dense(32, activation="relu")
    >>> layer(torch.ones(4, 16)).shape
    torch.Size([4, 32])
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(16, 32), (32,)]
    """

    kernel_regularizer = Rule(REGULARIZERS, regularizers.get)
    bias_regularizer = Rule(REGULARIZERS, regularizers.get)
    kernel_constraint = Rule(CONSTRAINTS, constraints.get)
    bias_constraint = Rule(CONSTRAINTS, constraints.get)
    casts_integers = True
    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        *,
        scheme: KernelScheme | None = None,
        **kwargs: Any,
    ):
        units = arguments.positive("Dense: units", units)
        if kwargs.pop("quantization_config", None) is not None:
            raise ValueError("Dense: quantization_config is not supported; only None is read.")
        kwargs.setdefault("batch_input_shape", kwargs.pop("batch_shape", None))
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self.activation = activation
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self._set_scheme(scheme if scheme is not None else Full(), lora_rank, lora_alpha)
        if not self.use_bias:
            self.register_parameter("bias", None)
        self.input_spec = InputSpec(min_ndim=2)
        self.kernel_regularizer, self.bias_regularizer = kernel_regularizer, bias_regularizer
        self.kernel_constraint, self.bias_constraint = kernel_constraint, bias_constraint

    def _slots(self, input_dim: int | None) -> list[Slot]:
        """Every tensor of the layer: the scheme's, then the bias, each with its initializer."""
        kernel = [
            slot if slot.initializer is not None else replace(slot, initializer=self.kernel_initializer)
            for slot in self.scheme.slots(input_dim, self.units)
        ]
        bias = [Slot("bias", (self.units,), initializer=self.bias_initializer)] if self.use_bias else []
        late = [slot for slot in kernel if slot.late]
        return [*(slot for slot in kernel if not slot.late), *bias, *late]

    def _sizes(self) -> tuple[int, int]:
        shapes = {slot.name: tuple(getattr(self, slot.name).shape) for slot in self.scheme.slots(None, self.units)}
        return self.scheme.input_dim(shapes), self.units

    def __setattr__(self, name: str, value: Any) -> None:
        """As a layer's; `layer.activation = ...` takes all that the argument takes, and holds from the next call on."""
        if name == "activation":
            value = activations.get(value)
            if isinstance(value, nn.Module) and self._met_tensors:  # a function adds nothing
                self._forget_short_way()
            elif not isinstance(value, nn.Module):
                self._modules.pop(name, None)  # PyTorch puts no function in the place of a module
        super().__setattr__(name, value)

    def build(self, input_shape: Any) -> None:
        """Make kernel and bias for inputs (B, ..., I). ValueError where I is unknown."""
        shape = tuple(input_shape)
        if not shape or shape[-1] is None:
            raise ValueError(
                f"Layer {self.name!r}: the last dimension of the input must be known to make the kernel, found {shape}."
            )
        if self.units == 1 and self.activation in (activations.softmax, activations.log_softmax):
            warnings.warn(
                f"Layer {self.name!r}: a softmax over one unit is the same for every input, so nothing is learned. For "
                "two classes take activation='sigmoid', or two units.",
                stacklevel=2,
            )
        self._fill_all(int(shape[-1]))
        self.input_spec = InputSpec(min_ndim=2, axes={-1: int(shape[-1])})

    def _call_adds_nothing(self) -> bool:
        """Not if the activation is a module: it may have weights to build, and losses."""
        return not isinstance(self.activation, nn.Module) and super()._call_adds_nothing()

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (B, ..., I) -> (B, ..., U)."""
        tensors = self if self._plain else InCompute(self, inputs.dtype)
        outputs = self.scheme.matmul(inputs, tensors, tensors.bias)
        activation = self.activation
        return outputs if activation is linear else activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, ..., I) -> (B, ..., U)."""
        shape = tuple(input_shape)
        if len(shape) < 2:
            raise ValueError(f"Layer {self.name!r}: expected an input of rank 2 or more, found shape {shape}.")
        return (*shape[:-1], self.units)

    # --- the kernel ------------------------------------------------------------------------------------------

    @property
    def effective_kernel(self) -> torch.Tensor:
        """What the stored kernel amounts to, with its active adapter: the matrix (I, U) of the product."""
        return self._effective()

    def reset_parameters(self) -> None:
        """Draw all weights anew from their initializers, in place, as torch layers do. Nothing before build."""
        if not self.built:
            return
        with torch.no_grad():
            for slot in self._slots(self._sizes()[0]):
                weight = getattr(self, slot.name)
                weight.copy_(self._initial(slot.name, tuple(weight.shape), weight.dtype, slot.initializer))

    # --- torch.nn.Linear -------------------------------------------------------------------------------------

    @classmethod
    def from_linear(cls, linear: nn.Linear, **kwargs: Any) -> Dense:
        """A built layer with copies of a Linear's weight (U, I), transposed, and bias; `kwargs` as for Dense."""
        kwargs.setdefault("dtype", linear.weight.dtype)
        layer = cls(linear.out_features, use_bias=linear.bias is not None, **kwargs)
        layer.to(linear.weight.device)
        layer.build((None, linear.in_features))
        values = layer.scheme.pack(linear.weight.detach().t())
        with torch.no_grad():
            for name, value in values.items():
                getattr(layer, name).copy_(value)
            if linear.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    def to_linear(self) -> nn.Module:
        """A `torch.nn.Linear` with copies of the weights; with an activation, a Sequential of the two."""
        if not self.built:
            raise ValueError(f"Layer {self.name!r} is not built, so it has no weights to copy: call it once.")
        kernel = self.effective_kernel.detach()
        product = nn.Linear(kernel.shape[0], self.units, bias=self.use_bias, device=kernel.device, dtype=kernel.dtype)
        with torch.no_grad():
            product.weight.copy_(kernel.t())
            if self.bias is not None:
                product.bias.copy_(self.bias)
        return product if self.activation is linear else nn.Sequential(product, as_module(self.activation))

    # --- config and state_dict -------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain JSON data, with the keys that Keras writes. ValueError, naming the argument, for
        what no file could bring back, such as a lambda."""
        own = {
            "units": self.units,
            **self._described("activation"),
            "use_bias": self.use_bias,
            **self._described(
                "kernel_initializer",
                "bias_initializer",
                "kernel_regularizer",
                "bias_regularizer",
                "kernel_constraint",
                "bias_constraint",
            ),
        }
        return {**super().get_config(), **own, **self._lora_config()}

    def extra_repr(self) -> str:
        """Sizes, activation and name, for `print(layer)`."""
        sizes = f"{self._sizes()[0]} -> {self.units}" if self.built else f"{self.units}"
        named = getattr(self.activation, "__name__", type(self.activation).__name__)
        shown = "" if self.activation is linear else f", activation={named}"
        shown += f", adapters={list(self.adapters)}" if self.adapters else ""
        return f"{sizes}{shown}{'' if self.use_bias else ', use_bias=False'}, name={self.name!r}"

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        if not shapes:
            return None
        if any(slot.name not in shapes for slot in self._low_rank().base.slots(None, self.units)):
            return None
        input_dim = self.scheme.input_dim(shapes)
        for slot in self._slots(input_dim):
            if shapes.get(slot.name, slot.shape) != slot.shape:
                raise ValueError(
                    f"Layer {self.name!r} has units={self.units}, found {slot.name!r} of shape {shapes[slot.name]} in "
                    f"the state_dict, expected {slot.shape}."
                )
        return (None, input_dim)


class InCompute:
    """A layer's tensors as a mixed policy computes with them: floats in the dtype of the input."""

    __slots__ = ("dtype", "holder")

    def __init__(self, layer: Layer, dtype: torch.dtype):
        self.holder = layer
        self.dtype = dtype

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.holder, name)
        return value.to(self.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
