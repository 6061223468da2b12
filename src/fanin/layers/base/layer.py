"""The layer contract of Keras, as an ordinary `torch.nn.Module`.

A call runs through `forward`. Ten parts, each in a file of its own, make up the rest of the contract: `variables.py`
(weights), `weight_creation.py` (`add_weight`), `building.py` (when), `layer_config.py` (configs),
`dtype_and_device.py`, `mask_support.py` (masks), `ledger.py` (losses, updates), `history.py` (symbolic calls),
`copies.py` (deepcopy, pickle, state_dict) and `attributes.py` (what `layer.name` finds and `layer.name = value` does).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from fanin import config, regularizers
from fanin.dtypes import as_policy
from fanin.graph.symbolic import SymbolicTensor, is_symbolic
from fanin.graph.tree import leaves, tree_map
from fanin.layers.base.attributes import Attributes
from fanin.layers.base.convert import as_tensor, checked_cast, is_array
from fanin.layers.base.copies import Copies
from fanin.layers.base.devices import device_of
from fanin.layers.base.dtype_and_device import DtypeAndDevice
from fanin.layers.base.history import History
from fanin.layers.base.input_spec import check_inputs
from fanin.layers.base.layer_config import Configuration
from fanin.layers.base.ledger import Ledger, Noted
from fanin.layers.base.mask_propagation import has_mask, masks_of
from fanin.layers.base.mask_support import MaskSupport
from fanin.layers.base.named_arguments import mask_arguments, masks_by_name, shapes_for
from fanin.layers.base.scope import CallScope, Entry, Record, current
from fanin.layers.base.shapes import first_shape, known_shape
from fanin.layers.base.symbolic_call import call_symbolically, declared_specs, output_shape
from fanin.masks import get_mask, with_mask
from fanin.registry import Family, snake_case

Function = TypeVar("Function", bound=Callable[..., Any])


def in_transform() -> bool:
    """Whether the call runs inside a functorch transform (vmap, grad, ...), where a row may come without its batch."""
    return bool(torch._C._functorch.maybe_current_level() is not None)


def pure(call: Function) -> Function:
    """Mark a `call` that adds no loss, update or mask, and gives one tensor: it need not be tried out on symbols."""
    cast(Any, call).adds_nothing = True
    return call


class Layer(Attributes, Copies, Configuration, DtypeAndDevice, MaskSupport, Ledger, History, LazyModuleMixin):
    """The base of all layers; write `build`, `call` and, where helpful, `compute_output_shape` and `get_config`.

    Args:
        activity_regularizer: a penalty on the output, divided by the batch size, added to `losses` at each call.
        trainable: whether the weights train.
        dtype: a dtype, its name or a policy, such as "mixed_bfloat16"; default `fanin.config.dtype_policy()`.
        name: default the class name in snake case, made unique: "dense", "dense_1", ...
        input_shape: the shape of one row, without the batch: a Sequential is then built at once.
        input_dim: the same as input_shape=(input_dim,).
        batch_size: the batch size that goes with input_shape.
        batch_input_shape: the shape with the batch, None where unknown.
        weights: values for `set_weights`, used once the layer is built.

    Any other keyword is a TypeError. The layer follows Keras 3's `Layer`, and the methods and properties that
    TensorFlow 1.4 documents. Both habits work: `call` is Keras's, everything else is an nn.Module's.

    >>> class Scale(Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight("factor", (input_shape[-1],), initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.factor
    >>> Scale()(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    cls_to_become = None  # torch's lazy protocol: the class stays what it is
    casts_integers = False  # whether integer inputs become floats
    _initial_weights: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in cls.__dict__:
            parameters = inspect.signature(cls.__dict__["call"]).parameters
            cls._call_arguments = frozenset(name for name in parameters if name != "self")
            cls._mask_arguments = mask_arguments(cls._call_arguments)

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        nn.Module.__init__(self)
        own = self.__dict__
        own["name"] = _checked_name(name) if name is not None else config.unique_name(snake_case(type(self).__name__))
        own["built"] = False
        own["_trainable"] = bool(trainable)
        own["_home"] = own["_build_shape"] = own["_scope"] = own["_record"] = own["_direct_dtype"] = None
        if torch.get_default_device().type != "cpu":
            own["_home"] = torch.get_default_device()  # made under `with torch.device(...)`
        own["_aliases"], own["_unnamed"] = {}, set()
        own["_token"], own["_kept_losses"], own["_kept_updates"] = object(), [], []
        own["inbound_nodes"], own["_outbound"], own["_met_tensors"] = [], [], False
        own["input_spec"] = None
        self._set_policy(config.dtype_policy() if dtype is None else as_policy(dtype))
        own["activity_regularizer"] = regularizers.get(activity_regularizer)
        own["batch_input_shape"] = first_shape(self.name, kwargs)
        own["_initial_weights"] = kwargs.pop("weights", None)
        if kwargs:
            raise TypeError(f"{type(self).__name__} got unknown arguments: {', '.join(sorted(kwargs))}.")
        self._initialize_hook = True  # dynamo builds a module that has this mark before it traces a call

    def __setattr__(self, name: str, value: Any) -> None:
        """As an nn.Module's; `layer.activity_regularizer = "l2"` holds from the next call on."""
        if name == "activity_regularizer":
            value = regularizers.get(value)
            self._forget_short_way()
        super().__setattr__(name, value)

    # --- what subclasses write -------------------------------------------------------------------------------

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The computation: tensors in, tensors out. May take `training` and `mask`, and call `add_loss`."""
        raise NotImplementedError(f"Layer {type(self).__name__} has no `call` method.")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output shape for an input shape, without running (None where unknown).

        A layer that does not say it is tried on tensors without memory, or, if it decides by values, on zeros and ones.
        """
        return output_shape(self, input_shape)

    def _says_shape(self) -> bool:
        """Whether the output shape is known without trying the layer."""
        return type(self).compute_output_shape is not Layer.compute_output_shape

    def _output_specs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The specs of the outputs for symbolic arguments, from `compute_output_shape`, in the compute dtype."""
        return declared_specs(self, args, kwargs)

    # --- calling ---------------------------------------------------------------------------------------------

    def forward(self, inputs: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """One call. On symbolic tensors it records a node; on real ones it builds if needed, casts, and runs `call`."""
        if (
            type(inputs) is Tensor and not args and not kwargs and inputs.dtype is self._direct_dtype
            and inputs.ndim > 1 and inputs.shape[-1] == self._direct_size
            and getattr(inputs, "_keras_mask", None) is None
        ):  # fmt: skip
            return self.call(inputs)  # the short way: `_find_short_way` saw that there is nothing else to do
        if inputs is not None or args:
            args = (inputs, *args)
        if is_symbolic(args) or is_symbolic(kwargs):
            return call_symbolically(self, args, kwargs)
        return self._call_on_tensors(args, kwargs)

    def _call_on_tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training, mask = kwargs.pop("training", None), kwargs.pop("mask", None)
        if not args and kwargs:
            args, kwargs = self._with_inputs_first(kwargs)
        if mask is not None:
            mask = self._given_masks(mask)
        elif args:
            mask = masks_of(args[0])
        if self._mask_arguments:
            kwargs = kwargs | masks_by_name(self, args, kwargs)
        args, kwargs = tree_map(self._convert, args), tree_map(self._convert, kwargs)
        if args and not all(leaf is None or isinstance(leaf, torch.Tensor) for leaf in leaves(args[0])):
            raise TypeError(f"Layer {self.name!r} takes tensors or arrays, found {_shortened(args[0])}.")
        outer = current.scope
        if not self.built:
            self._check_inputs(args)
            self._build_for(args, kwargs)
        trial = outer is not None and outer.trial
        tried = trial and outer is not None and outer.layer is None
        if not tried:  # the layer that is tried gets made-up sizes for those that are unknown
            self._check_inputs(args)
        if training is None:
            training = outer.training if outer is not None else None
        scope = CallScope(self, Record() if outer is None else outer.record, training, trial)
        if not trial:
            self.__dict__["_record"] = scope.record
        current.scope = scope
        try:
            outputs = self.call(*args, **kwargs, **self._call_context(training, mask))
            if mask is not None or self.makes_masks():
                outputs = self._with_masks(args[0], outputs, mask)
            if self.activity_regularizer is not None:
                self._penalize_activity(args, outputs, scope.record)
        finally:
            current.scope = outer
        if outer is None and not torch.compiler.is_compiling():
            scope.record.forget_transformed()
        if not self._met_tensors and not trial:
            self.__dict__["_met_tensors"] = True
            self._enter_scope()
            self._find_short_way()
        return outputs

    def _call_context(self, training: bool | None, mask: Any) -> dict[str, Any]:
        """`training` and `mask`, as far as `call` takes them."""
        context: dict[str, Any] = {}
        if "training" in self._call_arguments:
            context["training"] = self.training if training is None else training
        if mask is not None and "mask" in self._call_arguments:
            context["mask"] = mask
        elif mask is not None and not self.handles_masks() and has_mask(mask):
            self.warn_of_lost_mask()
        return context

    def _saved_layers(self) -> list[Any]:
        """The layers that files list by class and number, as those of a Sequential."""
        return []

    def _with_inputs_first(self, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`layer(inputs=x)` as `layer(x)`: the first argument of `call` by its name."""
        first = next((name for name in inspect.signature(self.call).parameters if name in kwargs), None)
        if first is None:
            raise TypeError(f"Layer {self.name!r} was called without its inputs.")
        return (kwargs[first],), {name: value for name, value in kwargs.items() if name != first}

    def _penalize_activity(self, args: Any, outputs: Any, record: Record) -> None:
        given = [leaf for leaf in leaves(args) if isinstance(leaf, torch.Tensor)]
        for output in leaves(outputs):
            batch = max(output.shape[0], 1) if output.dim() else 1
            record.losses.append(Entry(self.activity_regularizer(output) / batch, self._token, given))

    def _find_short_way(self) -> None:
        """A layer with nothing to record, resolve or check but one input's rank and last size skips the rest."""
        spec = self.input_spec
        simple = self._call_adds_nothing() and self.activity_regularizer is None and not self.makes_masks()
        if simple and spec is not None and set(spec.axes) == {-1} and spec.min_ndim == 2 and spec.shape is None:
            self.__dict__["_direct_dtype"], self.__dict__["_direct_size"] = self._compute, spec.axes[-1]

    def _forget_short_way(self) -> None:
        """Let the next call, and the models around the layer, look anew at what there is to do."""
        self.__dict__["_direct_dtype"] = None
        Noted.count += 1

    def _convert(self, leaf: Any) -> Any:
        from_outside = is_array(leaf)
        if not from_outside and not isinstance(leaf, torch.Tensor):
            return leaf  # an option of `call`
        tensor = as_tensor(leaf, f"layer {self.name!r}").to(device_of(self)) if from_outside else leaf
        if tensor.dtype == self._compute or not (tensor.is_floating_point() or self.casts_integers):
            return tensor
        if tensor.is_complex():
            raise TypeError(f"Layer {self.name!r} takes real numbers, found {tensor.dtype}.")
        if from_outside:
            return checked_cast(tensor, self._compute, f"layer {self.name!r}")
        if torch.is_autocast_enabled(tensor.device.type) and tensor.is_floating_point():
            return tensor
        mask = get_mask(tensor)
        return tensor.to(self._compute) if mask is None else with_mask(tensor.to(self._compute), mask)

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._home is None:
            device = next((leaf.device for leaf in leaves(args) if isinstance(leaf, torch.Tensor)), None)
            if device is not None and device.type not in ("cpu", "meta"):
                self.__dict__["_home"] = device  # weights appear where the first data is
        shapes, by_name = shapes_for(self, self.build, args, kwargs, known_shape)
        self.build(*shapes, **by_name)

    def _call_adds_nothing(self) -> bool:
        """Whether `call` adds no loss, update or mask, so that its shape alone is worth knowing."""
        return bool(getattr(type(self).call, "adds_nothing", False))

    def _infer_parameters(self, module: Any, args: tuple[Any, ...], kwargs: Any = None) -> None:
        """torch's lazy protocol: dynamo asks for this before it traces the first call."""
        if not self.built:
            self._build_for(args, kwargs or {})

    def _check_inputs(self, args: tuple[Any, ...]) -> None:
        if not args:
            raise TypeError(f"Layer {self.name!r} was called without its inputs.")
        if self.input_spec is not None and not in_transform():
            check_inputs(f"layer {self.name!r}", self.input_spec, list(leaves(args[0])))

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """`layer(inputs)`, as in 2017; given a function, nn.Module's meaning: call it on each submodule."""
        if callable(inputs) and not isinstance(inputs, (torch.Tensor, SymbolicTensor)):
            return super().apply(inputs)
        return self(inputs, *args, **kwargs)

    @classmethod
    def _is_described_by_arguments(cls) -> bool:
        return cls.get_config is Layer.get_config and cls.__init__ is not Layer.__init__

    def extra_repr(self) -> str:
        """The name, for `print(layer)`."""
        return f"name={self.name!r}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}..."


family: Family[Layer] = Family("layer", "keras.layers", Layer)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "/" in name or not name.isprintable():
        raise ValueError(f"A layer's name is a printable string without '/', found {name!r}.")
    return sys.intern(name)
