"""One batch, adapters in different layers: where a layer lacks a row's adapter, the row has the base alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rows_cases import NAMES, Tower, mixed, pairs_of, row_by_row
from torch import nn
from torch.func import functional_call

import fanin
from fanin import adapters
from fanin.kernels import mixed as products
from fanin.layers import Dense

LAYERS = ["table", "up", "head", "end"]
EASY = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])


def thinned(module, places):
    """The module, each adapter left only in its places."""
    for name, kept in places.items():
        for path, layer in list(module.named_modules()):
            if name in getattr(layer, "adapters", ()) and path not in kept:
                adapters.remove(layer, name)
    return module


@pytest.fixture
def model():
    made = mixed(fanin.Sequential([fanin.Input((6,)), Dense(8, "relu"), nn.Linear(8, 4), Dense(3)]))
    return thinned(made, {"ann": ["0", "1"], "bob": ["2"], "cid": ["1", "2"]})


def gradients(module):
    found = {name: weight.grad for name, weight in module.named_parameters()}
    module.zero_grad()
    return found


@EASY
@given(
    names=st.lists(st.sampled_from([*NAMES, None]), min_size=1, max_size=9),
    places=st.fixed_dictionaries({name: st.sets(st.sampled_from(LAYERS), min_size=1) for name in NAMES}),
    ranks=st.tuples(*[st.integers(1, 4)] * 4),
)
def test_rows_are_as_under_their_own_adapter(names, places, ranks):
    tower = thinned(mixed(Tower("float64"), ranks), places)
    indices = torch.randint(7, (len(names), 2))
    expected = row_by_row(tower, names, indices)
    weights = torch.randn_like(expected)
    for row, name in enumerate(names):
        adapters.set_active(tower, name)
        if name is not None:
            (tower(indices[row : row + 1]) * weights[row : row + 1]).sum().backward()
    alone = gradients(tower)
    adapters.set_active(tower, None)
    with adapters.rows(tower, names):
        found = tower(indices)
        if any(names):
            (found * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    for name, gradient in gradients(tower).items():
        torch.testing.assert_close(gradient, alone[name], msg=name) if gradient is not None else None
        assert (gradient is None) == (alone[name] is None), name


def test_only_rows_with_an_adapter_here_pay_for_it(model, monkeypatch):
    met = []
    grouped = products.grouped_mm
    monkeypatch.setattr(products, "grouped_mm", lambda rows, *rest: met.append(rows.shape[0]) or grouped(rows, *rest))
    names, x = ["ann", "bob", None, "bob", "ann", "ann"], torch.randn(6, 6)
    with torch.no_grad(), adapters.rows(model, names):
        model(x)
        assert met == [3, 3, 3, 3, 2, 2]  # two products a layer
        del met[:]
    with torch.no_grad(), adapters.rows(model, ["bob"] * 6):
        first = model.layers[0](x)
        assert not met
    adapters.set_active(model, None)
    assert torch.equal(first, model.layers[0](x))


def test_only_what_sits_there_starts_training(model):
    adapters.set_active(model, None)
    with adapters.rows(model, ["ann", "bob"]):
        model.train()
    assert {key for key, weight in model.named_parameters() if weight.requires_grad} == {
        f"{layer}_{part}" for layer in ("0.ann_kernel", "1.ann_weight", "2.bob_kernel") for part in "ab"
    }


def test_nested_blocks_and_copies(model):
    x = torch.randn(2, 6)
    outer, inner = row_by_row(model, ["ann", "bob"], x), row_by_row(model, ["bob", "cid"], x)
    twin = copy.deepcopy(model)
    with adapters.rows(model, ["ann", "bob"]):
        torch.testing.assert_close(copy.deepcopy(model)(x), twin(x))  # a copy is not the module of the block
        with adapters.rows(model, ["bob", "cid"]):
            torch.testing.assert_close(model(x), inner)
            torch.testing.assert_close(model(x, adapter=["ann", "bob"]), outer)
        torch.testing.assert_close(model(x), outer)


def test_parts_of_the_module_know_the_names_of_all(model):
    x = torch.randn(2, 6)
    with adapters.rows(model, ["ann", "bob"]):
        found = model.layers[0](x)
    torch.testing.assert_close(found, row_by_row(model.layers[0], ["ann", None], x))
    with pytest.raises(ValueError, match="no layer has 'bob'; there is 'ann', 'dan'"):
        adapters.rows(model.layers[0], ["ann", "bob"]).__enter__()
    with pytest.raises(ValueError, match=r"0: found inputs of shape \(3, 6\), but 2 names"):
        model(torch.zeros(3, 6), adapter=["bob", "bob"])


def test_tracers(model):
    x = torch.randn(3, 6)
    compiled = torch.compile(model, backend="eager")
    fresh = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    for names in (["ann", "bob", None], ["bob", "cid", "ann"], ["bob"] * 3):
        expected = row_by_row(model, names, x)
        with torch.no_grad(), adapters.rows(model, names):
            torch.testing.assert_close(compiled(x), expected)
            torch.testing.assert_close(functional_call(model, fresh, (x,)), expected)


def test_adapters_added_within_a_block(model):
    """A program that was traced before a block knew them does not serve the next."""
    thinned(model, {"bob": [], "cid": ["1"]})
    adapters.add(model.layers[2], "ann", 2, b_initializer="glorot_uniform")  # 0: ann; 1: ann, cid; 2: ann
    x, names = np.random.randn(2, 6).astype("f"), ["ann", "cid"]
    with adapters.rows(model, names):
        adapters.add(model.layers[2], "cid", 2, b_initializer="glorot_uniform")
        model.predict(x, verbose=0)
    expected = row_by_row(copy.deepcopy(model), names, torch.from_numpy(x)).detach().numpy()
    with adapters.rows(model, names):
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_batches_mixed_by_peft():
    peft = pytest.importorskip("peft", reason="PEFT is installed for benchmarks only")
    base = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5))
    places = {"ann": ["0"], "bob": ["2"], "cid": ["0", "2"]}
    ours, config = copy.deepcopy(base), {}
    for rank, (name, paths) in enumerate(places.items(), 1):
        adapters.add(ours, name, rank, alpha=rank + 1.5, target=paths, b_initializer="glorot_uniform")
        config[name] = peft.LoraConfig(r=rank, lora_alpha=rank + 1.5, target_modules=paths)
    theirs = peft.get_peft_model(base, config["ann"], adapter_name="ann")
    theirs.add_adapter("bob", config["bob"])
    theirs.add_adapter("cid", config["cid"])
    for name, paths in places.items():
        for path in paths:
            layer, (a, b) = theirs.base_model.model.get_submodule(path), pairs_of(ours.get_submodule(path), name)
            with torch.no_grad():
                layer.lora_A[name].weight.copy_(a.t())
                layer.lora_B[name].weight.copy_(b.t())
    names, x = ["bob", None, "ann", "cid", "bob"], torch.randn(5, 6)
    theirs.eval()
    with torch.no_grad(), adapters.rows(ours, names):
        expected = theirs(x, adapter_names=["__base__" if name is None else name for name in names])
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
