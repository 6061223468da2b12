import math

import numpy as np
import pytest

from fanin.optimizers import Adadelta

LR = float(np.float32(0.1))


def test_formula(one):
    gradients = [2.0, -1.0, 0.1, 0.0, -3.0]
    w, a, b, expected = 1.0, 0.0, 0.0, []
    for g in gradients:
        a = 0.9 * a + 0.1 * g * g
        step = g * math.sqrt(b + 1e-2) / math.sqrt(a + 1e-2)
        b = 0.9 * b + 0.1 * step * step
        w -= LR * step
        expected.append(w)
    assert one(Adadelta(0.1, rho=0.9, epsilon=1e-2), gradients) == pytest.approx(expected, rel=1e-12)
