"""Threads that share a model: each kind of call is compiled once, the others wait."""

import copy
import os
import sys
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import MODULES, data
from engine_cases import programs
from torch import nn

import fanin
from fanin import compile_step
from fanin.layers import BatchNormalization, Dense
from fanin.training.locks import lock_of


@pytest.fixture(autouse=True)
def often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def at_once(work, threads=4):
    """Run `work(number)` in several threads that start together; what they raised."""
    errors, barrier = [], threading.Barrier(threads)

    def run(number):
        barrier.wait()
        try:
            work(number)
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return errors


@pytest.mark.parametrize("seed", range(3))
def test_predict(seed):
    fanin.utils.set_random_seed(seed)
    model = fanin.Sequential([fanin.Input((6,)), Dense(8, "relu"), BatchNormalization(), Dense(2)])
    x = np.random.default_rng(seed).normal(size=(200, 6)).astype("float32")
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()

    def work(number):
        for turn in range(6):
            rows = (number * 7 + turn * 13) % 200 + 1
            np.testing.assert_allclose(model.predict(x[:rows], verbose=0), expected[:rows], rtol=1e-4, atol=1e-5)

    assert not at_once(work)
    assert all(type(weight) is nn.Parameter for weight in model.parameters())


def test_one_step():
    module = MODULES["mlp"]()
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.01))
    x, y = data()
    assert not at_once(lambda number: [step(x[: number + 2], y[: number + 2]) for _ in range(10)])
    assert len(step.programs) == 4


def test_steps_of_several_modules():
    modules = [copy.deepcopy(module) for module in [MODULES["mlp"]()] * 4]
    steps = [compile_step(one, F.cross_entropy, torch.optim.SGD(one.parameters(), lr=0.1)) for one in modules]
    x, y = data()
    assert not at_once(lambda number: [steps[number](x, y) for _ in range(10)])
    for one in modules[1:]:
        assert all(torch.equal(a, b) for a, b in zip(modules[0].parameters(), one.parameters(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_models_that_share_layers_train_and_predict(seed):
    fanin.utils.set_random_seed(seed)
    x = np.random.default_rng(seed).normal(size=(40, 6)).astype("float32")
    shared, other = Dense(6, "relu"), Dense(4)
    one = fanin.Sequential([fanin.Input((6,)), shared, Dense(2)])
    two = fanin.Sequential([fanin.Input((6,)), other, Dense(2)])
    both = fanin.Sequential([fanin.Input((6,)), shared, other, Dense(3, "softmax")])
    both.compile("sgd", "sparse_categorical_crossentropy")

    def work(number):
        for turn in range(1, 8):
            if number:
                (one, two)[number % 2].predict(x[: 3 * turn + number], verbose=0)
            else:
                both.train_on_batch(x[: 5 * turn], np.arange(5 * turn) % 3)

    assert not at_once(work)
    programs(both)


def test_a_module_has_one_lock_with_all_that_share_a_part():
    one, two = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    first, second, both = lock_of(one), lock_of(two), lock_of(nn.Sequential(one, two))

    def free(lock):
        found = []
        thread = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        return found[0]

    with both, both:
        assert not free(first)
        assert not free(second)
    with lock_of(one[0]):
        assert not free(first)
        assert free(second)


class OwnStep(fanin.Sequential):
    def test_step(self, data):
        self(data[0])
        return {"loss": 0.0}


@pytest.mark.parametrize("kind", [fanin.Sequential, OwnStep])
@pytest.mark.parametrize("work", ["evaluate", "test_on_batch", "fit", "train_on_batch"])
def test_an_eager_step_waits_while_another_thread_traces(kind, work):
    x, y = np.ones((4, 6), np.float32), np.zeros(4)
    shared = Dense(6, "relu")
    model = kind([fanin.Input((6,)), shared, Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    given = {} if work.endswith("batch") else {"verbose": 0}
    called = threading.Event()
    shared.register_forward_hook(lambda *args: called.set())
    thread = threading.Thread(target=getattr(model, work), args=(x, y), kwargs=given)
    with lock_of(nn.Sequential(shared)):
        thread.start()
        assert not called.wait(0.2)
    thread.join(60)
    assert called.is_set()


@pytest.mark.parametrize("seed", range(2))
def test_eager_steps_beside_tracing(seed):
    fanin.utils.set_random_seed(seed)
    x, y = np.random.default_rng(seed).normal(size=(40, 6)).astype("float32"), np.arange(40) % 3
    shared = [Dense(6, "relu") for _ in range(6)]
    one, other = (fanin.Sequential([fanin.Input((6,)), *shared, Dense(3, "softmax")]) for _ in range(2))
    one.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    other.compile("sgd", "sparse_categorical_crossentropy")

    def work(number):
        for turn in range(1, 8):
            if number:
                one.evaluate(x, y, verbose=0)
            else:
                other.train_on_batch(x[: 5 * turn], y[: 5 * turn])

    assert not at_once(work, 2)
    programs(other)


def test_a_layer_that_joins_later_is_locked_too():
    late = Dense(6)
    model = fanin.Sequential([fanin.Input((6,)), Dense(6)])
    x, y = np.ones((4, 6), np.float32), np.ones((4, 6), np.float32)
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    model.add(late)
    other = nn.Sequential(late)
    held = lock_of(other)
    model.evaluate(x, y, verbose=0)
    thread = threading.Thread(target=model.evaluate, args=(x[:3], y[:3]), kwargs={"verbose": 0})
    with held:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_a_fork_waits_while_another_thread_traces():
    module, traced, held = nn.Linear(2, 2), [], threading.Event()

    def trace():
        with lock_of(module):
            traced.append("fakes in place of weights")
            held.set()
            time.sleep(0.3)
            traced.clear()

    thread = threading.Thread(target=trace)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        is_free = lock_of(module).acquire(timeout=2)
        os._exit(0 if is_free and not traced else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    free = []
    thread = threading.Thread(target=lambda: free.append(lock_of(module).acquire(timeout=2)))
    thread.start()
    thread.join()
    assert free == [True]  # here too


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_a_fork_goes_on_where_the_thread_that_traces_waits_for_it(monkeypatch):
    monkeypatch.setattr("fanin.training.locks._LONGEST", 0.1)
    module, held, forked = nn.Linear(2, 2), threading.Event(), threading.Event()

    def trace():
        with lock_of(module):
            held.set()
            forked.wait()

    thread = threading.Thread(target=trace)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    forked.set()
    thread.join()
    assert lock_of(module).acquire(timeout=2)
