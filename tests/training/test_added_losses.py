"""What calls add as losses can be read after a compiled step, as after an eager one."""

import numpy as np
import pytest
import torch

import fanin
from fanin import layers

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = X[:, :1] * 2


class Adds(layers.Layer):
    """Adds losses that differ between training and inference, and one that is a weight itself."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs, training=False):
        self.add_loss(self.scale)
        if training:
            twice = 3 * inputs.square().mean()
            self.add_loss([twice, twice])
        else:
            self.add_loss(self.scale * inputs.abs().mean())
        return inputs * self.scale


def made(**how):
    fanin.utils.set_random_seed(1)
    model = fanin.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(4, "tanh", activity_regularizer="l2", kernel_regularizer="l1"),
            Adds(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", **how)
    return model


def shown(model):
    values = [model.losses, model.layers[0].losses, model.layers[1].losses, model.layers[2].losses]
    return [[float(torch.as_tensor(one).detach()) for one in each] for each in values]


ACTIONS = {
    "fit": lambda model: model.fit(X, Y, shuffle=False, verbose=0),  # a shorter last batch: two programs
    "fit twice": lambda model: [model.fit(X, Y, shuffle=False, verbose=0) for _ in range(2)],
    "validation": lambda model: model.fit(X, Y, validation_data=(X[:5], Y[:5]), shuffle=False, verbose=0),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0),
    "train_on_batch": lambda model: [model.train_on_batch(X[:8], Y[:8]), model.train_on_batch(X[8:16], Y[8:16])],
    "test_on_batch": lambda model: [model.train_on_batch(X[:8], Y[:8]), model.test_on_batch(X[8:16], Y[8:16])],
    "a call between": lambda model: [
        model.train_on_batch(X[:8], Y[:8]), model(X[:3]), model.train_on_batch(X[8:16], Y[8:16])
    ],
}  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_losses_after_compiled_steps_are_those_of_eager_ones(action):
    compiled, eager = made(), made(run_eagerly=True)
    for model in (compiled, eager):
        ACTIONS[action](model)
    assert compiled.programs
    assert not eager.programs
    for found, expected in zip(shown(compiled), shown(eager), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_callbacks_read_the_losses_of_each_batch():
    class Note(fanin.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(shown(self.model)[0])

    compiled, eager = Note(), Note()
    made().fit(X, Y, batch_size=8, epochs=2, shuffle=False, callbacks=[compiled], verbose=0)
    made(run_eagerly=True).fit(X, Y, batch_size=8, epochs=2, shuffle=False, callbacks=[eager], verbose=0)
    np.testing.assert_allclose(compiled.seen, eager.seen, rtol=1e-4, atol=1e-6)
    assert len({tuple(each) for each in compiled.seen}) == 10


def test_a_prediction_leaves_the_losses_of_the_call_before():
    model = made()
    model(X[:3])
    before = shown(model)
    model.predict(X, verbose=0)
    assert shown(model) == before
    fanin.compile_predict(model, X[:2])
    assert shown(model) == before


def test_compile_step_on_a_plain_module_shows_them_too():
    layer = layers.Dense(2, activity_regularizer=fanin.regularizers.L1(0.5))
    module = torch.nn.Sequential(layer, torch.nn.Tanh())
    module(torch.ones(1, 6))
    step = fanin.compile_step(module, torch.nn.functional.mse_loss, torch.optim.SGD(module.parameters(), lr=0.0))
    for rows in (X[:8], X[8:16]):
        step(torch.from_numpy(rows), torch.zeros(8, 2))
        expected = 0.5 * layer(torch.from_numpy(rows)).abs().sum() / 8
        step(torch.from_numpy(rows), torch.zeros(8, 2))
        torch.testing.assert_close(layer.losses[0], expected.detach())
    assert step.programs
