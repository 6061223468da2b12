"""torch's learning-rate schedulers are callbacks."""

import pytest
import torch


def test_they_step_after_each_epoch(model, data):
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    made.compile(optimizer, "mse")
    made.fit(*data, epochs=3, callbacks=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), verbose=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, factor=0.1)
    made.fit(*data, epochs=3, callbacks=[plateau], verbose=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125 * 0.1**3)
