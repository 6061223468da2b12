"""SwapEMAWeights evaluates and hands on the averages that Keras's does, and always brings the weights back."""

import keras
import numpy as np
import pytest
import torch

import fanin
from fanin.callbacks import EarlyStopping, ModelCheckpoint, SwapEMAWeights

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def ema(library=fanin, **more):
    return library.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7, **more)


def both():
    """The same model in Keras and here, with equal weights."""
    made = []
    for library in (keras, fanin):
        model = library.Sequential([library.Input((4,)), library.layers.Dense(3, "tanh"), library.layers.Dense(1)])
        model.compile(ema(library), "mse")
        made.append(model)
    made[1].set_weights(made[0].get_weights())
    return zip((keras, fanin), made, strict=True)


def keeper(library, kept):
    """Keeps the weights that a callback sees at the end of an epoch."""
    hooks = {"on_epoch_end": lambda self, epoch, logs=None: kept.append(self.model.get_weights())}
    return type("Keeper", (library.callbacks.Callback,), hooks)()


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(b, a, **TOLERANCE)


@pytest.mark.parametrize("on_epoch", [False, True])
def test_training_is_that_of_keras(data, on_epoch):
    seen = []
    for library, model in both():
        before, after, ended = [], [], []
        swap = library.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch)
        callbacks = [keeper(library, before), swap, keeper(library, after)]
        x, y = data
        history = model.fit(x, y, epochs=3, batch_size=5, shuffle=False, validation_data=(x, y), callbacks=callbacks,
                            verbose=0)  # fmt: skip
        ended.append(model.get_weights())
        seen.append((history.history["val_loss"], before, after, ended, model.evaluate(x, y, verbose=0)))
    (losses, *theirs, loss), (our_losses, *ours, our_loss) = seen
    np.testing.assert_allclose(our_losses, losses, **TOLERANCE)
    np.testing.assert_allclose(our_loss, loss, **TOLERANCE)
    for one, other in zip(theirs, ours, strict=True):
        for each, our_each in zip(one, other, strict=True):
            assert_equal(each, our_each)
    before, after, _ = ours
    assert np.array_equal(before[0][0], after[0][0]) is not on_epoch


def test_evaluation_is_that_of_keras(data):
    x, y = data
    losses = []
    for library, model in both():
        for start in range(0, 12, 4):
            model.train_on_batch(x[start : start + 4], y[start : start + 4])
        weights = model.get_weights()
        swap = library.callbacks.SwapEMAWeights()
        losses.append([model.evaluate(x, y, callbacks=[swap], verbose=0), model.evaluate(x, y, verbose=0)])
        assert_equal(weights, model.get_weights())
    np.testing.assert_allclose(losses[1], losses[0], **TOLERANCE)
    assert losses[1][0] != losses[1][1]


def test_predictions_are_those_of_averages(model, data):
    x, y = data
    made = model(optimizer=ema())
    for start in range(0, 12, 4):
        made.train_on_batch(x[start : start + 4], y[start : start + 4])
    kernel = made.layers[0].kernel.detach().clone()
    found = made.predict(x, callbacks=SwapEMAWeights(), verbose=0)
    assert torch.equal(made.layers[0].kernel, kernel)  # Keras leaves the averages there
    made.optimizer.finalize_variable_values(made.trainable_weights)
    np.testing.assert_array_equal(found, made.predict(x, verbose=0))


@pytest.mark.parametrize("on_epoch", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_training_that_stops_early_ends_with_averages(model, data, on_epoch, first):
    made = model(optimizer=ema())
    stop = EarlyStopping("loss", min_delta=1e9)
    callbacks = [SwapEMAWeights(on_epoch), stop][:: -1 if first else 1]
    history = made.fit(*data, epochs=9, batch_size=4, callbacks=callbacks, verbose=0)
    assert history.epoch == [0, 1]
    averages = [slots["average"] for slots in made.optimizer.slots(made.trainable_weights)]
    for weight, average in zip(made.trainable_weights, averages, strict=True):
        assert torch.equal(weight, average)


def test_checkpoints_hold_averages(model, data, tmp_path):
    made = model(optimizer=ema())
    callbacks = [SwapEMAWeights(swap_on_epoch=True), ModelCheckpoint(tmp_path / "{epoch}.keras")]
    made.fit(*data, epochs=2, batch_size=4, callbacks=callbacks, verbose=0)
    loaded = fanin.saving.load_model(tmp_path / "2.keras")
    assert_equal(made.get_weights(), loaded.get_weights())


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_errors_bring_the_weights_back(model, data, method):
    made = model(optimizer=ema())
    made.fit(*data, batch_size=4, verbose=0)
    made.train_on_batch(*data)
    weights, seen = made.get_weights(), []

    class Fail(fanin.callbacks.Callback):
        def fail(self, *args):
            seen.append(self.model.get_weights())
            raise KeyboardInterrupt

        on_epoch_end = on_test_batch_begin = on_predict_batch_end = fail

    made.optimizer.learning_rate = 0.0
    arguments = data[:1] if method == "predict" else data
    with pytest.raises(KeyboardInterrupt):
        getattr(made, method)(*arguments, callbacks=[SwapEMAWeights(swap_on_epoch=True), Fail()], verbose=0)
    assert not np.array_equal(seen[0][0], weights[0])
    for one, other in zip(made.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", ["sgd", lambda parameters: torch.optim.SGD(parameters, lr=0.1)])
def test_an_optimizer_without_averages_is_refused(model, data, optimizer):
    made = model(optimizer=optimizer)
    weights = made.get_weights()
    with pytest.raises(ValueError, match="SwapEMAWeights needs an optimizer of fanin's with use_ema=True, found"):
        made.fit(*data, callbacks=SwapEMAWeights(), verbose=0)
    np.testing.assert_array_equal(made.get_weights()[0], weights[0])
    with pytest.raises(ValueError, match="SwapEMAWeights needs"):
        made.predict(data[0], callbacks=SwapEMAWeights(), verbose=0)
