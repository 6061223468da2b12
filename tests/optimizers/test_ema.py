import copy

import numpy as np
import pytest
import torch

import fanin
from fanin.optimizers import SGD, Adam

LR = float(np.float32(0.1))


def average_of(optimizer, weight):
    return optimizer.slots([weight])[0]["average"]


def test_formula():
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = SGD(0.1, use_ema=True, ema_momentum=0.75)
    value, average = 1.0, None
    for g in (2.0, -1.0, 0.5):
        value -= LR * g
        average = value if average is None else 0.75 * average + 0.25 * value
        optimizer.apply([torch.tensor(g, dtype=torch.float64)], [w])
        assert (w.item(), average_of(optimizer, w).item()) == pytest.approx((value, average), rel=1e-14)
    optimizer.finalize_variable_values([w])
    assert w.item() == pytest.approx(average, rel=1e-14)


def test_weights_are_overwritten_every_few_updates():
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    value = average = 1.0
    for step in range(1, 6):
        value -= LR
        average = value if step == 1 else (average + value) / 2
        value = average if step % 2 == 0 else value
        optimizer.apply([torch.tensor(1.0, dtype=torch.float64)], [w])
        assert w.item() == pytest.approx(value, rel=1e-14)


def test_with_accumulation_every_call_averages_and_updates_count_for_overwriting():
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2, gradient_accumulation_steps=2)
    value = average = 1.0
    for call in range(1, 9):
        value -= LR if call % 2 == 0 else 0.0
        average = value if call <= 2 else (average + value) / 2
        value = average if call in (3, 4, 7, 8) else value  # all calls of the second and the fourth round
        optimizer.apply([torch.tensor(1.0, dtype=torch.float64)], [w])
        assert w.item() == pytest.approx(value, rel=1e-14)


def test_the_slots_come_first_in_the_order_of_keras_files(weights):
    w = weights()[:2]
    optimizer = Adam(use_ema=True, gradient_accumulation_steps=2)
    optimizer.build(w)
    slots = optimizer.slots(w)
    order = [(i, n) for n in ("average", "gradient_accumulator") for i in (0, 1)]
    order += [(i, n) for i in (0, 1) for n in ("momentum", "velocity")]
    found = optimizer.state_tensors(w)
    assert len(found) == 2 + len(order)
    assert all(a is slots[i][n] for a, (i, n) in zip(found[2:], order, strict=True))
    assert [(tuple(a.shape), a.dtype) for a in found[2:]] == [spec[:2] for spec in optimizer.specs(w)[2:]]


def test_weights_without_a_gradient_or_that_come_later():
    a, b, late = (torch.nn.Parameter(torch.tensor(float(i), dtype=torch.float64)) for i in range(3))
    optimizer = SGD(0.1, use_ema=True, ema_momentum=0.5)
    one = torch.tensor(1.0, dtype=torch.float64)
    optimizer.apply([one, None], [a, b])
    b.data.fill_(3.0)
    optimizer.apply([one, one], [a, late])  # b is known, and averaged too
    assert average_of(optimizer, b).item() == 2.0
    assert average_of(optimizer, late).item() == pytest.approx((2 + 2 - LR) / 2)
    unknown = torch.nn.Parameter(torch.tensor(7.0))
    optimizer.finalize_variable_values([a, b, late, unknown])
    assert (b.item(), unknown.item()) == (2.0, 7.0)


def test_nothing_is_finalized_before_a_step_or_without_averages(weights, gradients):
    for optimizer in (SGD(use_ema=True), SGD()):
        w = weights()
        optimizer.build(w)
        with torch.no_grad():
            w[0].add_(1)
        before = copy.deepcopy(w)
        optimizer.finalize_variable_values(w)
        assert all(torch.equal(a, b) for a, b in zip(w, before, strict=True))
        optimizer.apply(gradients(w), w)
        optimizer.finalize_variable_values(w)
        optimizer.finalize_variable_values([])


def test_the_average_begins_anew_with_the_weights_of_the_first_step():
    w = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = SGD(0.5, use_ema=True)
    optimizer.build([w])
    w.data.fill_(100.0)  # loaded after build
    optimizer.apply([torch.tensor(2.0)], [w])
    assert average_of(optimizer, w).item() == 99.0


def test_autograd_notices_an_overwritten_weight():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = SGD(use_ema=True)
    optimizer.apply([torch.ones(3)], [w])
    loss = (w * w).sum()
    optimizer.finalize_variable_values([w])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_fit_ends_with_the_averages():
    x, y = torch.randn(12, 3), torch.randn(12, 2)

    def fitted(**options):
        fanin.utils.set_random_seed(0)
        model = fanin.Sequential([fanin.layers.Dense(2, input_shape=(3,), kernel_constraint="non_neg")])
        model.compile(SGD(0.1, **options), "mse")
        seen = []
        at_end = fanin.callbacks.LambdaCallback(
            on_train_batch_end=lambda *_: seen.append(model.layers[0].kernel.detach().clone()),
            on_train_end=lambda *_: seen.append(model.layers[0].kernel.detach().clone()),
        )
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[at_end])
        return model, seen

    plain, _ = fitted()
    model, seen = fitted(use_ema=True, ema_momentum=0.5)
    kernel = model.layers[0].kernel
    assert torch.equal(seen[-2], plain.layers[0].kernel)  # training itself is the same
    assert torch.equal(seen[-1], kernel)  # the averages are there before on_train_end
    assert torch.equal(kernel, average_of(model.optimizer, kernel))
    assert not torch.equal(seen[-2], kernel)


@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_bad_frequencies(value):
    with pytest.raises(ValueError, match="ema_overwrite_frequency must be a positive integer, found"):
        SGD(use_ema=True, ema_overwrite_frequency=value)


def test_bad_flags():
    with pytest.raises(ValueError, match="use_ema must be True or False, found 1"):
        SGD(use_ema=1)
