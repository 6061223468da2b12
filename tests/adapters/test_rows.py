"""One batch, many adapters: the numbers and gradients of each row are as under its own adapter alone."""

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rows_cases import NAMES, Tower, mixed, pairs_of, row_by_row
from torch import nn

import fanin
from fanin import adapters
from fanin.layers import Dense, Embedding

EASY = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])


def gradients(module):
    return {name: weight.grad for name, weight in module.named_parameters()}


def gradients_row_by_row(module, names, inputs, weights):
    """The gradients of sum(weights * outputs), each row under its own active adapter."""
    module.zero_grad()
    for row, name in enumerate(names):
        adapters.set_active(module, name)
        outputs = module(inputs[row : row + 1])
        if outputs.requires_grad:
            (outputs * weights[row : row + 1]).sum().backward()
    found = gradients(module)
    module.zero_grad()
    return found


def assert_same_gradients(module, found, expected, tolerance):
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            size = gradient.abs().max().item()
            torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=tolerance * size, msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
@EASY
@given(
    names=st.lists(st.sampled_from([*NAMES, None, "ann"]), min_size=1, max_size=9),
    ranks=st.tuples(*[st.integers(1, 6)] * 4),
    deep=st.booleans(),
)
def test_rows_are_as_under_their_own_adapter(names, ranks, deep, dtype, tolerance):
    tower = mixed(Tower(dtype), ranks)
    indices = torch.randint(7, (len(names), 4, 2) if deep else (len(names),))
    expected = row_by_row(tower, names, indices).detach()
    weights = torch.randn_like(expected)
    by_row = gradients_row_by_row(tower, names, indices, weights)
    with adapters.rows(tower, names):
        outputs = tower(indices)
        if any(names):
            (outputs * weights).sum().backward()
    assert outputs.dtype == expected.dtype
    torch.testing.assert_close(outputs, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    assert_same_gradients(tower, gradients(tower), by_row, tolerance)
    for name in set(NAMES) - set(names):
        assert all(weight.grad is None for weight in pairs_of(tower, name))


def test_the_inputs_get_gradients():
    layer = mixed(nn.Linear(6, 5, dtype=torch.float64))
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    with adapters.rows(layer, ["bob", None, "ann", "bob"]):
        (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    (expected,) = torch.autograd.grad(row_by_row(layer, ["bob", None, "ann", "bob"], x).square().sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_policies(policy):
    layer = mixed(fanin.Sequential([fanin.Input((6,)), Dense(5, dtype=policy)]))
    exact = mixed(fanin.Sequential([fanin.Input((6,)), Dense(5)]))
    exact.load_state_dict(layer.state_dict())
    names, x = ["dan", "ann", None, "dan"], torch.randn(4, 6)
    layer.train()
    with adapters.rows(layer, names), adapters.rows(exact, names):
        outputs, expected = layer(x), exact(x)
        outputs.float().sum().backward()
        expected.sum().backward()
    width = torch.finfo(outputs.dtype).eps
    assert outputs.dtype == layer.layers[0].dtype_policy.compute
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=16 * width)
    for name in ("ann", "dan"):
        for one, other in zip(pairs_of(layer, name), pairs_of(exact, name), strict=True):
            assert one.grad.dtype == torch.float32
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=32 * width)


def test_autocast():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(3, 6)
    names = ["bob", None, "cid"]
    with torch.autocast("cpu", torch.bfloat16):
        expected = row_by_row(layer, names, x)
        with adapters.rows(layer, names):
            found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_dropout_is_each_adapters_own():
    layer = nn.Linear(400, 1, bias=False)
    nn.init.zeros_(layer.weight)
    for name, rate in (("ann", 0.0), ("bob", 0.5)):
        adapters.add(layer, name, 1, dropout=rate, a_initializer="ones", b_initializer="ones")
    names, x = ["ann", "bob", "bob", None], torch.ones(4, 400)
    layer.train()
    with adapters.rows(layer, names), torch.no_grad():
        ann, one, other, nobody = layer(x)[:, 0].tolist()
    assert (ann, nobody) == (400, 0)
    assert one != other
    assert all(abs(each - 400) < 6 * 20 and each % 2 == 0 for each in (one, other))  # 6 standard deviations
    layer.eval()
    with adapters.rows(layer, names), torch.no_grad():
        assert layer(x)[:, 0].tolist() == [400, 400, 400, 0]


def test_dropout_of_one_rate():
    table = Embedding(3, 2)
    table.build()
    adapters.add(table, "ann", 4, dropout=0.5, target=lambda *_: True, a_initializer="ones", b_initializer="ones")
    table.train()
    with adapters.rows(table, ["ann"] * 50), torch.no_grad():
        found = table(torch.zeros(50, dtype=torch.long)) - table.embeddings[0]
    assert set(found.round().flatten().tolist()) <= {0.0, 2.0, 4.0, 6.0, 8.0}
    assert len(set(found.round().flatten().tolist())) > 2


def test_rows_without_adapters():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    with adapters.rows(layer, [None, None]):
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    with adapters.rows(layer, []):
        assert layer(torch.zeros(0, 6)).shape == (0, 5)
    with adapters.rows(layer, ["ann"]):
        assert layer(torch.zeros(1, 0, 6)).shape == (1, 0, 5)
    with adapters.rows(nn.Linear(6, 5), [None]):
        pass


def test_batches_mixed_by_peft():
    peft = pytest.importorskip("peft", reason="PEFT is installed for benchmarks only")
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5))
    ours = mixed(copy.deepcopy(model))
    theirs = peft.get_peft_model(
        model, peft.LoraConfig(r=2, lora_alpha=1.5, target_modules=["0", "2"]), adapter_name="ann"
    )
    for name, rank, alpha, rslora in (("bob", 3, 2.5, False), ("cid", 1, 3.5, True), ("dan", 4, 4.5, False)):
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0", "2"], use_rslora=rslora)
        theirs.add_adapter(name, config)
    for path in ("0", "2"):
        layer = theirs.base_model.model.get_submodule(path)
        for name in NAMES:
            with torch.no_grad():
                layer.lora_A[name].weight.copy_(getattr(ours.get_submodule(path), f"{name}_weight_a").t())
                layer.lora_B[name].weight.copy_(getattr(ours.get_submodule(path), f"{name}_weight_b").t())
    names = ["bob", None, "dan", "ann", "cid", "bob", "ann"]
    x = torch.randn(len(names), 6)
    theirs.eval()
    with torch.no_grad(), adapters.rows(ours, names):
        expected = theirs(x, adapter_names=["__base__" if name is None else name for name in names])
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
