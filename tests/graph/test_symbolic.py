"""Symbolic tensors: what can be done with them, what cannot, and what they hold on to."""

from __future__ import annotations

import copy
import gc
import operator
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fanin
from fanin.errors import SymbolicValueError
from fanin.layers import Dense, Input, Layer, TorchModule


def evaluate(symbol, **inputs):
    """The value of a symbolic tensor whose graph has no layers, by the fx graph of its call."""
    graph = fanin.graph.lower.to_fx([symbol])
    return torch.fx.GraphModule(nn.Module(), graph)(*inputs.values())


X = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
OPERATIONS = {
    "add": lambda x: x + 1,
    "radd": lambda x: 1 + x,
    "sub": lambda x: x - 2.5,
    "rsub": lambda x: 2.5 - x,
    "mul": lambda x: x * x,
    "rmul": lambda x: 3 * x,
    "truediv": lambda x: x / 2,
    "rtruediv": lambda x: 2 / x,
    "floordiv": lambda x: x // 2,
    "mod": lambda x: x % 2,
    "pow": lambda x: x**2,
    "rpow": lambda x: 2**x,
    "matmul": lambda x: x @ x.transpose(0, 1),
    "neg": lambda x: -x,
    "abs": lambda x: abs(x),
    "lt": lambda x: x < 0,
    "le": lambda x: x <= 1.0,
    "gt": lambda x: x > 0,
    "ge": lambda x: x >= 1.0,
    "number on the left": lambda x: 1.0 < x,  # noqa: SIM300
    "eq": lambda x: x == 1.0,
    "ne": lambda x: x != 1.0,
    "and": lambda x: (x > 0) & (x < 4),
    "or": lambda x: (x < 0) | (x > 4),
    "xor": lambda x: (x < 0) ^ (x > 4),
    "invert": lambda x: ~(x > 0),
    "tensor on the left": lambda x: torch.ones(3) * x,
    "tensor on the right": lambda x: x - torch.ones(1, 3),
    "numpy number": lambda x: np.float32(2) * x,
    "method": lambda x: x.relu(),
    "method with arguments": lambda x: x.clamp(min=0, max=2),
    "property": lambda x: x.T,
    "torch function": lambda x: torch.sigmoid(x),
    "functional": lambda x: functional.softmax(x, dim=-1),
    "cat": lambda x: torch.cat([x, 2 * x], dim=-1),
    "stack": lambda x: torch.stack([x, x], 1),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "index": lambda x: x[:, 0],
    "slice": lambda x: x[..., 1:],
    "new axis": lambda x: x[:, None],
    "mask index": lambda x: x[:, [0, 2]],
    "mean": lambda x: x.mean(dim=-1, keepdim=True),
    "reshape": lambda x: x.reshape(-1, 1),
    "several outputs": lambda x: torch.split(x, [1, 2], dim=1)[1],
    "named tuple": lambda x: torch.max(x, dim=1).indices,
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x),
    "dtype": lambda x: x.to(torch.float64),
    "matmul with a tensor": lambda x: x @ torch.ones(3, 4),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_recorded_and_computes_the_same(name):
    operation = OPERATIONS[name]
    x = Input(batch_shape=(None, 3))
    y = operation(x)
    expected = operation(X)
    assert isinstance(y, fanin.SymbolicTensor)
    assert y.dtype == expected.dtype
    assert len(y.shape) == expected.dim()
    assert all(a in (b, None) for a, b in zip(y.shape, expected.shape, strict=True))
    found = evaluate(y, x=X)
    assert torch.equal(found, torch.as_tensor(expected))


def test_numpy_arrays_stand_for_tensors():
    x, array = Input((3,)), np.array([1, 2, 3], dtype=np.float32)
    assert torch.equal(evaluate(array * x, x=X), torch.from_numpy(array) * X)
    assert torch.equal(evaluate(x - array, x=X), X - torch.from_numpy(array))
    assert torch.equal(evaluate(x.maximum(array), x=X), X.maximum(torch.from_numpy(array)))


def test_unknown_sizes_stay_unknown_and_known_ones_known():
    x = Input((3, None))
    assert x.reshape(-1, 3).shape == (None, 3)
    assert x.sum(dim=1).shape == (None, None)
    assert x.transpose(1, 2).shape == (None, None, 3)
    assert torch.cat([x, x], dim=1).shape == (None, 6, None)
    assert torch.cat([x, x], dim=0).shape == (None, 3, None)


def test_what_a_symbol_tells():
    x = Input((3,), dtype="int64", name="ids")
    assert x.shape == x.size() == (None, 3)
    assert x.size(1) == 3
    assert x.ndim == x.dim() == 2
    assert x.dtype == torch.int64
    assert not x.is_floating_point()
    assert x.name == "ids"
    assert repr(x) == "<SymbolicTensor 'ids' shape=(None, 3) dtype=int64>"
    assert len(Input(batch_shape=(5, 3))) == 5


def test_symbols_are_equal_only_to_themselves():
    x, y = Input((3,)), Input((3,))
    assert x == x
    assert x != y
    assert (x == "x") is False
    assert x in [y, x]
    assert len({x, y, x}) == 2


USES = {
    "if": lambda x: 1 if x > 0 else 2,
    "and": lambda x: x and 1,
    "float": float,
    "int": int,
    "range": range,
    "iterate": list,
    "len": len,
    "numpy": np.asarray,
    "numpy function": lambda x: np.array([x, x]),
}


@pytest.mark.parametrize("use", USES)
def test_a_use_that_needs_values_says_what_to_do(use):
    x = Input(batch_shape=(None, 3), name="x")
    with pytest.raises(SymbolicValueError, match=r"has no values yet, so it cannot .*torch\.where.*Layer"):
        USES[use](x)


def test_the_text_of_if():
    with pytest.raises(SymbolicValueError) as caught:
        bool(Input((3,), name="x"))
    assert str(caught.value).startswith("<SymbolicTensor 'x' shape=(None, 3) dtype=float32> has no values yet, ")
    assert "cannot decide a Python `if` or `while`" in str(caught.value)


def test_unknown_attributes_are_attribute_errors():
    x = Input((3,))
    assert not hasattr(x, "no_such_method")
    with pytest.raises(AttributeError, match="no attribute 'no_such_method'"):
        _ = x.no_such_method


def test_an_operation_that_does_not_fit_names_the_shapes():
    x = Input((3,), name="x")
    with pytest.raises(ValueError, match=r"torch\.matmul cannot take .*\(x: \(None, 3\)\)"):
        _ = x @ torch.ones(4, 5)


CAPTURES = {
    "parameter": lambda x: x * nn.Parameter(torch.ones(3)),
    "linear": lambda x: nn.Linear(3, 2)(x),
    "dropout": lambda x: nn.Dropout()(x),
    "functional dropout": lambda x: functional.dropout(x, 0.5),
    "batch norm": lambda x: nn.BatchNorm1d(3)(x),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_capturing_what_should_stay_alive_is_refused(name):
    with pytest.raises(TypeError, match="TorchModule"):
        CAPTURES[name](Input((3,)))


def test_modules_without_state_and_wrapped_ones_are_recorded():
    x = Input((3,))
    assert nn.ReLU()(x).shape == (None, 3)
    assert nn.Sequential(nn.Tanh(), nn.Softmax(-1))(x).shape == (None, 3)
    assert TorchModule(nn.Linear(3, 2))(x).shape == (None, 2)
    assert TorchModule(nn.Dropout())(x).shape == (None, 3)


def test_a_captured_constant_stays():
    x = Input((3,))
    y = x + torch.ones(3)
    assert torch.equal(evaluate(y, x=X), X + 1)


def test_functions_have_names_and_histories():
    x = Input((3,))
    y = torch.relu(x)
    call, node_index, tensor_index = y._keras_history
    assert call.name == "relu"
    assert (node_index, tensor_index) == (0, 0)
    assert torch.relu(y).layer.name == "relu_1"
    one, two = torch.split(x, [1, 2], dim=1)
    assert one.layer is two.layer
    assert [s._keras_history[2] for s in (one, two)] == [0, 1]
    assert x.layer.outbound_nodes[0] is y.node


def test_getitem_is_an_operator_in_the_graph():
    graph = fanin.graph.lower.to_fx([Input((3,))[:, 0]])
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [operator.getitem]


# --- who holds whom -------------------------------------------------------------------------------------------


@pytest.fixture
def _no_collector():
    Dense(1)(Input((1,)) + 1)  # the first one imports much of torch, which leaves cycles
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_a_dropped_model_is_freed_at_once():
    model = fanin.Sequential([Input((4,)), Dense(8, "relu", activity_regularizer="l2"), nn.ReLU(), Dense(2)])
    model(torch.ones(2, 4))
    assert model.layers[0].output.layer is model.layers[0]
    assert len(model.outputs) == len(model.losses) == 1
    watched = [weakref.ref(thing) for thing in (model, *model.layers, model.layers[0].kernel, model.inputs[0])]
    del model
    assert [reference() for reference in watched] == [None] * len(watched)


@pytest.mark.usefixtures("_no_collector")
def test_a_dropped_graph_is_freed_at_once():
    x = Input((4,))
    layer = Dense(3)
    y = torch.relu(layer(x)) + 1
    watched = [weakref.ref(thing) for thing in (x, layer, y, y.node, y.layer, x.node, x.layer)]
    del x, layer, y
    assert [reference() for reference in watched] == [None] * len(watched)


@pytest.mark.usefixtures("_no_collector")
def test_a_layer_keeps_its_calls_and_remakes_their_symbols():
    layer = Dense(3)
    x = Input((4,))
    reference = weakref.ref(layer(x))
    assert reference() is None
    assert layer.output.shape == (None, 3)
    assert layer.output._keras_history == (layer, 0, 0)
    assert x.layer.outbound_nodes == layer.inbound_nodes
    kept = layer.output
    assert layer.output is kept


@pytest.mark.usefixtures("_no_collector")
def test_calls_that_are_gone_leave_outbound_nodes():
    x = Input((4,))
    y = Dense(3)(x)
    assert len(x.layer.outbound_nodes) == 1
    del y
    assert x.layer.outbound_nodes == []


class Same(Layer):
    def call(self, inputs):
        return inputs + 1

    def compute_output_shape(self, input_shape):
        return input_shape


def test_chains_of_2000_layers():
    symbol = x = Input((4,))
    layers = []
    for _ in range(2000):
        layers.append(Same())
        symbol = layers[-1](symbol)
    assert symbol.shape == (None, 4)
    assert len(layers[-1].graph.nodes) == 2002
    assert len(fanin.graph.node.ancestors([symbol])) == 2001
    assert fanin.graph.node.depends_on(symbol, [x])
    twin = copy.deepcopy(layers[-1])
    assert twin.inbound_nodes == []
    del layers, symbol, x, twin


def test_a_chain_of_2000_functions():
    symbol = x = Input((4,))
    for _ in range(2000):
        symbol = symbol + 1
    assert evaluate(symbol, x=torch.zeros(1, 4)).tolist() == [[2000.0] * 4]
    assert fanin.graph.node.depends_on(symbol, [x])
    del symbol


def test_a_sequential_of_2000_layers():
    model = fanin.Sequential([Input((4,)), *(Same() for _ in range(2000))])
    assert model(torch.zeros(1, 4)).tolist() == [[2000.0] * 4]
    assert len(model.layers[-1].graph.nodes) == 2002
    twin = copy.deepcopy(model)
    assert twin(torch.zeros(1, 4)).tolist() == [[2000.0] * 4]
    del model
    assert twin.output_shape == (None, 4)
    assert len(twin.losses) == 0


def test_symbols_work_inside_every_mode_of_torch():
    found = []

    class Noise(Layer):
        def call(self, inputs):
            return inputs + torch.rand_like(inputs)

    def inside(row):
        found.append(Noise()(Dense(3)(Input((4,)))) + torch.ones(3))
        found.append(torch.relu(Input((4,))) * 2)
        return row

    torch.vmap(inside)(torch.ones(2, 4))
    torch.func.grad(lambda row: inside(row).sum())(torch.ones(4))
    with torch.inference_mode():
        inside(None)
    with torch.no_grad(), torch.device("meta"):
        inside(None)
    assert [y.shape for y in found] == [(None, 3), (None, 4)] * 4


def test_masks_under_the_name_that_tensors_carry_them():
    x = Input((3,), dtype="int64")
    h = fanin.layers.Embedding(5, 2, mask_zero=True)(x)
    assert h._keras_mask is h.mask
    assert h._keras_mask.shape == (None, 3)
    assert Dense(1)(h)._keras_mask is h.mask
    assert x._keras_mask is None
    assert (h + 1)._keras_mask is None
