"""Objects that are no modules, but that calls read: assignments to their attributes take effect at the next step."""

import numpy as np
import pytest

import fanin
from fanin.callbacks import LambdaCallback
from fanin.layers import Dense, Layer


class Scaled(fanin.losses.Loss):
    """A loss with an option."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def call(self, y_true, y_pred):
        return (y_true - y_pred).square().mean(-1) * self.factor


class Function:
    """A loss that is an object with `__call__`."""

    def __init__(self):
        self.factor = 1.0
        self.__name__ = "function"

    def __call__(self, y_true, y_pred):
        return (y_true - y_pred).square().mean(-1) * self.factor


class Counting(Scaled):
    def call(self, y_true, y_pred):
        self.factor += 1
        return super().call(y_true, y_pred)


class Penalty(fanin.regularizers.Regularizer):
    def __init__(self):
        self.factor = 0.1

    def __call__(self, weight):
        return self.factor * weight.square().sum()


class Options:
    def __init__(self):
        self.factor = 1.0
        self.factors = [1.0]


class Helped(Layer):
    """A layer with an object of the user's."""

    def __init__(self):
        super().__init__()
        self.options = Options()

    def call(self, inputs):
        return inputs * self.options.factor * self.options.factors[0]


CASES = {
    "loss": (Scaled, None, lambda model, loss: setattr(loss, "factor", 7.0)),
    "loss function": (Function, None, lambda model, loss: setattr(loss, "factor", 7.0)),
    "penalty": (Scaled, Penalty, lambda model, loss: setattr(model.layers[0].kernel_regularizer, "factor", 3.0)),
    "l2": (Scaled, fanin.regularizers.L2, lambda model, loss: setattr(model.layers[0].kernel_regularizer, "l2", 3.0)),
    "max norm": (Scaled, None, lambda model, loss: setattr(model.layers[0].kernel_constraint, "max_value", 0.2)),
    "options": (Scaled, None, lambda model, loss: setattr(model.layers[1].options, "factor", 4.0)),
    "other options": (Scaled, None, lambda model, loss: setattr(model.layers[1], "options", Options())),
    "list of options": (Scaled, None, lambda model, loss: model.layers[1].options.factors.__setitem__(0, 4.0)),
}


def train(make, penalty, change, eagerly):
    fanin.utils.set_random_seed(0)
    loss = make()
    first = Dense(8, "relu", kernel_regularizer=penalty and penalty(), kernel_constraint=fanin.constraints.MaxNorm(1.0))
    model = fanin.Sequential([fanin.Input((6,)), first, Helped(), Dense(1)])
    model.compile("adam", loss, run_eagerly=eagerly)
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    callback = LambdaCallback(on_epoch_begin=lambda epoch, logs: change(model, loss) if epoch == 1 else None)
    history = model.fit(
        x, x.sum(1, keepdims=True), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[callback]
    )
    return [*model.get_weights(), np.array(history.history["loss"])], model.programs


@pytest.mark.parametrize("name", CASES)
def test_a_change_takes_effect(name):
    compiled, programs = train(*CASES[name], eagerly=False)
    eager, _ = train(*CASES[name], eagerly=True)
    without, _ = train(*CASES[name][:2], lambda model, loss: None, eagerly=True)
    for one, two in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert programs
    assert name == "other options" or not np.allclose(eager[0], without[0], rtol=1e-3)


def test_a_loss_that_counts_its_calls_runs_eagerly():
    with pytest.warns(UserWarning, match="changes the attribute 'factor' of Counting"):
        compiled, programs = train(Counting, None, lambda model, loss: None, eagerly=False)
    eager, _ = train(Counting, None, lambda model, loss: None, eagerly=True)
    for one, two in zip(compiled, eager, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not programs
