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


class Keeps(Dense):
    """Keeps numbers beside its weights."""

    fails = False

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.kept = np.zeros(2)
        self.names = []

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["kept"] = self.kept

    def load_own_variables(self, store):
        self.kept[:] = store["kept"]
        self.names += store
        super().load_own_variables({name: store[name] for name in "01"})
        if self.fails:
            raise RuntimeError("halfway")


def kept(units=2, first=Keeps):
    torch.manual_seed(0)
    return fanin.Sequential([fanin.Input((3,)), Dense(3), first(units, name="keeps"), Dense(2)])


@pytest.fixture
def saved(tmp_path):
    model = kept()
    with torch.no_grad():
        for weight in model.weights:
            weight.add_(1)
    model.layers[1].kept += 5
    model.save_weights(tmp_path / "m.weights.h5")
    return tmp_path / "m.weights.h5"


def state(layer):
    return [w.tolist() for w in layer.weights], layer.kept.tolist(), list(layer.names)


@pytest.mark.parametrize(
    ("kind", "units", "message"),
    [
        (type("Keeps", (Keeps,), {"fails": True}), 2, "RuntimeError: halfway"),
        (Keeps, 5, r"ValueError: Layer 'keeps': weight 0 has shape \(3, 5\), found \(3, 2\)"),
        (type("Keeps", (Keeps,), {"load_own_variables": lambda self, store: store["lost"]}), 2, "has no 'lost'"),
    ],
)
def test_own_variables_that_do_not_fit_change_nothing(saved, kind, units, message):
    model = kept(units, kind)
    model.layers[2].build((None, units))
    before, kernel = state(model.layers[1]), model.layers[0].kernel.tolist()
    place = r"layers/keeps/vars: load_own_variables\(\) of layer 'keeps': "
    with pytest.raises(MismatchError, match=place + message):
        model.load_weights(saved)
    assert state(model.layers[1]) == before
    assert model.layers[0].kernel.tolist() == kernel
    with pytest.warns(UserWarning, match=place + message):
        model.load_weights(saved, skip_mismatch=True)
    assert state(model.layers[1]) == before
    assert model.layers[0].kernel.tolist() != kernel


def test_own_variables_wait_until_all_fits(saved):
    model = fanin.Sequential([fanin.Input((3,)), Dense(3), Keeps(2, name="keeps"), Dense(4)])
    before = state(model.layers[1])
    with pytest.raises(MismatchError, match="has shape"):
        model.load_weights(saved)
    assert state(model.layers[1]) == before
    model = kept()
    model.load_weights(saved, objects_to_skip=[model.layers[1]])
    assert model.layers[1].kept.tolist() == [0, 0]
    model.load_weights(saved)
    assert model.layers[1].kept.tolist() == [5, 5]
    assert model.layers[1].names == ["0", "1", "kept"]


def test_weights_that_a_layer_does_not_read_are_as_new_ones(tmp_path):
    """Loaders take memory without values for weights that they will fill."""

    class Partly(Dense):
        def save_own_variables(self, store):
            store["bias"], store["room"] = self.bias, np.zeros(100)

        def load_own_variables(self, store):
            self.bias.copy_(torch.from_numpy(store["bias"]))

    model = kept(first=Partly)
    with torch.no_grad():
        model.layers[1].bias.fill_(3)
    model.save(tmp_path / "m.keras")
    random_state = torch.get_rng_state()
    loaded = load_model(tmp_path / "m.keras", {"Partly": Partly})
    assert torch.equal(torch.get_rng_state(), random_state)
    kernel = loaded.layers[1].kernel.detach()
    assert 0 < kernel.abs().max() <= (6 / (3 + 2)) ** 0.5  # glorot_uniform's limit
    assert loaded.layers[1].bias.tolist() == [3, 3]


def test_own_variables_and_adapters(tmp_path):
    model = kept()
    layer = model.layers[1]
    layer.enable_lora(2)
    with torch.no_grad():
        layer.lora_kernel_b.fill_(0.5)
    layer.kept += 1
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", {"Keeps": Keeps})
    assert torch.allclose(loaded(torch.eye(3)), model(torch.eye(3)))
    assert torch.equal(loaded.layers[1].lora_kernel_b, layer.lora_kernel_b)
    assert loaded.layers[1].kept.tolist() == [1, 1]


def test_own_variables_by_default_want_as_many_arrays():
    layer = Dense(2)
    layer.build((None, 3))
    store = {}
    layer.save_own_variables(store)
    assert store["0"] is layer.kernel
    for wrong in ({"0": np.ones((3, 2))}, {"0": np.ones((3, 2)), "1": np.ones(2), "2": 0}):
        with pytest.raises(ValueError, match=f"2 weights of its own, found {len(wrong)} arrays"):
            layer.load_own_variables(wrong)
    layer.load_own_variables({"0": np.ones((3, 2)), "1": np.zeros(2)})
    assert layer.kernel.sum() == 6


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("a/b", 1.0, ValueError, "'a/b', which is no name without '/'"),
        (".", 1.0, ValueError, "'.', which is no name"),
        ("", 1.0, ValueError, "'', which is no name"),
        (1, 1.0, ValueError, "1, which is no name"),
        ("text", "words", TypeError, "'text', a str that is not made of numbers"),
        ("objects", [object()], TypeError, "'objects', a list that is not made of numbers"),
        ("ragged", [[1], [1, 2]], TypeError, "'ragged', a list that is not made of numbers"),
    ],
)
def test_what_cannot_be_stored_is_not_written(tmp_path, key, value, error, message):
    model = kept(first=type("Keeps", (Keeps,), {"save_own_variables": lambda self, store: store.update({key: value})}))
    with pytest.raises(error, match=rf"Layer 'keeps' cannot be saved: its save_own_variables\(\) stores {message}"):
        model.save_weights(tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


def keeping(method):
    kind = type("Keeps", (Chained,), {method: lambda self, store: None})
    return fanin.Sequential([fanin.Input((3,)), kind(Dense(2), name="keeps")]), kind


@pytest.mark.parametrize("method", ["save_assets", "load_assets"])
def test_assets_that_would_be_lost_are_refused(tmp_path, method):
    model, kind = keeping(method)
    with pytest.raises(NotImplementedError, match=rf"Keeps 'keeps' defines {method}\(\), which fanin does not call"):
        model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")  # Keras has them in archives only
    model.load_weights(tmp_path / "m.weights.h5")

    plain = fanin.Sequential([fanin.Input((3,)), type("Keeps", (Chained,), {})(Dense(2), name="keeps")])
    plain.save(tmp_path / "m.keras")
    with pytest.raises(MismatchError, match=rf"m\.keras.*Keeps 'keeps' defines {method}\(\)"):
        load_model(tmp_path / "m.keras", {"Keeps": kind})


def test_other_modules_with_a_way_of_their_own_are_refused(tmp_path):
    module = type("Kept", (torch.nn.Linear,), {"save_own_variables": lambda self, store: None})(3, 2)
    with pytest.raises(NotImplementedError, match=r"Kept None defines save_own_variables\(\)"):
        fanin.saving.save_weights(module, tmp_path / "m.weights.h5")


def test_an_optimizer_with_a_way_of_its_own(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), Dense(2)])
    model.compile(type("Kept", (optimizers.SGD,), {"save_own_variables": lambda self, store: None})(), "mse")
    with pytest.raises(NotImplementedError, match=r"Kept 'kept.*' defines save_own_variables\(\)"):
        model.save(tmp_path / "m.keras")
