"""torch's learning-rate schedulers are callbacks."""

import pytest
import torch

import fanin


def test_they_step_after_each_epoch(model, data):
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    made.compile(optimizer, "mse")
    made.fit(*data, epochs=3, callbacks=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), verbose=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, factor=0.1)
    made.fit(*data, epochs=3, callbacks=[plateau], verbose=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125 * 0.1**3)


def test_a_plateau_needs_a_loss():
    class Own(fanin.Sequential):
        def train_step(self, data):
            return {"gap": 1.0}

    made = Own([fanin.Input((4,)), fanin.layers.Dense(1)])
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    made.compile(optimizer, "mse")
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    with pytest.raises(ValueError, match=r"needs val_loss or loss, found \['gap'\]"):
        made.fit(torch.ones(4, 4), torch.ones(4, 1), epochs=3, callbacks=[plateau], verbose=0)
    assert optimizer.param_groups[0]["lr"] == 1.0
