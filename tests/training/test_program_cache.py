"""When a kind of call gets a program, and which programs are kept."""

import numpy as np
import pytest
import torch

import fanin
from fanin.training import program_cache
from fanin.training.program_cache import ProgramCache


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(program_cache, "_MADE_AT_ONCE", 2)
    monkeypatch.setattr(program_cache, "_MOST_PROGRAMS", 4)
    monkeypatch.setattr(program_cache, "_MOST_EVICTED", 3)


def found_and_made(known, calls):
    made = []

    def make(kind):
        made.append(kind)
        return f"program {kind}"

    found = [known.find(kind, lambda kind=kind: make(kind)) is not None for kind in calls]
    return "".join("x" if one else "." for one in found), "".join(made)


def test_the_first_kinds_at_once_and_later_ones_when_they_come_again():
    assert found_and_made(ProgramCache(), "ababcdcabd") == ("xxxx..xxxx", "abcd")


def test_the_kinds_used_last_are_kept():
    known = ProgramCache()
    found_and_made(known, "abccddaee")
    assert list(known) == ["c", "d", "a", "e"]


def test_kinds_that_push_each_other_out_are_given_up():
    known = ProgramCache()
    found, made = found_and_made(known, "abcdefgh" * 5)
    assert made == "abcdefg"  # three had to go
    assert found.endswith("...xxxx.")
    known.clear()
    assert found_and_made(known, "hh") == ("xx", "h")


def test_without_an_eager_way_every_kind_gets_its_program():
    assert found_and_made(ProgramCache(may_defer=False), "abcdefabcdef") == ("x" * 12, "abcdefabcdef")


def test_a_kind_that_has_no_program_is_not_tried_again():
    known, tried = ProgramCache(), []
    for _ in range(3):
        assert known.find("a", lambda: tried.append(1)) is None
    assert len(tried) == 1


def test_training_and_prediction_on_ever_other_numbers_of_rows():
    fanin.utils.set_random_seed(0)
    model = fanin.Sequential([fanin.Input((3,)), fanin.layers.Dense(2)])
    twin = fanin.models.clone_model(model)
    twin.set_weights(model.get_weights())
    model.compile("adam", "mse")
    twin.compile("adam", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    for rows in (*range(1, 12), *range(1, 12)):
        losses = [one.train_on_batch(x[:rows], x[:rows, :2]) for one in (model, twin)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        with torch.no_grad():
            expected = twin(torch.from_numpy(x[:rows])).numpy()
        np.testing.assert_allclose(model.predict_on_batch(x[:rows]), expected, rtol=1e-3, atol=1e-5)
    engine = model._compiled_with.engine
    assert len(engine.programs) == 4
    assert model.__dict__["_prediction"].programs
