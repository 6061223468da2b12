import math

import numpy as np
import pytest
import torch

from fanin.optimizers import Adagrad

LR = float(np.float32(0.1))


def test_formula(one):
    gradients = [2.0, -1.0, 0.1, 0.0, -3.0]
    w, a, expected = 1.0, 0.3, []
    for g in gradients:
        a += g * g
        w -= LR * g / math.sqrt(a + 1e-3)
        expected.append(w)
    optimizer = Adagrad(0.1, initial_accumulator_value=0.3, epsilon=1e-3)
    assert one(optimizer, gradients) == pytest.approx(expected, rel=1e-12)


def test_the_accumulator_begins_with_its_value():
    w = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Adagrad(initial_accumulator_value=0.25, use_ema=True)
    slots = optimizer.init_slots(w)
    assert slots["accumulator"].tolist() == [[0.25] * 3] * 2
    assert slots["average"].tolist() == [[1.0] * 3] * 2
