"""What `Guard` sees in the tuples that it compares before every step."""

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense
from fanin.training.guards.guard import Guard


class Scaled(Dense):
    def call(self, inputs):
        return super().call(inputs) * (2.0 if self.kernel_regularizer else 1.0)


class Halved(Dense):
    def call(self, inputs):
        return super().call(inputs) * (1.0 if self.trainable else 0.5)


def test_a_hook_after_another_was_removed():
    module = torch.nn.Linear(2, 1)
    module.weight.register_hook(lambda gradient: None).remove()  # leaves an empty dict
    guard = Guard(module)
    assert guard.holds()
    handle = module.weight.register_hook(lambda gradient: None)
    assert not guard.holds()
    assert "weight" in guard.difference()
    handle.remove()
    assert guard.holds()


def test_an_attribute_whose_comparison_fails():
    class Odd:
        def __eq__(self, other):
            raise AttributeError

        __hash__ = None

    module = torch.nn.Linear(2, 1)
    module.odd = Odd()
    guard = Guard(module)
    assert guard.holds()
    module.odd = Odd()
    assert not guard.holds()


@pytest.mark.parametrize(("name", "value"), [("trainable", False), ("activity_regularizer", "l2")])
def test_outputs_do_not_depend_on_what_is_for_training(name, value):
    model = fanin.Sequential([fanin.Input((3,)), Dense(2), Dense(2)])
    guard = Guard(model)
    assert guard.holds()
    setattr(model.layers[0], name, value)
    assert not guard.holds()
    assert guard.holds_for_outputs()
    model.layers[0].activation = torch.relu
    assert not guard.holds_for_outputs()


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
    guard = Guard(module)
    assert guard.modes() == (True, True, True)
    module.eval()
    assert guard.modes() == (False, False, False)
    module[1].train()
    assert guard.is_training()
