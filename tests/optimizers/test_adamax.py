import numpy as np
import pytest
import torch

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


def test_the_size_of_a_traced_step_is_as_exact():
    optimizer = Adamax()
    for t in (1, 2, 1000):
        found = optimizer.size(torch.tensor(0.001), torch.tensor(t)).item()
        assert found == pytest.approx(optimizer.size(float(np.float32(0.001)), float(t)), rel=1e-12)
