"""What `fit` takes as data, and what it refuses."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fanin.errors import DataError
from fanin.training.data import Arrays, Stream
from fanin.training.reader import Reader, check_finite, weights_of_classes


def reader(**changes):
    return Reader(**{"dtype": torch.float32, "device": torch.device("cpu"), **changes})


def test_arrays_are_cast_once_and_integers_stay():
    data = reader().read(np.ones((5, 2)), np.arange(5))
    assert data.x.dtype == torch.float32
    assert data.y.dtype == torch.int64
    assert data.rows == 5


def test_a_shuffled_epoch_is_a_permutation():
    torch.manual_seed(3)
    data = reader().read(np.arange(10.0)[:, None], np.arange(10))
    seen = list(data.batches(4, shuffle=True))
    assert [batch.size for batch in seen] == [4, 4, 2]
    rows = torch.cat([batch.x[:, 0] for batch in seen])
    assert sorted(rows.tolist()) == list(range(10))
    assert rows.tolist() != list(range(10))
    assert torch.equal(rows.long(), torch.cat([batch.y for batch in seen]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.bool_])
@pytest.mark.parametrize("reuse", [False, True])
def test_integers_of_every_width_are_shuffled(dtype, reuse):
    labels = np.array([0, 1, np.iinfo(dtype).max if dtype is not np.bool_ else 1, 0, 1], dtype)
    data = reader().read(np.arange(5.0)[:, None], labels)
    for batch in data.batches(2, shuffle=True, reuse=reuse):
        assert batch.y.dtype == data.y.dtype
        np.testing.assert_array_equal(batch.y.numpy(), labels[batch.x[:, 0].long().numpy()])


def test_unshuffled_batches_are_views():
    data = reader().read(torch.ones(6, 2))
    first = next(data.batches(4))
    assert first.x.data_ptr() == data.x.data_ptr()


def test_validation_split_takes_the_last_rows():
    train, held = reader().read(np.arange(10.0)[:, None], np.arange(10)).split(0.25)
    assert train.y.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert held.y.tolist() == [7, 8, 9]


@pytest.mark.parametrize("fraction", [0.9999, 1.0, 1.5, -0.5])
def test_a_split_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ValueError, match="validation_split"):
        reader().read(np.ones((10, 1)), np.ones(10)).split(fraction)


def test_a_tensor_dataset_is_not_read_row_by_row():
    data = reader().read(TensorDataset(torch.ones(4, 2), torch.zeros(4)))
    assert isinstance(data, Arrays)


def test_loaders_generators_and_iterable_datasets_are_streams():
    class Endless(IterableDataset):
        def __iter__(self):
            yield from ((torch.ones(2), torch.zeros(1)) for _ in range(3))

    loader = DataLoader(TensorDataset(torch.ones(4, 2), torch.zeros(4)), batch_size=2)
    generator = ((np.ones((2, 2)), np.zeros(2)) for _ in range(3))
    for source in (loader, generator, Endless()):
        data = reader(batch_size=2).read(source)
        assert isinstance(data, Stream)
        assert data.peek().x.shape == (2, 2)
        sizes = [batch.size for batch in data.batches()]
        assert sum(sizes) in (4, 6, 3)


def test_peeking_loses_no_batch_of_a_generator():
    data = reader().read((np.full((1, 1), i), np.zeros(1)) for i in range(3))
    data.peek()
    assert [batch.x.item() for batch in data.batches()] == [0.0, 1.0, 2.0]


def test_peeking_twice_reads_once():
    class Counting(Dataset):
        read = 0

        def __len__(self):
            return 4

        def __getitem__(self, row):
            Counting.read += 1
            return torch.ones(2), torch.zeros(1)

    data = reader(batch_size=4).read(Counting())
    assert data.peek() is data.peek()
    assert Counting.read == 4
    for _ in range(2):
        assert [batch.size for batch in data.batches()] == [4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_data_is_refused_with_its_row(bad):
    x = np.ones((300, 4))
    x[217, 2] = bad
    with pytest.raises(DataError, match=r"x: row 217, position \(2,\) holds"):
        reader().read(x, np.ones(300))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_found_wherever_it_is(bad, dtype):
    torch.manual_seed(0)
    for rows, columns in ((1, 1), (3, 5), (7, 33), (64, 129), (40_001, 3)):
        x = torch.full((columns, rows), torch.finfo(dtype).max, dtype=dtype).t()
        check_finite(x, "x")
        for row in {0, rows - 1, *torch.randint(0, rows, (8,)).tolist()}:
            column = int(torch.randint(0, columns, ()))
            x[row, column] = bad
            with pytest.raises(DataError, match=rf"row {row}, position \({column},\) holds {bad}"):
                check_finite(x, "x")
            x[row, column] = 0


def test_the_search_for_nan_works_in_pieces(monkeypatch):
    monkeypatch.setattr("fanin.training.reader._CHUNK", 8)
    x = torch.ones(100, 4)
    check_finite(x, "x")
    x[99, 3] = torch.nan
    with pytest.raises(DataError, match="row 99"):
        check_finite(x, "x")


def test_a_stream_names_the_batch():
    batches = [(np.ones((2, 1)), np.zeros(2)), (np.array([[1.0], [np.nan]]), np.zeros(2))]
    data = reader().read(iter(batches))
    with pytest.raises(DataError, match="batch 1: x: row 1"):
        list(data.batches())


@pytest.mark.parametrize(
    ("x", "y", "weight", "words"),
    [
        (np.ones((3, 1)), np.ones(4), None, "x has 3 rows, y has 4"),
        (np.ones((3, 1)), np.ones(3), np.ones(2), "x has 3 rows, sample_weight has 2"),
        ([np.ones((3, 1)), np.ones((2, 1))], None, None, "different numbers of rows"),
        (3.0, None, None, "single number"),
    ],
)
def test_lengths_must_agree(x, y, weight, words):
    with pytest.raises(DataError, match=words):
        reader().read(x, y, weight)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.array(["a"]), TypeError),
        (np.array([object()]), TypeError),
        ([[1.0], [1.0, 2.0]], TypeError),
        (None, ValueError),
        (np.array([[1e300]]), ValueError),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), TypeError),
    ],
)
def test_what_is_no_data_is_refused(x, error):
    with pytest.raises(error):
        reader().read(x)


def test_any_layout_gives_the_same_numbers_and_no_input_changes():
    base = np.arange(24, dtype=np.float64).reshape(6, 4)
    frozen = base.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + base.tobytes(), dtype=np.uint8)[1:].view(np.float64).reshape(6, 4)
    for layout in (base, base[::-1], np.asfortranarray(base), base.astype(">f8"), frozen, unaligned, base[:, ::-1],
                   base.astype(np.longdouble)):  # fmt: skip
        before = layout.copy()
        data = reader().read(layout)
        np.testing.assert_array_equal(data.x.numpy(), np.ascontiguousarray(layout, dtype=np.float32))
        np.testing.assert_array_equal(layout, before)


def test_class_weights():
    labels = torch.tensor([0, 1, 2, 1])
    expected = [2.0, 0.5, 1.0, 0.5]
    assert weights_of_classes(labels, {0: 2.0, 1: 0.5}).tolist() == expected
    assert weights_of_classes(torch.nn.functional.one_hot(labels), {0: 2.0, 1: 0.5}).tolist() == expected
    assert weights_of_classes(labels[:, None].float(), {0: 2.0, 1: 0.5}).tolist() == expected
    classes = np.unique(labels.double().numpy())  # floats
    assert weights_of_classes(labels, dict(zip(classes, (2.0, 0.5, 1.0), strict=True))).tolist() == expected
    with pytest.raises(ValueError, match="not both"):
        reader(class_weight={0: 1.0}).read(np.ones((2, 1)), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="class number"):
        weights_of_classes(labels, {"a": 1.0})
    with pytest.raises(ValueError, match="class number"):
        weights_of_classes(labels, {0.5: 1.0})
    for given in ([1.0, 2.0], "balanced"):
        with pytest.raises(
            ValueError, match=f"expected a dict of class number to weight, found {re.escape(repr(given))}"
        ):
            weights_of_classes(labels, given)


def test_tables_whose_columns_are_numbers_of_several_kinds():
    """Such as bools from pandas.get_dummies beside floats, of which numpy makes an array of objects."""
    table = pd.DataFrame({"a": [0.5, 1.5], "b": [True, False], "c": pd.array([3, 4], dtype="Int64")})
    np.testing.assert_array_equal(reader().read(table).x.numpy(), np.float32([[0.5, 1, 3], [1.5, 0, 4]]))
    whole = reader().read(table[["b", "c"]]).x
    assert whole.dtype == torch.int64
    assert whole.tolist() == [[1, 3], [0, 4]]
    assert reader().read(table, table["c"].astype("boolean")).y.tolist() == [True, True]


def test_tables_with_something_else_name_the_columns():
    table = pd.DataFrame({"a": [0.5, 1.5], "city": ["Oslo", "Lima"], "when": pd.to_datetime(["2020", "2021"])})
    with pytest.raises(
        TypeError, match=r"x: expected columns of numbers, found 'city' \((str|object)\), 'when' \(date"
    ):
        reader().read(table)
    missing = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [True, False]})
    for given in (missing, missing["a"]):
        with pytest.raises(DataError, match=r"row 1.* holds nan"):
            reader().read(given)


def test_x_and_y_of_a_loader_come_together():
    loader = DataLoader(TensorDataset(torch.ones(4, 2), torch.zeros(4)))
    with pytest.raises(ValueError, match="come with the batches"):
        reader().read(loader, np.zeros(4))


def test_a_loader_that_does_not_know_its_length():
    class Unsized(IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(3), torch.zeros(1))] * 10)

    data = reader().read(DataLoader(Unsized(), 4))
    assert data.steps() is None
    assert [batch.size for batch in data.batches()] == [4, 4, 2]
