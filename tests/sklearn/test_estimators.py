"""DenseClassifier and DenseRegressor: against closed forms, scikit-learn's linear models and themselves."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import fanin
from fanin.callbacks import LambdaCallback
from fanin.sklearn import DenseClassifier, DenseRegressor

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": (8,), "epochs": 3, "random_state": 0}


def weights(estimator):
    return np.concatenate([weight.ravel() for weight in estimator.model_.get_weights()])


def linear(cls, rows, **kwargs):
    """A linear model, trained to the end: on standardized columns, full batches, gradient steps with momentum."""
    optimizer = fanin.optimizers.SGD(0.2, momentum=0.9)
    given = {"l2": 0, "optimizer": optimizer, "epochs": 500, "batch_size": rows, "random_state": 0, **kwargs}
    return cls((), **given)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("standardize_target", [False, True])
def test_no_hidden_layer_is_least_squares(targets, weighted, standardize_target):
    rng = np.random.default_rng(0)
    x = rng.normal([1, 5, -2], [1, 10, 0.1], (60, 3))
    y = x @ rng.normal(size=(3, targets)) + rng.normal(size=(60, targets)) + 3
    y = y[:, 0] if targets == 1 else y
    weight = rng.random(60) if weighted else None
    found = linear(DenseRegressor, 60, standardize_target=standardize_target).fit(x, y, weight)
    expected = LinearRegression().fit(x, y, weight)
    # the loss is quadratic with condition < 10: momentum brings the error down by 0.9 and more a step, to rounding
    np.testing.assert_allclose(found.predict(x), expected.predict(x), rtol=1e-9, atol=1e-9)
    assert found.predict(x).dtype == np.float64
    assert found.score(x, y) == pytest.approx(expected.score(x, y), abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_hidden_layer_is_logistic_regression(classes):
    kept = classes > Y
    x = StandardScaler().fit_transform(X[kept])
    y = np.array(["x", "y", "z"])[Y[kept]]
    l2 = 0.02
    found = linear(DenseClassifier, len(x), l2=l2, standardize=False).fit(x, y)
    # sum of losses + |w|^2 / (2 C), against mean of losses + l2 |w|^2
    expected = LogisticRegression(C=1 / (2 * l2 * len(x)), tol=1e-12, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(found.predict_proba(x), expected.predict_proba(x), rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(found.predict(x), expected.predict(x))
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    scores = expected.decision_function(x)
    if classes == 2:  # of three classes only the differences are settled
        np.testing.assert_allclose(found.decision_function(x), scores, rtol=1e-6, atol=1e-8)


def test_learns_what_a_linear_model_cannot():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = x[:, 0] * x[:, 1] > 0
    assert DenseClassifier(random_state=0).fit(x[:400], y[:400]).score(x[400:], y[400:]) > 0.9
    assert LogisticRegression().fit(x[:400], y[:400]).score(x[400:], y[400:]) < 0.7


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [[0, 1], [-1, 1], ["no", "yes"], [False, True], [1, 2, 5], ["a", "b", "c"], [1.0, 2.0]]
)
def test_classes_probabilities_and_decisions(labels):
    labels = np.array(labels)
    kept = len(labels) > Y
    x, y = X[kept], labels[Y[kept]]
    found = DenseClassifier((8,), epochs=20, random_state=0).fit(x, y)
    probabilities, decisions = found.predict_proba(x), found.decision_function(x)
    np.testing.assert_array_equal(found.classes_, labels)
    assert probabilities.shape == (len(x), len(labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_array_equal(found.predict(x), labels[probabilities.argmax(axis=1)])
    assert decisions.shape == ((len(x),) if len(labels) == 2 else (len(x), len(labels)))
    assert found.predict(x).dtype == labels.dtype
    assert found.score(x, y) > 0.8


def test_several_labels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = (x > [0, 0.5, -0.5]).astype(int)
    found = DenseClassifier(random_state=0).fit(x, y)
    assert found.score(x, y) > 0.9  # all three right
    np.testing.assert_array_equal(found.predict(x), found.predict_proba(x) > 0.5)
    assert found.predict(x).dtype.kind == "i"
    np.testing.assert_array_equal(found.classes_, [0, 1, 2])


def test_targets_come_back_in_their_own_units_and_shape():
    x, y = make_regression(100, 3, random_state=0)
    for target in (y, y[:, None], np.stack([y * 1e6 + 1e9, -y], 1)):
        found = DenseRegressor((16,), epochs=60, learning_rate=0.01, random_state=0).fit(x, target)
        assert found.predict(x).shape == target.shape
        assert found.score(x, target) > 0.95


def test_targets_that_are_not_standardized():
    found = DenseRegressor((), standardize_target=False, l2=0, learning_rate=1e-12, epochs=1, random_state=0)
    found.fit(X, Y + 100.0)
    np.testing.assert_array_equal([found.target_mean_, found.target_scale_], [[0], [1]])
    assert found.history_["loss"][0] == pytest.approx(np.square(found.predict(X) - Y - 100).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "asked", "expected"), [("f4", None, "f4"), ("f8", None, "f8"), ("f8", "float32", "f4")]
)
def test_dtype_of_the_network(given, asked, expected):
    found = DenseClassifier(dtype=asked, **SMALL).fit(X.astype(given), Y)
    assert {weight.dtype for weight in found.model_.get_weights()} == {np.dtype(expected)}
    assert found.predict_proba(X).dtype == found.decision_function(X).dtype == np.float64


def test_one_row_and_many_rows_agree():
    found = DenseClassifier(**SMALL).fit(X, Y)
    many = np.tile(X, (100, 1))  # more than one batch of predictions
    np.testing.assert_allclose(found.predict_proba(many)[:150], found.predict_proba(X), rtol=1e-12)
    np.testing.assert_allclose(found.predict_proba(X[:1]), found.predict_proba(X)[:1], rtol=1e-12)


# --- training ---------------------------------------------------------------------------------------------------------


def test_random_state():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = DenseClassifier(**SMALL, dropout=0.5).fit(X, Y)
    assert torch.equal(torch.rand(3), expected)  # torch's own state is left alone
    again = DenseClassifier(**SMALL, dropout=0.5).fit(X, Y)
    np.testing.assert_array_equal(weights(first), weights(again))
    other = DenseClassifier(**SMALL, dropout=0.5).set_params(random_state=1).fit(X, Y)
    assert not np.array_equal(weights(first), weights(other))
    drawn = [DenseClassifier(**SMALL).set_params(random_state=np.random.RandomState(5)).fit(X, Y) for _ in range(2)]
    np.testing.assert_array_equal(*map(weights, drawn))


@pytest.mark.parametrize("cls", [DenseClassifier, DenseRegressor])
def test_partial_fit_and_warm_start_go_on_where_training_stopped(cls):
    whole = cls(**{**SMALL, "epochs": 5}, dropout=0.2).fit(X, Y)
    parts = cls(**SMALL, dropout=0.2)
    for number in range(5):
        parts.partial_fit(X, Y, **({"classes": [0, 1, 2]} if cls is DenseClassifier and number == 0 else {}))
    np.testing.assert_array_equal(weights(parts), weights(whole))
    assert parts.history_ == whole.history_
    assert parts.n_iter_ == whole.n_iter_ == len(whole.loss_curve_) == 5
    warm = cls(**SMALL, dropout=0.2, warm_start=True).fit(X, Y).set_params(epochs=2).fit(X, Y)
    np.testing.assert_array_equal(weights(warm), weights(whole))
    cold = cls(**SMALL, dropout=0.2).fit(X, Y).set_params(epochs=5).fit(X, Y)
    np.testing.assert_array_equal(weights(cold), weights(whole))


def test_partial_fit_of_batches_without_every_class():
    found = DenseClassifier(**SMALL)
    for part in np.array_split(np.arange(150), 3):
        found.partial_fit(X[part], Y[part], classes=[2, 0, 1])
    np.testing.assert_array_equal(found.classes_, [0, 1, 2])
    assert found.predict_proba(X).shape == (150, 3)


def test_class_weight_is_sample_weight():
    labels = np.array(["a", "b", "c"])[Y]
    weight = np.array([1.0, 5.0, 2.0])[Y]
    by_class = DenseClassifier(class_weight={"a": 1, "b": 5, "c": 2}, **SMALL).fit(X, labels)
    by_row = DenseClassifier(**SMALL).fit(X, labels, weight)
    np.testing.assert_array_equal(weights(by_class), weights(by_row))
    some = Y[:120]
    balanced = DenseClassifier(class_weight="balanced", **SMALL).fit(X[:120], some)
    by_row = DenseClassifier(**SMALL).fit(X[:120], some, compute_sample_weight("balanced", some))
    np.testing.assert_array_equal(weights(balanced), weights(by_row))


def test_balanced_classes_have_equal_weight_in_sum():
    y, weight = Y[:120], np.random.default_rng(0).random(120)
    balanced = DenseClassifier(class_weight="balanced", **SMALL).fit(X[:120], y, weight)
    equal = weight / np.bincount(y, weight)[y]
    by_row = DenseClassifier(**SMALL).fit(X[:120], y, equal)
    np.testing.assert_allclose(weights(balanced), weights(by_row), rtol=1e-9)


def test_only_the_ratio_of_weights_counts():
    weight = np.random.default_rng(0).random(150) + 0.5
    one, other = (DenseRegressor(**SMALL).fit(X, Y, weight * factor) for factor in (1, 1024))
    np.testing.assert_array_equal(weights(one), weights(other))


def test_rows_without_weight_are_not_there():
    weight = (np.arange(150) % 3 > 0).astype(float)
    frame = pd.DataFrame(X).assign(c=np.where(weight > 0, "x", "only there"))
    frame.columns = frame.columns.astype(str)
    found = DenseClassifier(**SMALL).fit(frame, Y, weight)
    part = DenseClassifier(**SMALL).fit(frame[weight > 0], Y[weight > 0])
    np.testing.assert_allclose(weights(found), weights(part), rtol=1e-12)
    assert found.columns_.categories == {4: ["x"]}


@pytest.mark.parametrize("own", [False, True])
def test_early_stopping_brings_back_the_best_epoch(own):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 5)), rng.integers(0, 2, 120)  # nothing to learn: the held-out loss grows
    train, held = (x[:80], y[:80]), (x[80:], y[80:])
    found = DenseClassifier((64,), l2=0, early_stopping=True, patience=3, random_state=0, learning_rate=0.01)
    found.fit(*train, validation_data=held) if own else found.fit(x, y)
    losses = found.history_["val_loss"]
    best = int(np.argmin(losses))
    assert found.n_iter_ == len(losses) == best + 1 + 3 < 50
    if own:
        assert log_loss(held[1], found.predict_proba(held[0])) == pytest.approx(losses[best], rel=1e-9)


def test_validation_data_is_watched_without_early_stopping():
    weight = np.linspace(0.5, 1.5, 50)
    found = DenseClassifier(l2=0, **SMALL).fit(X[:100], Y[:100] % 2, validation_data=(X[100:], Y[100:] % 2, weight))
    last = log_loss(Y[100:] % 2, found.predict_proba(X[100:]), sample_weight=weight, labels=[0, 1])
    assert found.history_["val_loss"][-1] == pytest.approx(last, rel=1e-9)
    assert found.n_iter_ == 3


def test_held_out_rows_have_every_class_in_its_share():
    seen = []
    watch = LambdaCallback(on_train_begin=lambda logs=None: None)
    watch.on_train_begin = lambda logs=None: seen.append(watch.model)
    y = np.repeat([0, 1], [140, 10])
    found = DenseClassifier(early_stopping=True, validation_fraction=0.2, **SMALL).fit(X, y, callbacks=watch)
    assert seen == [found.model_]
    assert "val_loss" in found.history_
    with pytest.raises(ValueError, match="least populated class"):
        DenseClassifier(early_stopping=True, **SMALL).fit(X, np.repeat([0, 1], [149, 1]))


def test_the_arguments_of_the_network():
    found = DenseClassifier([5, 6], "tanh", l2=0.5, dropout=0.25, optimizer="sgd", learning_rate=0.5, epochs=1).fit(
        X, Y
    )
    names = [layer.name for layer in found.model_.layers]
    assert names == ["hidden_0", "dropout_0", "hidden_1", "dropout_1", "output"]
    assert [layer.units for layer in found.model_.layers[::2]] == [5, 6, 3]
    assert [layer.kernel_regularizer.l2 for layer in found.model_.layers[::2]] == [0.5] * 3
    assert found.model_.optimizer.learning_rate == 0.5
    assert found.model_.layers[0].activation is fanin.activations.tanh
    one = DenseClassifier(5, epochs=1).fit(X, Y)
    assert [layer.units for layer in one.model_.layers] == [5, 3]


def test_an_optimizer_given_as_an_object_stays_as_it_is():
    optimizer = fanin.optimizers.Adam(0.1)
    found = DenseClassifier(optimizer=optimizer, **SMALL)
    first, second = weights(found.fit(X, Y)), weights(found.fit(X, Y))
    np.testing.assert_array_equal(first, second)
    assert optimizer.iterations == 0
    assert found.model_.optimizer.iterations == 3 * 5


def test_loss_of_a_regressor():
    y = np.array([0.0] * 30 + [100.0] * 20)  # the mean of absolute differences is smallest at the median
    found = DenseRegressor((), loss="mae", epochs=300, learning_rate=0.05, batch_size=50).fit(np.zeros((50, 1)), y)
    assert found.predict(np.zeros((1, 1)))[0] == pytest.approx(0, abs=5)


# --- tables -----------------------------------------------------------------------------------------------------------


def table(rows=400):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "city": rng.choice(["Oslo", "Lima", None], rows),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], rows)),
            "age": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(40, 10, rows)),
            "count": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
        }
    )
    y = (frame["city"] == "Lima").to_numpy() ^ frame["age"].isna().to_numpy()
    return frame, np.where(y, "yes", "no")


def test_categories_and_missing_values():
    frame, y = table()
    found = DenseClassifier(random_state=0).fit(frame[:300], y[:300])
    assert found.score(frame[300:], y[300:]) > 0.95
    np.testing.assert_array_equal(found.feature_names_in_, frame.columns)
    assert found.n_features_in_ == 4
    later = frame[:2].assign(city="Rome", size="XXL", age=[np.nan, 1.0])
    assert found.predict(later).shape == (2,)
    assert DenseRegressor(**SMALL).fit(frame, frame["count"].astype(float)).predict(later).shape == (2,)
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        found.predict(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="could not convert string to float"):
        found.predict(frame.assign(age="old"))


def test_objects_that_are_numbers_are_numbers():
    frame = pd.DataFrame(X, columns=list("abcd"))
    objects = frame.astype(object).where(X < 7, None)
    assert objects.dtypes.tolist() == [object] * 4
    found, expected = (DenseRegressor(**SMALL).fit(table, Y) for table in (objects, frame.where(X < 7)))
    assert found.columns_.numbers == (0, 1, 2, 3)
    np.testing.assert_allclose(found.predict(objects), expected.predict(frame.where(X < 7)), rtol=1e-9)


def test_missing_values_in_arrays():
    x = X.copy()
    x[::7, 2] = np.nan
    found = DenseClassifier(random_state=0).fit(x, Y)
    assert found.score(x, Y) > 0.9
    with pytest.raises(ValueError, match="infinity"):
        found.predict(np.full((1, 4), np.inf))


# --- among scikit-learn's own -----------------------------------------------------------------------------------------


def test_pipeline_and_grid_search():
    pipe = make_pipeline(FunctionTransformer(), DenseClassifier(**SMALL))
    search = GridSearchCV(
        pipe,
        {"denseclassifier__hidden_layer_sizes": [(), (8,)], "denseclassifier__learning_rate": [1e-6, 0.05]},
        cv=3,
    ).fit(X, Y)
    assert search.best_params_["denseclassifier__learning_rate"] == 0.05
    assert search.best_score_ > 0.8
    assert search.predict(X).shape == (150,)


def test_processes_side_by_side():
    scores = [cross_val_score(DenseRegressor(**SMALL), X, Y, cv=2, n_jobs=jobs) for jobs in (1, 2)]
    np.testing.assert_allclose(*scores, rtol=1e-9)


def test_clone_copy_and_pickle():
    found = DenseClassifier(**SMALL, optimizer=fanin.optimizers.Adam(0.01)).fit(X, Y)
    fresh = clone(found)
    assert not hasattr(fresh, "model_")
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        np.testing.assert_array_equal(again.predict_proba(X), found.predict_proba(X))
        expected = copy.deepcopy(found).partial_fit(X, Y)
        np.testing.assert_array_equal(weights(again.partial_fit(X, Y)), weights(expected))  # optimizer and all


def test_real_data():
    x, y = load_breast_cancer(return_X_y=True)
    assert cross_val_score(DenseClassifier(epochs=20, random_state=0), x, y, cv=3).mean() > 0.95


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (DenseClassifier, {"hidden_layer_sizes": (8, 0)}, "units must be a positive integer, found 0"),
        (DenseClassifier, {"activation": "rleu"}, "Unknown activation 'rleu'. Did you mean 'relu'"),
        (DenseClassifier, {"optimizer": "adma"}, "Unknown optimizer 'adma'. Did you mean .*'adam'"),
        (DenseClassifier, {"optimizer": torch.optim.Adam}, "optimizer: expected a name, a config or a fanin optimizer"),
        (DenseClassifier, {"learning_rate": -1}, "learning_rate"),
        (DenseClassifier, {"batch_size": 0}, "batch_size must be a positive integer, found 0"),
        (DenseClassifier, {"epochs": 1.5}, "epochs must be .*, found 1.5"),
        (DenseClassifier, {"dropout": 2}, r"rate must be a number in \[0, 1\], found 2"),
        (DenseClassifier, {"l2": -1}, "l2"),
        (DenseClassifier, {"dtype": "int8"}, "dtype"),
        (DenseClassifier, {"class_weight": {5: 1}}, "class_weight"),
        (DenseClassifier, {"class_weight": {0: 0, 1: 0, 2: 0}}, "every row the weight zero"),
        (DenseClassifier, {"categorical_features": ["a"]}, "categorical_features: expected places from 0 to 3"),
        (DenseClassifier, {"max_categories": 0}, "max_categories"),
        (DenseClassifier, {"early_stopping": True, "validation_fraction": 2.0}, "test_size"),
        (DenseRegressor, {"loss": "msee"}, "Unknown loss 'msee'"),
        (DenseRegressor, {"learning_rate": 1e30, "optimizer": "sgd"}, "training diverged.*smaller learning_rate"),
    ],
)
def test_wrong_arguments_leave_an_estimator_as_it_was(cls, arguments, message):
    fresh = cls(**{**SMALL, **arguments})
    with pytest.raises((ValueError, TypeError), match=message):
        fresh.fit(X, Y)
    assert vars(fresh) == vars(cls(**{**SMALL, **arguments}))
    found = cls(**SMALL).fit(X, Y)
    before = found.predict(X)
    with pytest.raises((ValueError, TypeError), match=message):
        found.set_params(**arguments).fit(X, Y)
    np.testing.assert_array_equal(found.predict(X), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DenseClassifier().fit(X, np.zeros(150)), "needs 2 classes or more, found one class"),
        (lambda: DenseClassifier().fit(X, Y + 0.5), "continuous"),
        (lambda: DenseClassifier().fit(X, np.stack([Y, Y], 1)), "1d array"),
        (lambda: DenseClassifier().fit(X, Y[:-1]), "inconsistent numbers of samples"),
        (lambda: DenseClassifier().fit(X, Y, -np.ones(150)), "must not be negative"),
        (lambda: DenseClassifier().fit(X, Y, np.zeros(150)), "nor all of them zero"),
        (lambda: DenseClassifier().fit(pd.DataFrame({"a": []}), []), "X has no rows"),
        (lambda: DenseClassifier().fit(X, Y, validation_data=X), r"validation_data: expected \(X, y\)"),
        (lambda: DenseClassifier().fit(X, Y, validation_data=(X, Y + 1)), "previously unseen labels"),
        (lambda: DenseClassifier().fit(X, Y, validation_data=(X[:, 1:], Y)), "3 features"),
        (lambda: DenseClassifier().partial_fit(X, Y), "the first call needs classes"),
        (lambda: DenseClassifier(class_weight="balanced").partial_fit(X, Y, [0, 1, 2]), "partial_fit sees only some"),
        (lambda: DenseClassifier(class_weight={0: 1}).fit(X, np.eye(3)[Y].astype(int)), "not with several labels"),
        (lambda: DenseClassifier(**SMALL).fit(X, Y).partial_fit(X, Y, [0, 1]), "the classes are"),
        (lambda: DenseClassifier(**SMALL).fit(X, Y).partial_fit(X, Y + 1), "previously unseen labels"),
        (lambda: DenseClassifier(**SMALL).fit(X, Y).partial_fit(X, np.eye(3)[Y].astype(int)), "expected shape"),
        (lambda: DenseRegressor(**SMALL).fit(X, Y).partial_fit(X, np.stack([Y, Y], 1)), "expected shape"),
        (lambda: DenseRegressor().fit(X, [None] * 150), "y"),
        (lambda: DenseRegressor().fit(X, np.zeros((150, 2, 2))), "dim 3"),
    ],
)
def test_wrong_data(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
