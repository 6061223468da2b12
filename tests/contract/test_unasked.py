"""The table "What an unasked layer answers": every cell, for Dense and for a custom layer."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

from fanin import Model, Sequential
from fanin.errors import EagerLayerError
from fanin.layers import BatchNormalization, Dense, Embedding, Input, Layer, TorchModule

SINGLE = ["input", "output", "input_mask", "output_mask", "input_shape", "output_shape"]
AT = [f"get_{name}_at" for name in SINGLE]


class Double(Layer):
    def call(self, inputs):
        return 2 * inputs


class BuiltFromTheStart(Layer):
    def __init__(self):
        super().__init__()
        self.built = True

    def call(self, inputs):
        return 2 * inputs


MAKERS = [
    lambda: Dense(3),
    lambda: Dense(3, activity_regularizer="l1"),
    Double,
    BuiltFromTheStart,
    lambda: TorchModule(torch.nn.Linear(4, 3)),
]
IDS = ["Dense", "Dense with activity", "custom", "built at once", "module"]


@pytest.fixture(params=MAKERS, ids=IDS)
def layer(request):
    return request.param()


@pytest.mark.parametrize("asked", SINGLE)
def test_never_called_single(layer, asked):
    with pytest.raises(AttributeError, match=rf"was never called, so it has no '{asked}'") as caught:
        getattr(layer, asked)
    assert not isinstance(caught.value, RuntimeError)
    assert not hasattr(layer, asked)
    assert getattr(layer, asked, None) is None


@pytest.mark.parametrize("asked", AT)
def test_never_called_at(layer, asked):
    with pytest.raises(RuntimeError, match="was never called") as caught:
        getattr(layer, asked)(0)
    assert not isinstance(caught.value, EagerLayerError)


def test_never_called_graph_and_scope(layer):
    with pytest.raises(RuntimeError, match="was never called, so it has no 'graph'") as caught:
        _ = layer.graph
    assert not isinstance(caught.value, EagerLayerError)
    with pytest.raises(ValueError, match="no scope name"):
        _ = layer.scope_name


def check_that_losses_and_updates_work(layer):
    losses, updates = len(layer.losses), len(layer.updates)
    unconditional = len(layer.get_losses_for(None)), len(layer.get_updates_for(None))
    marker = object()
    x = torch.ones(1)
    layer.add_loss(lambda: torch.tensor(1.0))
    layer.add_loss(x, inputs=x)
    layer.add_update(marker)
    layer.add_update(marker, inputs=[x])
    assert len(layer.losses) == losses + 2
    assert len(layer.updates) == updates + 2
    assert len(layer.get_losses_for(None)) == unconditional[0] + 1
    assert len(layer.get_updates_for(None)) == unconditional[1] + 1
    assert layer.get_losses_for(x)[0] is x
    assert layer.get_updates_for(x) == [marker]
    assert layer.get_losses_for(torch.ones(1)) == []
    layer.add_variable("extra", (2,), initializer="ones", regularizer="l2")
    assert len(layer.losses) == losses + 3


def test_never_called_losses_and_updates(layer):
    check_that_losses_and_updates_work(layer)


@pytest.mark.parametrize("asked", SINGLE)
def test_only_real_tensors_single(layer, asked):
    layer(torch.ones(2, 4))
    with pytest.raises(EagerLayerError, match=rf"only called on real tensors.*'{asked}'") as caught:
        getattr(layer, asked)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, AttributeError)
    assert not hasattr(layer, asked)


@pytest.mark.parametrize("asked", AT)
def test_only_real_tensors_at(layer, asked):
    layer(torch.ones(2, 4))
    with pytest.raises(EagerLayerError, match="only called on real tensors"):
        getattr(layer, asked)(0)


def test_only_real_tensors_graph_and_scope(layer):
    layer(torch.ones(2, 4))
    with pytest.raises(EagerLayerError, match="only called on real tensors"):
        _ = layer.graph
    assert layer.scope_name == layer.name


def test_only_real_tensors_losses_and_updates(layer):
    layer(torch.ones(2, 4))
    check_that_losses_and_updates_work(layer)


@pytest.mark.parametrize("both", [False, True])
def test_symbolic_single(layer, both):
    x = Input((4,))
    y = layer(x)
    if both:
        layer(torch.ones(2, 4))
    assert layer.input is x
    assert layer.output is y
    assert layer.input_mask is layer.output_mask is None
    assert layer.input_shape == (None, 4)
    assert layer.output_shape == y.shape
    layer(Input((2, 4)))
    for asked in SINGLE:
        with pytest.raises(AttributeError, match=f"get_{asked}_at") as caught:
            getattr(layer, asked)
        assert not isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("both", [False, True])
def test_symbolic_at(layer, both):
    x = Input((4,))
    y = layer(x)
    if both:
        layer(torch.ones(2, 4))
    assert [getattr(layer, asked)(0) for asked in AT] == [x, y, None, None, (None, 4), y.shape]
    for asked in AT:
        with pytest.raises(ValueError, match="it has 1, counted from 0"):
            getattr(layer, asked)(1)


@pytest.mark.parametrize("both", [False, True])
def test_symbolic_graph_and_scope(layer, both):
    layer(Input((4,)))
    if both:
        layer(torch.ones(2, 4))
    assert isinstance(layer.graph, torch.fx.Graph)
    assert layer.scope_name == layer.name


@pytest.mark.parametrize("both", [False, True])
def test_symbolic_losses_and_updates(layer, both):
    layer(Input((4,)))
    if both:
        layer(torch.ones(2, 4))
    check_that_losses_and_updates_work(layer)


def test_layers_of_a_sequential_built_by_a_real_call_have_symbolic_calls():
    model = Sequential([Dense(3), torch.nn.ReLU(), Dense(2)])
    model(torch.ones(5, 4))
    assert model.layers[2].output.shape == (None, 2)
    assert model.layers[2].input.shape == (None, 3)
    assert model.output is model.layers[2].output
    assert model.layers[0].input_shape == (None, 4)
    assert isinstance(model.layers[2].graph, torch.fx.Graph)


def test_inspect_works_on_a_layer_that_met_real_tensors(layer):
    layer(torch.ones(2, 4))
    names = {name for name, _ in inspect.getmembers(layer)}
    assert "weights" in names
    assert "input" not in names


def test_a_copy_was_never_called(layer):
    layer(Input((4,)))
    layer(torch.ones(2, 4))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(AttributeError, match="was never called"):
            _ = twin.input


def test_the_message_of_a_users_own_property_arrives():
    class Broken(Layer):
        @property
        def answer(self):
            raise AttributeError("the true reason")

    with pytest.raises(AttributeError, match="the true reason"):
        _ = Broken().answer
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = Broken().nothing


def test_inspect_works_on_a_layer_that_was_never_called(layer):
    names = {name for name, _ in inspect.getmembers(layer)}
    assert "weights" in names
    assert not hasattr(layer, "graph")
    assert not hasattr(layer, "scope_name")


@pytest.mark.parametrize(
    ("layer", "name"),
    [(Dense(3, lora_rank=2), "effective_kernel"), (Embedding(5, 3, lora_rank=2), "effective_embeddings")],
)
def test_inspect_works_on_a_layer_with_adapters_that_is_not_built(layer, name):
    assert "weights" in {found for found, _ in inspect.getmembers(layer)}
    with pytest.raises(AttributeError, match=f"Layer '{layer.name}' has no .* with adapters yet: build it, or call it"):
        getattr(layer, name)
    layer(torch.zeros(1, 4, dtype=torch.int32))
    assert name in {found for found, _ in inspect.getmembers(layer)}


@pytest.mark.parametrize("make", [Model, Sequential, lambda: Sequential([Input((4,)), Dense(3)])])
def test_inspect_works_on_a_model_that_is_not_compiled(make):
    model = make()
    names = {name for name, _ in inspect.getmembers(model)}
    for asked in ("loss", "jit_compile", "metrics_names"):
        assert asked not in names
        with pytest.raises(AttributeError, match=r"is not compiled: call model\.compile"):
            getattr(model, asked)
        with pytest.raises(RuntimeError, match="is not compiled"):  # as the methods say it
            getattr(model, asked)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit is
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are compared with those of the model
@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_that_was_never_called_can_be_traced_by_torch(compiled):
    x = Input((4,))
    inner = Sequential([Dense(3), BatchNormalization(), torch.nn.Linear(3, 2)])
    for model in (Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3)]), Model(x, inner(Dense(5)(x)))):
        if compiled:
            model.compile("sgd", "mse")
        traced = torch.jit.trace(model, torch.randn(2, 4))
        x = torch.randn(5, 4)
        assert torch.allclose(traced(x), model(x), atol=1e-6)
