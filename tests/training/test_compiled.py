"""What `compile` was told: kept in files, JSON and clones, and made into objects once."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fanin
from fanin.models import clone_model, model_from_json

X, Y = np.ones((8, 3), "float32"), np.zeros((8, 2), "float32")


def model(dtype="float32", **options):
    x = fanin.Input((3,))
    made = fanin.Model(x, fanin.layers.Dense(2, dtype=dtype)(x), dtype=dtype)
    made.compile("adam", "mse", **options)
    return made


def again(made, tmp_path):
    """The same model from a file, from JSON and as a clone."""
    made.save(tmp_path / "m.keras")
    return fanin.saving.load_model(tmp_path / "m.keras"), model_from_json(made.to_json()), clone_model(made)


@pytest.mark.parametrize("options", [{}, {"auto_scale_loss": False}])
def test_loss_scaling_is_kept(tmp_path, options):
    made = model("mixed_float16", **options)
    made.fit(X, Y, batch_size=4, verbose=0)
    twins = again(made, tmp_path)
    assert [type(twin.optimizer) for twin in twins] == [type(made.optimizer)] * 3
    assert int(twins[0].optimizer.iterations) == 2


@pytest.mark.parametrize("jit_compile", [True, False, "auto"])
def test_jit_compile_is_kept(tmp_path, jit_compile):
    made = model(jit_compile=jit_compile)
    assert [twin.jit_compile for twin in again(made, tmp_path)] == [jit_compile] * 3


def test_a_metric_given_as_a_class_has_the_name_of_its_class():
    fanin.config.clear_session(free_memory=False)
    made = model(metrics=[fanin.metrics.MeanSquaredError, fanin.metrics.R2Score])
    for rows in (8, 4):
        assert list(made.fit(X[:rows], Y[:rows], verbose=0).history) == ["loss", "mean_squared_error", "r2_score"]


@fanin.saving.register_keras_serializable("compiled")
class Gap(fanin.losses.Loss):
    def call(self, y_true, y_pred):
        return (y_true - y_pred).abs().mean(-1)


@fanin.saving.register_keras_serializable("compiled")
class Widest(fanin.metrics.MeanAbsoluteError):
    pass


def test_custom_objects_serve_beyond_loading():
    made = model()
    made.compile("sgd", Gap(), metrics=[Widest()])
    text = made.to_json().replace("Gap", "Distance").replace("Widest", "Largest")  # names that nobody registered
    again = model_from_json(text, custom_objects={"compiled>Distance": Gap, "compiled>Largest": Widest})
    again.set_weights(made.get_weights())
    assert again.evaluate(X, Y, verbose=0) == pytest.approx(made.evaluate(X, Y, verbose=0))


def test_what_keras_made_of_jit_compile_is_not_what_it_was_told():
    config = json.loads(model().to_json())
    config["compile_config"]["jit_compile"] = True  # as on JAX
    assert model_from_json(json.dumps(config)).jit_compile == "auto"
