"""LearningRateScheduler sets the rates that Keras's sets, for our optimizers and torch's."""

import keras
import numpy as np
import pytest
import torch

import fanin
from fanin.callbacks import LearningRateScheduler
from fanin.callbacks.learning_rate import change_rates, rates

SCHEDULES = {
    "of both": lambda epoch, rate: rate * 0.5 if epoch else rate,
    "of the epoch": lambda epoch: 0.3 / (1 + epoch),
    "a default": lambda epoch, rate=7.0: rate + epoch,
    "numpy": lambda epoch, rate: np.float32(rate) * np.float32(0.1),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_keras(drive, name):
    seen = []
    optimizers = [keras.optimizers.SGD(0.1), fanin.optimizers.SGD(0.1),
                  torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)]  # fmt: skip
    for library, optimizer in zip((keras, fanin, fanin), optimizers, strict=True):
        logs = [{"loss": 0.0} for _ in range(4)]
        drive(library.callbacks.LearningRateScheduler(SCHEDULES[name]), logs, optimizer=optimizer)
        seen.append([each["learning_rate"] for each in logs])
    assert seen[1] == seen[0]
    assert seen[2] == pytest.approx(seen[0], rel=2**-22)  # torch keeps doubles


def test_in_fit(model, data, capsys):
    schedule = LearningRateScheduler(lambda epoch, rate: rate / 2, verbose=1)
    history = model().fit(*data, epochs=2, callbacks=schedule, verbose=0)
    assert history.history["learning_rate"] == pytest.approx([0.05, 0.025])
    assert capsys.readouterr().out == "Epoch 1: learning_rate set to 0.05\nEpoch 2: learning_rate set to 0.025\n"


def test_a_torch_optimizer_trains_with_the_rate(model, data):
    made = model()
    weights = made.get_weights()
    made.compile(torch.optim.SGD(made.parameters(), lr=0.5), "mse")
    made.fit(*data, callbacks=LearningRateScheduler(lambda epoch: 0), verbose=0)
    assert (made.get_weights()[0] == weights[0]).all()
    made.fit(*data, callbacks=LearningRateScheduler(lambda epoch: torch.tensor(0.1)), verbose=0)
    assert not (made.get_weights()[0] == weights[0]).all()


@pytest.mark.parametrize("value", [None, "fast", -0.1, float("nan"), float("inf"), True, [0.1, 0.2]])
@pytest.mark.parametrize("optimizer", [fanin.optimizers.SGD(0.1), torch.optim.SGD([torch.zeros(1)], lr=0.1)])
def test_what_is_no_rate_is_refused(drive, optimizer, value):
    with pytest.raises(ValueError, match="A learning rate must be a finite number of 0 or more, found"):
        drive(LearningRateScheduler(lambda epoch: value), [{}], optimizer=optimizer)
    assert rates(optimizer)["learning_rate"] == pytest.approx(0.1)


def test_errors_of_the_schedule_come_through(drive):
    def schedule(epoch, rate):
        raise TypeError("my own")

    with pytest.raises(TypeError, match="my own"):
        drive(LearningRateScheduler(schedule), [{}], optimizer=fanin.optimizers.SGD(0.1))


def test_wrong_arguments(drive):
    with pytest.raises(TypeError, match=r"schedule must be a function, found 0\.1"):
        LearningRateScheduler(0.1)
    with pytest.raises(TypeError, match="comes from a schedule"):
        drive(LearningRateScheduler(lambda e: 0.1), [{}], optimizer=fanin.optimizers.SGD(lambda step: 0.1))
    with pytest.raises(TypeError, match="Expected an optimizer with a learning rate, found None"):
        drive(LearningRateScheduler(lambda epoch: 0.1), [{}])


def test_every_group_of_a_torch_optimizer():
    groups = [{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": torch.tensor(0.25)}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    kept = optimizer.param_groups[1]["lr"]
    change_rates(optimizer, lambda rate: rate * 2)
    assert rates(optimizer) == {"learning_rate_0": 0.2, "learning_rate_1": 0.5}
    assert optimizer.param_groups[1]["lr"] is kept
    with pytest.raises(ValueError, match="found -"):
        change_rates(optimizer, lambda rate: 0.3 - rate)
    assert rates(optimizer) == {"learning_rate_0": 0.2, "learning_rate_1": 0.5}  # nothing half changed
