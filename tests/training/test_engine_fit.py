"""The whole of `fit` in compiled steps, as in eager ones: metrics, outputs, own steps, shared layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_cases import BATCH, programs, rows, same_bits, simple

import fanin
from fanin import optimizers
from fanin.layers import Dense, Dropout


def test_metrics_history_and_own_states_are_those_of_eager_steps(exact):
    class Mine(fanin.metrics.Metric):
        def __init__(self, name="mine"):
            super().__init__(name=name)
            self.total = self.add_variable((), "zeros", name="total")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign(self.total + y_pred.amax())

        def result(self):
            return self.total

    x, y = rows()
    logs = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = simple()
        model.compile(
            "adam",
            "sparse_categorical_crossentropy",
            run_eagerly=run_eagerly,
            metrics=["accuracy", fanin.metrics.SparseTopKCategoricalAccuracy(2)],
            weighted_metrics=["accuracy"],
        )
        history = model.fit(
            x, y, batch_size=BATCH, epochs=2, validation_split=0.3, class_weight={0: 2.0, 1: 0.5}, verbose=0
        ).history
        logs.append([history, model.evaluate(x, y, verbose=0), model.predict(x, verbose=0).tolist()])
    assert logs[0] == logs[1]


def test_several_outputs_of_different_kinds(exact):
    logs = []
    x, y = rows()
    for run_eagerly in (False, True):
        fanin.config.clear_session(free_memory=False)
        fanin.utils.set_random_seed(3)
        inputs = fanin.Input((6,))
        h = Dense(5, "relu")(inputs)
        model = fanin.Model(inputs, {"kind": Dense(3, "softmax")(h), "size": Dense(1)(h), "free": Dense(2)(h)})
        model.compile(
            "adam",
            {"kind": "sparse_categorical_crossentropy", "size": "mse", "free": None},
            {"kind": 0.3},
            metrics={"kind": ["accuracy"], "size": ["mae"]},
            run_eagerly=run_eagerly,
        )
        history = model.fit(x, {"kind": y, "size": x[:, 0]}, batch_size=BATCH, epochs=2, verbose=0).history
        logs.append((history, [w.tolist() for w in model.get_weights()]))
        if not run_eagerly:
            programs(model)
    assert logs[0] == logs[1]


def test_a_subclass_with_a_call_of_its_own(exact):
    class Net(fanin.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.drop = Dense(5), Dense(3), Dropout(0.3)

        def call(self, x, training=False):
            h = self.drop(F.silu(self.one(x)), training=training)
            self.add_loss(h.pow(2).mean())
            return torch.softmax(self.two(h), -1)

    twins = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = Net()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=run_eagerly)
        model.fit(*rows(), batch_size=BATCH, epochs=2, verbose=0)
        twins.append(model)
    programs(twins[0])
    same_bits(*twins)


def test_compute_loss_and_train_step_of_ones_own(exact):
    class Own(fanin.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)

        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "twice": 2 * logs["loss"]}

    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = Own([fanin.Input((6,)), Dense(3, "softmax", kernel_regularizer="l2")])
        model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        found.append((model.fit(*rows(), batch_size=BATCH, verbose=0).history, model))
    assert found[0][0] == found[1][0]
    same_bits(found[0][1], found[1][1])


def test_shared_layers_and_tied_weights(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        inputs = fanin.Input((6,))
        shared = Dense(6, "tanh")
        model = fanin.Model(inputs, Dense(3, "softmax")(shared(shared(inputs))))
        model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        model.fit(*rows(), batch_size=BATCH, epochs=2, verbose=0)
        found.append(model)
    programs(found[0])
    same_bits(*found)


def test_two_models_that_share_a_layer_train_in_turns(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        shared = Dense(6, "tanh")
        models = [fanin.Sequential([fanin.Input((6,)), shared, Dense(3, "softmax")]) for _ in range(2)]
        for model in models:
            model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        for i in range(3):
            for model in models:
                model.train_on_batch(*rows(i, 4))
        found.append(models)
    for one, two in zip(*found, strict=True):
        same_bits(one, two)


def test_one_optimizer_for_two_models_as_in_a_gan(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        inner = fanin.Sequential([fanin.Input((6,)), Dense(3, "softmax")])
        outer = fanin.Sequential([fanin.Input((6,)), Dense(6, "tanh"), inner])
        for model in (inner, outer):
            model.compile(optimizers.SGD(0.1, momentum=0.5), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        for i in range(3):
            inner.trainable = True
            inner.train_on_batch(*rows(i, 4))
            inner.trainable = False
            outer.train_on_batch(*rows(i + 1, 4))
        found.append(outer)
    same_bits(*found)


def test_a_model_without_weights_and_one_that_is_all_frozen():
    x, y = rows()
    model = fanin.Sequential([fanin.Input((6,)), Dense(3, "softmax")])
    model.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.warns(UserWarning, match="has no weights that train"):
        model.fit(x, y, verbose=0)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("in_mode", [False, True])
def test_data_from_inference_mode_trains_and_so_does_a_fit_inside_it(run_eagerly, in_mode, exact):
    x, y = map(torch.from_numpy, rows())
    with torch.inference_mode():
        features, targets, weight = x * 1, y * 1, torch.ones(len(y))
    models = [simple(rate=0.0), simple(rate=0.0)]
    models[1].set_weights(models[0].get_weights())
    for model, data, mode in ((models[0], (features, targets, weight), in_mode), (models[1], (x, y, None), False)):
        model.compile(optimizers.SGD(0.1, momentum=0.5), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        with torch.inference_mode(mode):
            model.fit(*data[:2], sample_weight=data[2], batch_size=BATCH, shuffle=False, verbose=0)
            model.fit(iter([data[:2]]), verbose=0)
            model.train_on_batch(*data[:2])
        if not run_eagerly:
            programs(model)
    same_bits(*models)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adamax])  # in the step, and after it
def test_a_step_in_inference_mode_trains(kind):
    found = []
    for mode in (False, True):
        torch.manual_seed(0)
        module = torch.nn.Linear(6, 3)
        optimizer = kind(module.parameters(), lr=0.1)
        step = fanin.compile_step(module, F.cross_entropy, optimizer)
        for seed in range(2):
            with torch.inference_mode(mode):
                x, y = map(torch.from_numpy, rows(seed))
                step(x * 1, y * 1)
        module(torch.ones(1, 6)).sum().backward()
        optimizer.step()  # by hand, on the same state
        found.append(module.weight.detach().clone())
    assert torch.equal(*found)
