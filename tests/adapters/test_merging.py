"""Merging: predictions that agree, bases that come back bit for bit, and nothing half done."""

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from fanin import adapters
from fanin.layers import Dense, Embedding

EASY = settings(derandomize=True, deadline=None, max_examples=50, phases=[Phase.generate])


def made(kind, input_dim, units, dtype="float32"):
    if kind == "linear":
        return nn.Linear(input_dim, units, dtype=getattr(torch, dtype))
    if kind == "embedding":
        layer = Embedding(input_dim, units, dtype=dtype, embeddings_initializer="normal")
        layer.build(None)
        return layer
    layer = Dense(units, dtype=dtype)
    layer.build((None, input_dim))
    return layer


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@EASY
@given(
    kind=st.sampled_from(["dense", "embedding", "linear"]),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9)),
    leading=st.sampled_from([(1,), (7,), (60,), (2, 3), (0,)]),
    policy=st.sampled_from(["float32", "float64", "mixed_bfloat16", "bfloat16"]),
    grad=st.booleans(),
)
def test_merged_predictions_agree_and_bases_come_back(kind, sizes, leading, policy, grad):
    """Two sums of products in another order: the bound counts roundings of the largest sum of absolute values. For the
    kernels here that is below the 1e-5 of the largest product in float32."""
    input_dim, units, rank = sizes
    if kind == "linear" and policy.startswith("mixed"):
        policy = "bfloat16"
    layer = made(kind, input_dim, units, policy)
    adapters.add(layer, "ann", rank, alpha=2, target=lambda path, layer: True, b_initializer="random_normal")
    inputs = torch.randint(input_dim, leading) if kind == "embedding" else torch.randn(*leading, input_dim)
    inputs = inputs.to(torch.bfloat16) if kind == "linear" and policy == "bfloat16" else inputs
    inputs = inputs.double() if kind == "linear" and policy == "float64" else inputs
    before = bits(layer)
    with torch.set_grad_enabled(grad):
        apart = layer(inputs)
        adapters.merge(layer, "ann")
        merged = layer(inputs)
    assert merged.dtype == apart.dtype
    step = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}[apart.dtype]
    size = 1.0 + apart.detach().double().abs().max().item() if apart.numel() else 1.0
    reach = (input_dim**0.5 + rank) * size
    assert (merged.double() - apart.double()).abs().max().item() <= 4 * step * reach if apart.numel() else True
    adapters.unmerge(layer)
    assert equal(bits(layer), before)
    with torch.set_grad_enabled(grad):
        assert torch.equal(layer(inputs), apart)


def test_predictions_agree_to_1e_5_in_float32():
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), made("dense", 128, 32), nn.Tanh(), nn.Linear(32, 8))
    adapters.add(model, "ann", 8, alpha=16, b_initializer="he_uniform")
    inputs = torch.randn(200, 64)
    apart = model(inputs)
    adapters.merge(model, "ann")
    assert (model(inputs) - apart).abs().max() < 1e-5
    assert model[0].active_adapter is None


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(4, 6), made("dense", 6, 5), nn.Linear(5, 3))
    adapters.add(model, "ann", 2, target=["0", "1"], b_initializer="ones")
    adapters.add(model, "bob", 2, target=["1", "2"], b_initializer="ones")
    return model


INPUTS = torch.linspace(-1, 1, 12).reshape(3, 4)


def test_a_merge_is_as_the_adapter_alone(model):
    before = bits(model)
    adapters.set_active(model, "ann")
    ann = model(INPUTS)
    adapters.set_active(model, "bob")
    adapters.merge(model, "ann")
    torch.testing.assert_close(model(INPUTS), ann)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert list(model.state_dict()) == list(before)
    for action in (lambda: adapters.set_active(model, "bob"), lambda: adapters.add(model, "eve", 1)):
        with pytest.raises(ValueError, match="merged"):
            action()
    for action in (lambda: adapters.merge(model, "bob"), lambda: adapters.remove(model, "ann")):
        with pytest.raises(ValueError, match="unmerge first"):
            action()
    with pytest.raises(ValueError, match="unmerge first"):
        adapters.scale(model, "ann", 2)
    torch.testing.assert_close(model(INPUTS), ann)
    adapters.unmerge(model)
    assert equal(bits(model), before)
    assert torch.equal(model(INPUTS), ann)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "0.ann_weight_a", "0.ann_weight_b", "1.ann_kernel_a", "1.ann_kernel_b"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="has no merged adapter"):
        adapters.unmerge(model)
    with pytest.raises(ValueError, match="no adapter 'eve'"):
        adapters.merge(model, "eve")


def test_a_merge_for_good(model):
    before = bits(model)
    adapters.set_active(model, "ann")
    expected = model(INPUTS)
    adapters.merge(model, "ann", keep_base=False)
    assert not list(model.buffers())
    with pytest.raises(ValueError, match=r"was not kept \(keep_base=False\)"):
        adapters.unmerge(model)
    adapters.remove(model, "ann")
    torch.testing.assert_close(model(INPUTS), expected)
    adapters.remove(model, "bob")
    assert type(model[0]) is nn.Linear
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model[2].weight, before["2.weight"])
    assert not torch.equal(model[0].weight, before["0.weight"])


def test_the_context_manager_leaves_all_as_it_was(model):
    before, outputs = bits(model), model(INPUTS)
    assert model[2].active_adapter == "bob"
    with adapters.merged(model, "ann"):
        assert [layer.scheme.merged for layer in model] == ["ann", "ann", None]
    assert equal(bits(model), before)
    assert torch.equal(model(INPUTS), outputs)
    with pytest.raises(RuntimeError, match="inside"), adapters.merged(model, "ann"):
        raise RuntimeError("inside")
    assert equal(bits(model), before)


def test_copies_of_a_merged_model_unmerge_too(model):
    before = bits(model)
    adapters.merge(model, "ann")
    twin = copy.deepcopy(model).to(torch.float64).to(torch.float32)
    adapters.unmerge(twin)
    assert equal(bits(twin), before)
    assert model[0].scheme.merged == "ann"


def test_a_failure_on_the_way_undoes_what_was_merged(model, monkeypatch):
    adapters.set_active(model, "ann")
    before = bits(model)

    def fail(name):
        raise MemoryError("no more")

    monkeypatch.setattr(model[1], "_merge", fail)
    with pytest.raises(MemoryError):
        adapters.merge(model, "ann")
    assert equal(bits(model), before)
    assert model[0].scheme.merged is None
    assert model[0].active_adapter == "ann"
    assert not list(model.buffers())


def test_tied_weights_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    adapters.add(model, "ann", 2, target="0")
    with pytest.raises(ValueError, match="kernel at '0' belongs to another module too"):
        adapters.merge(model, "ann")


def test_merging_inside_other_modes(model):
    outputs = model(INPUTS)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        adapters.merge(model, "bob")
    torch.testing.assert_close(model(INPUTS), outputs)
    adapters.unmerge(model)
    model(INPUTS).sum().backward()
    assert model[1].bob_kernel_b.grad is not None


def test_what_acts_merges_without_a_trace_of_gradients(model):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    adapters.set_active(model, "ann")
    trains = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    adapters.merge(model, "ann")
    assert all(parameter.is_leaf and not parameter.requires_grad for parameter in model.parameters())
    adapters.unmerge(model)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trains
    assert all(parameter.is_leaf for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(INPUTS).sum().backward()
    optimizer.step()
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == trains  # the base stood still
