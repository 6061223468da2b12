"""Names for objects both ways, and what a file may name."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fanin import activations, initializers, regularizers
from fanin.errors import MismatchError
from fanin.layers import Dense, TorchModule
from fanin.registry import (
    Family,
    custom_object_scope,
    deserialize,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize,
    sharing,
    snake_case,
)


@pytest.mark.parametrize(
    ("name", "snake"),
    [("Dense", "dense"), ("GlorotUniform", "glorot_uniform"), ("L1L2", "l1l2"), ("LeakyReLU", "leaky_re_lu"),
     ("Conv2DTranspose", "conv2d_transpose"), ("RNN", "rnn")],
)  # fmt: skip
def test_snake_case_is_that_of_keras(name, snake):
    assert snake_case(name) == snake


PLAIN = [None, True, 3, 2.5, "text", [1, [2, None]], {"a": {"b": [1.5]}}]


@pytest.mark.parametrize("value", PLAIN)
def test_plain_data_stays(value):
    assert serialize(value) == value
    assert deserialize(json.loads(json.dumps(serialize(value)))) == value


def test_other_data_becomes_plain():
    assert serialize(np.float32(1.5)) == 1.5
    assert type(serialize(np.int64(3))) is int
    assert serialize((1, 2)) == [1, 2]
    assert serialize(torch.float16) == "float16"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for value in (array, torch.from_numpy(array), torch.from_numpy(array).requires_grad_()):
        back = deserialize(json.loads(json.dumps(serialize(value))))
        assert type(back) is (np.ndarray if value is array else torch.Tensor)
        assert np.array_equal(np.asarray(back), array)
        assert np.asarray(back).dtype == np.float32


@register_keras_serializable("mine", "Scale")
class Scale:
    def __init__(self, by):
        self.by = by

    def get_config(self):
        return {"by": self.by}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@register_keras_serializable()
def triple(x):
    return 3 * x


def test_your_own_class_and_function():
    described = json.loads(json.dumps(serialize(Scale(4))))
    assert described["registered_name"] == "mine>Scale"
    assert deserialize(described).by == 4
    assert get_registered_name(Scale) == "mine>Scale"
    assert get_registered_object("mine>Scale") is Scale
    assert get_registered_object("nothing") is None
    assert get_registered_name([]) is None

    assert deserialize(json.loads(json.dumps(serialize(triple)))) is triple
    assert activations.get("Custom>triple") is triple
    layer = Dense(2, activation=triple, kernel_initializer="ones", use_bias=False)
    assert Dense.from_config(json.loads(json.dumps(layer.get_config())))(torch.ones(1, 2)).tolist() == [[6.0, 6.0]]


def test_what_cannot_be_registered():
    class Plain:
        pass

    with pytest.raises(ValueError, match=r"Plain: it has no get_config"):
        register_keras_serializable()(Plain)
    with pytest.raises(ValueError, match="Only a class or a function"):
        register_keras_serializable()(3)


def test_registering_a_name_again_replaces_it():
    def first(x):
        return x

    def second(x):
        return x

    register_keras_serializable("again", "f")(first)
    register_keras_serializable("again", "f")(second)
    assert get_registered_object("again>f") is second
    assert get_registered_name(first) is None
    assert get_registered_name(second) == "again>f"


def test_what_is_put_into_the_table_is_found_in_every_thread_and_saved_under_its_name():
    class Own:
        def get_config(self):
            return {}

    def twice(x):
        return 2 * x

    table = get_custom_objects()
    assert table is get_custom_objects()
    assert table["mine>Scale"] is Scale
    table.update(Own=Own, twice=twice)
    try:
        described = serialize(Own())
        assert described["registered_name"] == get_registered_name(Own) == "Own"
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(pool.submit(deserialize, described).result(), Own)
        layer = Dense.from_config(Dense(2, activation="twice").get_config())
        assert layer.activation is twice
    finally:
        del table["Own"], table["twice"]
    with pytest.raises(MismatchError, match="'Own'"):
        deserialize(described)
    with pytest.raises(ValueError, match="Unknown activation 'twice'"):
        Dense(2, activation="twice")


def test_what_no_file_can_bring_back_is_refused():
    with pytest.raises(ValueError, match="Cannot save a lambda"):
        serialize(lambda x: x)
    for value, message in (
        (len, "neither a function of your own"),
        (torch.nn.functional.mse_loss, "neither a function of your own"),
        (torch.nn.Linear(1, 1), r"Cannot save Linear\(.*has no get_config"),
        (object(), "has no get_config"),
        (TorchModule(torch.nn.Identity()), "class TorchModule: it is not known to files"),
    ):
        with pytest.raises(ValueError, match=message):
            serialize(value)


class Own:
    def __init__(self, parts=None):
        self.parts = parts

    def get_config(self):
        return {"parts": self.parts}

    @classmethod
    def from_config(cls, config):
        config["parts"] = deserialize(config["parts"])  # as Keras's guide writes it
        return cls(**config)


def halve(x):
    return x / 2


def test_your_own_need_not_be_registered():
    described = json.loads(json.dumps(serialize(Own([Own(2), halve, Dense(3, halve)]))))
    assert (described["module"], described["class_name"], described["registered_name"]) == (__name__, "Own", "Own")
    known = {"Own": Own, "halve": halve}
    for _ in range(2):  # from_config writes into a copy
        parts = deserialize(described, known).parts
        assert parts[0].parts == 2
        assert parts[1] is parts[2].activation is halve
        assert parts[2].units == 3
    with pytest.raises(MismatchError, match=r"Unknown class 'Own'.*custom_objects"):
        deserialize(described)
    with pytest.raises(MismatchError, match=r"Unknown class 'halve'.*custom_objects"):
        deserialize(described, {"Own": Own})


def test_a_value_that_cannot_be_saved_is_named_with_its_object_and_key():
    class Named(Own):
        name = "first"

    with pytest.raises(ValueError, match=r"^Own, get_config\(\)\['parts'\]: Named 'first', .*'parts'\]: .*a lambda"):
        serialize(Own({"a": Named(lambda x: x)}))

    class Without:
        def get_config(self):
            pass

    with pytest.raises(TypeError, match=r"Without: get_config\(\) must return a dict, found None"):
        serialize(Without())


def test_a_scope_names_what_is_written():
    doubled = lambda x: 2 * x  # noqa: E731
    with custom_object_scope({"mine": Own, "doubled": doubled}):
        described = json.loads(json.dumps(serialize(Own(doubled))))
        assert deserialize(described).parts is doubled
    assert (described["class_name"], described["registered_name"]) == ("Own", "mine")
    with pytest.raises(ValueError, match="Cannot save a lambda"):
        serialize(doubled)


def test_names_that_are_fanins_too():
    def relu(x):
        return x

    with pytest.raises(ValueError, match="your function 'relu': fanin has one of that name"):
        serialize(relu)
    with custom_object_scope({"rectified": relu}):
        assert serialize(relu)["config"] == "rectified"

    own = type("Dense", (Own,), {})
    described = json.loads(json.dumps(serialize([own(1), Dense(2)])))
    with pytest.raises(MismatchError, match=f"Unknown class 'Dense' .module '{__name__}'"):
        deserialize(described)
    first, second = deserialize(described, {"Dense": own})
    assert (type(first), type(second)) == (own, Dense)

    shadow = type("Dense", (Own,), {"__module__": "keras.layers"})
    with pytest.raises(ValueError, match="not known to files"):
        serialize(shadow())


def test_two_of_one_name_are_not_written():
    other = type("Own", (Own,), {})
    with sharing() as written, pytest.raises(ValueError, match="two classes or functions that are both named 'Own'"):
        serialize([Own(halve), other()])
    assert written == {"Own": Own, "halve": halve}


@pytest.mark.parametrize(
    "config",
    [
        {"module": "os", "class_name": "system", "config": {}, "registered_name": None},
        {"module": "builtins", "class_name": "eval", "config": "1 + 1", "registered_name": None},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
        {"module": "keras.layers", "class_name": "Nothing", "config": {}, "registered_name": None},
        {"module": "keras.src.layers.core.dense", "class_name": "Lambda", "config": {}, "registered_name": None},
        {"module": ["keras"], "class_name": {"a": 1}, "config": {}, "registered_name": 3},
        {"module": None, "class_name": None, "config": {}},
    ],
)
def test_names_that_are_not_known_are_refused_and_nothing_is_imported(config):
    with pytest.raises(MismatchError, match=r"Unknown class"):
        deserialize(config)


def test_code_from_a_file_is_refused():
    config = {"class_name": "function", "module": "builtins", "config": {"code": "4wAAAA=="}, "registered_name": None}
    with pytest.raises(MismatchError, match="never runs code from a file"):
        deserialize(config)


def test_a_near_name_is_offered():
    config = {"module": "keras.layers", "class_name": "Dens", "config": {}, "registered_name": None}
    with pytest.raises(MismatchError, match="'Dense'"):
        deserialize(config)


def test_internal_paths_of_keras_are_read():
    config = {"module": "keras.src.initializers.random_initializers", "class_name": "HeNormal", "config": {"seed": 3}}
    assert isinstance(deserialize(config), initializers.HeNormal)


def test_custom_objects_hold_inside_the_block_and_in_this_thread_only():
    class Own:
        def get_config(self):
            return {}

    config = {"module": None, "class_name": "Own", "config": {}, "registered_name": "Own"}
    with custom_object_scope({"Own": Own}):
        assert isinstance(deserialize(config), Own)
        with custom_object_scope({"other": 1}):
            assert isinstance(deserialize(config), Own)
        with ThreadPoolExecutor(1) as pool, pytest.raises(MismatchError):
            pool.submit(deserialize, config).result()
    with pytest.raises(MismatchError):
        deserialize(config)
    assert isinstance(deserialize(config, custom_objects={"Own": Own}), Own)


def test_a_family_of_your_own():
    family: Family = Family("tool", "mine.tools", None)

    @family.entry("alias")
    class BigTool:
        def __init__(self, size=1):
            self.size = size

        def __call__(self):
            return self.size

        def get_config(self):
            return {"size": self.size}

        @classmethod
        def from_config(cls, config):
            return cls(**config)

    @family.entry()
    def small_tool():
        return 0

    assert family.names() == ["BigTool", "alias", "big_tool", "small_tool"]
    assert family.get(None) is None
    for identifier in ("BigTool", "big_tool", "alias", BigTool, BigTool(), {"class_name": "BigTool", "config": {}}):
        assert family.get(identifier).size == 1
    assert family.serialize(small_tool) == "small_tool"
    assert family.deserialize("small_tool") is small_tool
    assert family.deserialize(family.serialize(BigTool(5))).size == 5
    with pytest.raises(ValueError, match=r"Unknown tool 'big_toll'.*'big_tool'"):
        family.get("big_toll")
    with pytest.raises(TypeError, match="Could not interpret tool identifier 3"):
        family.get(3)


@pytest.mark.parametrize("class_first", [True, False])
def test_a_function_keeps_its_name_from_a_class_of_that_name(class_first):
    class BigTool:
        pass

    def big_tool():
        return 0

    family: Family = Family("tool", "mine.others", None)
    for one in (BigTool, big_tool) if class_first else (big_tool, BigTool):
        family.add(one)
    assert family.lookup("BigTool") is BigTool
    assert family.lookup("big_tool") is big_tool


def test_families_do_not_mix_their_names():
    with pytest.raises(ValueError, match="Unknown regularizer 'relu'"):
        regularizers.get("relu")
    with pytest.raises(ValueError, match="Unknown initializer"):
        initializers.get("l2")
