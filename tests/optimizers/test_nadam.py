import math

import numpy as np
import pytest
import torch

from fanin.optimizers import Nadam

LR = float(np.float32(0.1))


def test_formula(one):
    gradients = [2.0, -1.0, 0.1, 0.0, 3.0]
    w, m, v, product, expected = 1.0, 0.0, 0.0, 1.0, []
    for t, g in enumerate(gradients, 1):
        now, then = 0.8 * (1 - 0.5 * 0.96**t), 0.8 * (1 - 0.5 * 0.96 ** (t + 1))
        product *= now
        m = 0.8 * m + 0.2 * g
        v = 0.5 * v + 0.5 * g * g
        mean = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
        w -= LR * mean / (math.sqrt(v / (1 - 0.5**t)) + 1e-3)
        expected.append(w)
    assert one(Nadam(0.1, beta_1=0.8, beta_2=0.5, epsilon=1e-3), gradients) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 2, 10, 100, 5000])
def test_the_product_of_all_steps(step):
    expected = math.prod(1 - 0.5 * 0.96**i for i in range(1, step + 1)) * 0.999**step
    optimizer = Nadam(beta_1=0.999)
    optimizer.iterations = step
    assert optimizer.derived() == {"u_product": pytest.approx(expected, rel=1e-13)}


def test_a_factor_scales_the_step_but_not_its_root():
    size = torch.tensor([1.0, 2.0, 3.0])
    assert Nadam().scaled(size, 0.5).tolist() == [0.5, 1.0, 3.0]


def test_the_product_is_the_last_variable(weights, gradients):
    w = weights()
    optimizer = Nadam()
    assert len(optimizer.state_tensors([])) == len(optimizer.specs([])) == 2
    for seed in range(3):
        optimizer.apply(gradients(w, seed), w)
    state = optimizer.state_tensors(w)
    assert len(state) == len(optimizer.specs(w)) == 2 + 2 * 4 + 1
    assert (state[-1].shape, state[-1].dtype) == ((), torch.float64)
    assert state[-1].item() == pytest.approx(math.prod(0.9 * (1 - 0.5 * 0.96**i) for i in (1, 2, 3)))
    other = Nadam()
    twins = weights()
    other.set_state(twins, [*state[:-1], torch.tensor(0.5)])  # what a file says in its place does not count
    assert other.state_tensors(twins)[-1].item() == state[-1].item()
    with pytest.raises(ValueError, match=r"u_product has shape \(\), found an array of shape \(1,\)"):
        other.set_state(twins, [*state[:-1], torch.ones(1)])


def test_zero_gradients_in_half_precision_change_nothing():
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    Nadam().apply([torch.zeros(3, dtype=torch.float16)], [w])
    assert w.tolist() == [1.0, 1.0, 1.0]
