"""`compile_predict` on plain torch modules, against the module itself."""

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from compile_step_cases import MODULES, ByValue, data, twins
from torch import nn

import fanin
from fanin import compile_predict
from fanin.training import program_cache


@pytest.mark.parametrize("name", MODULES)
def test_predictions_are_those_of_the_module_in_eval_mode(name):
    module, _ = twins(name)
    x, _ = data()
    predict = compile_predict(module, x)
    other = copy.deepcopy(module).eval()
    assert all(part.training for part in module.modules())  # its modes are as they were
    for rows in (5, 1, 7, 5):
        x, _ = data(rows, seed=rows)
        with torch.no_grad():
            expected = other(x)
        found = predict(x)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert not found.is_inference()
        as_array = predict(x.numpy())
        assert type(as_array) is np.ndarray
        np.testing.assert_array_equal(as_array, found.numpy())


def test_predictions_are_new_tensors():
    predict = compile_predict(nn.Linear(6, 3), data()[0])
    first = predict(data()[0])
    kept = first.clone()
    predict(data(seed=1)[0])
    assert torch.equal(first, kept)
    array = predict(data()[0].numpy())
    copied = array.copy()
    predict(data(seed=1)[0].numpy())
    np.testing.assert_array_equal(array, copied)
    array += 1  # it may be written


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, given):
        one, two = (given["one"], given["two"]) if isinstance(given, dict) else given
        y = self.linear(one) * two[:, None]
        return {"y": y, "parts": [y.sum(-1), two]}


@pytest.mark.parametrize("kind", ["dict", "list", "tuple"])
def test_predictions_of_structures(kind):
    module = Structured()
    x, two = data()[0], torch.arange(5.0)
    given = {"dict": {"one": x, "two": two}, "list": [x, two], "tuple": (x, two)}[kind]
    predict = compile_predict(module, given)
    found = predict(given)
    with torch.no_grad():
        torch.testing.assert_close(found, module(given))
    assert found["parts"][1].data_ptr() != two.data_ptr()
    shorter = {"dict": {"one": x[:2], "two": two[:2]}, "list": [x[:2], two[:2]], "tuple": (x[:2], two[:2])}[kind]
    with torch.no_grad():
        torch.testing.assert_close(predict(shorter), module(shorter))
    arrays = (
        {name: value.numpy() for name, value in given.items()}
        if kind == "dict"
        else type(given)(v.numpy() for v in given)
    )
    again = predict(arrays)
    assert isinstance(again["y"], np.ndarray)
    np.testing.assert_array_equal(again["y"], found["y"].numpy())


def test_a_module_that_decides_by_values_is_a_snapshot_too():
    module = ByValue()
    x, _ = data()
    predict = compile_predict(module, x)
    before = predict(x)
    assert not predict.programs
    with torch.no_grad():
        module.linear.weight.zero_()
    assert torch.equal(predict(x), before)
    predict.refresh()
    assert not torch.equal(predict(x), before)


def test_refresh_takes_over_what_changed():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    x, _ = data()
    predict = compile_predict(module, x)
    before = predict(x)
    with torch.no_grad():
        module[0].weight.add_(1)
    module[1] = nn.Tanh()
    module[2] = nn.Linear(4, 2)
    predict.refresh()
    found = predict(x)
    assert found.shape == (5, 2)
    torch.testing.assert_close(found, module(x).detach())
    assert before.shape == (5, 3)


def test_predictions_inside_modes_of_the_caller():
    module = nn.Linear(6, 3)
    x, _ = data()
    predict = compile_predict(module, x)
    expected = predict(x)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            assert torch.equal(predict(x), expected)
            assert torch.equal(predict(data(3)[0]), predict(data(3)[0]))
    assert torch.equal(predict(x.requires_grad_()), expected)


def test_predictions_in_threads():
    module = MODULES["mlp"]()
    inputs = [data(5, seed=seed)[0] for seed in range(4)]
    predict = compile_predict(module, inputs[0])
    expected = [predict(x) for x in inputs]
    faults = []

    def work(place):
        faults.extend(1 for _ in range(30) if not torch.equal(predict(inputs[place]), expected[place]))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_predictions_that_cannot_be_traced():
    module = ByValue()
    x, _ = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict = compile_predict(module, x)
        assert torch.equal(predict(x), module(x).detach())
        np.testing.assert_array_equal(predict(x.numpy()), module(x).detach().numpy())


def test_predictions_with_layers_of_ours():
    model = fanin.Sequential(
        [
            fanin.Input((3,), dtype="int64"),
            fanin.layers.Embedding(5, 4),
            fanin.layers.Flatten(),
            fanin.layers.Dense(2, "softmax"),
        ]
    )
    x = np.array([[0, 1, 2], [3, 4, 0]])
    predict = compile_predict(model, x)
    np.testing.assert_allclose(predict(x), model(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(Exception) as expected:
        model(torch.from_numpy(x + 1))
    with pytest.raises(expected.type) as found:
        predict(x + 1)
    assert str(found.value) == str(expected.value)


def test_programs_for_prediction_are_bounded(monkeypatch):
    monkeypatch.setattr(program_cache, "_MOST_PROGRAMS", 2)
    module = nn.Linear(6, 3)
    predict = compile_predict(module, data()[0])
    for rows in (1, 2, 3, 4, 1):
        x, _ = data(rows)
        torch.testing.assert_close(predict(x), module(x).detach())
    assert len(predict._prediction._programs) <= 2


def test_nan_and_infinity_pass_through():
    predict = compile_predict(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), data()[0])
    x, _ = data()
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    assert predict(x)[0].isnan().all()
    assert not predict(x)[2:].isnan().any()


class Read(nn.Module):
    """Reads a tensor and a number that are attributes."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale, self.factor = nn.Linear(4, 4), torch.ones(4), 1.0

    def forward(self, x):
        return self.linear(x) * self.scale * self.factor


def test_a_snapshot_is_closed():
    module, x, more = Read(), torch.randn(3, 4), torch.randn(5, 4)
    predict = compile_predict(module, x)
    first, other = predict(x), module(more).detach()
    module.scale.mul_(3)
    with torch.no_grad():
        module.linear.weight.mul_(2)
    torch.testing.assert_close(predict(x), first)
    torch.testing.assert_close(predict(more), other)
    module.factor = 5.0
    torch.testing.assert_close(predict(x), first)
    with pytest.raises(RuntimeError, match=r"change of the module \(the attribute 'factor' .*Call refresh"):
        predict(torch.randn(7, 4))
    predict.refresh()
    torch.testing.assert_close(predict(x), module(x).detach())


def test_results_that_are_none():
    class Optional(nn.Module):
        def forward(self, x):
            return {"twice": x * 2, "none": None}

    given = np.ones((2, 3), "float32")
    found = compile_predict(Optional(), given)(given)
    assert found["none"] is None
    np.testing.assert_array_equal(found["twice"], given * 2)
