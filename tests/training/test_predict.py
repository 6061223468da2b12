"""How many rows `predict` works on at once: what it likes where rows do not see each other, else what was asked for."""

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense, Layer
from fanin.training import prediction

ROWS = 10_000


class Sizes(Layer):
    """Tells the sizes of the batches that it was traced for, or met."""

    def __init__(self, tell, sees_rows=False):
        super().__init__()
        self.tell = tell
        self.sees_rows = sees_rows

    def call(self, inputs):
        self.tell(len(inputs))
        return inputs - inputs.mean(0) if self.sees_rows else inputs * 2


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)


def made(sees_rows=False):
    sizes = []
    model = fanin.Sequential([fanin.Input((6,)), Dense(8, "relu"), Sizes(sizes.append, sees_rows), Dense(2)])
    sizes.clear()
    return model, sizes


def in_batches(model, x, size):
    with torch.no_grad():
        return np.concatenate([model(torch.tensor(x[at : at + size])).numpy() for at in range(0, len(x), size)])


def test_many_rows_go_at_once(data):
    model, sizes = made()
    found = model.predict(data, verbose=0)
    assert max(sizes) == prediction._MOST_AT_ONCE
    np.testing.assert_allclose(found, in_batches(model, data, 32), rtol=1e-5, atol=1e-6)
    sizes.clear()
    np.testing.assert_array_equal(found, model.predict(data, verbose=0))
    assert not sizes  # known by now


def test_a_small_array_in_any_layout(data):
    model, _ = made()
    base = data[:5]
    part_of_records = np.zeros(5, [("byte", "u1"), ("x", "f4", (6,))])
    part_of_records["x"] = base
    expected = in_batches(model, base, 32)
    for layout in (base, base[::-1].copy()[::-1], base[:, ::-1].copy()[:, ::-1], np.asfortranarray(base),
                   part_of_records["x"]):  # fmt: skip
        for _ in range(2):
            np.testing.assert_allclose(model.predict(layout, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_what_it_writes_into_in_any_layout(data):
    model, _ = made()
    memory = np.zeros((20, 4), np.float32)
    expected = in_batches(model, data[:10], 32)
    for out in (memory[:10, :2], memory[9::-1, :2], memory[::2, 1::-1], np.zeros((2, 10), np.float32).T):
        assert model.predict(data[:10], out=out, verbose=0) is out
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_wide_layers_take_fewer_rows(data):
    model = fanin.Sequential([fanin.Input((6,)), Dense(4096), Dense(2)])
    model.predict(data, verbose=0)
    sizes = {program.results[0].shape[0] for program in model.__dict__["_prediction"].programs}
    assert sizes == {256, ROWS % 256}


def test_rows_that_see_each_other_stay_in_batches_of_32(data):
    model, sizes = made(sees_rows=True)
    found = model.predict(data, verbose=0)
    assert set(sizes) == {3, 8, 32, ROWS % 32}  # 3 and 8 to find out
    np.testing.assert_allclose(found, in_batches(model, data, 32), rtol=1e-4, atol=1e-5)


def test_a_batch_size_is_the_most(data):
    model, sizes = made()
    small = model.predict(data, batch_size=50, verbose=0)
    assert sizes == [50]
    large = model.predict(data, batch_size=ROWS, verbose=0)
    assert max(sizes) == prediction._MOST_AT_ONCE  # in pieces: memory stays in the caches
    np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-6)
    model, sizes = made(sees_rows=True)
    found = model.predict(data, batch_size=ROWS, verbose=0)
    assert sizes == [3, 8, ROWS]
    np.testing.assert_allclose(found, in_batches(model, data, ROWS), rtol=1e-4, atol=1e-5)


def test_few_rows_are_not_looked_at(data):
    model, sizes = made()
    model.predict(data[:100], verbose=0)
    assert sizes == [32, 4]


def test_callbacks_see_batches_of_32(data):
    model, _ = made()
    ends = []
    callback = fanin.callbacks.LambdaCallback(
        on_predict_batch_end=lambda batch, logs: ends.append(len(logs["outputs"]))
    )
    model.predict(data, verbose=0, callbacks=[callback])
    assert ends == [32] * (ROWS // 32) + [ROWS % 32]


def test_steps_count_batches_of_32(data):
    model, _ = made()
    assert model.predict(data, verbose=0, steps=3).shape == (96, 2)


def test_a_layer_that_starts_to_see_rows_is_met(data):
    model, sizes = made()
    model.predict(data, verbose=0)
    model.layers[1].sees_rows = True
    sizes.clear()
    found = model.predict(data, verbose=0)
    assert max(sizes) == 32
    np.testing.assert_allclose(found, in_batches(model, data, 32), rtol=1e-4, atol=1e-5)


def test_rows_with_adapters_of_their_own_stay_one_batch(data):
    model = fanin.Sequential([fanin.Input((6,)), Dense(2)])
    fanin.adapters.add(model, "ann", rank=2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.add_(0.5)
    plain = model.predict(data, verbose=0)  # what suits is known from here on
    names = ["ann", None] * (ROWS // 2)
    with torch.no_grad(), fanin.adapters.rows(model, names):
        expected = model(torch.tensor(data)).numpy()
        found = model.predict(data, batch_size=ROWS, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, plain)


def test_several_inputs_and_outputs(data):
    one, two = fanin.Input((6,)), fanin.Input((2,))
    model = fanin.Model([one, two], {"sum": Dense(3)(one) + Dense(3)(two), "own": Dense(1)(two)})
    given = [data, data[:, :2].copy()]
    found, expected = model.predict(given, verbose=0), model.predict(given, batch_size=32, verbose=0)
    for name in ("sum", "own"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


class Counts(Layer):
    """Counts its calls, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, None

    def call(self, inputs):
        self.calls, self.seen = self.calls + 1, inputs
        return inputs * 2


def test_what_finding_out_assigns_is_undone(data):
    model = fanin.Sequential([fanin.Input((6,)), Counts(), Dense(2)])
    layer = model.layers[0]
    found = prediction.Prediction(model)
    found.revalidate()
    before = layer.calls, layer.seen
    assert found.rows_at_once(torch.tensor(data)) is None
    assert (layer.calls, layer.seen) == before


class Decides(Layer):
    """Decides by values."""

    def call(self, inputs):
        return inputs * 2 if float(inputs.sum()) > 1e9 else inputs


def test_a_call_that_cannot_be_traced_goes_on_in_batches_of_32(data):
    model, sizes = made()
    model.add(Decides())
    sizes.clear()
    np.testing.assert_allclose(model.predict(data, verbose=0), in_batches(model, data, 32), rtol=1e-5, atol=1e-6)
    assert 32 in sizes
    assert prediction._MOST_AT_ONCE not in sizes
