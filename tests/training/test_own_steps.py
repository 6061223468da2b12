"""Subclasses that train in their own way: train_step, test_step, predict_step, compute_loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fanin
from fanin import Input, Model, Sequential
from fanin.layers import Dense

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def made(cls, **arguments):
    fanin.config.clear_session(free_memory=False)
    inputs = Input((4,))
    model = cls(inputs, Dense(1, kernel_initializer="ones", kernel_regularizer="l2")(inputs), **arguments)
    model.compile(fanin.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


class ByHand(Model):
    """As Keras's guide for PyTorch writes it."""

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([weight.grad for weight in weights], weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def test_a_train_step_of_ones_own_computes_what_fit_does():
    ours, by_hand = made(Model), made(ByHand)
    one = ours.fit(X, Y + 1, batch_size=8, epochs=3, shuffle=False, verbose=0).history
    two = by_hand.fit(X, Y + 1, batch_size=8, epochs=3, shuffle=False, verbose=0).history
    assert list(two) == ["loss", "mae"]
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["mae"] == pytest.approx(two["mae"], rel=1e-5)
    for a, b in zip(ours.get_weights(), by_hand.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    assert by_hand.evaluate(X, Y, verbose=0) == pytest.approx(ours.evaluate(X, Y, verbose=0), rel=1e-5)


def test_a_model_of_its_own_steps_and_metrics():
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(1)
            self.mean_loss = fanin.metrics.Mean(name="mean_loss")
            self.seen = []

        def call(self, inputs):
            return self.dense(inputs)

        @property
        def metrics(self):
            return [self.mean_loss]

        def train_step(self, data):
            x, y, weight = data
            self.seen.append(tuple(weight.shape))
            loss = ((self(x) - y) ** 2).mean()
            self.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.mean_loss.update_state(loss.detach())
            return {"mean_loss": self.mean_loss.result()}

        def test_step(self, data):
            x, y = data
            return {"far": (self(x) - y).abs().max()}

        def predict_step(self, data):
            return self(data[0]) * 100

    model = Own()
    model.compile(lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    history = model.fit(X, Y, sample_weight=np.ones(32), batch_size=16, epochs=4, validation_data=(X, Y), verbose=0)
    assert list(history.history) == ["mean_loss", "val_far"]
    assert history.history["mean_loss"][-1] < history.history["mean_loss"][0]
    assert model.seen == [(16,)] * 8
    assert np.allclose(model.predict(X, verbose=0), model(torch.from_numpy(X)).detach().numpy() * 100, rtol=1e-6)
    farthest = np.abs(model(torch.from_numpy(X)).detach().numpy() - Y).max()
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(farthest, rel=1e-6)


def test_compute_loss_replaces_loss_and_penalties():
    class Half(Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)

    class Alone(Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ((y_pred - y) ** 2).mean()

    whole = made(Model).evaluate(X, Y + 1, verbose=0, return_dict=True)["loss"]
    assert made(Half).evaluate(X, Y + 1, verbose=0, return_dict=True)["loss"] == pytest.approx(whole / 2, rel=1e-6)
    assert made(Alone).evaluate(X, Y + 1, verbose=0, return_dict=True)["loss"] == pytest.approx(1.0, rel=1e-5)
    half = made(Half)
    half.fit(X, Y + 1, batch_size=32, verbose=0)
    slow = made(Model)
    slow.optimizer.learning_rate = 0.05
    slow.fit(X, Y + 1, batch_size=32, verbose=0)
    for a, b in zip(half.get_weights(), slow.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-6)


def test_super_train_step_is_the_step_of_fit():
    class Counts(Model):
        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "twice": 2 * logs["loss"]}

    plain, counts = made(Model), made(Counts)
    one = plain.fit(X, Y + 1, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    two = counts.fit(X, Y + 1, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert two["twice"] == pytest.approx([2 * value for value in one["loss"]], rel=1e-6)
    with pytest.raises(RuntimeError, match="inside fit"):
        counts.train_step((X, Y))


def test_compute_metrics_in_a_step_of_ones_own():
    class Own(Model):
        def train_step(self, data):
            x, y = data
            return self.compute_metrics(x, y, self(x, training=True))

    model = made(Own)
    history = model.fit(X, Y + 1, batch_size=8, verbose=0).history
    assert history["mae"] == [pytest.approx(1.0, rel=1e-5)]


def test_a_call_that_decides_by_values_trains():
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.small, self.large = Dense(1), Dense(1)

        def call(self, inputs):
            return self.small(inputs) if float(inputs.detach().abs().max()) < 1e3 else self.large(inputs)

    model = Own()
    model.compile("sgd", "mse")
    first, *_, last = model.fit(X, Y, epochs=5, verbose=0).history["loss"]
    assert last < first


def test_parts_of_a_subclass_are_in_eval_mode_outside_fit():
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.blocks = []
            for _ in range(3):
                self.blocks.append(Sequential([Dense(4), fanin.layers.Dropout(0.5)]))
            self.heads = {"a": Dense(1)}

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return self.heads["a"](inputs)

    model = Own()
    model(torch.ones(1, 4))
    assert len(model.weights) == 8
    assert sorted(model.state_dict())[0] == "blocks.0.0.bias"
    assert len(model.layers) == 4
    assert not any(module.training for module in model.modules())
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert not any(module.training for module in model.modules())
    assert np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_subclass_is_described_by_its_arguments():
    @fanin.saving.register_keras_serializable("test")
    class Own(Model):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.hidden, self.head = Dense(width), Dense(1)

        def call(self, inputs):
            return self.head(self.hidden(inputs))

    model = Own(7, name="mine")
    model(torch.ones(1, 4))
    config = model.get_config()
    assert config["width"] == 7
    twin = Own.from_config(config)
    assert twin.name == "mine"
    assert twin(torch.ones(1, 4)).shape == (1, 1)


def test_a_subclass_saves_and_loads(tmp_path):
    @fanin.saving.register_keras_serializable("test")
    class Saved(Model):
        def __init__(self, width=3, **kwargs):
            super().__init__(**kwargs)
            self.hidden = [Dense(width), Dense(width)]
            self.head = Dense(1)

        def call(self, inputs):
            for layer in self.hidden:
                inputs = layer(inputs)
            return self.head(inputs)

    model = Saved(5)
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    again = fanin.saving.load_model(tmp_path / "m.keras")
    assert np.array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_a_model_needs_a_graph_or_a_call():
    with pytest.raises(NotImplementedError, match="no graph"):
        Model()(torch.ones(1, 2))
