"""One batch, many adapters: which weights train. Inference leaves that as it was; training starts it."""

import threading

import numpy as np
import pytest
import torch
from rows_cases import mixed, pairs_of
from torch import nn
from torch.func import functional_call

import fanin
from fanin import adapters
from fanin.layers import Dense, Embedding


def trained(module):
    """The adapters that train."""
    names = (key.rpartition(".")[2] for key, weight in module.named_parameters() if weight.requires_grad)
    return {name.split("_")[0] for name in names}


@pytest.fixture
def model():
    """In eval mode, as fanin's models are; "dan" is active."""
    return mixed(fanin.Sequential([fanin.Input((6,)), Dense(4, "relu"), nn.Linear(4, 2)]))


X, Y = np.ones((2, 6), "f"), np.ones((2, 2), "f")
NAMES = ["ann", "bob"]


def test_entering_thaws_nothing(model):
    with adapters.rows(model, NAMES):
        assert trained(model) == {"dan"}
    assert trained(model) == {"dan"}


@pytest.mark.parametrize(
    "infer",
    [
        lambda model: model.predict(X, verbose=0),
        lambda model: fanin.compile_predict(model, X)(X),
        lambda model: torch.no_grad()(model)(torch.from_numpy(X)),
        lambda model: torch.inference_mode()(model)(torch.from_numpy(X)),
        lambda model: model.compute_output_shape((2, 6)),
    ],
    ids=["predict", "compile_predict", "no_grad", "inference_mode", "shape"],
)
def test_inference_leaves_what_trains(model, infer):
    for names in (NAMES, ["cid", None]):
        with adapters.rows(model, names):
            infer(model)
            assert trained(model) == {"dan"}
    assert trained(model) == {"dan"}


def test_evaluate_leaves_what_trains(model):
    model.compile("sgd", "mse")
    with adapters.rows(model, NAMES):
        model.evaluate(X, Y, batch_size=2, verbose=0)
    assert trained(model) == {"dan"}


def test_regularized_adapters_stay_as_they_are_after_inference():
    """Weights that train by mistake would shrink with every step of another's training."""
    model = mixed(fanin.Sequential([fanin.Input((6,)), Dense(2, kernel_regularizer="l2")]))
    with adapters.rows(model, NAMES):
        model.predict(X, verbose=0)
    before = [weight.detach().clone() for name in NAMES for weight in pairs_of(model, name)]
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    after = [weight for name in NAMES for weight in pairs_of(model, name)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_calls_that_record_gradients_start_training(model):
    x = torch.from_numpy(X)
    with torch.no_grad(), adapters.rows(model, NAMES):
        model(x)
        assert trained(model) == {"dan"}
        with torch.enable_grad():
            outputs = model(x)
        assert trained(model) == {"ann", "bob", "dan"}
    outputs.sum().backward()
    assert all(weight.grad is not None for name in NAMES for weight in pairs_of(model, name))
    assert all(weight.grad is None for weight in pairs_of(model, "dan"))
    adapters.set_active(model, "cid")
    assert trained(model) == {"cid"}
    model(x, adapter=["bob", None]).sum().backward()
    assert trained(model) == {"bob", "cid"}


def test_all_layers_start_with_the_first_call():
    tower = mixed(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)).eval())
    with adapters.rows(tower, NAMES):
        tower[0](torch.ones(2, 6))
        assert {key for key, weight in tower.named_parameters() if weight.requires_grad} >= {
            f"{place}.{name}_weight_{part}" for place in (0, 1) for name in NAMES for part in "ab"
        }


def test_an_embedding():
    table = Embedding(3, 2)
    table.build()
    table = mixed(table).eval()
    with adapters.rows(table, NAMES):
        with torch.no_grad():
            table(torch.tensor([0, 1]))
        assert trained(table) == {"dan"}
        table(torch.tensor([0, 1]))
        assert trained(table) == {"ann", "bob", "dan"}


def test_train_mode_starts_training(model):
    with adapters.rows(model, NAMES):
        model.train()
        assert trained(model) == {"ann", "bob", "dan"}
    with adapters.rows(model, ["cid", None]):
        assert trained(model) == {"ann", "bob", "cid", "dan"}
    model.eval()
    adapters.set_active(model, None)
    with adapters.rows(model, NAMES), torch.no_grad():
        model.train()
        assert trained(model) == set()


@pytest.mark.parametrize("is_eager", [False, True], ids=["compiled", "eager"])
def test_fit_starts_training(model, is_eager):
    model.compile(fanin.optimizers.SGD(0.1), "mse", run_eagerly=is_eager)
    for names in (NAMES, ["cid", "ann"]):
        before = {name: [weight.detach().clone() for weight in pairs_of(model, name)] for name in ["dan", *names]}
        with adapters.rows(model, names):
            model.predict(X, verbose=0)
            model.fit(X, Y, batch_size=2, shuffle=False, verbose=0)
        for name in names:
            pairs = zip(before[name], pairs_of(model, name), strict=True)
            assert not any(torch.equal(one, other) for one, other in pairs)
        pairs = zip(before["dan"], pairs_of(model, "dan"), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_compiled_step_starts_training(model):
    step = fanin.compile_step(model, "mse", fanin.optimizers.SGD(0.1))
    before = [weight.detach().clone() for weight in pairs_of(model, "ann")]
    with adapters.rows(model, NAMES):
        step(X, Y)
    assert not any(torch.equal(one, other) for one, other in zip(before, pairs_of(model, "ann"), strict=True))


def test_of_nested_blocks_the_innermost_trains(model):
    with adapters.rows(model, NAMES), adapters.rows(model, ["cid", None]):
        model(torch.from_numpy(X))
    assert trained(model) == {"cid", "dan"}


def test_what_stands_in_for_a_weight_is_left_alone(model):
    x = torch.from_numpy(X)
    given = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    with adapters.rows(model, NAMES):
        functional_call(model, given, (x,))
        assert not any(weight.requires_grad for weight in given.values())
        assert trained(model) == {"dan"}
        model(x)
        assert trained(model) == {"ann", "bob", "dan"}


def test_inference_beside_training(model):
    """In one thread the adapters train, in another they are only read."""
    x, ready, over = torch.from_numpy(X), threading.Event(), threading.Event()

    def infer():
        with torch.no_grad(), adapters.rows(model, ["ann", "cid"]):
            model(x)
            ready.set()
            over.wait()

    thread = threading.Thread(target=infer)
    thread.start()
    ready.wait()
    with adapters.rows(model, NAMES):
        outputs = model(x)
    over.set()
    thread.join()
    outputs.sum().backward()
    assert trained(model) == {"ann", "bob", "dan"}
    assert all(weight.grad is not None for name in NAMES for weight in pairs_of(model, name))
