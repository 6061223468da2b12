"""TerminateOnNaN stops at the batch at which Keras's stops, and says which."""

import math
from types import SimpleNamespace

import keras
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.callbacks import TerminateOnNaN


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(losses=st.lists(st.sampled_from([0.5, math.nan, math.inf, -math.inf, None]), max_size=5), strict=st.booleans())
def test_it_stops_where_keras_does(losses, strict):
    seen = []
    for library in (keras, fanin):
        callback = library.callbacks.TerminateOnNaN(raise_error=strict)
        callback.set_model(SimpleNamespace(stop_training=False))
        stops = []
        for batch, loss in enumerate(losses):
            try:
                callback.on_train_batch_end(batch, {} if loss is None else {"loss": loss})
            except RuntimeError:
                stops.append("raised")
            stops.append(callback.model.stop_training)
        seen.append(stops)
    assert seen[0] == seen[1]


def nan_at(batch, data):
    """A loss that becomes NaN at one batch, for data that is finite. It counts in Python: only eager steps call it."""
    count = iter(range(100))
    return lambda y_true, y_pred: (y_true - y_pred).square().sum(-1) * (math.nan if next(count) == batch else 1.0)


def test_in_fit(model, data, capsys):
    made = model(loss=nan_at(2, data), run_eagerly=True)
    history = made.fit(*data, epochs=5, batch_size=2, callbacks=TerminateOnNaN(), verbose=0)
    assert capsys.readouterr().out == "Batch 2: the loss is nan; training stops.\n"
    assert history.epoch == [0]
    assert math.isnan(history.history["loss"][0])
    with pytest.raises(RuntimeError, match="Batch 1: the loss is nan"):
        model(loss=nan_at(1, data), run_eagerly=True).fit(
            *data, batch_size=2, callbacks=TerminateOnNaN(True), verbose=0
        )


def test_validation_after_lost_weights_does_not_hide_the_reason(model, data, capsys):
    made = model()
    made.set_weights([torch.full((4, 1), math.nan), torch.zeros(1)])
    made.fit(*data, batch_size=2, validation_data=data, callbacks=TerminateOnNaN(), verbose=0)
    assert capsys.readouterr().out == "Batch 0: the loss is nan; training stops.\n"
