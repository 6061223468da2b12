"""Weights that several layers have, or that torch computes: what is written can be read back, else nothing is."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_weight_norm, weight_norm

import fanin
from fanin.errors import MismatchError
from fanin.layers import Dense
from fanin.saving import load_model

WAYS = [".keras", ".weights.h5"]


def chain(tie=False, seed=0):
    one, two = Dense(8, name="one"), Dense(8, name="two")
    model = fanin.Sequential([fanin.Input((8,)), one, two])
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(size=w.shape).astype("f4") for w in model.weights])
    if tie:
        two.kernel = one.kernel
    return model


def write(model, path):
    (model.save if str(path).endswith(".keras") else model.save_weights)(path)


def outputs(model):
    return model.predict(np.eye(8, dtype="f4"), verbose=0)


@pytest.mark.parametrize("ending", WAYS)
def test_tied_weights_come_back(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    model = chain(tie=True)
    write(model, path)
    for tie in (True, False):
        other = chain(tie=tie, seed=1)
        other.load_weights(path)
        np.testing.assert_array_equal(outputs(other), outputs(model))
    assert other.layers[0].kernel is not other.layers[1].kernel
    if ending == ".keras":
        np.testing.assert_array_equal(outputs(load_model(path)), outputs(model))


def test_tied_weights_with_other_values_in_the_file(tmp_path):
    chain(seed=1).save_weights(tmp_path / "m.weights.h5")
    model = chain(tie=True)
    before = outputs(model)
    with pytest.raises(MismatchError, match="layers/dense_1 and layers/dense share a weight in the model, and differ"):
        model.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(outputs(model), before)


def test_tied_weights_of_any_module_and_with_a_trained_optimizer(tmp_path):
    class Tied(fanin.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def call(self, inputs):
            return self.second(self.first(inputs))

    x = np.ones((4, 3), "f4")
    model, other = Tied(), Tied()
    for each in (model, other):
        each.compile("adam", "mse")
        each.fit(x, x, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    assert other.second.weight is other.first.weight
    one, two = (each.fit(x, x, verbose=0).history for each in (model, other))
    assert one == two


COMPUTED = {
    "pruned": (
        lambda d: prune.l1_unstructured(d, "kernel", amount=0.5),
        lambda d: prune.remove(d, "kernel"),
        "pruning",
    ),
    "parametrized": (
        lambda d: parametrizations.weight_norm(d, "kernel"),
        lambda d: parametrize.remove_parametrizations(d, "kernel"),
        "a parametrization",
    ),
    "weight_norm": (lambda d: weight_norm(d, "kernel"), lambda d: remove_weight_norm(d, "kernel"), "weight_norm"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("ending", WAYS)
@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_are_refused_until_they_are_plain(tmp_path, kind, ending):
    wrap, unwrap, why = COMPUTED[kind]
    model, path = chain(), tmp_path / f"m{ending}"
    wrap(model.layers[0])
    with pytest.raises(ValueError, match=rf"Layer 'one' .* weight 'kernel' .* by {why}.*torch\.nn\.utils.*safetensors"):
        write(model, path)
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "m.safetensors")

    unwrap(model.layers[0])
    assert [tuple(w.shape) for w in model.layers[0].weights] == [(8, 8), (8,)]
    write(model, path)
    other = load_model(path) if ending == ".keras" else chain(seed=1)
    other.load_weights(path)
    np.testing.assert_array_equal(outputs(other), outputs(model))


def test_weights_keep_their_order():
    class Three(fanin.Layer):
        def build(self, input_shape):
            self.gain = self.add_weight(shape=(3,))
            self.shift = self.add_weight("shift", (3,))
            self.extra = nn.Parameter(torch.ones(3))

        def call(self, inputs):
            return inputs * self.gain + self.shift + self.extra

    layer = Three()
    layer(torch.ones(1, 3))
    for name in ("gain", "shift"):
        prune.random_unstructured(layer, name, amount=1)
        prune.remove(layer, name)
    assert [name for name, _ in layer.named_parameters()] == ["gain", "shift", "extra"]
    layer = Dense(2, lora_rank=1)
    layer.build((None, 3))
    names = [name for name, _ in layer.named_parameters()]
    prune.random_unstructured(layer, "bias", amount=1)
    prune.remove(layer, "bias")
    assert [name for name, _ in layer.named_parameters()] == names
