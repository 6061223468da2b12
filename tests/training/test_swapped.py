"""Tensors are swapped in every place, and come back, also in a part that is reached by two names."""

import torch

import fanin
from fanin.training.swapped import swapped


def test_a_part_with_two_names():
    part = torch.nn.Linear(2, 2)
    whole = torch.nn.ModuleDict({"one": part, "two": torch.nn.Sequential(part)})
    weight, other = part.weight, torch.zeros(2, 2)
    with swapped(whole, {id(weight): other}):
        assert part.weight is other
        assert whole["two"][0].weight is other
    assert part.weight is weight


def test_a_layer_shared_between_models_trains():
    results = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(0)
        x = fanin.Input((4,))
        shared = fanin.layers.Dense(4, "tanh")
        inner = fanin.Model(x, shared(x))
        model = fanin.Model(x, fanin.layers.Dense(1)(inner(shared(x))))
        model.compile("sgd", "mse", run_eagerly=run_eagerly)
        model.fit(torch.ones(8, 4), torch.ones(8, 1), epochs=2, verbose=0)
        assert type(shared.kernel) is torch.nn.Parameter
        results.append(model.get_weights())
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(two))
