"""A torch module as a layer: its shape where it declares one, where it is tried, and where it decides by values."""

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.layers import Dense, Input, TorchModule


class Signed(nn.Module):
    """A linear map that changes its sign with the data."""

    def __init__(self, units=3):
        super().__init__()
        self.linear = nn.Linear(4, units)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


class Picky(Signed):
    """One that refuses what a trial feeds it."""

    def forward(self, x):
        if x.min() == x.max():
            raise RuntimeError("all rows are alike")
        return super().forward(x)


def test_a_module_that_decides_by_values():
    module = Signed()
    model = fanin.Sequential([Input((4,)), module, Dense(2)])
    assert model.built
    assert model.output_shape == (None, 2)
    assert model.compute_output_shape((5, 4)) == (5, 2)
    for x in (torch.rand(5, 4), -torch.rand(5, 4)):
        torch.testing.assert_close(model(x), model.layers[1](module(x)))
    assert TorchModule(Signed())(Input((4,))).shape == (None, 3)
    assert TorchModule(Signed()).compute_output_shape((None, 4)) == (None, 3)
    late = fanin.Sequential([Signed(), Dense(2)])
    assert late(torch.rand(5, 4)).shape == (5, 2)
    assert late.output_shape == (None, 2)


def test_it_trains():
    module = Signed()
    model = fanin.Sequential([Input((4,)), module])
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = np.random.rand(8, 4).astype("f"), np.random.rand(8, 3).astype("f")
    before = module.linear.weight.detach().clone()
    model.fit(x, y, verbose=0)
    assert not torch.equal(before, module.linear.weight)
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(x, verbose=0), module(torch.from_numpy(x)), rtol=1e-6)


def test_a_module_that_no_trial_can_run():
    with pytest.raises(ValueError, match=r"'picky\w*' could not be tried .*all rows are alike.*compute_output_shape"):
        fanin.Sequential([Input((4,)), Picky()])
    layer = TorchModule(Picky(), name="mine")
    with pytest.raises(ValueError, match="'mine' could not be tried"):
        layer(Input((4,)))
    with pytest.raises(ValueError, match="'mine' could not be tried"):
        layer.compute_output_shape((None, 4))
    assert layer.inbound_nodes == []
    model = fanin.Sequential([Picky(), Dense(2)])
    assert model(torch.rand(5, 4)).shape == (5, 2)


def test_a_subclass_can_say_the_shape():
    class Told(TorchModule):
        def compute_output_shape(self, input_shape):
            return *input_shape[:-1], 3

    assert Told(Picky())(Input((4,))).shape == (None, 3)
    model = fanin.Sequential([Input((4,)), Told(Picky()), Dense(2)])
    assert model(torch.rand(5, 4)).shape == (5, 2)


def test_the_result_keeps_its_dtype():
    class Best(nn.Module):
        def forward(self, x):
            return x.argmax(-1) if x.sum() > 0 else x.argmin(-1)

    outputs = TorchModule(Best())(Input((4,)))
    assert (outputs.shape, outputs.dtype) == ((None,), torch.int64)


def test_shapes_that_are_known():
    assert TorchModule(nn.Linear(3, 2)).compute_output_shape((None, 7, 3)) == (None, 7, 2)
    assert TorchModule(nn.GELU()).compute_output_shape((None, 7)) == (None, 7)
    assert TorchModule(nn.Conv1d(3, 5, 2)).compute_output_shape((None, 3, 9)) == (None, 5, 8)
    with pytest.raises(ValueError, match=r"'mine' takes a last dimension of 3, found shape \(None, 4\)"):
        TorchModule(nn.Linear(3, 2), name="mine").compute_output_shape((None, 4))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        TorchModule(torch.relu)


def test_a_trial_counts_no_batch():
    norm = nn.BatchNorm1d(4)
    outputs = TorchModule(nn.Sequential(norm))(Input((4,)), training=True)
    assert outputs.shape == (None, 4)
    assert norm.num_batches_tracked == 0
    assert norm.training
