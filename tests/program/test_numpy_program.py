"""Small programs as numpy calls: the same function as torch's, on the same memory."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from fanin.program import Program
from fanin.program.passes import UNTIL_PREPARED

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, lambda: nn.Softmax(-1)]


def program_of(module, x):
    weights = dict(module.named_parameters())

    def function(*given):
        *values, data = given
        return [torch.func.functional_call(module, dict(zip(weights, values, strict=True)), (data,))]

    return Program(function, [w.detach() for w in weights.values()], [x], further_passes=UNTIL_PREPARED)


@settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])
@given(st.data())
def test_random_networks_give_what_torch_gives(data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    rows = data.draw(st.integers(1, 5))
    parts = []
    for inputs, outputs in pairwise(sizes):
        parts.append(nn.Linear(inputs, outputs, bias=data.draw(st.booleans())))
        parts.append(data.draw(st.sampled_from(ACTIVATIONS))())
    module = nn.Sequential(*parts)
    x = torch.randn(rows, sizes[0]) * 3
    run = program_of(module, x).numpy_run
    found = run(x.numpy())
    exact = module.double()(x.double()).detach().numpy()
    assert len(found) == 1
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], exact, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_finite_comes_through_without_a_warning(activation):
    module = nn.Sequential(nn.Linear(4, 4, bias=False), activation())
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(4))
    x = torch.tensor([[float("inf"), 0, 0, 0], [float("nan"), 1, 2, 3], [3e38, -3e38, 0, 0], [-100, 100, 0, 0]])
    found = program_of(module, x).numpy_run(x.numpy())[0]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-6, atol=1e-30)


def test_weights_are_read_where_they_lie():
    module, x = nn.Linear(3, 2), torch.randn(1, 3)
    run = program_of(module, x).numpy_run
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(0.5)
    np.testing.assert_allclose(run(x.numpy())[0], np.full((1, 2), x.sum().item() + 0.5), rtol=1e-6)


def test_each_call_gives_new_memory():
    module, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(2, 3)
    run = program_of(module, x).numpy_run
    assert not np.shares_memory(run(x.numpy())[0], run(x.numpy())[0])


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 3)

    def forward(self, x):
        y = self.dense(x)
        return torch.relu(y) @ y.t()


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Identity(), torch.randn(1, 3)),  # its result is its input
        (Shared(), torch.randn(2, 3)),
        (nn.Linear(3, 2).double(), torch.randn(1, 3).double()),
        (nn.Sequential(nn.Linear(3, 2), nn.GELU()), torch.randn(1, 3)),
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(0)), torch.randn(2, 3)),
        (nn.Linear(2000, 2000), torch.randn(1, 2000)),  # too large
    ],
)
def test_others_stay_with_torch(module, x):
    assert program_of(module, x).numpy_run is None


def test_without_numpys_private_part(monkeypatch):
    monkeypatch.setattr("fanin.program.numpy_warnings._HANDLING", None)
    x = torch.full((1, 3), float("inf"))
    assert np.isnan(program_of(nn.Linear(3, 2), x).numpy_run(x.numpy())[0]).all()
