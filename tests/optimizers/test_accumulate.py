import copy
import pickle

import numpy as np
import pytest
import torch

from fanin.optimizers import SGD, Adam, AdamW, Lion, Nadam

LR = float(np.float32(0.1))


def test_the_parts_of_a_batch_give_what_the_batch_gives(weights, gradients):
    for make in (lambda **o: AdamW(0.1, clipnorm=0.5, **o), lambda **o: Nadam(0.1, **o), lambda **o: Lion(0.1, **o)):
        whole, parts = make(), make(gradient_accumulation_steps=3)
        a, b = weights(), weights()
        for step in range(4):
            g = [gradients(a, seed=10 * step + part) for part in range(3)]
            whole.apply([sum(each) / 3 for each in zip(*g, strict=True)], a)
            for part in range(3):
                before = [w.detach().clone() for w in b]
                parts.apply(g[part], b)
                moved = [not torch.equal(x, y) for x, y in zip(b, before, strict=True)]
                assert moved == [part == 2] * 4
        assert (whole.iterations, parts.iterations, parts._iterations) == (4, 4, 12)
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


def test_clipping_is_of_the_mean(one):
    found = one(SGD(0.1, clipvalue=1.0, gradient_accumulation_steps=2), [5.0, -3.0, 5.0, -4.5])
    assert found == pytest.approx([1.0, 1.0 - LR, 1.0 - LR, 1.0 - 1.25 * LR])


def test_a_schedule_counts_the_calls(one):
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.5

    one(SGD(schedule, gradient_accumulation_steps=3), [1.0] * 6)
    assert asked == [2, 5]


def test_the_count_of_updates_can_be_set():
    optimizer = SGD(1.0, gradient_accumulation_steps=2)
    w = torch.nn.Parameter(torch.tensor(0.0))
    optimizer.apply([torch.tensor(100.0)], [w])
    optimizer.iterations = 5
    assert (optimizer.iterations, optimizer._iterations) == (5, 10)
    optimizer.apply([torch.tensor(1.0)], [w])
    optimizer.apply([torch.tensor(3.0)], [w])
    assert w.item() == -2.0  # the gradient before was dropped
    assert optimizer.iterations == 6


def test_a_weight_without_a_gradient_in_some_calls():
    a, b, c = (torch.nn.Parameter(torch.tensor(0.0)) for _ in range(3))
    optimizer = SGD(1.0, weight_decay=0.5, gradient_accumulation_steps=2)
    c.data.fill_(8.0)
    one = torch.tensor(1.0)
    optimizer.apply([one, one, None], [a, b, c])
    optimizer.apply([one], [a])
    assert (a.item(), b.item(), c.item()) == (-1.0, -0.5, 8.0)  # c had none at all: it does not even decay
    optimizer.apply([one, None], [a, b])
    optimizer.apply([None, one], [a, b])
    assert (a.item(), b.item()) == (-1.0, -0.75)
    for _ in range(2):
        optimizer.apply([one], [a])
    assert b.item() == -0.75  # nor does b in a round without it


def test_a_weight_frozen_within_a_round_stays():
    a, b = (torch.nn.Parameter(torch.tensor(0.0)) for _ in range(2))
    optimizer = SGD(1.0, gradient_accumulation_steps=2)
    optimizer.apply([torch.tensor(1.0), torch.tensor(1.0)], [a, b])
    b.requires_grad_(False)
    optimizer.apply([torch.tensor(1.0)], [a])
    assert (a.item(), b.item()) == (-1.0, 0.0)
    b.requires_grad_(True)
    for _ in range(2):
        optimizer.apply([torch.tensor(1.0), torch.tensor(3.0)], [a, b])
    assert b.item() == -3.0


def through_state(model, optimizer):
    twin = copy.deepcopy(model)
    other = Adam(0.1, gradient_accumulation_steps=3)
    other.set_state(list(twin.parameters()), optimizer.get_state(list(model.parameters())))
    return twin, other


@pytest.mark.parametrize(
    "copier",
    [lambda *pair: copy.deepcopy(pair), lambda *pair: pickle.loads(pickle.dumps(pair)), through_state],
    ids=["deepcopy", "pickle", "state"],
)
def test_a_copy_made_within_a_round_goes_on_the_same(copier, gradients):
    model, optimizer = torch.nn.Linear(3, 2), Adam(0.1, gradient_accumulation_steps=3)
    for seed in range(5):
        optimizer.apply(gradients(model.parameters(), seed), list(model.parameters()))
    twin, other = copier(model, optimizer)
    before = [w.detach().clone() for w in model.parameters()]
    for m, o in ((model, optimizer), (twin, other)):
        o.apply([torch.ones_like(w) for w in m.parameters()], list(m.parameters()))
    for a, b, start in zip(model.parameters(), twin.parameters(), before, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, start)


def test_gradients_that_waited_in_a_file_are_not_lost():
    a, b = (torch.nn.Parameter(torch.tensor(0.0)) for _ in range(2))
    optimizer, other = (SGD(1.0, gradient_accumulation_steps=2) for _ in range(2))
    optimizer.apply([torch.tensor(1.0), torch.tensor(1.0)], [a, b])
    other.set_state([a, b], optimizer.get_state([a, b]))
    other.apply([torch.tensor(1.0)], [a])
    assert (a.item(), b.item()) == (-1.0, -0.5)


def test_gradients_of_another_dtype_and_sparse_ones():
    w, dense = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
    g = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    for weight, gradient in ((w, g.double().to_sparse()), (dense, g)):
        optimizer = SGD(1.0, gradient_accumulation_steps=2)
        optimizer.apply([gradient], [weight])
        optimizer.apply([gradient], [weight])
    assert torch.equal(w, dense)
    assert w[1].tolist() == [-1.0, -2.0]


def test_a_schedule_that_fails_changes_nothing():
    optimizer = SGD(lambda step: float("nan"), gradient_accumulation_steps=2)
    w = torch.nn.Parameter(torch.tensor(0.0))
    optimizer.apply([torch.tensor(1.0)], [w])
    for _ in range(2):
        with pytest.raises(ValueError, match="learning_rate must be a number"):
            optimizer.apply([torch.tensor(1.0)], [w])
    optimizer.learning_rate = 1.0
    optimizer.apply([torch.tensor(5.0)], [w])
    assert w.item() == -3.0


@pytest.mark.parametrize("value", [1, -2, 2.0, 2.5, True, "2"])
def test_bad_numbers_of_steps(value):
    with pytest.raises(ValueError, match="gradient_accumulation_steps must be a whole number of 2 or more, found"):
        SGD(gradient_accumulation_steps=value)


def test_is_plain():
    assert SGD().is_plain
    assert SGD(gradient_accumulation_steps=0).is_plain
    assert not SGD(gradient_accumulation_steps=2).is_plain
    assert not SGD(use_ema=True).is_plain
