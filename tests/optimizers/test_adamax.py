import numpy as np
import pytest

from fanin.optimizers import Adamax

LR = float(np.float32(0.1))


def test_formula(one):
    gradients = [2.0, -1.0, 0.1, 0.0, -3.0]
    w, m, u, expected = 1.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        u = max(0.5 * u, abs(g))
        w -= LR / (1 - 0.9**t) * m / (u + 1e-3)
        expected.append(w)
    assert one(Adamax(0.1, beta_2=0.5, epsilon=1e-3), gradients) == pytest.approx(expected, rel=1e-12)
