"""PReLU."""

from __future__ import annotations

import pytest
import torch

import fanin
from fanin.layers import Input, PReLU


def test_is_the_formula_and_its_gradient():
    layer = PReLU(dtype="float64")
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    layer.build((None, 3, 4))
    with torch.no_grad():
        layer.alpha.uniform_(-1, 1)
    torch.testing.assert_close(layer(x), torch.where(x > 0, x, layer.alpha * x), rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda x, alpha: torch.func.functional_call(layer, {"alpha": alpha}, x),
                                    (x, layer.alpha))  # fmt: skip


@pytest.mark.parametrize(("shared", "shape"), [(None, (3, 4)), (1, (1, 4)), ([2], (3, 1)), ((1, 2), (1, 1))])
def test_shared_axes(shared, shape):
    layer = PReLU(shared_axes=shared)
    assert layer(torch.ones(5, 3, 4)).shape == (5, 3, 4)
    assert tuple(layer.alpha.shape) == shape
    assert not layer.alpha.any()


def test_other_sizes_are_refused_but_on_shared_axes():
    layer = PReLU(shared_axes=1)
    layer(torch.ones(5, 3, 4))
    assert layer(torch.ones(5, 7, 4)).shape == (5, 7, 4)
    with pytest.raises(ValueError, match="axis 2 to have size 4"):
        layer(torch.ones(5, 7, 1))
    with pytest.raises(ValueError, match="ndim=3"):
        layer(torch.ones(5, 4))


@pytest.mark.parametrize("shared", [0, 3, -1, [1, 3]])
def test_axes_that_the_input_lacks(shared):
    layer = PReLU(shared_axes=shared, name="mine")
    with pytest.raises(ValueError, match=r"Layer 'mine': shared_axes=.*must be among \[1, 2\]"):
        layer(torch.ones(5, 3, 4))
    assert not layer.built


def test_unknown_sizes():
    with pytest.raises(ValueError, match=r"Layer 'mine'.*must be known.*\(None, None, 4\)"):
        PReLU(name="mine")(Input((None, 4)))
    assert PReLU(shared_axes=1)(Input((None, 4))).shape == (None, None, 4)
    with pytest.raises(TypeError, match="PReLU: shared_axes"):
        PReLU(shared_axes="a")


def test_rules_of_alpha():
    layer = PReLU("ones", "l2", "non_neg")
    layer(torch.ones(5, 3))
    assert [loss.item() for loss in layer.losses] == [pytest.approx(0.03)]
    with torch.no_grad():
        layer.alpha.fill_(-1)
    fanin.constraints.apply(layer)
    assert not layer.alpha.any()


def test_an_optimizer_made_before_the_first_call_trains_alpha():
    layer = PReLU("ones")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    layer(torch.full((1, 2), -2.0)).sum().backward()
    optimizer.step()
    assert layer.alpha.tolist() == [2.0, 2.0]


def test_initial_weights():
    layer = PReLU(weights=[[0.25, 0.5]])
    assert layer(torch.full((1, 2), -4.0)).tolist() == [[-1.0, -2.0]]
