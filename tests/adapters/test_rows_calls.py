"""Which calls a batch's names of adapters are for: blocks, threads, parts, and `adapter=` at the call of a model."""

import contextvars
import threading
import warnings

import pytest
import torch
from rows_cases import NAMES, Tower, mixed, pairs_of, row_by_row
from torch import nn

import fanin
from fanin import adapters
from fanin.kernels.rows import Blocks
from fanin.layers import Dense


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
    with pytest.raises(ValueError, match="Sequential cannot mix these adapters: no layer has 'eve'"):
        outer(x, adapter=["ann", "eve"])


def test_losses_of_the_call():
    layer = Dense(3, activity_regularizer="l2")
    model = mixed(fanin.Sequential([fanin.Input((6,)), layer]))
    outputs = model(torch.randn(2, 6), adapter=["ann", None])
    (loss,) = model.losses
    torch.testing.assert_close(loss, 0.01 * outputs.square().sum() / 2)


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
