import numpy as np
import pytest
import torch

from fanin.optimizers import SGD
from fanin.optimizers.schedules import ExponentialDecay


def test_a_schedule_gives_the_rate_of_the_next_step(one):
    optimizer = SGD(ExponentialDecay(0.5, decay_steps=1, decay_rate=0.5))
    assert (optimizer.learning_rate, optimizer.has_schedule) == (0.5, True)
    assert one(optimizer, [1.0, 1.0, 1.0]) == [0.5, 0.25, 0.125]
    assert optimizer.learning_rate == 0.0625


def test_a_schedule_is_rounded_as_a_number_is():
    assert SGD(ExponentialDecay(0.1, 1, 1)).learning_rate == SGD(0.1).learning_rate == float(np.float32(0.1))


def test_a_number_cannot_replace_a_schedule_but_a_schedule_can():
    optimizer = SGD(ExponentialDecay(0.5, 1, 0.5))
    for value in (0.1, torch.tensor(0.1), np.float32(0.1)):
        with pytest.raises(TypeError, match=r"comes from ExponentialDecay\(initial_learning_rate=0.5, .*cannot be set"):
            optimizer.learning_rate = value
    optimizer.learning_rate = ExponentialDecay(0.25, 1, 0.5)
    assert optimizer.learning_rate == 0.25
    optimizer.learning_rate = lambda step: 0.125
    optimizer.learning_rate = 0.0625
    assert (optimizer.learning_rate, optimizer.has_schedule) == (0.0625, False)
