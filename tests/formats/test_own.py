"""Layers, functions and models of one's own in archives: objects in configs, names that nobody registered."""

import json
import zipfile

import numpy as np
import pytest
import torch

import fanin
from fanin import optimizers
from fanin.errors import MismatchError
from fanin.layers import Dense
from fanin.saving import custom_object_scope, deserialize_keras_object, load_model


class Chained(fanin.Layer):
    """As Keras's guide to serialization writes one: layers and functions as values of its config."""

    def __init__(self, first_layer, second_layer=None, then=None, **kwargs):
        super().__init__(**kwargs)
        self.first_layer = first_layer
        self.second_layer = Dense(8) if second_layer is None else second_layer
        self.then = then

    def get_config(self):
        config = super().get_config()
        config.update({"first_layer": self.first_layer, "second_layer": self.second_layer, "then": self.then})
        return config

    @classmethod
    def from_config(cls, config):
        for key in ("first_layer", "second_layer", "then"):
            config[key] = deserialize_keras_object(config[key])
        return cls(**config)

    def call(self, inputs):
        outputs = self.first_layer(self.second_layer(inputs))
        return outputs if self.then is None else self.then(outputs)


class Compiled(fanin.Model):
    """As the guide writes one: `get_compile_config` returns objects."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def compile(self, optimizer, loss_fn, measures):
        super().compile(optimizer=optimizer, loss=loss_fn, metrics=measures)
        self.model_optimizer, self.loss_fn, self.measures = optimizer, loss_fn, measures

    def get_compile_config(self):
        return {"model_optimizer": self.model_optimizer, "loss_fn": self.loss_fn, "measures": self.measures}

    def compile_from_config(self, config):
        self.compile(
            optimizer=deserialize_keras_object(config["model_optimizer"]),
            loss_fn=deserialize_keras_object(config["loss_fn"]),
            measures=deserialize_keras_object(config["measures"]),
        )


def twice(x):
    return 2 * x


def squares(y_true, y_pred):
    return ((y_true - y_pred) ** 2).mean(-1)


OWN = {"Chained": Chained, "Compiled": Compiled, "twice": twice, "squares": squares}


def chained(**kwargs):
    layer = Chained(Dense(4, twice, name="one"), then=twice, name="chain", **kwargs)
    return fanin.Sequential([fanin.Input((3,)), layer, Dense(2)])


def data():
    generator = np.random.default_rng(1)
    return generator.normal(size=(8, 3)).astype("f4"), generator.normal(size=(8, 2)).astype("f4")


def test_objects_in_a_config_come_back(tmp_path):
    model, (x, _) = chained(), data()
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", OWN)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.get_config() == model.get_config()
    assert json.loads(json.dumps(model.get_config())) == model.get_config()
    again = fanin.models.model_from_json(model.to_json(), OWN)
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    with custom_object_scope(OWN):
        model.save(tmp_path / "m.keras")
        load_model(tmp_path / "m.keras")


def test_clones_have_layers_of_their_own():
    model = chained()
    model.compile("sgd", squares)
    clone = fanin.models.clone_model(model)
    assert clone.layers[0].first_layer is not model.layers[0].first_layer
    assert clone.layers[0].then is twice
    assert clone.loss is squares


@pytest.mark.parametrize(("value", "why"), [(lambda x: x, "Cannot save a lambda"), (object(), "has no get_config")])
def test_what_cannot_be_saved_is_named(tmp_path, value, why):
    model = chained()
    model.layers[0].then = value
    for write in (lambda: model.save(tmp_path / "m.keras"), model.to_json, model.get_config):
        with pytest.raises(ValueError, match=rf"Chained 'chain', get_config\(\)\['then'\]: .*{why}"):
            write()
    assert not list(tmp_path.iterdir())


def test_names_that_the_reader_does_not_know(tmp_path):
    model = chained()
    model.compile("sgd", squares)
    model.save(tmp_path / "m.keras")
    with pytest.raises(MismatchError, match=r"'Chained'.*'twice'.*'squares'.*custom_objects=") as caught:
        load_model(tmp_path / "m.keras")
    assert "compile=False" not in str(caught.value)
    with pytest.raises(MismatchError, match=r"'squares' .*compile_config\.loss.*custom_objects=.* compile=False"):
        load_model(tmp_path / "m.keras", {"Chained": Chained, "twice": twice})
    assert not load_model(tmp_path / "m.keras", {"Chained": Chained, "twice": twice}, compile=False).compiled


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], fanin.losses.LossFunctionWrapper])
def test_an_own_loss_trains_on(tmp_path, wrap):
    x, y = data()
    model = fanin.Sequential([fanin.Input((3,)), Dense(2)])
    model.compile("adam", wrap(squares), metrics=[squares])
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", OWN)
    one, other = (m.fit(x, y, shuffle=False, verbose=0).history for m in (model, loaded))
    assert one == other
    loaded.save(tmp_path / "n.keras")
    files = (zipfile.ZipFile(tmp_path / name) for name in ("m.keras", "n.keras"))
    first, second = (json.loads(file.read("config.json"))["compile_config"] for file in files)
    first["optimizer"].pop("build_config", None), second["optimizer"].pop("build_config", None)
    assert first == second


def test_objects_in_a_compile_config_come_back(tmp_path):
    x, y = data()
    model = Compiled()
    model.compile(optimizers.Adam(0.25), squares, [fanin.metrics.MeanAbsoluteError(), "mse"])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", OWN)
    assert loaded.optimizer.learning_rate == 0.25
    assert loaded.optimizer.iterations == 1
    one, other = (m.fit(x, y, shuffle=False, verbose=0).history for m in (model, loaded))
    assert one == other
    assert fanin.models.model_from_json(model.to_json(), OWN).loss_fn is squares

    model.loss_fn = torch.nn.MSELoss()
    with pytest.raises(ValueError, match=r"Compiled 'compiled.*', get_compile_config\(\)\['loss_fn'\]: .*MSELoss"):
        model.save(tmp_path / "m.keras")


def test_a_model_with_a_compile_of_its_own_is_asked_once_how_it_was_compiled(tmp_path):
    asked = []

    class Alone(fanin.Model):
        """Nothing of it goes to fanin's `compile`."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

        def compile(self, rate):
            self.rate = rate

        def get_compile_config(self):
            asked.append(self.name)
            return {"rate": self.rate}

        def compile_from_config(self, config):
            self.compile(**config)

    model = Alone(name="alone")
    model.build((None, 3))
    model.compile(0.25)
    model.save(tmp_path / "m.keras")
    assert asked == ["alone"]
    assert load_model(tmp_path / "m.keras", {"Alone": Alone}).rate == 0.25
    assert json.loads(model.to_json())["compile_config"] == {"rate": 0.25}


def test_two_classes_of_one_name(tmp_path):
    other = type("Chained", (Chained,), {})
    model = fanin.Sequential([fanin.Input((3,)), Chained(Dense(2)), other(Dense(2))])
    for write in (lambda: model.save(tmp_path / "m.keras"), model.to_json):
        with pytest.raises(ValueError, match="both named 'Chained'"):
            write()


# --- ways of one's own to keep state ----------------------------------------------------------------------------------


def keeping(method):
    kind = type("Keeps", (Chained,), {method: lambda self, store: None})
    return fanin.Sequential([fanin.Input((3,)), kind(Dense(2), name="keeps")]), kind


@pytest.mark.parametrize("method", ["save_own_variables", "load_own_variables", "save_assets", "load_assets"])
def test_state_that_would_be_lost_is_refused(tmp_path, method):
    model, kind = keeping(method)
    with pytest.raises(NotImplementedError, match=rf"Keeps 'keeps' defines {method}\(\), which fanin does not call"):
        model.save(tmp_path / "m.keras")
    if method.endswith("assets"):  # which Keras has in archives only
        model.save_weights(tmp_path / "m.weights.h5")
        model.load_weights(tmp_path / "m.weights.h5")
    else:
        with pytest.raises(NotImplementedError, match=rf"Keeps 'keeps' defines {method}\(\)"):
            model.save_weights(tmp_path / "m.weights.h5")
        assert not list(tmp_path.iterdir())

    plain = fanin.Sequential([fanin.Input((3,)), type("Keeps", (Chained,), {})(Dense(2), name="keeps")])
    plain.save(tmp_path / "m.keras")
    with pytest.raises(MismatchError, match=rf"m\.keras.*Keeps 'keeps' defines {method}\(\)"):
        load_model(tmp_path / "m.keras", {"Keeps": kind})


def test_an_optimizer_with_a_way_of_its_own(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), Dense(2)])
    model.compile(type("Kept", (optimizers.SGD,), {"save_own_variables": lambda self, store: None})(), "mse")
    with pytest.raises(NotImplementedError, match=r"Kept 'kept.*' defines save_own_variables\(\)"):
        model.save(tmp_path / "m.keras")
