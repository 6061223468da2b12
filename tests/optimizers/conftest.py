"""One weight of one number, and lists of weights and gradients, for the tests of optimizers."""

import pytest
import torch


@pytest.fixture
def one():
    """optimizer, gradients -> the weight after each of them, from one float64."""

    def run(optimizer, gradients, start=1.0):
        w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        found = []
        for g in gradients:
            optimizer.apply([torch.tensor(g, dtype=torch.float64)], [w])
            found.append(w.item())
        return found

    return run


@pytest.fixture
def weights():
    """seed, dtype -> four weights of different shapes, the same for the same seed."""

    def make(seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        shapes = ((3, 4), (4,), (4, 2), ())
        return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]

    return make


@pytest.fixture
def gradients():
    """weights, seed -> a gradient for each."""

    def make(like, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(w.shape, generator=generator).to(w.dtype) for w in like]

    return make
