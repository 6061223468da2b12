"""One batch, many adapters: each row computes and trains as under its own adapter alone."""

import contextvars
import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import fanin
from fanin import adapters
from fanin.kernels.rows import Blocks, rows_key, rows_tensors, with_rows_tensors
from fanin.layers import Dense, Embedding
from fanin.program import Program

EASY = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])
NAMES = ["ann", "bob", "cid", "dan"]


class Tower(nn.Module):
    """Layers of all kinds, one of them in float64 or 16 bits if asked for."""

    def __init__(self, dtype="float32"):
        super().__init__()
        self.table = Embedding(7, 6, dtype=dtype)
        self.up = nn.Linear(6, 9, dtype=self.table.dtype_policy.variable)
        self.head = Dense(5, "relu", dtype=dtype)
        self.end = Dense(3, dtype=dtype)
        self(torch.zeros(1, dtype=torch.long))

    def forward(self, indices):
        x = self.table(indices).to(self.up.weight.dtype)
        return self.end(self.head(torch.tanh(self.up(x))))


def mixed(module, ranks=(2, 3, 1, 4), dropout=0.0):
    """The module with four adapters, all of other ranks and scales, that change what it computes."""
    for place, (name, rank) in enumerate(zip(NAMES, ranks, strict=True)):
        adapters.add(
            module, name, rank, alpha=1.5 + place, dropout=dropout, rslora=place == 2, target=lambda path, layer: True,
            b_initializer="glorot_uniform",
        )  # fmt: skip
    if any(weight.dtype == torch.float64 for weight in module.parameters()):
        module.double()
    return module


def row_by_row(module, names, inputs):
    """Each row under its own active adapter."""
    found = []
    for row, name in enumerate(names):
        adapters.set_active(module, name)
        found.append(module(inputs[row : row + 1]))
    return torch.cat(found)


def pairs_of(module, name):
    """An adapter's own parameters."""
    return [weight for key, weight in module.named_parameters() if key.rpartition(".")[2].startswith(f"{name}_")]


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


# --- outputs and gradients --------------------------------------------------------------------------------------------


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


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer", [torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)], ids=["adam", "sgd"]
)
def test_each_adapter_trains_with_its_own_optimizer(optimizer):
    """As if each tenant had a model and an optimizer of its own, and only the rows that are its own."""
    tower = mixed(Tower("float64"))
    alone = {name: copy.deepcopy(tower) for name in NAMES}
    optimizers = {name: optimizer(pairs_of(tower, name), lr=0.1) for name in NAMES}
    own = {}
    for name, twin in alone.items():
        adapters.set_active(twin, name)
        own[name] = optimizer(pairs_of(twin, name), lr=0.1)
    batches = [["ann", "bob", "ann", None], ["bob", "bob"], ["ann", "cid", "ann"]]
    for names in batches:
        indices, target = torch.randint(7, (len(names),)), torch.randn(len(names), 3, dtype=torch.float64)
        before = {name: [weight.clone() for weight in pairs_of(tower, name)] for name in NAMES}
        with adapters.rows(tower, names):
            (tower(indices) - target).square().sum().backward()
        for each in optimizers.values():
            each.step()
            each.zero_grad()
        for name in NAMES:
            chosen = [row for row, each in enumerate(names) if each == name]
            changed = any(not torch.equal(a, b) for a, b in zip(before[name], pairs_of(tower, name), strict=True))
            assert changed == bool(chosen)
            if chosen:
                (alone[name](indices[chosen]) - target[chosen]).square().sum().backward()
                own[name].step()
                own[name].zero_grad()
            for one, other in zip(pairs_of(tower, name), pairs_of(alone[name], name), strict=True):
                torch.testing.assert_close(one, other)
    assert not optimizers["dan"].state
    base = {name: weight for name, weight in alone["dan"].named_parameters() if not name.split(".")[-1].count("_")}
    for name, weight in base.items():
        assert torch.equal(tower.get_parameter(name), weight)


def test_backward_after_the_block():
    layer = mixed(nn.Linear(6, 5))
    with adapters.rows(layer, ["ann", "bob"]):
        outputs = layer(torch.randn(2, 6))
    outputs.sum().backward()
    assert all(weight.grad is not None for name in ("ann", "bob") for weight in pairs_of(layer, name))


def test_who_trains():
    layer = mixed(nn.Linear(6, 5))
    trained = lambda: {key.split("_")[0] for key, weight in layer.named_parameters() if weight.requires_grad}  # noqa: E731
    assert trained() == {"dan"}
    with torch.no_grad(), adapters.rows(layer, ["ann"]):
        assert trained() == {"dan"}
    with adapters.rows(layer, ["ann", None]):
        assert trained() == {"ann", "dan"}
    assert trained() == {"ann", "dan"}
    adapters.set_active(layer, "bob")
    assert trained() == {"bob"}


def test_what_was_frozen_by_hand_stays_frozen():
    layer = mixed(nn.Linear(6, 5))
    adapters.set_active(layer, "ann")
    layer.ann_weight_a.requires_grad_(False)
    adapters.set_active(layer, "bob")
    with adapters.rows(layer, ["ann"]):
        layer(torch.randn(1, 6)).sum().backward()
    assert layer.ann_weight_a.grad is None
    assert layer.ann_weight_b.grad is not None


# --- models of fanin --------------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    inputs = fanin.Input((6,))
    hidden = Dense(8, activation="relu")(inputs)
    return mixed(fanin.Model(inputs, Dense(2)(hidden)))


def test_names_at_the_call(model):
    x, names = torch.randn(3, 6), ["bob", None, "ann"]
    model(x)  # the next would take the short way
    expected = row_by_row(model, names, x)
    torch.testing.assert_close(model(x, adapter=names), expected)
    torch.testing.assert_close(model(x, adapter=names, training=True), expected)
    torch.testing.assert_close(model(x.numpy(), adapter=tuple(names)), expected)
    adapters.set_active(model, "ann")
    assert torch.equal(model(x, adapter=None), model(x))
    assert not Blocks.count
    chain = mixed(fanin.Sequential([fanin.Input((6,)), Dense(4), nn.Linear(4, 2)]))
    torch.testing.assert_close(chain(x, adapter=names), row_by_row(chain, names, x))


def test_training_with_names_at_the_call(model):
    model.train()
    model(torch.randn(2, 6), adapter=["cid", "bob"]).sum().backward()
    for name in NAMES:
        assert all((weight.grad is not None) == (name in ("bob", "cid")) for weight in pairs_of(model, name))


def test_a_call_that_takes_adapter_itself():
    class Own(fanin.Model):
        def call(self, inputs, adapter=None):
            return inputs * adapter

    assert Own()(torch.ones(1, 1), adapter=3).item() == 3


def test_a_model_within_a_model(model):
    outer = fanin.Sequential([model, Dense(1)])
    x, names = torch.randn(2, 6), ["ann", "bob"]
    outer(x)
    with adapters.rows(model, names):
        found = outer(x)
    torch.testing.assert_close(found, outer.layers[1](row_by_row(model, names, x)))
    with pytest.raises(ValueError, match="Sequential cannot mix these adapters: 0"):
        outer(x, adapter=["ann", "eve"])


def test_losses_of_the_call():
    layer = Dense(3, activity_regularizer="l2")
    model = mixed(fanin.Sequential([fanin.Input((6,)), layer]))
    outputs = model(torch.randn(2, 6), adapter=["ann", None])
    (loss,) = model.losses
    torch.testing.assert_close(loss, 0.01 * outputs.square().sum() / 2)


# --- which calls are meant --------------------------------------------------------------------------------------------


def test_blocks_nest():
    one, other = mixed(nn.Linear(6, 5)), mixed(nn.Linear(6, 5))
    x = torch.randn(2, 6)
    ann_bob, bob_ann = row_by_row(one, ["ann", "bob"], x), row_by_row(one, ["bob", "ann"], x)
    active = other(x)
    with adapters.rows(one, ["ann", "bob"]):
        torch.testing.assert_close(one(x), ann_bob)
        assert torch.equal(other(x), active)  # not the module of the block
        with adapters.rows(one, ["bob", "ann"]), adapters.rows(other, [None, None]):
            torch.testing.assert_close(one(x), bob_ann)
            assert torch.equal(other(x), nn.functional.linear(x, other.weight, other.bias))
        torch.testing.assert_close(one(x), ann_bob)
    with pytest.raises(KeyError), adapters.rows(one, ["ann", "bob"]):
        raise KeyError
    adapters.set_active(one, "bob")
    torch.testing.assert_close(one(x)[:1], bob_ann[:1])
    assert not Blocks.count


def test_threads_and_tasks_have_their_own():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(1, 6)
    expected = {name: row_by_row(layer, [name], x).detach() for name in [*NAMES, None]}
    adapters.set_active(layer, None)
    found, wait = {}, threading.Barrier(len(NAMES) + 1)

    def work(name):
        with torch.no_grad(), adapters.rows(layer, [name]):
            wait.wait()  # all blocks are open now
            found[name] = layer(x)

    threads = [threading.Thread(target=work, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    wait.wait()
    found[None] = layer(x)
    for thread in threads:
        thread.join()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    with adapters.rows(layer, ["ann"]):
        outside = contextvars.Context().run(layer, x)
    torch.testing.assert_close(outside, expected[None])


def test_the_parts_of_a_module_are_meant_too():
    tower = mixed(Tower())
    with adapters.rows(tower, ["ann", None]):
        found = tower.end(torch.ones(2, 5))
    torch.testing.assert_close(found, row_by_row(tower.end, ["ann", None], torch.ones(2, 5)))


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


# --- what is refused --------------------------------------------------------------------------------------------------


def test_names_that_a_layer_lacks():
    tower = mixed(Tower())
    adapters.add(tower, "eve", 2, target="head")
    with pytest.raises(
        ValueError, match=r"Tower cannot mix.*table lacks 'eve'; it has 'ann', 'bob', 'cid', 'dan'\. up lacks 'eve'"
    ):
        adapters.rows(tower, ["ann", "eve"]).__enter__()
    assert not tower.head.ann_kernel_a.requires_grad  # nothing was thawed
    with pytest.raises(ValueError, match="Linear has no adapter 'ann'; it has none"):
        adapters.rows(nn.Linear(2, 2), ["ann"]).__enter__()
    linear = mixed(nn.Linear(6, 5))
    with pytest.raises(ValueError, match="AdaptedLinear lacks 'eve'; it has 'ann'"):
        adapters.rows(linear, ["eve"]).__enter__()
    with adapters.rows(linear, ["ann"]):
        adapters.remove(linear, "ann")
        with pytest.raises(ValueError, match="There is no adapter 'ann' here"):
            linear(torch.zeros(1, 6))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ann", "names is a list with a name or None for each row of the batch, found 'ann'"),
        (3, "names is a list .* found 3"),
        (["ann", 3], "row 1 needs the name of an adapter or None, found 3"),
    ],
)
def test_what_is_no_list_of_names(names, message):
    with pytest.raises(TypeError, match=message):
        adapters.rows(mixed(nn.Linear(6, 5)), names).__enter__()


def test_names_in_an_array():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    with adapters.rows(layer, np.array(["ann", "bob"])):
        found = layer(x)
    torch.testing.assert_close(found, row_by_row(layer, ["ann", "bob"], x))


def test_a_batch_of_another_length(model):
    tower = mixed(Tower())
    message = r"table: found inputs of shape \(3,\), but 2 names of adapters, one for each row"
    with pytest.raises(ValueError, match=message), adapters.rows(tower, ["ann", None]):
        tower(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"0: found inputs of shape \(3, 6\), but 1 names"):
        model(torch.zeros(3, 6), adapter=[None])
    layer = mixed(nn.Linear(6, 5))
    message = r"AdaptedLinear: a name for each row needs inputs .* found shape \(6,\)"
    with pytest.raises(ValueError, match=message), adapters.rows(layer, ["ann"] * 6):
        layer(torch.zeros(6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        nested = torch.nested.nested_tensor([torch.zeros(1, 6), torch.zeros(2, 6)])
    with pytest.raises(ValueError, match="found a nested tensor"), adapters.rows(layer, ["ann"] * 2):
        layer(nested)


def test_a_merged_adapter(model):
    with adapters.merged(model, "ann"), pytest.raises(ValueError, match="0: the adapter 'ann' is merged: unmerge"):
        model(torch.zeros(1, 6), adapter=["bob"])


# --- tracers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_program_serves_all_batches_of_one_key(dtype):
    tower = mixed(Tower(dtype))
    static, keys = list(tower.parameters()), [name for name, _ in tower.named_parameters()]

    def step(*given):
        """Outputs and gradients of the adapters, from weights, indices and the tensors of the block."""
        fresh = [given[place].detach().requires_grad_(own.requires_grad) for place, own in enumerate(static)]
        with with_rows_tensors(given[len(static) + 1 :]):
            outputs = functional_call(tower, dict(zip(keys, fresh, strict=True)), (given[len(static)],))
            trained = [weight for weight in fresh if weight.requires_grad]
            return [outputs, *torch.autograd.grad(outputs.square().sum(), trained, allow_unused=True)]

    batches = [["ann", "cid", None, "ann"], ["cid", None, "ann", "cid"], [None, "cid", "cid", "ann"]]
    found = set()
    program = None
    for names in batches:
        indices = torch.randint(7, (4, 2))
        with adapters.rows(tower, names):
            found.add(rows_key())
            given = [indices, *rows_tensors()]
            program = program or Program(step, static, given)
            results = program(*given)
            trained = [weight for weight in static if weight.requires_grad]
            outputs = tower(indices)
            expected = torch.autograd.grad(outputs.square().sum(), trained, allow_unused=True)
        for one, other in zip(results, [outputs, *expected], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other.detach())
    assert len(found) == 1
    for others in (["ann", "cid", "ann", "ann"], ["ann", "bob", None, "ann"], ["ann", "cid", None]):
        with adapters.rows(tower, others):
            assert rows_key() not in found
    with adapters.rows(tower.head, batches[0]):
        assert rows_key() not in found
    assert rows_key() is None
    assert rows_tensors() == []


def test_torch_compile_sees_the_block():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    adapters.set_active(layer, "dan")
    compiled = torch.compile(layer, backend="eager")
    active = layer(x)
    torch.testing.assert_close(compiled(x), active)
    for names in (["ann", None], ["bob", "ann"], [None, "ann"]):
        with torch.no_grad(), adapters.rows(layer, names):
            torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(compiled(x), active)


def test_recomputed_parts_need_the_block():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    with adapters.rows(layer, ["ann", "bob"]):
        layer(x).square().sum().backward()
        expected = layer.ann_weight_a.grad
        layer.zero_grad()
        checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(layer.ann_weight_a.grad, expected)


# --- against PEFT -----------------------------------------------------------------------------------------------------


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
