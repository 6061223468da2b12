"""Models as ONNX files, for ONNX Runtime and others. Only written."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from fanin.dtypes import as_dtype
from fanin.formats.state import check_built
from fanin.graph.symbolic import SymbolicTensor
from fanin.graph.tree import leaves, tree_map
from fanin.layers.base.devices import device_of
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import Layer
from fanin.layers.base.modes import in_eval_mode
from fanin.layers.base.scope import collect_losses
from fanin.write import replacing, target

_LARGEST = 2**31 - 2**24  # what a protobuf file can hold, with room for the graph
_OTHER_FORMATS = (".tflite", ".pb", ".pt", ".pth", ".pt2", ".keras", ".h5", ".hdf5", ".safetensors")
_NOTED = ("node", "value_info", "input", "output")


def export_onnx(
    model: nn.Module,
    filepath: str | os.PathLike[str],
    opset_version: int | None = None,
    verbose: bool | None = None,
    input_signature: Any = None,
) -> None:
    """Write what a model computes in eval mode as an ONNX file. The batch, and what else is unknown, stays open.

    Args:
        model: a built model or layer, or any nn.Module with an input_signature.
        filepath: where to; an existing file is replaced only once the new one is complete.
        opset_version: the version of ONNX's operations; default PyTorch's choice.
        verbose: whether to print what PyTorch tells, and where the file is; default no.
        input_signature: what the model is called with, in its structure: `fanin.Input`s, `InputSpec`s with shape and
            dtype, or examples, whose first axis is the batch. A list or tuple for an nn.Module: one for each argument.
            Default: the model's own inputs.

    Inputs and outputs have the names of the model's input and output layers, else input_0, output_0, ... Only weights
    and operations are written, no code, no paths of this machine. The model, its mode and its losses stay as they are.

    Needs `pip install 'fanin[onnx]'`. Raises ValueError for a model that is not built, or whose inputs are not known,
    and for the ending of another format; TypeError for a signature of another kind; RuntimeError, with PyTorch's report
    as its cause, for operations that ONNX does not have. After Keras's `model.export(filepath, format="onnx")`, with an
    open batch.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Exporting to ONNX needs {' and '.join(missing)}: pip install 'fanin[onnx]'.")
    if os.fspath(filepath).endswith(_OTHER_FORMATS):
        raise ValueError(f"Exporting writes ONNX; the path {os.fspath(filepath)!r} ends as files of another format do.")
    path = target(filepath, ("",), overwrite=True)
    check_built(model)
    size = sum(value.numel() * value.itemsize for value in model.state_dict().values() if torch.is_tensor(value))
    if size > _LARGEST:
        raise ValueError(f"The weights take {size / 2**30:.1f} GB; an ONNX file holds at most 2.")
    import onnx

    ends = _Ends(model, input_signature)
    with _quiet(), in_eval_mode(model.modules()), collect_losses(), torch.no_grad():
        try:
            program = torch.onnx.export(
                ends.module,
                ends.examples,
                dynamo=True,
                opset_version=opset_version,
                dynamic_shapes=(ends.open_sizes,),
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
                verbose=bool(verbose),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise RuntimeError(f"{_name(model)!r} cannot be written as ONNX; see the cause.") from error
        assert program is not None
        graph = program.model.graph
        count = len(graph.outputs)
        outputs = _graph_names(model, "output_names", count) or [f"output_{i}" for i in range(count)]
        _rename(graph, ends.names, outputs)
        written = program.model_proto
    for part in (written, written.graph, *(p for kind in _NOTED for p in getattr(written.graph, kind))):
        del part.metadata_props[:]  # PyTorch notes its stack traces there
    onnx.checker.check_model(written)
    with replacing(path) as file:
        file.write(written.SerializeToString(deterministic=True))
    if verbose:
        print(f"Saved artifact at {os.fspath(filepath)!r}.")


class _Ends:
    """What a model is called with: examples, names and open sizes of the leaves, and a module that takes them flat."""

    def __init__(self, model: nn.Module, signature: Any):
        spread = not isinstance(model, Layer) and isinstance(signature, (list, tuple))
        signature = _own_signature(model) if signature is None else signature
        found = [_spec(leaf) for leaf in leaves(signature)]
        own = _graph_names(model, "input_names", len(found))
        self.names = own or [name or f"input_{i}" for i, (_, _, name) in enumerate(found)]
        self.module = _Flat(model, signature, spread)
        home = device_of(model)
        self.examples = tuple(_example(shape, dtype).to(home) for shape, dtype, _ in found)
        self.open_sizes = tuple(
            {axis: f"{name}_{axis}" if axis else "batch" for axis, size in enumerate(shape) if size is None}
            for name, (shape, _, _) in zip(self.names, found, strict=True)
        )


class _Flat(nn.Module):
    """A model that takes the leaves of its inputs one by one."""

    def __init__(self, model: nn.Module, signature: Any, spread: bool):
        super().__init__()
        self.model = model
        self.training = False
        self._signature, self._spread = signature, spread

    def forward(self, *given: torch.Tensor) -> Any:
        """The model's outputs."""
        values = iter(given)
        inputs = tree_map(lambda _: next(values), self._signature)
        return self.model(*inputs) if self._spread else self.model(inputs)


def _own_signature(model: nn.Module) -> Any:
    """The model's own inputs: those of its graph, or the shape that it was built for."""
    if isinstance(model, Layer):
        with contextlib.suppress(AttributeError, RuntimeError):
            return model.input
        build = model.get_build_config()
        shape = None if build is None else build.get("input_shape")
        if shape and all(size is None or isinstance(size, int) for size in shape):
            return InputSpec(dtype=model.dtype_policy.compute, shape=(None, *shape[1:]))
    raise ValueError(f"The inputs of {_name(model)!r} are not known: give input_signature, such as an example.")


def _spec(leaf: Any) -> tuple[tuple[int | None, ...], torch.dtype, str | None]:
    """Shape, dtype and name of one input; of an example the first axis is the batch."""
    if isinstance(leaf, SymbolicTensor):
        return leaf.shape, leaf.dtype, leaf.layer.name
    if isinstance(leaf, InputSpec):
        if leaf.shape is None or leaf.dtype is None:
            raise ValueError(f"input_signature: an InputSpec needs shape and dtype, found {leaf!r}.")
        return leaf.shape, leaf.dtype, None
    if isinstance(leaf, (torch.Tensor, np.ndarray)):
        return (None, *leaf.shape[1:]), as_dtype(leaf.dtype), None
    raise TypeError(f"input_signature: expected Inputs, InputSpecs, tensors or arrays, found {leaf!r}.")


def _example(shape: tuple[int | None, ...], dtype: torch.dtype) -> torch.Tensor:
    """Ones of that shape; unknown sizes are 2 on the first axis, and 3, 4, ... further on: no size may look fixed."""
    sizes = [axis + 2 if size is None else size for axis, size in enumerate(shape)]
    return torch.ones(sizes, dtype=dtype)


def _graph_names(model: nn.Module, kind: str, count: int) -> list[str]:
    """The names of the input or output layers, if the model has a graph with so many ends, else []."""
    names: list[str] = []
    if isinstance(model, Layer):
        with contextlib.suppress(AttributeError, RuntimeError):
            names = getattr(model, kind)
    return names if len(names) == count else []


def _name(model: nn.Module) -> str:
    return str(getattr(model, "name", type(model).__name__))


def _log_sigmoid(self: Any) -> Any:
    """PyTorch would write log(sigmoid(x)), which is -inf from x = -18 on in ONNX Runtime."""
    from onnxscript import opset18 as operations

    return operations.Neg(operations.Softplus(operations.Neg(self)))


# --- names in the file ------------------------------------------------------------------------------------------------


def _rename(graph: Any, inputs: list[str], outputs: list[str]) -> None:
    """Give inputs and outputs these names, weights those of the state_dict, and what is in the way others."""
    wanted = _unlike([*inputs, *outputs], set())
    ends = dict(zip(map(id, [*graph.inputs, *graph.outputs]), wanted, strict=True))
    values = {id(value): value for value in _values(graph)}
    taken = set(wanted)
    names = []
    for key, value in values.items():
        name = ends.get(key) or _unlike([value.name.removeprefix("model.")], taken)[0]
        taken.add(name)
        names.append(name)
    for number, value in enumerate(values.values()):  # first out of each other's way
        value.name = f"fanin_{number}_{secrets.token_hex(8)}"
    for value, name in zip(values.values(), names, strict=True):
        value.name = name


def _values(graph: Any) -> Iterator[Any]:
    """All values of a graph and the graphs inside its nodes."""
    from onnx_ir.traversal import RecursiveGraphIterator

    inner: list[Any] = []
    nodes = list(RecursiveGraphIterator(graph, enter_graph=inner.append))
    for part in [graph, *inner]:
        yield from part.inputs
        yield from part.initializers.values()
    for node in nodes:
        yield from node.outputs


def _unlike(names: list[str], taken: set[str]) -> list[str]:
    """The names, with _1, _2, ... behind those that are taken."""
    found: list[str] = []
    for name in names:
        number, free = 0, name
        while free in taken or free in found:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found


# --- circumstances ----------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch and onnxscript say about themselves."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")  # torchvision is not installed
    before = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).* is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used", UserWarning)  # one batch for all
            yield
    finally:
        registration.setLevel(before)
