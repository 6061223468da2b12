"""Regularizers and constraints as attributes, and weights that wait for their shapes, in all layers that have them."""

from __future__ import annotations

import copy

import pytest
import torch

from fanin import constraints, regularizers
from fanin.layers import BatchNormalization, Dense, Embedding, LayerNormalization

LAYERS = {
    "dense": (lambda **more: Dense(4, **more), ["kernel", "bias"]),
    "batch": (BatchNormalization, ["gamma", "beta"]),
    "layer": (LayerNormalization, ["gamma", "beta"]),
    "embedding": (lambda **more: Embedding(5, 4, **more), ["embeddings"]),
}
CASES = [(name, part) for name, (_, parts) in LAYERS.items() for part in parts]
INPUTS = torch.tensor([[1, 2, 3], [0, 4, 2]])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_regularizer_counts_once_whenever_it_is_given(name, part, late):
    argument = {f"{part}_regularizer": "l2"}
    layer = LAYERS[name][0](**({} if late else argument))
    layer(INPUTS)
    if late:
        assert layer.losses == []
        setattr(layer, f"{part}_regularizer", "l2")
    assert isinstance(getattr(layer, f"{part}_regularizer"), regularizers.L2)
    layer(INPUTS)
    (loss,) = layer.losses
    assert torch.allclose(loss, 0.01 * getattr(layer, part).square().sum())
    setattr(layer, f"{part}_regularizer", None)
    assert layer.losses == []
    assert layer.get_config()[f"{part}_regularizer"] is None


@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_constraint_holds_also_in_a_copy(name, part):
    layer = copy.deepcopy(LAYERS[name][0](**{f"{part}_constraint": "non_neg"}))
    layer(INPUTS)
    with torch.no_grad():
        getattr(layer, part).fill_(-1.0)
    constraints.apply(layer)
    assert (getattr(layer, part) == 0).all()


@pytest.mark.parametrize("name", LAYERS)
def test_an_optimizer_may_come_before_the_shapes(name):
    layer = LAYERS[name][0]()
    assert layer.weights == []
    with pytest.raises(ValueError, match="has no weights to count yet"):
        layer.count_params()
    optimizer = torch.optim.Adam(layer.parameters())
    layer(INPUTS).exp().sum().backward()
    before = [weight.detach().clone() for weight in layer.trainable_weights]
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, layer.trainable_weights, strict=True))
    assert [name for name, _ in layer.named_parameters()] == LAYERS[name][1]


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_dict_builds_a_layer(name):
    layer, twin = LAYERS[name][0](), LAYERS[name][0]()
    layer(INPUTS, **({"training": True} if name == "batch" else {}))
    twin.load_state_dict(layer.state_dict())
    assert twin.built
    layer.eval(), twin.eval()
    assert torch.equal(layer(INPUTS), twin(INPUTS))


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_the_first_values(name):
    layer = LAYERS[name][0]()
    layer(INPUTS)
    values = [value + 1 for value in layer.get_weights()]
    twin = LAYERS[name][0](weights=values)
    twin.eval()(INPUTS)
    assert all((a == b).all() for a, b in zip(twin.get_weights(), values, strict=True))
    with pytest.raises(ValueError, match="shape"):
        LAYERS[name][0](weights=[value[:-1] for value in values])(INPUTS)


@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_function_that_no_file_brings_back_is_named(name, part):
    layer = LAYERS[name][0](**{f"{part}_regularizer": lambda weight: weight.sum()})
    with pytest.raises(ValueError, match=f"Layer '{layer.name}', argument '{part}_regularizer': Cannot save a lambda"):
        layer.get_config()


def test_functional_call_waits_for_the_weights():
    layer = LayerNormalization()
    with pytest.raises(RuntimeError, match="is not built, so functional_call cannot replace its 'gamma'"):
        torch.func.functional_call(layer, {"gamma": torch.ones(3)}, (torch.ones(2, 3),))
