"""What is one's own in files, read by both: names that nobody registered, tied weights, own variables."""

import keras
import numpy as np
import pytest

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
