"""Errors in compiled steps: those of eager steps, and nothing is changed."""

import numpy as np
import pytest
import torch
from engine_cases import close_to_nothing

import fanin
from fanin import layers, optimizers
from fanin.layers import Dense, Embedding


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("nothing was raised")


def state_of(model):
    state = model.optimizer.get_state(list(model.parameters()))
    return close_to_nothing(model), [np.array(one) for one in state], model.optimizer._iterations


def unchanged(model, before):
    after = state_of(model)
    assert all(torch.equal(one, two) for one, two in zip(before[0], after[0], strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]


@pytest.mark.parametrize("first", [False, True], ids=["in the first step", "later"])
@pytest.mark.parametrize("fault", ["place", "label", "shape", "target shape"])
def test_errors_are_those_of_eager_steps_and_change_nothing(fault, first):
    tokens, labels = np.arange(8).reshape(4, 2) % 5, np.array([0, 1, 2, 1])
    bad = {
        "place": (tokens + 1, labels),
        "label": (tokens, labels + 1),
        "shape": (tokens[:, :1], labels),
        "target shape": (tokens, np.stack([labels] * 2, 1)),
    }[fault]
    found = []
    for run_eagerly in (False, True):
        fanin.config.clear_session(free_memory=False)
        model = fanin.Sequential(
            [fanin.Input((2,), dtype="int64"), Embedding(5, 3), layers.Flatten(), Dense(3, "softmax")]
        )
        model.compile(optimizers.Adam(0.1), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        if first:
            model.train_on_batch(tokens, labels)
        else:
            model.optimizer.build(list(model.parameters()))
        before = state_of(model)
        found.append(raised(lambda: model.train_on_batch(*bad)))  # noqa: B023
        unchanged(model, before)
        model.train_on_batch(tokens, labels)
    assert found[0] == found[1]
