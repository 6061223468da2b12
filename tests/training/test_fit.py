"""The loops: fit, evaluate, predict, one batch at a time."""

import contextlib
import io

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fanin
from fanin.callbacks import Callback
from fanin.errors import DataError
from fanin.layers import Dense


def data(rows=64, inputs=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype("float32")
    return x, (x @ rng.normal(size=(inputs, classes))).argmax(-1)


def model(classes=3, **compiled):
    made = fanin.Sequential([Dense(8, "relu"), Dense(classes, "softmax")])
    made.compile(
        **{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **compiled}
    )
    return made


def test_fit_learns_and_tells():
    x, y = data(256)
    made = model(optimizer=fanin.optimizers.Adam(0.02))
    history = made.fit(x, y, epochs=30, validation_split=0.25, verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epoch == list(range(30))
    assert all(type(value) is float for values in history.history.values() for value in values)
    assert history.history["loss"][-1] < 0.6 * history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.7
    assert made.history is history
    assert made.evaluate(x, y, verbose=0, return_dict=True).keys() == {"loss", "accuracy"}
    assert made.metrics_names == ["loss", "accuracy"]


def test_history_loss_is_the_mean_over_rows_with_penalties():
    x, y = data(10)
    made = fanin.Sequential([Dense(3, "softmax", kernel_regularizer="l2", activity_regularizer="l1")])
    made.compile(fanin.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    found = made.fit(x, y, batch_size=4, shuffle=False, verbose=0).history["loss"][0]
    expected = 0.0
    for start in (0, 4, 8):
        rows = slice(start, start + 4)
        p = made(torch.from_numpy(x[rows]))
        picked = p[torch.arange(len(p)), torch.from_numpy(y[rows])]
        expected += len(p) * (sum(made.losses) - picked.log().mean()).item()
    assert found == pytest.approx(expected / 10, rel=1e-6)
    assert made.evaluate(x, y, batch_size=4, verbose=0) == pytest.approx(expected / 10, rel=1e-6)


@pytest.mark.parametrize("kind", ["arrays", "tensors", "dataset", "loader", "generator"])
def test_every_source_of_data_trains_the_same(kind):
    x, y = data(48)
    sources = {
        "arrays": (x, y),
        "tensors": (torch.from_numpy(x), torch.from_numpy(y)),
        "dataset": (TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),),
        "loader": (DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=16),),
        "generator": (((x[i : i + 16], y[i : i + 16]) for _ in range(2) for i in (0, 16, 32)),),
    }
    fanin.utils.set_random_seed(1)
    made, reference = model(), model()
    reference(x[:1])
    made(x[:1])
    made.set_weights(reference.get_weights())
    steps = 3 if kind == "generator" else None
    made.fit(*sources[kind], epochs=2, batch_size=16, shuffle=False, verbose=0, steps_per_epoch=steps)
    reference.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    for found, expected in zip(made.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_validation_data_as_a_loader():
    x, y = data(32)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=10)
    history = model().fit(x, y, validation_data=loader, epochs=2, verbose=0)
    assert len(history.history["val_loss"]) == 2


def test_the_same_seed_gives_the_same_run():
    x, y = data()
    runs = []
    for _ in range(2):
        fanin.utils.set_random_seed(5)
        runs.append(model().fit(x, y, epochs=2, verbose=0).history["loss"])
    assert runs[0] == runs[1]


def test_initial_epoch_and_steps_per_epoch():
    x, y = data(40)
    history = model().fit(x, y, batch_size=8, initial_epoch=3, epochs=5, steps_per_epoch=2, verbose=0)
    assert history.epoch == [3, 4]
    assert history.params["steps"] == 2


def test_models_are_in_train_mode_only_inside_fit():
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.training)

    x, y = data(8)
    made = model()
    assert not made.training
    made.fit(x, y, callbacks=[Look()], verbose=0)
    assert seen == [True]
    assert not made.training
    assert not made.layers[0].training


def test_dropout_of_torch_works_only_in_training():
    x, y = data(8)
    made = fanin.Sequential([Dense(50, "relu"), torch.nn.Dropout(0.5), Dense(3, "softmax")])
    made.compile("sgd", "sparse_categorical_crossentropy")
    made.fit(x, y, verbose=0)
    np.testing.assert_array_equal(made.predict(x, verbose=0), made.predict(x, verbose=0))
    assert not torch.equal(made(torch.from_numpy(x), training=True), made(torch.from_numpy(x), training=True))
    assert not made.layers[1].training


def test_predict():
    x, _ = data(70)
    made = model()
    whole = made.predict(x, verbose=0)
    assert whole.shape == (70, 3)
    np.testing.assert_allclose(made.predict(x, batch_size=7, verbose=0), whole, atol=1e-6)
    np.testing.assert_allclose(made.predict_on_batch(x), whole, atol=1e-6)
    assert made.predict(x[:0], verbose=0).shape == (0, 3)
    assert made.predict(DataLoader(torch.from_numpy(x), batch_size=32), verbose=0).shape == (70, 3)
    x[0, 0] = np.nan
    assert np.isnan(made.predict(x, verbose=0)[0]).all()  # NaN passes through, as in PyTorch


def test_predict_leaves_no_graph_and_no_trace_of_gradients():
    x, _ = data(4)
    made = model()
    made.predict(x, verbose=0)
    assert all(weight.grad is None for weight in made.weights)


def test_one_batch_at_a_time():
    x, y = data(8)
    made = model()
    before = made.test_on_batch(x, y, return_dict=True)
    first = made.train_on_batch(x, y)
    assert first == pytest.approx([before["loss"], before["accuracy"]], rel=1e-6)
    for _ in range(20):
        made.train_on_batch(x, y)
    assert made.test_on_batch(x, y)[0] < first[0]


def test_frozen_weights_stay():
    x, y = data(16)
    made = model()
    made(x[:1])
    made.layers[0].trainable = False
    before = made.get_weights()
    made.fit(x, y, epochs=2, verbose=0)
    after = made.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])


def test_freezing_and_thawing_keeps_the_state_of_the_optimizer():
    x, y = data(16)
    made = model()
    made.fit(x, y, verbose=0)
    kernel = made.layers[0].kernel
    made.layers[0].trainable = False
    made.fit(x, y, verbose=0)
    made.layers[0].trainable = True
    made.fit(x, y, verbose=0)
    assert made.layers[0].kernel is kernel
    assert int(made.optimizer.iterations) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
        lambda m: torch.optim.Adam,
        lambda m: lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        lambda m: torch.optim.LBFGS(m.parameters(), max_iter=3),
        lambda m: torch.optim.Adam(m.parameters(), fused=True),
    ],
)
def test_torch_optimizers(make):
    x, y = data(32)
    made = model()
    made.compile(make(made), "sparse_categorical_crossentropy")
    losses = made.fit(x, y, epochs=15, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_torch_optimizer_gives_what_a_plain_loop_gives():
    x, y = data(32)
    made = model()
    made(x[:1])
    weights = made.get_weights()
    made.compile(torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9), torch.nn.NLLLoss())
    plain = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), torch.nn.Softmax(-1))
    with torch.no_grad():
        for target, value in zip(plain.parameters(), weights, strict=True):
            target.copy_(torch.from_numpy(value).t() if value.ndim == 2 else torch.from_numpy(value))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.NLLLoss()(plain(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    made.fit(x, y, epochs=5, batch_size=32, shuffle=False, verbose=0)
    for found, expected in zip(made.get_weights(), plain.parameters(), strict=True):
        value = expected.detach().t() if expected.dim() == 2 else expected.detach()
        np.testing.assert_allclose(found, value.numpy(), atol=1e-6)


def test_a_changed_learning_rate_takes_effect():
    x, y = data(16)
    made = model(optimizer=fanin.optimizers.SGD(0.1))
    made.fit(x, y, verbose=0)
    made.optimizer.learning_rate = 0.0
    before = made.get_weights()
    made.fit(x, y, verbose=0)
    for one, other in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_constraints_hold_after_every_step():
    x, y = data(32)
    smallest = []

    class Look(Callback):
        def on_train_batch_end(self, batch, logs=None):
            smallest.append(self.model.layers[0].kernel.min().item())

    made = fanin.Sequential([Dense(8, "relu", kernel_constraint="non_neg"), Dense(3, "softmax")])
    made.compile(fanin.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    made.fit(x, y, epochs=3, batch_size=8, callbacks=[Look()], verbose=0)
    assert len(smallest) == 12
    assert min(smallest) >= 0


def test_updates_run_after_every_step():
    x, y = data(32)
    made = model()
    made(x[:1])
    count = made.layers[0].add_weight("count", (), initializer="zeros", trainable=False)
    order = []
    made.layers[0].add_update([(count, 3), lambda: order.append("function"), "something of the user's"])
    made.fit(x, y, batch_size=8, verbose=0)
    assert float(count) == 3
    assert order == ["function"] * 4
    made.layers[0].trainable = False
    made.layers[1].trainable = True
    made.fit(x, y, batch_size=8, verbose=0)


def test_a_torchmetrics_metric():
    import torchmetrics

    x, y = data(32)
    made = model(metrics=[torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro"), "accuracy"])
    made.fit(x, y, verbose=0)
    found = made.evaluate(x, y, verbose=0, return_dict=True)
    values = list(found.values())
    assert values[1] == pytest.approx(values[2])


def test_class_weight_and_sample_weight_agree():
    x, y = data(24)
    by_class, by_row = model(), model()
    by_class(x[:1])
    by_row(x[:1])
    by_row.set_weights(by_class.get_weights())
    by_class.fit(x, y, class_weight={0: 3.0, 2: 0.5}, shuffle=False, verbose=0)
    by_row.fit(x, y, sample_weight=np.choose(y, [3.0, 1.0, 0.5]), shuffle=False, verbose=0)
    for one, other in zip(by_class.get_weights(), by_row.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("verbose", ["auto", 0, 1, 2])
def test_plain_lines_where_there_is_no_terminal(verbose):
    x, y = data(8)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        model().fit(x, y, epochs=2, verbose=verbose)
    lines = out.getvalue().splitlines()
    assert len(lines) == (0 if verbose == 0 else 2)
    assert all(line.startswith(f"Epoch {i + 1}/2 - 1 steps - ") and " - loss: " in line for i, line in enumerate(lines))
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "mixed_bfloat16"])
def test_policies_train(policy):
    x, y = data(64)
    fanin.config.set_dtype_policy(policy)
    made = model(optimizer=fanin.optimizers.Adam(0.02))
    losses = made.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert made.layers[0].kernel.dtype == (torch.float32 if policy.startswith("mixed") else getattr(torch, policy))


# --- refusals: a clear error, and nothing changed ---


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (lambda y: y + 1, "y"),
        (lambda y: y - 1, "y"),
        (lambda y: y + 0.5, "y"),
        (lambda y: np.where(np.arange(len(y)) == 5, np.nan, y), "row 5"),
        (lambda y: np.eye(3)[y][:, :2], "y"),
        (lambda y: y[:-1], "x has 16 rows, y has 15"),
        (lambda y: None, "y is missing"),
    ],
)
def test_bad_labels_are_refused_and_nothing_trains(labels, words):
    x, y = data(16)
    made = model()
    made(x[:1])
    before = made.get_weights()
    with pytest.raises((DataError, ValueError), match=words):
        made.fit(x, labels(y), verbose=0)
    with pytest.raises((DataError, ValueError), match=words):
        made.evaluate(x, labels(y), verbose=0)
    with pytest.raises((DataError, ValueError), match=words):
        made.train_on_batch(x, labels(y))
    for one, other in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not made.training


@pytest.mark.parametrize(("out", "y"), [(3, (8, 1)), (3, (8,)), (3, (1, 3)), (1, (8, 3)), (2, (8, 3))])
def test_labels_that_fit_only_by_broadcasting_are_refused(out, y):
    made = fanin.Sequential([Dense(out)])
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match="y"):
        made.fit(np.ones((8, 2)), np.ones(y), verbose=0)


def test_a_column_and_a_row_of_targets_are_the_same():
    made = fanin.Sequential([Dense(1)])
    made.compile("sgd", "mse")
    assert np.isfinite(made.fit(np.ones((8, 2)), np.ones(8), verbose=0).history["loss"][0])
    assert np.isfinite(made.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0).history["loss"][0])


def test_one_nan_never_reaches_the_weights():
    x, y = data(64)
    x[63, 4] = np.nan
    made = model()
    with pytest.raises(DataError, match=r"x: row 63, position \(4,\) holds nan"):
        made.fit(x, y, epochs=3, verbose=0)
    assert not made.built  # it was refused before anything was made


def test_a_wrong_last_dimension_names_the_layer():
    x, y = data(8)
    made = model()
    made.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"takes shape \(None, 5\), found \(8, 4\)"):
        made.fit(x[:, :4], y, verbose=0)


@pytest.mark.parametrize("endless", [True, False])
def test_each_validation_scores_the_same_batches_of_a_generator(endless):
    x, y = data(64)
    read = []

    def batches():
        while True:
            for start in range(0, 64, 16) if endless else (0, 16):
                read.append(start)
                yield x[start : start + 16], y[start : start + 16]
            if not endless:
                return

    made = model()
    made.optimizer.learning_rate = 0.0
    steps = {"validation_steps": 2} if endless else {}
    history = made.fit(x, y, epochs=3, validation_data=batches(), verbose=0, **steps).history
    assert (
        history["val_loss"] == [pytest.approx(made.evaluate(x[:32], y[:32], verbose=0, return_dict=True)["loss"])] * 3
    )
    assert read == [0, 16]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"epochs": -1}, "epochs must be a whole number of 0 or more, found -1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a positive integer, found 0"),
        ({"validation_split": -0.5}, "validation_split must be above 0 .* found -0.5 for 8 rows"),
        ({"verbose": 7}, "verbose"),
        ({"validation_split": 1.0}, "validation_split"),
        ({"validation_steps": -1}, "validation_steps must be a positive integer, found -1"),
        ({"validation_steps": 1.5}, "validation_steps must be a positive integer, found 1.5"),
        ({"callbacks": ["early"]}, "callbacks"),
        ({"class_weight": {0: 1.0}, "sample_weight": np.ones(8)}, "not both"),
    ],
)
def test_bad_arguments_of_fit(arguments, words):
    x, y = data(8)
    with pytest.raises((ValueError, TypeError), match=words):
        model().fit(x, y, **{"verbose": 0, **arguments})


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("part", [True, False])
def test_evaluate_and_predict_leave_every_part_in_its_mode(whole, part):
    x, y = data(8)
    made = model()
    made.build((None, 5))
    made.train(whole)
    made.layers[0].train(part)
    before = [module.training for module in made.modules()]
    made.evaluate(x, y, verbose=0), made.predict(x, verbose=0), made.predict_on_batch(x), made.test_on_batch(x, y)
    assert [module.training for module in made.modules()] == before


def test_evaluate_calls_the_eval_and_train_of_a_model():
    called = []

    class Own(fanin.Sequential):
        def eval(self):
            called.append("eval")
            return super().eval()

        def train(self, mode=True):
            called.append(mode)
            return super().train(mode)

    x, y = data(8)
    made = Own([fanin.Input((5,)), Dense(3, "softmax")])
    made.compile("sgd", "sparse_categorical_crossentropy")
    made.train()
    called.clear()
    made.evaluate(x, y, verbose=0)
    assert called == ["eval", False, True]


def test_empty_data_cannot_train():
    made = model()
    with pytest.raises(DataError, match="empty"):
        made.fit(np.ones((0, 5)), np.ones(0), verbose=0)
    with pytest.raises(DataError, match="nothing to evaluate"):
        made.evaluate(np.ones((0, 5)), np.ones(0), verbose=0)
    with pytest.raises(ValueError, match="empty"):
        made.fit(iter([]), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizer": "adamm"}, "adamm"),
        ({"loss": "mean_sqared"}, "mean_sqared"),
        ({"metrics": ["acuracy"]}, "acuracy"),
        ({"loss_weights": [1.0, 2.0]}, "loss_weights"),
        ({"steps_per_execution": 3}, "steps_per_execution"),
        ({"optimiser": "sgd"}, "optimiser"),
    ],
)
def test_bad_arguments_of_compile(arguments, words):
    made = model()
    known = made._compiled()
    with pytest.raises((ValueError, TypeError), match=words):
        made.compile(**{"optimizer": "adam", "loss": "mse", **arguments})
    assert made._compiled() is known


def test_training_before_compile_says_so():
    made = fanin.Sequential([Dense(2)])
    with pytest.raises(RuntimeError, match=r"call model\.compile"):
        made.fit(np.ones((2, 2)), np.ones((2, 2)))


def test_loss_weights_scale_the_loss():
    x, y = data(8)
    made = model(loss_weights=2.0)
    twice = made.evaluate(x, y, verbose=0)[0]
    made.compile("adam", "sparse_categorical_crossentropy")
    assert twice == pytest.approx(2 * made.evaluate(x, y, verbose=0), rel=1e-6)


def test_a_model_without_weights_that_train_is_told():
    model = fanin.Sequential([fanin.Input((3,)), fanin.layers.Dense(2)])
    model.trainable = False
    x, y = np.ones((4, 3)), np.ones((4, 2))
    for optimizer in ("sgd", torch.optim.SGD(model.parameters(), 0.1)):
        model.compile(optimizer, "mse")
        with pytest.warns(UserWarning, match="Model 'sequential.*' has no weights that train: fit leaves them") as told:
            model.fit(x, y, verbose=0)
        assert told[0].filename == __file__
    model.evaluate(x, y, verbose=0)
    model.compile("sgd", "mse")
    fanin.adapters.add(model, "ann", 1)
    fanin.adapters.set_active(model, None)
    with fanin.adapters.rows(model, ["ann"] * 4):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
