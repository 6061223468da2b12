import numpy as np
import pytest
import torch

from fanin.optimizers import Lion

LR = float(np.float32(0.1))


def test_formula():
    weight = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = Lion(0.1, beta_1=0.6, beta_2=0.8)
    w, m, signs = 1.0, 0.0, set()
    for g in (2.0, -0.5, 0.1, -3.0, 0.0, 8.0):
        sign = np.sign(0.6 * m + 0.4 * g)
        m = 0.8 * m + 0.2 * g
        w -= LR * sign
        signs.add((sign, np.sign(g)))
        optimizer.apply([torch.tensor(g, dtype=torch.float64)], [weight])
        assert weight.item() == pytest.approx(w, rel=1e-12)
        assert optimizer.slots([weight])[0]["momentum"].item() == pytest.approx(m, rel=1e-12)
    assert (1.0, -1.0) in signs  # the momentum outweighs a gradient


def test_without_a_gradient_nothing_moves(one):
    assert one(Lion(0.1), [0.0, 0.0]) == [1.0, 1.0]


@pytest.mark.parametrize("options", [{"beta_1": 0.0}, {"beta_1": 1.1}, {"beta_2": 1.1}, {"beta_2": -0.1}])
def test_bad_betas(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name} must be a number in [\[(]0, 1\], found"):
        Lion(**options)
