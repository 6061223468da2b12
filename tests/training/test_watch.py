"""What `Watch` sees in the tuples that it compares before every step."""

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense
from fanin.training.watch import Watch


class Scaled(Dense):
    def call(self, inputs):
        return super().call(inputs) * (2.0 if self.kernel_regularizer else 1.0)


class Halved(Dense):
    def call(self, inputs):
        return super().call(inputs) * (1.0 if self.trainable else 0.5)


def test_a_hook_after_another_was_removed():
    module = torch.nn.Linear(2, 1)
    module.weight.register_hook(lambda gradient: None).remove()  # leaves an empty dict
    watch = Watch(module)
    assert watch.stands()
    handle = module.weight.register_hook(lambda gradient: None)
    assert not watch.stands()
    assert "weight" in watch.difference()
    handle.remove()
    assert watch.stands()


def test_an_attribute_whose_comparison_fails():
    class Odd:
        def __eq__(self, other):
            raise AttributeError

        __hash__ = None

    module = torch.nn.Linear(2, 1)
    module.odd = Odd()
    watch = Watch(module)
    assert watch.stands()
    module.odd = Odd()
    assert not watch.stands()


@pytest.mark.parametrize(("name", "value"), [("trainable", False), ("activity_regularizer", "l2")])
def test_outputs_do_not_depend_on_what_is_for_training(name, value):
    model = fanin.Sequential([fanin.Input((3,)), Dense(2), Dense(2)])
    watch = Watch(model)
    assert watch.stands()
    setattr(model.layers[0], name, value)
    assert not watch.stands()
    assert watch.stands_for_outputs()
    model.layers[0].activation = torch.relu
    assert not watch.stands_for_outputs()


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(Scaled, "kernel_regularizer", "l2"), (Halved, "trainable", False)]
)
def test_a_call_may_read_what_is_for_training(kind, name, value):
    model = fanin.Sequential([fanin.Input((3,)), kind(2, use_bias=False)])
    x = np.ones((1, 3), np.float32)
    before = model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    setattr(model.layers[0], name, value)
    np.testing.assert_allclose(model.predict(x, verbose=0), before * (2.0 if kind is Scaled else 0.5), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_modes_of_scripted_modules():
    """Their modes are no attributes in a dict."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.jit.script(torch.nn.Dropout(0.5)))
    watch = Watch(module)
    assert watch.modes() == (True, True, True)
    module.eval()
    assert watch.modes() == (False, False, False)
    module[1].train()
    assert watch.trains()
