"""What cannot be traced: such steps run eagerly, say so once, and are not tried again."""

import warnings

import numpy as np
import pytest
import torch
from engine_cases import BATCH, rows, same_bits
from torch import nn

import fanin
import fanin.program.run
from fanin import layers, optimizers
from fanin.layers import Dense


class SameShape(layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape


class Branches(SameShape):
    def call(self, x):
        if x.mean() > 0:
            return x * 2
        return x


class ByNumpy(SameShape):
    def call(self, x):
        return x * float(np.abs(x.detach().numpy()).max())


class ByItem(SameShape):
    def call(self, x):
        return x * x.detach().std().item()


class Counts(SameShape):
    calls = 0

    def call(self, x):
        self.calls += 1
        return x * self.calls


class Keeps(SameShape):
    last = None

    def call(self, x):
        y = x if self.last is None or self.last.shape != x.shape else x + 0.1 * self.last
        self.last = x.detach()
        return y


class Collects(SameShape):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["seen"] = []

    def call(self, x):
        self.seen.append(float(x.detach().mean()))
        return x + len(self.seen)


class Updates(SameShape):
    def build(self, input_shape):
        self.total = self.add_weight("total", (), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, x):
        mean = x.detach().mean()
        self.add_update(lambda: self.total.add_(mean))
        return x + self.total


class Plain(nn.Module):
    def forward(self, x):
        return x if bool((x > 0).any()) else -x


class AroundPlain(fanin.Model):
    def __init__(self):
        super().__init__()
        self.one, self.plain, self.two = Dense(5), Plain(), Dense(3, "softmax")

    def call(self, x):
        return self.two(self.plain(self.one(x)))


@pytest.mark.parametrize("kind", [Branches, ByNumpy, ByItem, Counts, Keeps, Collects, Updates, Plain])
def test_what_cannot_be_traced_runs_eagerly_and_says_so_once(kind):
    x, y = rows()

    def make():
        if kind is Plain:
            model = AroundPlain()
            model(x)
            return model
        return fanin.Sequential([fanin.Input((6,)), Dense(5, "tanh"), kind(name="culprit"), Dense(3, "softmax")])

    made = make(), make()
    made[1].set_weights(made[0].get_weights())
    histories = []
    for model, run_eagerly in zip(made, (False, True), strict=True):
        model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            histories.append(model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history)
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        messages = [str(one.message) for one in caught]
        if run_eagerly:
            assert not messages
        else:
            assert len(messages) == 1, messages
            assert caught[0].category is UserWarning
            assert ("Plain" if kind is Plain else "culprit") in messages[0], messages[0]
            if kind not in (Counts, Keeps, Updates):
                assert "test_engine_fallback.py" in messages[0]
                assert "line " in messages[0]
            assert "run_eagerly=True" in messages[0]
    assert histories[0] == histories[1]
    same_bits(*made)


def test_a_loss_that_cannot_be_traced():
    def loss(y, p):
        return (p - y).abs().mean(-1) * (2.0 if float(p.detach().mean()) > 0 else 1.0)

    x, _ = rows()
    model = fanin.Sequential([fanin.Input((6,)), Dense(1)])
    model.compile("sgd", loss)
    words = r"results: cannot be compiled \(line \d+ of .*test_engine_fallback\.py\): it asks a tensor for its value"
    with pytest.warns(UserWarning, match=words):
        model.fit(x, x[:, :1], verbose=0)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (lambda x: x * float(x.detach().sum()), "it asks a tensor for its value, as float"),
        (lambda x: x * x[x > 0].sum(), "the shape of a result depends on values"),
    ],
)
def test_a_function_that_cannot_be_traced_is_named_with_its_layer(activation, words):
    model = fanin.Sequential([fanin.Input((6,)), Dense(1, activation, name="culprit")])
    model.compile("sgd", "mse")
    x, _ = rows()
    with pytest.warns(UserWarning, match=rf"layer 'culprit' cannot be .*test_engine_fallback\.py\): {words}"):
        model.fit(x, x[:, :1], verbose=0)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.qint8:UserWarning", "ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:This step runs eagerly.*layer 'Linear' cannot be compiled:UserWarning")
def test_quantized_modules_are_evaluated_and_trained_around():
    """Their weights are objects of C++, which fake tensors cannot compare, once they have met two."""
    inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    quantized = torch.ao.quantization.quantize_dynamic(inner, {nn.Linear}, dtype=torch.qint8)
    x, _ = rows()
    model = fanin.Sequential([quantized, Dense(3)])
    model.compile("sgd", "mse")
    for count in (len(x), 7, 3):
        found = model.evaluate(x[:count], np.ones((count, 3), np.float32), batch_size=count, verbose=0)
        with torch.no_grad():
            expected = (model.layers[1](quantized(torch.as_tensor(x[:count]))) - 1).square().mean()
        assert found == pytest.approx(expected.item(), rel=1e-6)
    before = model.layers[1].kernel.detach().clone()
    model.fit(x, np.ones((len(x), 3), np.float32), verbose=0)
    assert not torch.equal(model.layers[1].kernel, before)


def test_run_eagerly_makes_no_program_and_does_not_warn():
    model = fanin.Sequential([fanin.Input((6,)), Branches(), Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(*rows(), verbose=0)
    model.evaluate(*rows(), verbose=0)
    assert not model._compiled_with.engine._programs


def test_a_failed_trace_is_not_tried_again(monkeypatch):
    tried = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        tried.append(1)
        make(self, *given, **named)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    model = fanin.Sequential([fanin.Input((6,)), Branches(), Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="run_eagerly"):
        model.fit(*rows(), batch_size=5, epochs=4, verbose=0)
    assert len(tried) == 1
