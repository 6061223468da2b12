import copy
import json
import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fanin import config, losses
from fanin.errors import DataError, MismatchError
from fanin.registry import register_keras_serializable

ELEMENTWISE = [
    losses.MeanSquaredError,
    losses.MeanAbsoluteError,
    losses.MeanAbsolutePercentageError,
    losses.MeanSquaredLogarithmicError,
    losses.Huber,
    losses.LogCosh,
    losses.Poisson,
    losses.Hinge,
    losses.SquaredHinge,
    losses.BinaryCrossentropy,
]
ALL = [
    *ELEMENTWISE,
    losses.CosineSimilarity,
    losses.KLDivergence,
    losses.CategoricalHinge,
    losses.CategoricalCrossentropy,
    losses.SparseCategoricalCrossentropy,
]
EPSILON = 1e-7


def t(*values, **kwargs):
    return torch.tensor(values, **kwargs)


def rows(*values):
    return torch.tensor([[v] for v in values])


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "expected"),
    [
        (losses.MeanSquaredError(), [[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 6.0]], (0.5 + 4.5) / 2),
        (losses.MeanAbsoluteError(), [[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 6.0]], (0.5 + 1.5) / 2),
        (losses.Huber(), [[0.0], [0.0]], [[0.5], [3.0]], (0.125 + 2.5) / 2),
        (losses.Huber(delta=2.0), [[0.0]], [[-3.0]], 2.0 * 3.0 - 2.0),
        (losses.MeanAbsolutePercentageError(), [[2.0, -4.0]], [[1.0, -4.0]], 100 * 0.5 / 2),
        (losses.MeanAbsolutePercentageError(), [[0.0]], [[1.0]], 100 / EPSILON),
        (losses.MeanSquaredLogarithmicError(), [[1.0, 1.0]], [[3.0, 1.0]], math.log(2) ** 2 / 2),
        (losses.MeanSquaredLogarithmicError(), [[-5.0]], [[1.0]], math.log(2) ** 2),
        (losses.LogCosh(), [[0.0, 1.0]], [[1.0, 0.0]], math.log(math.cosh(1.0))),
        (losses.LogCosh(), [[0.0], [0.0]], [[1000.0], [-1000.0]], 1000 - math.log(2)),
        (losses.CosineSimilarity(), [[3.0, 4.0], [1.0, 0.0]], [[8.0, 6.0], [-2.0, 0.0]], (-0.96 + 1.0) / 2),
        (losses.CosineSimilarity(axis=0), [[3.0], [4.0]], [[8.0], [6.0]], -0.96),
        (losses.CosineSimilarity(), [[0.0, 0.0]], [[1.0, 0.0]], 0.0),
        (losses.KLDivergence(), [[0.5, 0.5]], [[0.25, 0.75]], 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        (losses.KLDivergence(), [[1.0, 0.0]], [[0.5, 0.5]], math.log(2) + EPSILON * math.log(EPSILON / 0.5)),
        (losses.KLDivergence(), [[1.0]], [[0.0]], -math.log(EPSILON)),
        (losses.Poisson(), [[2.0, 0.0]], [[math.e, 3.0]], (math.e - 2 + 3) / 2),
        (losses.Poisson(), [[1.0]], [[0.0]], -math.log(EPSILON)),
        (losses.Hinge(), [[-1.0, 1.0, 1.0]], [[0.5, 0.5, 3.0]], (1.5 + 0.5 + 0.0) / 3),
        (losses.Hinge(), [[0, 1, 1]], [[0.5, 0.5, 3.0]], (1.5 + 0.5 + 0.0) / 3),
        (losses.Hinge(), [[-1.0, 0.0]], [[0.5, 0.5]], (1.5 + 1.0) / 2),
        (losses.SquaredHinge(), [[-1.0, 1.0, 1.0]], [[0.5, 0.5, 3.0]], (2.25 + 0.25 + 0.0) / 3),
        (losses.CategoricalHinge(), [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.5, 0.75, 0.25], [2.0, 0.5, 0.0]], 0.75 / 2),
        (losses.BinaryCrossentropy(), [[1.0], [0.0]], [[0.25], [0.25]], -(math.log(0.25) + math.log(0.75)) / 2),
        (losses.BinaryCrossentropy(from_logits=True), [[1.0]], [[0.0]], math.log(2)),
        (losses.BinaryCrossentropy(label_smoothing=1.0), [[1.0]], [[0.9]], -0.5 * (math.log(0.9) + math.log(0.1))),
        (losses.CategoricalCrossentropy(), [[0.0, 1.0]], [[1.0, 3.0]], -math.log(0.75)),
        (losses.CategoricalCrossentropy(from_logits=True), [[0.0, 1.0]], [[0.0, math.log(3)]], -math.log(0.75)),
        (
            losses.CategoricalCrossentropy(label_smoothing=0.5),
            [[0.0, 1.0]],
            [[0.25, 0.75]],
            -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)),
        ),
        (losses.SparseCategoricalCrossentropy(), [1, 0], [[1.0, 3.0], [0.5, 0.5]], (math.log(2) - math.log(0.75)) / 2),
        (losses.SparseCategoricalCrossentropy(from_logits=True), [[1]], [[0.0, math.log(3)]], -math.log(0.75)),
    ],
    ids=repr,
)
def test_closed_forms(loss, y_true, y_pred, expected):
    assert loss(y_true, y_pred).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [losses.BinaryCrossentropy(), losses.CategoricalCrossentropy()])
def test_a_probability_of_zero_costs_sixteen(loss):
    worst = loss(t([1.0, 0.0]), t([0.0, 1.0])).item()
    assert worst == pytest.approx(-math.log(EPSILON), rel=1e-2)  # float32 cuts at 1 - 1.19e-7
    assert math.isfinite(worst)


def test_losses_in_float64_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    y, p = (torch.rand(50, 4, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    e = p - y
    sign = torch.where(torch.arange(4) % 2 == 0, 1.0, -1.0).double().expand(50, 4)
    one_hot = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (50,), generator=generator)]
    wrong = p.masked_fill(one_hot == 1, 0.0).amax(-1)
    unit_y, unit_p = ((v / v.square().sum(-1, keepdim=True).sqrt()).clone() for v in (y, p))
    q, r = y / y.sum(-1, keepdim=True), p / p.sum(-1, keepdim=True)
    for found, expected in (
        (losses.mean_absolute_percentage_error(y, p), (e.abs() / y * 100).mean(-1)),
        (losses.mean_squared_logarithmic_error(y, p), ((1 + p).log() - (1 + y).log()).square().mean(-1)),
        (losses.log_cosh(y * 20, p * 20), (20 * e).cosh().log().mean(-1)),
        (losses.cosine_similarity(y, p), -(unit_y * unit_p).sum(-1)),
        (losses.kl_divergence(q, r), (q * (q / r).log()).sum(-1)),
        (losses.poisson(y, p), (p - y * (p + EPSILON).log()).mean(-1)),
        (losses.hinge(sign, p), (1 - sign * p).clamp(min=0).mean(-1)),
        (losses.squared_hinge(sign, p), (1 - sign * p).clamp(min=0).square().mean(-1)),
        (losses.categorical_hinge(one_hot, p), (1 + wrong - (one_hot * p).sum(-1)).clamp(min=0)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", ALL[: ALL.index(losses.CategoricalCrossentropy)])
@pytest.mark.parametrize("y", [[0.0, 0.0], [0.0, 1.0]])
def test_gradients_at_zero_are_finite(cls, y):
    p = torch.zeros(1, 2, requires_grad=True)
    loss = cls()(t(y), p)
    loss.backward()
    assert math.isfinite(loss.item())
    assert p.grad.isfinite().all()


def test_a_label_of_zero_is_minus_one_only_where_all_are_zero_or_one():
    p = rows(0.5, 0.5, 0.5)
    assert losses.hinge(rows(0, 1, 1), p).tolist() == [1.5, 0.5, 0.5]
    assert losses.hinge(rows(False, True, True), p).tolist() == [1.5, 0.5, 0.5]
    assert losses.hinge(rows(0, 1, -1), p).tolist() == [1.0, 0.5, 1.5]
    assert losses.hinge(rows(1, 1, 1), p).tolist() == [0.5, 0.5, 0.5]


def test_a_vector_is_one_distribution():
    y, p = t(0.5, 0.5), t(0.25, 0.75)
    for cls in (losses.KLDivergence, losses.CategoricalHinge, losses.CosineSimilarity):
        torch.testing.assert_close(cls()(y, p), cls()(y.unsqueeze(0), p.unsqueeze(0)))


def test_epsilon_is_read_at_every_call():
    config.set_epsilon(1e-3)
    assert losses.BinaryCrossentropy()(t([1.0]), t([0.0])).item() == pytest.approx(-math.log(1e-3), rel=1e-5)


def test_a_nan_prediction_gives_a_nan_loss_not_an_exception():
    nan = float("nan")
    assert math.isnan(losses.BinaryCrossentropy()(t([1.0]), t([nan])).item())
    assert math.isnan(losses.SparseCategoricalCrossentropy()(t(0), t([nan, 0.5])).item())


def test_class_ids_above_two_to_the_24_stay_exact():
    logits = torch.zeros(1, (1 << 24) + 2)
    logits[0, (1 << 24) + 1] = 50.0
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert loss(t((1 << 24) + 1), logits).item() == pytest.approx(0.0, abs=1e-6)


def test_a_label_outside_the_classes_is_an_error_also_minus_100():
    for label in (-100, -1, 2):
        with pytest.raises((IndexError, RuntimeError)):
            losses.sparse_categorical_crossentropy([label], [[0.5, 0.5]])


def test_the_axis_of_the_classes_can_be_another():
    p = torch.rand(3, 5, 4).softmax(1)
    ids = torch.randint(0, 5, (3, 4))
    moved = losses.sparse_categorical_crossentropy(ids, p.movedim(1, -1))
    torch.testing.assert_close(losses.sparse_categorical_crossentropy(ids, p, axis=1), moved)
    assert losses.sparse_categorical_crossentropy(ids.unsqueeze(1), p, axis=1).shape == (3, 4)
    one_hot = torch.nn.functional.one_hot(ids, 5).movedim(-1, 1)
    torch.testing.assert_close(losses.categorical_crossentropy(one_hot, p, axis=1), moved)
    p0, ids0 = p.movedim(1, 0), ids
    torch.testing.assert_close(losses.sparse_categorical_crossentropy(ids0, p0, axis=0), moved)


# --- reductions, weights, masks ---------------------------------------------------------------------------------------

VALUES = t(1.0, 2.0, 6.0)


class Given(losses.Loss):
    def call(self, y_true, y_pred):
        return y_pred


@pytest.mark.parametrize(
    ("reduction", "plain", "weighted"),
    [
        ("sum_over_batch_size", 3.0, (2.0 + 0.0 + 6.0) / 3),
        ("mean", 3.0, (2.0 + 0.0 + 6.0) / 3),
        ("mean_with_sample_weight", 3.0, (2.0 + 0.0 + 6.0) / 3),
        ("sum", 9.0, 8.0),
    ],
)
def test_reductions(reduction, plain, weighted):
    loss = Given(reduction=reduction)
    assert loss(VALUES, VALUES).item() == plain
    assert loss(VALUES, VALUES, [2.0, 0.0, 1.0]).item() == pytest.approx(weighted)
    assert loss(VALUES, VALUES, [[2.0], [0.0], [1.0]]).item() == pytest.approx(weighted)


def test_twice_the_weights_is_twice_the_loss_but_not_twice_the_weighted_mean():
    two = [2.0, 2.0, 2.0]
    assert Given()(VALUES, VALUES, two).item() == 6.0
    assert Given(reduction="mean_with_sample_weight")(VALUES, VALUES, two).item() == 3.0


@pytest.mark.parametrize("reduction", ["none", None])
def test_no_reduction(reduction):
    assert Given(reduction=reduction)(VALUES, VALUES, [2.0, 0.0, 1.0]).tolist() == [2.0, 0.0, 6.0]


def test_weights_of_zero_give_zero_and_a_zero_gradient():
    pred = VALUES.clone().requires_grad_()
    loss = Given(reduction="mean_with_sample_weight")(VALUES, pred, [0.0, 0.0, 0.0])
    loss.backward()
    assert loss.item() == 0.0
    assert pred.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_weight_per_row_counts_all_inner_values_of_its_row():
    values = torch.arange(4.0).reshape(2, 2)  # square, where broadcasting from the right would go unnoticed
    assert Given(reduction=None)(values, values, [0.0, 1.0]).tolist() == [[0.0, 0.0], [2.0, 3.0]]
    assert Given(reduction="mean_with_sample_weight")(values, values, [0.0, 1.0]).item() == 2.5


@pytest.mark.parametrize("weight", [[1.0, 2.0], [[1.0, 2.0, 3.0]], torch.ones(3, 2), torch.ones(3, 1, 2)])
def test_weights_that_do_not_fit_are_refused(weight):
    with pytest.raises(ValueError, match="sample_weight of shape"):
        Given()(VALUES, VALUES, weight)


def test_weights_that_do_not_fit_the_inner_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\) does not fit values of shape \(3, 2\)"):
        Given()(torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 5))


def test_a_loss_without_rows_takes_no_weights():
    loss = losses.get(torch.nn.MSELoss())
    with pytest.raises(ValueError, match="one value for the whole batch"):
        loss(rows(1.0, 2.0), rows(1.0, 2.0), [1.0, 2.0])


def test_vectors_are_rows_so_each_value_has_its_own_weight():
    y, p = t(0.0, 0.0), t(1.0, 3.0)
    for loss, expected in ((losses.MeanSquaredError(), 1.0 / 2), (losses.MeanAbsoluteError(), 1.0 / 2)):
        assert loss(y, p, [1.0, 0.0]).item() == expected
        assert loss(y, p, [1.0, 0.0]).item() == loss(y, p.unsqueeze(1), [1.0, 0.0]).item()


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum_over_batch_size", 2.0), ("mean_with_sample_weight", 2.0), ("sum", 4.0)]
)
def test_ignored_classes_do_not_count(reduction, expected):
    logits = t([0.0, 2.0], [0.0, 0.0], [0.0, 2.0])
    plain = losses.sparse_categorical_crossentropy(t(0), logits[:1], from_logits=True).item()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction=reduction)
    assert loss([0, -1, 0], logits).item() == pytest.approx(plain * expected / 2)
    assert loss([[0], [-1], [0]], logits, [1.0, 1.0, 1.0]).item() == pytest.approx(plain * expected / 2)
    assert loss([-1, -1, -1], logits).item() == 0.0


def test_an_empty_batch_gives_zero():
    assert losses.MeanSquaredError()(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0.0


def test_unknown_reduction():
    with pytest.raises(ValueError, match=r"'auto'.*sum_over_batch_size"):
        losses.MeanSquaredError(reduction="auto")


# --- shapes and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ELEMENTWISE)
def test_only_a_vector_and_its_column_match(cls):
    vector, column = t(0.25, 0.75), rows(0.25, 0.75)
    expected = cls()(column, column)
    for y, p in ((vector, column), (column, vector), (vector, vector)):
        torch.testing.assert_close(cls()(y, p), expected)
    for y, p in ((torch.zeros(3), torch.zeros(3, 3)), (torch.zeros(1, 3), torch.zeros(3, 3)), (t(0.0), column)):
        with pytest.raises(ValueError, match=r"y_true has shape \(.*\) and y_pred \(.*\)"):
            cls()(y, p)


@pytest.mark.parametrize(("ids", "shape"), [((3,), (4, 5)), ((4, 2), (4, 5)), ((4, 5), (4, 5))])
def test_class_ids_of_a_wrong_shape(ids, shape):
    with pytest.raises(ValueError, match=r"need class ids of shape \(4,\)"):
        losses.SparseCategoricalCrossentropy()(torch.zeros(ids, dtype=torch.int64), torch.ones(shape))


def test_it_computes_in_float32_or_better():
    pred = torch.rand(4, 1)
    loss = losses.MeanSquaredError()
    assert loss(pred, pred.half()).dtype == torch.float32
    assert loss(pred, pred.double()).dtype == torch.float64
    assert losses.MeanSquaredError(dtype="float64")(pred, pred).dtype == torch.float64
    assert losses.MeanSquaredError(dtype="bfloat16")(pred, pred.double()).dtype == torch.bfloat16
    assert loss.dtype == "float32"
    assert losses.MeanSquaredError(dtype="mixed_float16").dtype == "float16"
    assert loss([[1]], [[3]]).item() == 4.0


def test_read_only_arrays_are_taken_without_a_warning():
    y = np.zeros((2, 1), dtype="float32")
    y.flags.writeable = False
    assert losses.MeanSquaredError()(y, y).item() == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Huber(delta=0.0), "delta must be positive"),
        (lambda: losses.Huber(delta=float("nan")), "delta must be a number"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=1.5), r"label_smoothing must be a number in \[0, 1\]"),
        (lambda: losses.CategoricalCrossentropy(label_smoothing="x"), "label_smoothing must be a number"),
        (lambda: losses.CategoricalCrossentropy(axis=True), "axis must be an int"),
        (lambda: losses.CosineSimilarity(axis=None), "axis must be an int, found None"),
        (lambda: losses.SparseCategoricalCrossentropy(ignore_class=0.5), "ignore_class must be an int"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- tracing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cls", [*ALL, torch.nn.CrossEntropyLoss], ids=lambda c: c.__name__)
def test_a_trace_under_fake_tensors_is_the_loss(cls, weighted):
    loss = losses.resolve(cls() if cls is not losses.SparseCategoricalCrossentropy else cls(ignore_class=2))
    ids = cls in (losses.SparseCategoricalCrossentropy, torch.nn.CrossEntropyLoss)
    y = t(0, 1, 2, 0) if ids else torch.rand(4, 3)
    p = torch.rand(4, 3)
    w = torch.rand(4) if weighted and cls is not torch.nn.CrossEntropyLoss else None

    def gradient(p, y):
        return torch.func.grad(lambda p: loss(y, p, w))(p)

    if w is not None:
        traced = make_fx(lambda p, y, w: torch.func.grad(lambda p: loss(y, p, w))(p), tracing_mode="fake")(p, y, w)
        assert torch.equal(traced(p, y, w), gradient(p, y))
    else:
        traced = make_fx(gradient, tracing_mode="fake")(p, y)
        assert torch.equal(traced(p, y), gradient(p, y))


@pytest.mark.parametrize("cls", ALL)
def test_gradients(cls):
    y = t(0, 1, 1) if cls is losses.SparseCategoricalCrossentropy else torch.rand(3, 2, dtype=torch.float64)
    p = (torch.rand(3, 2, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: cls()(y, p), (p,))


# --- targets ----------------------------------------------------------------------------------------------------------

SPARSE, BINARY, CATEGORICAL, MSE = (
    losses.SparseCategoricalCrossentropy(),
    losses.BinaryCrossentropy(),
    losses.CategoricalCrossentropy(),
    losses.MeanSquaredError(),
)


@pytest.mark.parametrize(
    ("loss", "y", "shape"),
    [
        (SPARSE, np.array([0, 9]), (None, 10)),
        (SPARSE, np.array([[0], [9]], dtype="uint8"), (None, 10)),
        (SPARSE, np.array([0.0, 9.0]), (None, 10)),
        (SPARSE, torch.tensor([0, 9]), (None, 10)),
        (SPARSE, torch.tensor([0.0, 9.0], dtype=torch.bfloat16), (None, 10)),
        (SPARSE, np.zeros((2, 7), dtype=int), (None, 7, 10)),
        (SPARSE, np.zeros((2, 7, 1), dtype=int), (None, None, 10)),
        (SPARSE, np.array([10**6]), (None, None)),
        (losses.SparseCategoricalCrossentropy(ignore_class=255), np.array([0, 255]), (None, 10)),
        (losses.SparseCategoricalCrossentropy(axis=1), np.zeros((2, 7), dtype=int), (None, 10, 7)),
        (SPARSE, np.zeros((0,), dtype=int), (None, 10)),
        (BINARY, np.array([0, 1]), (None, 1)),
        (BINARY, np.array([[False], [True]]), (None, 1)),
        (BINARY, np.array([[0.0, 0.3]]), (None, 2)),
        (CATEGORICAL, np.array([[0, 1], [1, 0]]), (None, 2)),
        (CATEGORICAL, np.array([[0.3, 0.7]], dtype="float16"), (None, 2)),
        (MSE, np.array([1.0, -1e30]), (None, 1)),
        (MSE, np.array([[1.0], [2.0]]), (None, 1)),
        (MSE, np.array([[1.0], [2.0]]), (None,)),
        (losses.Huber(), np.zeros((3, 4, 5)), (None, 4, 5)),
        (losses.MeanAbsoluteError(), np.zeros((3, 4)), (None, None)),
        (losses.MeanSquaredLogarithmicError(), np.array([-5.0]), (None, 1)),
        (losses.MeanAbsolutePercentageError(), np.array([0]), (None, 1)),
        (losses.Hinge(), np.array([[False], [True]]), (None, 1)),
        (losses.SquaredHinge(), np.array([-1, 1]), (None, 1)),
        (losses.CategoricalHinge(), np.array([[0, 1]]), (None, 2)),
        (losses.KLDivergence(), np.array([[0.0, 1.1]]), (None, 2)),
        (losses.Poisson(), np.array([0, 7]), (None, 1)),
        (losses.CosineSimilarity(), np.zeros((2, 3)), (None, 3)),
    ],
)
def test_good_targets(loss, y, shape):
    loss.check_targets(y, shape, "y")


@pytest.mark.parametrize(
    ("loss", "y", "shape", "message"),
    [
        (SPARSE, [0, 1, 10], (None, 10), "labels: row 2 holds 10; expected class ids from 0 to 9"),
        (SPARSE, [0, -1], (None, 10), "labels: row 1 holds -1"),
        (SPARSE, [0.0, 1.5], (None, 10), r"labels: row 1 holds 1\.5"),
        (SPARSE, [np.nan], (None, 10), "labels: row 0 holds nan"),
        (SPARSE, [np.inf], (None, None), "labels: row 0 holds inf"),
        (SPARSE, [True, False], (None, 2), "dtype bool; expected class ids"),
        (SPARSE, [[0.0, 1.0]], (None, 2), "For one-hot targets, use CategoricalCrossentropy"),
        (SPARSE, [[0, 1, 1]], (None, 2), r"expected class ids of shape \(N,\) or \(N, 1\)"),
        (SPARSE, ["a", "b"], (None, 2), "expected numbers"),
        (losses.SparseCategoricalCrossentropy(ignore_class=255), [254], (None, 10), "or 255 to ignore a row"),
        (BINARY, [0.0, 1.5], (None, 1), r"labels: row 1 holds 1\.5; expected values within \[0, 1\]"),
        (BINARY, [-1, 1], (None, 1), "labels: row 0 holds -1"),
        (BINARY, [np.nan, 1], (None, 1), "labels: row 0 holds nan"),
        (BINARY, [0, 1], (None, 3), r"\(N, 3\) \(nothing is broadcast\). For one class id per row"),
        (CATEGORICAL, [[0.0, 1.0], [0.5, 0.6]], (None, 2), r"row 1 sums to 1\.1 over its 2 classes"),
        (CATEGORICAL, [[-0.5, 1.5]], (None, 2), r"row 0 holds -0\.5"),
        (CATEGORICAL, [[np.nan, 1.0]], (None, 2), "row 0 holds nan"),
        (CATEGORICAL, [0, 1], (None, 2), "For class ids, use SparseCategoricalCrossentropy"),
        (CATEGORICAL, [[1.0]], (None, 1), "the model's output has one class"),
        (MSE, [1.0, np.inf], (None, 1), "labels: row 1 holds inf; expected finite numbers"),
        (MSE, [[1.0, np.nan]], (None, 2), "labels: row 0 holds nan"),
        (MSE, [1.0, 2.0], (None, 2), r"labels has shape \(2,\), the model's output \(N, 2\)"),
        (MSE, [[1.0], [2.0]], (None, 2), "nothing is broadcast"),
        (MSE, [1 + 2j], (None, 1), "dtype complex128; expected numbers"),
        (losses.MeanAbsoluteError(), [[[1.0, 2.0]]], (None, 1), "nothing is broadcast"),
        (losses.Huber(), [np.nan], (None, 1), "row 0 holds nan"),
        (MSE, 1.0, (None, 1), "single number"),
        *[
            (cls(), [[1.0, np.nan]], (None, 2), "labels: row 0 holds nan; expected finite numbers")
            for cls in ALL
            if "Crossentropy" not in cls.__name__
        ],
        (losses.KLDivergence(), [0, 1], (None, 2), r"labels has shape \(2,\), the model's output \(N, 2\)"),
    ],
)
def test_bad_targets_are_named(loss, y, shape, message):
    with pytest.raises(DataError, match=message):
        loss.check_targets(np.array(y), shape, "labels")


def test_the_first_bad_row_is_found_beyond_the_first_chunk():
    y = np.zeros((1 << 20) + 10, dtype=np.int64)
    y[(1 << 20) + 5] = 7
    with pytest.raises(DataError, match=r"row 1048581 holds 7"):
        SPARSE.check_targets(y, (None, 5), "y")
    soft = np.full((1 << 19, 3), 1 / 3)
    soft[-1] = 0.9
    with pytest.raises(DataError, match=r"row 524287 sums to 2\.7"):
        CATEGORICAL.check_targets(soft, (None, 3), "y")


def test_custom_losses_ask_for_rows_only():
    loss = losses.resolve(lambda y_true, y_pred: y_pred - y_true)
    loss.check_targets(np.array([[np.nan, 5.0]]), (None, 3), "y")
    with pytest.raises(DataError, match="single number"):
        loss.check_targets(np.array(1.0), (None, 3), "y")


# --- functions and torch's losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("y", [t(0, 2), t([0], [2]), t(0.0, 2.0)], ids=["ids", "column", "floats"])
def test_torch_crossentropy_gets_its_order(y, reduction):
    logits = torch.randn(2, 3)
    loss = losses.get(torch.nn.CrossEntropyLoss(reduction=reduction))
    expected = torch.nn.functional.cross_entropy(logits, t(0, 2))
    torch.testing.assert_close(loss(y, logits), expected)


@pytest.mark.parametrize(
    "identifier",
    [torch.nn.BCELoss(), torch.nn.BCELoss, torch.nn.functional.binary_cross_entropy],
    ids=["instance", "class", "function"],
)
def test_torch_losses_in_any_form(identifier):
    y, p = t(1.0, 0.0), rows(0.3, 0.4)
    expected = losses.BinaryCrossentropy()(y, p)
    torch.testing.assert_close(losses.get(identifier)(y, p), expected)


def test_torch_losses_check_targets():
    ce = losses.get(torch.nn.CrossEntropyLoss())
    ce.check_targets(np.array([0, 1, -100]), (None, 2), "y")
    ce.check_targets(np.array([[0.5, 0.5]]), (None, 2), "y")
    with pytest.raises(DataError, match="row 1 holds 2"):
        ce.check_targets(np.array([0, 2]), (None, 2), "y")
    with pytest.raises(DataError, match="row 0 holds 3"):
        losses.get(torch.nn.BCELoss()).check_targets(np.array([3.0]), (None, 1), "y")
    with pytest.raises(DataError, match="row 0 holds nan"):
        losses.get(torch.nn.MSELoss()).check_targets(np.array([np.nan]), (None, 1), "y")
    losses.get(torch.nn.SoftMarginLoss()).check_targets(np.array([-1.0]), (None, 1), "y")


def test_torch_losses_with_other_arguments_are_refused():
    with pytest.raises(ValueError, match=r"takes \(anchor, positive, negative\)"):
        losses.get(torch.nn.TripletMarginLoss())


def test_torch_losses_refuse_broadcasting():
    with pytest.raises(ValueError, match="nothing is broadcast"):
        losses.get(torch.nn.MSELoss())(torch.zeros(3), torch.zeros(3, 3))


def test_a_function_is_wrapped_under_its_name():
    def gap(y_true, y_pred):
        return (y_true - y_pred).abs()

    loss = losses.resolve(gap)
    assert loss.name == "gap"
    assert loss(t(0.0, 1.0), rows(1.0, 1.0)).item() == 0.5
    assert losses.get(gap) is gap


# --- identifiers and configs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", losses.mean_squared_error),
        ("MSE", losses.mean_squared_error),
        ("mean_squared_error", losses.mean_squared_error),
        ("mae", losses.mean_absolute_error),
        ("MAE", losses.mean_absolute_error),
        ("bce", losses.binary_crossentropy),
        ("BCE", losses.binary_crossentropy),
        ("huber", losses.huber),
        ("mape", losses.mean_absolute_percentage_error),
        ("MSLE", losses.mean_squared_logarithmic_error),
        ("log_cosh", losses.log_cosh),
        ("kld", losses.kl_divergence),
        ("KLD", losses.kl_divergence),
        ("poisson", losses.poisson),
        ("hinge", losses.hinge),
        ("squared_hinge", losses.squared_hinge),
        ("categorical_hinge", losses.categorical_hinge),
        ("cosine_similarity", losses.cosine_similarity),
    ],
)
def test_names_of_functions_give_functions(name, expected):
    assert losses.get(name) is expected
    assert losses.resolve(name).name == expected.__name__
    assert type(losses.resolve(name)) is not losses.LossFunctionWrapper


@pytest.mark.parametrize("cls", ALL)
def test_classes_instances_and_configs(cls):
    assert type(losses.get(cls.__name__)) is cls
    assert type(losses.get(cls)) is cls
    loss = cls(name="mine", reduction="sum")
    assert losses.get(loss) is loss
    again = losses.get(json.loads(json.dumps(losses.serialize(loss))))
    assert again.get_config() == loss.get_config()
    assert type(again) is cls
    assert losses.serialize(loss)["module"] == "keras.losses"
    assert copy.deepcopy(loss).get_config() == loss.get_config()


def test_configs_carry_what_matters():
    loss = losses.Huber(delta=3.0, dtype="float64")
    again = losses.deserialize(losses.serialize(loss))
    assert (again.delta, again.dtype) == (3.0, "float64")
    assert losses.Huber().get_config() == {"name": "huber_loss", "reduction": "sum_over_batch_size"}
    assert losses.deserialize(losses.serialize(losses.SparseCategoricalCrossentropy(axis=1))).axis == 1
    assert losses.deserialize(losses.serialize(losses.CosineSimilarity(axis=1))).axis == 1
    assert losses.CosineSimilarity().get_config() == {"name": "cosine_similarity", "reduction": "sum_over_batch_size"}


def test_functions_are_saved_by_name():
    assert losses.serialize(losses.mean_squared_error) == "mean_squared_error"
    keras_form = {"module": "builtins", "class_name": "function", "config": "huber", "registered_name": "function"}
    assert losses.deserialize(keras_form) is losses.huber

    @register_keras_serializable("tests")
    def cubed(y_true, y_pred):
        return (y_true - y_pred).abs() ** 3

    loss = losses.resolve(cubed)
    again = losses.deserialize(json.loads(json.dumps(losses.serialize(loss))))
    assert again.fn is cubed
    assert again.get_config() == loss.get_config()


def test_what_is_no_loss():
    with pytest.raises(ValueError, match=r"Unknown loss 'mes'.*'mse'"):
        losses.get("mes")
    with pytest.raises(TypeError, match="Could not interpret loss identifier 5"):
        losses.get(5)
    with pytest.raises(MismatchError, match="Unknown class 'Nothing'"):
        losses.deserialize({"module": "keras.losses", "class_name": "Nothing", "config": {}})
    with pytest.raises(ValueError, match="cannot hold torch's MSELoss"):
        losses.serialize(losses.get(torch.nn.MSELoss()))
    with pytest.raises(TypeError, match="found None"):
        losses.resolve(None)
    assert losses.get(None) is None
    with pytest.raises(NotImplementedError, match="does not define call"):
        losses.Loss()(t(1.0), t(1.0))


@pytest.mark.parametrize(
    ("output", "y", "expected"),
    [
        ((None, 1), (8,), losses.BinaryCrossentropy),
        ((None, 10), (8,), losses.SparseCategoricalCrossentropy),
        ((None, 10), (8, 1), losses.SparseCategoricalCrossentropy),
        ((None, 10), (8, 10), losses.CategoricalCrossentropy),
    ],
)
def test_crossentropy_is_chosen_by_shapes(output, y, expected):
    for name in ("crossentropy", "ce", "CE"):
        assert type(losses.resolve(name, output, y)) is expected
    with pytest.raises(ValueError, match="chosen by shapes"):
        losses.resolve("ce")


def test_names_are_unique_where_none_is_given():
    assert [Given().name, Given().name] == ["given", "given_1"]
