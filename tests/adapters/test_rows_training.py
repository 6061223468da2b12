"""One batch, many adapters: each trains as if it were alone."""

import copy

import pytest
import torch
from rows_cases import NAMES, Tower, mixed, pairs_of
from torch import nn

from fanin import adapters


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
