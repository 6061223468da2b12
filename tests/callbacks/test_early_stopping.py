"""EarlyStopping stops where Keras's does, with the same weights."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.callbacks import EarlyStopping


class Counted(SimpleNamespace):
    """A model whose weights are the number of the epoch."""

    def __init__(self):
        super().__init__(stop_training=False, restored=None)

    def get_weights(self):
        return self.epoch

    def set_weights(self, weights):
        self.restored = weights


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, None]), min_size=1, max_size=12),
    arguments=st.fixed_dictionaries(
        {
            "min_delta": st.sampled_from([0.0, 0.3]),
            "patience": st.integers(0, 3),
            "mode": st.sampled_from(["min", "max"]),
            "baseline": st.sampled_from([None, 0.3, 1.5]),
            "restore_best_weights": st.booleans(),
            "start_from_epoch": st.integers(0, 2),
        }
    ),
)
@pytest.mark.filterwarnings("ignore:.*(which training does not give|which is not available).*:UserWarning")
def test_it_stops_as_keras_does(drive, values, arguments):
    logs = [{"loss": 0.0} if value is None else {"val_loss": value} for value in values]
    seen = []
    for library in (keras, fanin):
        model = Counted()
        one = drive(library.callbacks.EarlyStopping(**arguments), logs, model)
        seen.append((one.stopped_epoch, one.best, one.best_epoch, one.wait, model.stop_training, model.restored))
    assert seen[0] == seen[1]


def test_best_weights_come_back(model, data):
    made = model(optimizer=fanin.optimizers.SGD(0.0))
    stopped = made.fit(*data, epochs=50, callbacks=EarlyStopping("loss", patience=2, min_delta=1e-3), verbose=0)
    assert len(stopped.epoch) == 3
    made.optimizer.learning_rate = 50.0
    weights = made.get_weights()
    best = EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = made.fit(*data, epochs=10, batch_size=12, callbacks=[best], verbose=0)
    assert best.best == min(history.history["loss"])
    assert best.best_epoch == 0
    assert not np.array_equal(made.get_weights()[0], weights[0])  # those of the end of that epoch


def test_it_says_when_it_stops(drive, capsys):
    drive(EarlyStopping(patience=1, verbose=1), [{"val_loss": 1.0}] * 5, Counted())
    assert capsys.readouterr().out == "Epoch 2: early stopping\n"
    drive(EarlyStopping(patience=1, verbose=1, restore_best_weights=True), [{"val_loss": 1.0}] * 5, Counted())
    assert capsys.readouterr().out == "Epoch 2: early stopping\nEpoch 1: its weights, the best, are restored\n"
