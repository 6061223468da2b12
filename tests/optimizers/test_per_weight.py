import copy
import functools
import gc
import pickle

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fanin.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop

EACH = pytest.mark.parametrize(
    "make",
    [
        functools.partial(SGD, momentum=0.9, nesterov=True),
        functools.partial(AdamW, weight_decay=0.3),
        functools.partial(Adam, amsgrad=True),
        functools.partial(RMSprop, momentum=0.5),
        functools.partial(Nadam, weight_decay=0.3),
        functools.partial(Adamax, weight_decay=0.3),
        functools.partial(Adagrad, weight_decay=0.3),
        functools.partial(Adadelta, weight_decay=0.3),
        functools.partial(Lion, weight_decay=0.3),
    ],
    ids=lambda make: make.func.__name__,
)


@EACH
def test_a_scaled_weight_learns_and_decays_like_one_with_that_rate(make, weights, gradients):
    a, b = weights(), weights()
    scaled, whole, half = make(0.125), make(0.125), make(0.0625)
    scaled.scale_learning_rate(a[:2], 0.5)
    for seed in range(6):
        g = gradients(a, seed)
        scaled.apply(g, a)
        half.apply(g[:2], b[:2])
        whole.apply(g[2:], b[2:])
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-14)


@EACH
def test_a_step_takes_factors_too(make, weights, gradients):
    a, b = weights(), [w.detach() for w in weights()]
    optimizer, pure = make(0.125), make(0.125)
    optimizer.scale_learning_rate(a[1:3], 0.25)
    optimizer.exclude_from_weight_decay([a[2]])
    slots = [pure.init_slots(w) for w in b]
    for step in range(1, 5):
        g = gradients(a, step)
        of_step = [torch.tensor(value, dtype=torch.float64) for value in pure.scalars(0.125, float(step))]
        optimizer.apply(g, a)
        pure.step(b, g, slots, *of_step, optimizer.decays(a), factors=optimizer.factors(a))
    assert optimizer.factors(a) == [1.0, 0.25, 0.25, 1.0]
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.detach(), y, rtol=1e-12, atol=1e-13)


@EACH
def test_factors_can_be_traced(make, weights, gradients):
    optimizer = make(0.125)
    start = [w.detach() for w in weights()]
    slots = [optimizer.init_slots(w) for w in start]
    factors = [0.5, 1.0, 0.25, 0.5]

    def update(weights, slots, gradients, size, decay):
        optimizer.step(weights, gradients, slots, size, decay, factors=factors)
        return weights, slots

    def scalars(step):
        return [torch.tensor(value) for value in optimizer.scalars(0.125, float(step))]

    traced = make_fx(update, tracing_mode="fake")(*copy.deepcopy((start, slots, gradients(start))), *scalars(1))
    mine, theirs = copy.deepcopy((start, slots)), copy.deepcopy((start, slots))
    for number in range(1, 4):
        g = gradients(start, number)
        update(*mine, g, *scalars(number))
        traced(*theirs, g, *scalars(number))
    for x, y in zip(mine[0], theirs[0], strict=True):
        assert torch.equal(x, y)


def test_the_global_norm_is_of_all_gradients(weights):
    a = weights()[:2]
    optimizer = SGD(1.0, global_clipnorm=1.0)
    optimizer.scale_learning_rate([a[0]], 0.5)
    before = [w.detach().clone() for w in a]
    optimizer.apply([torch.ones_like(w) for w in a], a)
    for w, start, factor in zip(a, before, (0.5, 1.0), strict=True):
        torch.testing.assert_close(start - w.detach(), torch.full_like(start, factor / 4))  # 16 ones have norm 4


def test_a_factor_of_zero_and_of_one(weights, gradients):
    w = weights()
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.scale_learning_rate(w[:1], 0)
    optimizer.scale_learning_rate(w[1:2], 5.0)
    optimizer.scale_learning_rate(w[1:2], 1)
    before = [x.detach().clone() for x in w]
    optimizer.apply(gradients(w), w)
    assert [torch.equal(x, y) for x, y in zip(w, before, strict=True)] == [True, False, False, False]
    assert optimizer.factors(w) == [0.0, 1.0, 1.0, 1.0]
    assert len(optimizer._factors) == 1


def test_weights_of_several_kinds_at_once(gradients):
    mixed = [torch.nn.Parameter(torch.ones(2, dtype=d)) for d in (torch.float32, torch.float64, torch.float64)]
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.scale_learning_rate(mixed[1:2], 0.5)
    optimizer.exclude_from_weight_decay(mixed[:1])
    optimizer.apply([torch.ones_like(w) for w in mixed], mixed)
    expected = [1 - 0.1, 1 - 0.05 * 0.5 - 0.05, 1 - 0.1 * 0.5 - 0.1]
    assert [w[0].item() for w in mixed] == pytest.approx(expected, abs=1e-6)
    optimizer.exclude_from_weight_decay(mixed)
    for w in (mixed, mixed[1:], mixed[2:]):
        optimizer.apply([torch.zeros_like(x) for x in w], w)


def test_factors_are_kept_weakly():
    optimizer = SGD()
    w = torch.nn.Parameter(torch.ones(2))
    optimizer.scale_learning_rate([w], 0.5)
    assert len(optimizer._factors) == 1
    del w
    gc.collect()
    assert len(optimizer._factors) == 0


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_keep_factors_and_exclusions(copier):
    model, optimizer = torch.nn.Linear(2, 2), AdamW()
    optimizer.scale_learning_rate([model.bias], 0.5)
    optimizer.exclude_from_weight_decay([model.weight])
    twin, other = copier((model, optimizer))
    assert other.factors(twin.parameters()) == [1.0, 0.5]
    assert other.decays(twin.parameters()) == [False, True]
    assert other.factors(model.parameters()) == [1.0, 1.0]


def test_bad_factors_change_nothing():
    optimizer = SGD()
    w = torch.nn.Parameter(torch.ones(2))
    for factor in (-1.0, float("nan"), float("inf"), True, "2"):
        with pytest.raises(ValueError, match="factor must be a number"):
            optimizer.scale_learning_rate([w], factor)
    with pytest.raises(TypeError, match="expected weights, found 'kernel'"):
        optimizer.scale_learning_rate([w, "kernel"], 0.5)
    assert optimizer.factors([w]) == [1.0]
