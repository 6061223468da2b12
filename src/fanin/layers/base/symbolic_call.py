"""A layer called on symbolic tensors: shapes worked out, a node recorded, masks, losses and updates noted with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from fanin.graph.infer import Spec, Trial, infer_on_values, infer_with_trial, needs_values
from fanin.graph.node import FunctionCall, Node, input_symbol
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import leaves, tree_map
from fanin.layers.base.building import Building
from fanin.layers.base.mask_propagation import has_mask, masks_of
from fanin.layers.base.modes import in_eval_mode, state_kept
from fanin.layers.base.named_arguments import masks_by_name, shapes_for
from fanin.layers.base.scope import CallScope, Entry, Record, current
from fanin.layers.base.shapes import map_shapes


def call_symbolically(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record one call of `layer` and return its symbolic outputs, in the structure that `call` returns.

    Builds the layer if needed. Raises ValueError where the shape is unknown that a build needs, or does not fit.
    """
    if not args:
        args, kwargs = layer._with_inputs_first(kwargs)
    inputs = args[0]
    prepare(layer, args, kwargs)
    mask = kwargs["mask"] if kwargs.get("mask") is not None else masks_of(inputs)
    trial_kwargs = {key: value for key, value in kwargs.items() if key != "mask"}
    if mask is not None and "mask" in layer._call_arguments:
        trial_kwargs["mask"] = mask
    if layer._mask_arguments:
        trial_kwargs |= masks_by_name(layer, args, trial_kwargs)
    specs, trial, record = infer_call(layer, args, trial_kwargs)
    if not layer.handles_masks() and has_mask(mask):
        layer.warn_of_lost_mask()
    masks = layer._masks_of_outputs(inputs, specs, mask) if layer.hands_on_masks(mask) else []
    node = Node(layer, args, kwargs, specs)
    node.output_masks = [mask for mask, spec in zip(masks, leaves(specs), strict=False) if isinstance(spec, Spec)]
    layer._enter_scope()
    if trial is not None and record is not None:
        _note(node, trial, record)
    elif layer.activity_regularizer is not None:
        for symbol in node.output_tensors:
            node.note("losses", Spec((), symbol.dtype), node.input_tensors, layer._token)
    return node.outputs


def prepare(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Build `layer` for symbolic inputs if it is not built, and compare their shapes with what it takes."""
    if not layer.built:
        layer._check_inputs(args[:1])
        shapes, by_name = shapes_for(layer, layer.build, args, kwargs, _shape)
        layer.build(*shapes, **by_name)
    layer._check_inputs(args[:1])


def _shape(leaf: Any) -> tuple[int | None, ...]:
    return tuple(leaf.shape)


def infer_call(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], may_ask: bool = True
) -> tuple[Any, Trial | None, Record | None]:
    """The specs of what `layer` returns, and, unless its `call` is pure, the trial that showed them and its record.

    A `call` that decides by values and does not say its shape is tried on real zeros and ones, in eval mode. Without
    `may_ask` its `compute_output_shape` is not asked: it is what asks here.
    """
    says_shape = may_ask and layer._says_shape()
    if says_shape and layer._call_adds_nothing():
        return layer._output_specs(args, kwargs), None, None
    records: list[Record] = []
    previous = current.scope
    training = previous.training if previous is not None else None

    def attempt(*given: Any, **options: Any) -> Any:
        records.append(Record())
        current.scope = CallScope(None, records[-1], training, trial=True)
        try:
            return layer._call_on_tensors(given, options)
        finally:
            current.scope = previous

    try:
        try:
            # A trial leaves no trace in statistics and counts, and draws no masks of dropout.
            others = (module for module in layer.modules() if not isinstance(module, Building))
            with in_eval_mode(others), _without_fakes(layer), state_kept(layer):
                specs, trial = infer_with_trial(attempt, args, kwargs)
        except Exception as error:
            if says_shape or not needs_values(error):
                raise
            records.clear()
            training = False
            with in_eval_mode(layer.modules()), state_kept(layer):
                specs, trial = infer_on_values(attempt, args, kwargs)
    except NotImplementedError:
        raise
    except Exception as error:
        if says_shape:
            return layer._output_specs(args, kwargs), None, None
        shapes = ", ".join(f"{symbol.name}: {symbol.shape}" for symbol in symbols_in((args, kwargs)))
        advice = "If its `call` cannot run without values, give it a compute_output_shape method."
        if isinstance(error, AttributeError) and str(error.name).startswith("assign"):
            advice = "A weight is a tensor: copy_, add_ and sub_ are assign, assign_add and assign_sub."
        raise ValueError(
            f"Layer {layer.name!r} could not be tried on symbolic tensors ({shapes}): {error}. {advice}"
        ) from error
    return specs, trial, records[0]


@contextmanager
def _without_fakes(layer: torch.nn.Module) -> Iterator[None]:
    """Attributes that a block makes of fake tensors, such as a table that a call makes once, go with the block."""
    before = [(part.__dict__, part.__dict__.copy()) for part in layer.modules()]
    try:
        yield
    finally:
        for own, was in before:
            for name in [name for name, value in own.items() if type(value) is FakeTensor]:
                if was.get(name) is not own[name]:
                    own.pop(name)
                    own.update({name: was[name]} if name in was else {})


def output_shape(layer: Any, input_shape: Any) -> Any:
    """The output shape of a layer that does not declare it, by a trial; builds the layer, records nothing."""
    inputs = map_shapes(lambda shape: _probe(layer, shape), input_shape)
    prepare(layer, (inputs,), {})
    specs, _, _ = infer_call(layer, (inputs,), {}, may_ask=False)
    return tree_map(lambda leaf: leaf.shape if isinstance(leaf, Spec) else leaf, specs)


def _probe(layer: Any, shape: Any) -> SymbolicTensor:
    return input_symbol(FunctionCall(_probe), tuple(shape), layer.dtype_policy.compute)


def declared_specs(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Specs from `compute_output_shape`, in the compute dtype."""
    given, by_name = shapes_for(layer, layer.compute_output_shape, args, kwargs, _shape)
    shapes = layer.compute_output_shape(*given, **by_name)
    return map_shapes(lambda shape: Spec(shape, layer.dtype_policy.compute), shapes)


def _note(node: Node, trial: Trial, record: Record) -> None:
    """Losses and updates of the trial become further outputs of the node; what they depend on, its symbolic inputs."""

    def spec(leaf: Any) -> Any:
        tried = isinstance(leaf, torch.Tensor) and (trial.on_values or _fake(leaf))
        return Spec(tuple(leaf.shape), leaf.dtype) if tried else leaf

    def sources(entry: Entry) -> list[Any] | None:
        if entry.inputs is None:
            return None
        found = [trial.symbol(leaf) for leaf in entry.inputs]
        return [symbol for symbol in found if symbol is not None] or node.input_tensors

    for entry in record.losses:
        node.note("losses", tree_map(spec, entry.value), sources(entry), entry.owner)
    for entry in record.updates:
        node.note("updates", tree_map(spec, entry.value), sources(entry), entry.owner)


def _fake(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "fake_mode")
