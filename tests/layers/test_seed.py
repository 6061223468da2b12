"""Where random numbers come from, through the layers that draw them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from fanin.layers import AlphaDropout, Dropout, GaussianDropout, GaussianNoise
from fanin.layers.base.seed import Seed

X = torch.ones(4, 50)
makers = pytest.mark.parametrize(
    "make",
    [
        lambda seed: Dropout(0.5, seed=seed),
        lambda seed: AlphaDropout(0.5, seed=seed),
        lambda seed: GaussianDropout(0.5, seed),
        lambda seed: GaussianNoise(0.5, seed),
    ],
)


def draws(layer, count=3):
    return torch.stack([layer(X, training=True) for _ in range(count)])


@makers
def test_without_a_seed_the_global_generator_counts(make):
    torch.manual_seed(1)
    first = draws(make(None))
    assert not torch.equal(first, draws(make(None)))
    torch.manual_seed(1)
    assert torch.equal(first, draws(make(None)))


@makers
def test_with_a_seed_nothing_else_counts(make):
    before = torch.get_rng_state()
    first = draws(make(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(first, draws(make(7)))
    assert not torch.equal(first, draws(make(8)))
    assert not torch.equal(first[0], first[1])


@makers
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_goes_on_where_the_original_stands(make, copied):
    layer = make(7)
    draws(layer, 1)
    twin = copied(layer)
    following = draws(twin)
    assert torch.equal(draws(layer), following)  # and the two do not share their generator
    assert torch.equal(torch.cat([draws(make(7), 1), following]), draws(make(7), 4))


@makers
def test_a_config_starts_anew(make):
    layer = make(7)
    first = draws(layer)
    assert torch.equal(first, draws(type(layer).from_config(layer.get_config())))


@makers
def test_inference_draws_nothing(make):
    layer = make(7)
    layer(X, training=False)
    layer(torch.ones(4, 50, device="meta"), training=True)
    assert torch.equal(draws(layer), draws(make(7)))


@makers
@pytest.mark.parametrize("seed", [1.0, "a", True, [1]])
def test_bad_seeds(make, seed):
    with pytest.raises(ValueError, match="seed must be an integer or None"):
        make(seed)


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**64 - 1, 2**70])
def test_every_integer_is_a_seed(seed):
    cpu = torch.device("cpu")
    found = Seed(seed, "Dropout").generator(cpu)
    assert found.initial_seed() == seed % 2**64
    assert Seed(seed, "Dropout").generator(torch.device("meta")) is None
