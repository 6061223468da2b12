"""Estimators in files: whole or not at all, bit for bit the same, and never trusted."""

import json
import os
import random
import warnings
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pandas as pd
import pytest
import torch

import fanin
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError
from fanin.formats import limits
from fanin.saving import load_model, register_keras_serializable
from fanin.sklearn import DenseClassifier, DenseRegressor

MEMBER = "assets/estimator.json"
SMALL = {"hidden_layer_sizes": (4,), "epochs": 2, "random_state": 0}


def table(rows=40):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"city": rng.choice(["Oslo", "Lima", None], rows), "age": rng.normal(40, 10, rows)})
    frame.loc[::5, "age"] = np.nan
    return frame.assign(zip=rng.integers(0, 3, rows)), rng.integers(0, 3, rows)


FRAME, IDS = table()
ARRAY = FRAME[["age", "zip"]].to_numpy(float)
CASES = {
    "classes": (DenseClassifier(categorical_features=("zip",), class_weight={0: 2.0}, **SMALL), FRAME, IDS),
    "two classes": (DenseClassifier(**SMALL), ARRAY, np.array(["no", "yes"])[IDS % 2]),
    "objects": (DenseClassifier(**SMALL), FRAME, pd.Series(np.array(["a", "b", "c"])[IDS], dtype=object)),
    "booleans": (DenseClassifier(early_stopping=True, patience=1, **SMALL), ARRAY, IDS > 0),
    "floats": (DenseClassifier(**SMALL), ARRAY, IDS / 1.0),
    "labels": (DenseClassifier(**SMALL), ARRAY, np.eye(3, dtype=int)[IDS]),
    "numbers": (DenseRegressor(**SMALL), FRAME, IDS * 1e6 + 0.1),
    "one column": (DenseRegressor(**SMALL), ARRAY, IDS[:, None] / 3),
    "two columns": (DenseRegressor(dropout=0.5, l2=0.1, **SMALL), ARRAY, np.stack([IDS, -IDS / 7], 1)),
    "linear": (DenseRegressor(()), ARRAY.astype("float32"), IDS),
    "config": (DenseRegressor(8, standardize_target=False, max_categories=None, epochs=1), FRAME, IDS),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_estimator_is_the_same(tmp_path, case):
    estimator, x, y = CASES[case]
    path = tmp_path / "estimator.keras"
    estimator.fit(x, y).save(path)
    loaded = type(estimator).load(path)
    assert loaded.get_params() == estimator.get_params()
    methods = ["predict"] if isinstance(loaded, DenseRegressor) else ["predict", "predict_proba", "decision_function"]
    for method in methods:
        found, expected = getattr(loaded, method)(x), getattr(estimator, method)(x)
        np.testing.assert_array_equal(found, expected)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    for name in ("history_", "n_iter_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(estimator, name)
    assert hasattr(loaded, "feature_names_in_") == isinstance(x, pd.DataFrame)
    if isinstance(x, pd.DataFrame):
        np.testing.assert_array_equal(loaded.feature_names_in_, estimator.feature_names_in_)
    if isinstance(loaded, DenseClassifier):
        np.testing.assert_array_equal(loaded.classes_, estimator.classes_)
        assert loaded.classes_.dtype == estimator.classes_.dtype
    assert os.listdir(tmp_path) == ["estimator.keras"]


def test_training_goes_on_with_the_optimizers_state(tmp_path):
    estimator = DenseRegressor(batch_size=40, **SMALL).fit(ARRAY, IDS)
    estimator.save(tmp_path / "e.keras")
    loaded = DenseRegressor.load(tmp_path / "e.keras")
    estimator.partial_fit(ARRAY, IDS)
    loaded.partial_fit(ARRAY, IDS)
    assert loaded.model_.optimizer.iterations == estimator.model_.optimizer.iterations == 3
    # one batch holds all rows, so their order changes sums by rounding alone
    np.testing.assert_allclose(loaded.predict(ARRAY), estimator.predict(ARRAY), rtol=1e-9)
    assert loaded.n_iter_ == 3
    assert loaded.fit(ARRAY, IDS).n_iter_ == 2


def test_objects_as_arguments(tmp_path):
    @register_keras_serializable("tests")
    def squared(y_true, y_pred):
        return (y_true - y_pred).square().mean(-1)

    optimizer = fanin.optimizers.SGD(0.01, momentum=0.5)
    huber = fanin.losses.Huber(delta=2.0)
    for loss, activation in ((huber, fanin.activations.gelu), (squared, "tanh")):
        made = DenseRegressor(loss=loss, activation=activation, optimizer=optimizer, **SMALL).fit(ARRAY, IDS)
        made.save(tmp_path / "e.keras")
        loaded = DenseRegressor.load(tmp_path / "e.keras")
        np.testing.assert_array_equal(loaded.predict(ARRAY), made.predict(ARRAY))
        assert loaded.optimizer.get_config() == optimizer.get_config()
        assert loaded.optimizer.iterations == 0
        assert loaded.activation in (activation, fanin.activations.gelu)
        again = loaded.set_params(random_state=0).fit(ARRAY, IDS)
        np.testing.assert_array_equal(again.predict(ARRAY), made.predict(ARRAY))
    assert loaded.loss is squared


def test_fanin_and_keras_open_the_network(tmp_path):
    estimator, x, y = CASES["classes"]
    estimator.fit(x, y).save(tmp_path / "e.keras")
    inputs = estimator.columns_.transform(x.infer_objects())
    logits = estimator.decision_function(x)
    np.testing.assert_array_equal(load_model(tmp_path / "e.keras").predict(inputs, verbose=0), logits)
    theirs = keras.saving.load_model(tmp_path / "e.keras")
    with torch.no_grad():  # Keras rounds what goes into a Sequential to float32
        np.testing.assert_allclose(theirs(torch.from_numpy(inputs)), logits, rtol=1e-5, atol=1e-6)


def test_losses_that_were_not_finite(tmp_path):
    estimator = DenseRegressor(**SMALL).fit(ARRAY, IDS)
    estimator.history_["val_loss"] = [np.nan, 1.0]
    estimator.save(tmp_path / "e.keras")
    np.testing.assert_equal(DenseRegressor.load(tmp_path / "e.keras").history_["val_loss"], [np.nan, 1.0])


# --- what cannot be saved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "y", "message"),
    [
        (DenseRegressor(random_state=np.random.RandomState(0)), IDS, "random_state=RandomState.*set_params"),
        (DenseRegressor(activation=lambda x: x), IDS, "lambda"),
        (DenseRegressor(loss=lambda y, p: (y - p).square().mean()), IDS, "its loss or optimizer is not known"),
        (
            DenseClassifier(),
            np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "M8[D]")[IDS],
            "classes of datetime64",
        ),
    ],
)
def test_what_a_file_cannot_hold(tmp_path, estimator, y, message):
    (tmp_path / "e.keras").write_text("old")
    estimator.set_params(epochs=1).fit(ARRAY, y)
    with pytest.raises(ValueError, match=message):
        estimator.save(tmp_path / "e.keras")
    assert (tmp_path / "e.keras").read_text() == "old"
    assert os.listdir(tmp_path) == ["e.keras"]


def test_what_could_not_be_read_back_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "JSON_TOKENS", 100)
    with pytest.raises(ValueError, match="DenseRegressor cannot be saved: more than 100 strings"):
        DenseRegressor(**SMALL).fit(FRAME, IDS).save(tmp_path / "e.keras")
    assert not os.listdir(tmp_path)


def test_saving_refuses_before_it_writes(tmp_path, monkeypatch):
    estimator = DenseRegressor(**SMALL)
    with pytest.raises(Exception, match="not fitted"):
        estimator.save(tmp_path / "e.keras")
    estimator.fit(ARRAY, IDS).save(tmp_path / "e.keras")
    before = (tmp_path / "e.keras").read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        estimator.save(tmp_path / "e.keras", overwrite=False)
    with pytest.raises(ValueError, match=r"must end in '\.keras'"):
        estimator.save(tmp_path / "e.pkl")
    monkeypatch.setattr(os, "replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        estimator.partial_fit(ARRAY, IDS).save(tmp_path / "e.keras")
    assert (tmp_path / "e.keras").read_bytes() == before
    assert os.listdir(tmp_path) == ["e.keras"]


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["classes", "two columns", "labels"])
def saved(request, tmp_path):
    """An estimator's class and table, the path of its file, and the file's members."""
    estimator, x, y = CASES[request.param]
    path = tmp_path / "e.keras"
    estimator.fit(x, y).save(path)
    with zipfile.ZipFile(path) as file:
        return type(estimator), x, path, {name: file.read(name) for name in file.namelist()}


def write(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def changed(path, members, change):
    data = json.loads(members[MEMBER])
    change(data)
    write(path, {**members, MEMBER: json.dumps(data)})


def test_another_class(saved):
    cls, _, path, members = saved
    other = DenseRegressor if cls is DenseClassifier else DenseClassifier
    with pytest.raises(MismatchError, match=f"e.keras, {MEMBER}: it holds a '{cls.__name__}', no {other.__name__}"):
        other.load(path)
    changed(path, members, lambda data: data.update(class_name="os.system"))
    with pytest.raises(MismatchError, match=r"it holds a 'os.system'"):
        cls.load(path)


def test_a_plain_model_is_no_estimator(saved):
    cls, _, path, members = saved
    write(path, {name: content for name, content in members.items() if name != MEMBER})
    with pytest.raises(CorruptError, match=f"there is no member {MEMBER}"):
        cls.load(path)
    with pytest.raises(FileNotFoundError):
        cls.load(path.with_name("none.keras"))


def test_truncated_files(saved):
    cls, _, path, _ = saved
    content = path.read_bytes()
    for length in [*range(0, 100, 7), *range(0, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"e\.keras"):
            cls.load(path)


def test_json_beyond_the_limits(saved):
    cls, _, path, members = saved
    for content, kind in [
        (b" " * (limits.JSON_BYTES + 1), TooLargeError),
        (b"[" * 1000, TooLargeError),
        (b"{}", MismatchError),
        (b"[]", MismatchError),
        (members[MEMBER] + b"{}", CorruptError),
        (members[MEMBER].replace(b"{", b'{"class_name": "x", ', 1), CorruptError),
        (members[MEMBER].replace(b"0.", b"1e999", 1), CorruptError),
    ]:
        write(path, {**members, MEMBER: content})
        with pytest.raises(kind, match=f"e.keras, {MEMBER}"):
            cls.load(path)


WRONG = {
    "arguments": lambda d: d["arguments"].update(hidden=1),
    "a list of arguments": lambda d: d.update(arguments=[]),
    "fewer features": lambda d: d["features"].update(count=1),
    "giant features": lambda d: d["features"].update(count=2**60, names=None),
    "names": lambda d: d["features"].update(names=["a"]),
    "a number less": lambda d: d["columns"]["shift"].pop(),
    "no scale": lambda d: d["columns"]["scale"].__setitem__(0, 0.0),
    "a string for a number": lambda d: d["columns"]["fill"].__setitem__(0, "1"),
    "a place twice": lambda d: d["columns"]["numbers"].append(0),
    "places that are no numbers": lambda d: d["columns"].update(numbers=["0", "1"]),
    "a value twice": lambda d: d["columns"].update(numbers=[], categories=[[p, [1, 1]] for p in range(3)]),
    "incomplete": lambda d: d["columns"].update(incomplete=[9]),
    "one more incomplete": lambda d: d["columns"].update(incomplete=[]),
    "dtype": lambda d: d["columns"].update(dtype="(30000,30000)f8"),
    "the network's dtype": lambda d: d["columns"].update(dtype="float32"),
    "history": lambda d: d.update(history={}),
    "history of strings": lambda d: d.update(history={"loss": ["1"]}),
    "nothing about the target": lambda d: d.update(target={}),
    "nothing else": lambda d: d.pop("history"),
    "more": lambda d: d.update(more=1),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit(saved, wrong):
    cls, _, path, members = saved
    changed(path, members, WRONG[wrong])
    with pytest.raises(FormatError, match=f"e.keras, {MEMBER}"):
        cls.load(path)


@pytest.mark.parametrize(
    "classes",
    [
        {"values": ["no"], "dtype": "str"},
        {"values": [0, 1], "dtype": "int64"},
        {"values": [0, 1, 1], "dtype": "int64"},
        {"values": [2, 1, 0], "dtype": "int64"},
        {"values": [0, 1, 300], "dtype": "int8"},
        {"values": [0, 1, "2"], "dtype": "object"},
        {"values": [0, 1, [2]], "dtype": "object"},
        {"values": [0, 1, None], "dtype": "object"},
        {"values": [0, 1, 2], "dtype": "M8[D]"},
        {"values": [0, 1, 2], "dtype": "(9,9)f8"},
        {"values": ["a", "b", "c"], "dtype": "S1"},
        {"values": [True, 1, 2], "dtype": "int64"},
        {"values": 3, "dtype": "int64"},
        [],
    ],
)
def test_classes_that_are_none(tmp_path, classes):
    path = tmp_path / "e.keras"
    estimator, x, y = CASES["two classes" if len(classes) and classes["values"] == ["no"] else "classes"]
    estimator.fit(x, y).save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    changed(path, members, lambda data: data["target"].update(classes=classes))
    with pytest.raises(FormatError, match=f"e.keras, {MEMBER}"):
        DenseClassifier.load(path)


def test_a_network_of_another_width(saved):
    cls, _, path, members = saved
    for inputs, outputs in ((99, 3), (2, 99)):
        model = fanin.Sequential(
            [fanin.Input((inputs,)), fanin.layers.Dense(outputs, dtype="float64")], dtype="float64"
        )
        model.compile("adam", "mse")
        model.save(path)
        with zipfile.ZipFile(path) as file:
            write(path, {**{name: file.read(name) for name in file.namelist()}, MEMBER: members[MEMBER]})
        with pytest.raises(FormatError, match=f"e.keras, {MEMBER}"):
            cls.load(path)


def ways(tree, way=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*way, key)
        yield from ways(item, (*way, key))


def test_wrong_types_on_every_field(saved):
    """Every value replaced by values of other types: refused, or an estimator that still predicts as many rows."""
    cls, x, path, members = saved
    chosen = random.Random(0)
    wrong = [None, True, "", "x", [], {}, -1, 0, 2**31, 2**62, 2.5, -1e300, [[]], {"class_name": "Dense", "config": {}}]
    loaded = refused = 0
    for way in ways(json.loads(members[MEMBER])):
        for value in chosen.sample(wrong, 2):
            data = json.loads(members[MEMBER])
            place = data
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = value
            write(path, {**members, MEMBER: json.dumps(data)})
            try:
                estimator = cls.load(path)
            except FormatError as error:
                assert "e.keras" in str(error)  # noqa: PT017 - either outcome is right
                refused += 1
            else:
                named = (
                    x.set_axis(estimator.feature_names_in_, axis=1) if hasattr(estimator, "feature_names_in_") else x
                )
                with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                    assert len(estimator.predict(named)) == len(x)
                loaded += 1
    assert loaded > 10
    assert refused > 50
