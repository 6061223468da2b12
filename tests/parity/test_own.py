"""What is one's own in files, read by both: names that nobody registered, tied weights, own variables."""

import keras
import numpy as np
import pytest
import torch

import fanin


def scaled(x):
    return 0.5 * x


def squares(y_true, y_pred):
    return ((y_true - y_pred) ** 2).mean(-1)


def classes(K):
    class Around(K.layers.Layer):
        def __init__(self, inner, **kwargs):
            super().__init__(**kwargs)
            self.inner = inner

        def call(self, inputs):
            return self.inner(inputs)

        def get_config(self):
            return {**super().get_config(), "inner": self.inner}

        @classmethod
        def from_config(cls, config):
            config["inner"] = K.saving.deserialize_keras_object(config["inner"])
            return cls(**config)

    class Dense(K.layers.Dense):  # named as Keras's own
        pass

    return {"Around": Around, "Dense": Dense, "scaled": scaled, "squares": squares}


@pytest.mark.parametrize(("writer", "reader"), [(fanin, keras), (keras, fanin), (fanin, fanin)])
def test_custom_objects(tmp_path, writer, reader):
    path, own = str(tmp_path / "m.keras"), classes(writer)
    plain = writer.layers.Dense(3)
    model = writer.Sequential([writer.Input((4,)), own["Around"](own["Dense"](3, activation=scaled)), plain])
    model.compile("sgd", squares, metrics=[squares])
    model.save(path)
    known = classes(reader)
    loaded = reader.saving.load_model(path, custom_objects=known)
    assert type(loaded.layers[0].inner) is known["Dense"]
    assert type(loaded.layers[1]) is reader.layers.Dense
    x, y = np.random.default_rng(0).normal(size=(2, 8, 4)).astype("f4")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert loaded.evaluate(x, y[:, :3], verbose=0) == pytest.approx(model.evaluate(x, y[:, :3], verbose=0), rel=1e-4)
    with pytest.raises((TypeError, ValueError), match="Around"):
        reader.saving.load_model(path)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_keras_reads_tied_weights(tmp_path, ending):
    path = str(tmp_path / f"m{ending}")
    model, read = (K.Sequential([K.Input((8,)), K.layers.Dense(8), K.layers.Dense(8)]) for K in (fanin, keras))
    model.layers[1].kernel = model.layers[0].kernel
    (model.save if ending == ".keras" else model.save_weights)(path)
    read.load_weights(path)
    x = np.eye(8, dtype="f4")
    np.testing.assert_allclose(read.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


# --- own variables ----------------------------------------------------------------------------------------------------

TABLES = {
    "table": np.arange(6, dtype="f4").reshape(2, 3), "wide": np.float64([1e300, -1]), "count": np.int64([11]),
    "small": np.uint8([250, 3]), "flags": np.array([True, False]), "half": np.float16([0.5]), "none": np.zeros((0, 3)),
    "complex": np.complex64([1 + 2j]),
}  # fmt: skip


def keeping(K):
    """A layer that keeps arrays beside its weights, as Keras's guide to saving writes one."""

    class Keeps(K.layers.Dense):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.tables = {name: np.zeros_like(value) for name, value in TABLES.items()}
            self.number = 0

        def save_own_variables(self, store):
            super().save_own_variables(store)
            for name, value in self.tables.items():
                store[name] = value
            store["number"] = self.number

        def load_own_variables(self, store):
            assert "table" in store
            assert "other" not in store
            assert len(store) == len(store.keys()) == len(TABLES) + 3
            self.tables = {name: store[name] for name in self.tables}
            self.number = float(store["number"])
            for i, weight in enumerate(self.weights):
                if K is keras:
                    weight.assign(store[f"{i}"])
                else:
                    weight.copy_(torch.from_numpy(store[f"{i}"]))

    return Keeps


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
@pytest.mark.parametrize(("writer", "reader"), [(fanin, keras), (keras, fanin), (fanin, fanin)])
def test_own_variables(tmp_path, writer, reader, ending):
    path, kind = str(tmp_path / f"m{ending}"), keeping(reader)
    model = writer.Sequential([writer.Input((3,)), keeping(writer)(4), writer.layers.Dense(2)])
    model.layers[0].tables, model.layers[0].number = TABLES, 2.5
    if ending == ".keras":
        model.save(path)
        read = reader.saving.load_model(path, custom_objects={"Keeps": kind})
    else:
        model.save_weights(path)
        read = reader.Sequential([reader.Input((3,)), kind(4), reader.layers.Dense(2)])
        read.load_weights(path)
    found = read.layers[0]
    assert found.number == 2.5
    for name, value in TABLES.items():
        assert found.tables[name].dtype == value.dtype
        np.testing.assert_array_equal(found.tables[name], value)
    x = np.eye(3, dtype="f4")
    np.testing.assert_allclose(read.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("writer", "reader"), [(fanin, keras), (keras, fanin), (fanin, fanin)])
def test_own_variables_in_bfloat16_and_by_default(tmp_path, writer, reader):
    """The methods that every layer has, called from others; bfloat16, which numpy lacks."""

    def noting(K):
        class Notes(K.layers.Dense):
            def save_own_variables(self, store):
                super().save_own_variables(store)
                assert list(store.keys()) == ["0", "1"]

            def load_own_variables(self, store):
                self.noted = {name: np.asarray(store[name]).astype("f4").tolist() for name in store.keys()}  # noqa: SIM118
                super().load_own_variables(store)

        return Notes

    def values(model):
        return [w if isinstance(w, torch.Tensor) else w.value for w in model.weights]

    path = str(tmp_path / "m.weights.h5")
    model = writer.Sequential([writer.Input((3,)), noting(writer)(4, dtype="bfloat16")])
    model.save_weights(path)
    read = reader.Sequential([reader.Input((3,)), noting(reader)(4, dtype="bfloat16")])
    read.load_weights(path)
    for value, other in zip(values(read), values(model), strict=True):
        assert value.dtype == other.dtype == torch.bfloat16
        assert torch.equal(value, other)
    assert read.layers[0].noted == {str(i): value.detach().float().tolist() for i, value in enumerate(values(model))}


@pytest.mark.parametrize("source", [keras, fanin])
@pytest.mark.parametrize("reader", [keras, fanin])
def test_a_class_without_weights_may_have_another_name_when_it_is_read(tmp_path, source, reader):
    def doubling(K, name):
        return type(name, (K.layers.Layer,), {"call": lambda self, inputs: 2 * inputs})

    model = source.Sequential([source.Input((3,)), doubling(source, "Doubled")(), source.layers.Dense(2)])
    model.save(tmp_path / "doubled.keras")
    read = reader.saving.load_model(tmp_path / "doubled.keras", custom_objects={"Doubled": doubling(reader, "Twice")})
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(read.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


def test_weights_of_another_class_are_not_left_out(tmp_path):
    class Weighted(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input((3,)), Weighted(2)])
    model.save(tmp_path / "weighted.keras")

    class Nothing(fanin.layers.Identity):
        @classmethod
        def from_config(cls, config):
            return cls()

    with pytest.raises(fanin.errors.MismatchError, match="layers that the model does not have"):
        fanin.saving.load_model(tmp_path / "weighted.keras", custom_objects={"Weighted": Nothing})
