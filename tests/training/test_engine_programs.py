"""How many programs compiled steps make, keep and drop."""

import gc
import weakref

import numpy as np
import pytest
import torch
from engine_cases import BATCH, programs, rows, simple

import fanin
import fanin.program.run
from fanin import optimizers
from fanin.training import program_cache


@pytest.fixture
def traces(monkeypatch):
    """One entry for each program that is made."""
    made = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        make(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    return made


def test_programs_are_made_once_for_each_kind_of_batch(traces):
    model = simple()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = rows()
    model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert len(traces) == 2
    model.fit(x, y, batch_size=BATCH, epochs=2, validation_data=(x, y), verbose=0)
    assert len(traces) == 4
    model.evaluate(x, y, batch_size=BATCH, verbose=0)
    model.train_on_batch(x[:4], y[:4])
    model.test_on_batch(x[:2], y[:2])
    model.optimizer.learning_rate = 0.5
    model.set_weights(model.get_weights())
    model.train_on_batch(x[:4], y[:4])
    assert len(traces) == 4
    model.train_on_batch(x[:4].astype("float32"), y[:4].astype("int32"))
    model.train_on_batch(x[:4], y[:4], sample_weight=np.ones(4, "float32"))
    assert 5 <= len(traces) <= 6  # targets of another dtype may be cast before; weights need another program


def test_programs_are_kept_when_nothing_changes_but_learning_rates(traces):
    model = simple()
    model.compile(optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)), "sparse_categorical_crossentropy")
    model.fit(*rows(8), batch_size=5, epochs=4, verbose=0)
    assert len(traces) == 1
    model.compile(torch.optim.Adam(model.parameters(), lr=0.1), "sparse_categorical_crossentropy")
    for rate in (0.1, 0.2, 0.3):
        model.optimizer.param_groups[0]["lr"] = rate
        model.train_on_batch(*rows())
    assert len(traces) == 2


def test_accumulation_needs_a_program_for_each_kind_of_call(traces):
    model = simple()
    model.compile(optimizers.Adam(gradient_accumulation_steps=3), "sparse_categorical_crossentropy")
    model.fit(*rows(), batch_size=5, epochs=6, verbose=0)
    assert len(traces) == 2


def test_programs_are_bounded(traces, monkeypatch):
    monkeypatch.setattr(program_cache, "_MOST_PROGRAMS", 3)
    model = simple()
    model.compile("sgd", "sparse_categorical_crossentropy")
    for count in (1, 2, 3, 4, 5, 1, 5):
        model.train_on_batch(*rows(count=count))
        assert len(programs(model)) <= 3
    assert len(traces) == 6


def test_a_dropped_model_is_freed_with_its_programs():

    model = simple()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*rows(), verbose=0)
    programs(model)
    gone = weakref.ref(model.layers[0].kernel)
    del model
    gc.collect()
    assert gone() is None
