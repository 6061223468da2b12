"""Loss scaling beside Keras's `LossScaleOptimizer` on its torch backend."""

import keras
import numpy as np
import pytest
import torch

import fanin
from fanin.optimizers import SGD, Adam, LossScaleOptimizer


def pair(**options):
    """Ours and Keras's with the same options, on the same two weights."""
    inner = {"learning_rate": 0.1, "momentum": 0.9}
    ours = LossScaleOptimizer(SGD(**inner), **options)
    theirs = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(**inner), **options)
    values = [np.array([1.0, -2.0], "float32"), np.array([[0.5]], "float32")]
    mine = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    others = [keras.Variable(v) for v in values]
    theirs.build(others)
    return ours, theirs, mine, others


@pytest.mark.parametrize("seed", range(4))
def test_weights_scale_and_counter_are_kerass(seed):
    ours, theirs, mine, others = pair(initial_scale=1024.0, dynamic_growth_steps=3)
    rng = np.random.default_rng(seed)
    for _ in range(14):
        gradients = [rng.normal(size=w.shape).astype("float32") * 1024 for w in mine]
        if rng.random() < 0.3:
            gradients[rng.integers(2)].flat[0] = rng.choice([np.inf, -np.inf, np.nan])
        ours.apply([torch.from_numpy(g) for g in gradients], mine)
        theirs.apply([keras.ops.convert_to_tensor(g) for g in gradients], others)
        assert ours.dynamic_scale == float(theirs.dynamic_scale.numpy())
        assert ours.step_counter == int(theirs.step_counter.numpy())
        assert ours.iterations == int(theirs.iterations.numpy())
        for a, b in zip(mine, others, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.numpy(), rtol=2e-6)


def test_archives_go_both_ways(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    fanin.config.set_dtype_policy("mixed_float16")
    try:
        ours = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(3)])
        ours.compile(Adam(0.01), "mse")
        x, y = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
        ours.fit(x, y, batch_size=2, verbose=0)
        ours.save(tmp_path / "ours.keras")
        theirs = keras.models.load_model(tmp_path / "ours.keras")
        assert isinstance(theirs.optimizer, keras.optimizers.LossScaleOptimizer)
        for a, b in zip(ours.optimizer.get_state(), theirs.optimizer.variables, strict=True):
            np.testing.assert_array_equal(a, b.numpy())
        theirs.fit(x, y, batch_size=2, verbose=0)
        theirs.save(tmp_path / "theirs.keras")
        back = fanin.models.load_model(tmp_path / "theirs.keras")
        assert isinstance(back.optimizer, LossScaleOptimizer)
        assert (back.optimizer.iterations, back.optimizer.step_counter) == (8, 8)
    finally:
        keras.mixed_precision.set_global_policy("float32")
