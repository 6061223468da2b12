"""`compile(jit_compile=True)`: steps by PyTorch's inductor."""

import numpy as np
import pytest
import torch

import fanin
from fanin import layers

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")


def losses_of(*more, **options):
    fanin.utils.set_random_seed(0)
    model = fanin.Sequential([layers.Input((4,)), *more, layers.Dense(3, activation="relu"), layers.Dense(4)])
    model.compile("adam", "mse", **options)
    return model.fit(X, X, epochs=3, batch_size=10, shuffle=False, verbose=0).history["loss"], model


def test_inductor_trains_as_programs_do():
    found, model = losses_of(jit_compile=True)
    np.testing.assert_allclose(found, losses_of()[0], rtol=1e-5)
    assert isinstance(model.programs[0], fanin.program.InductorProgram)


@pytest.mark.parametrize("layer", [layers.Dropout, layers.GaussianNoise])
def test_a_layer_with_a_seed_goes_without_inductor(layer):
    with pytest.warns(UserWarning, match="inductor draws no random numbers for a layer with a seed"):
        found, _ = losses_of(layer(0.5, seed=3), jit_compile=True)
    np.testing.assert_allclose(found, losses_of(layer(0.5, seed=3), run_eagerly=True)[0], rtol=1e-5)


def test_without_inductor_training_goes_on(monkeypatch):
    def refuse(module, **options):
        def run(*given):
            raise torch._dynamo.exc.TorchDynamoException("No working C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.warns(UserWarning, match="eagerly.*jit_compile=True: inductor fails: No working C"):
        found, model = losses_of(jit_compile=True)
    np.testing.assert_allclose(found, losses_of()[0], rtol=1e-5)
    assert isinstance(model.programs[0], fanin.program.Program)  # all but the first step
