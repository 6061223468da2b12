import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import r2_score
from torch.fx.experimental.proxy_tensor import make_fx

import fanin
from fanin import config, losses, metrics
from fanin.errors import MismatchError
from fanin.masks import set_mask
from fanin.registry import register_keras_serializable

IDS = torch.tensor([0, 2, 1, 2])
SCORES = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
ONE_HOT = torch.nn.functional.one_hot(IDS, 3).float()
YES = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
SAID = torch.tensor([[0.9], [0.6], [0.3], [0.7]])

# Every metric of the package, with targets and predictions that it takes.
CASES = {
    "MeanSquaredError": (metrics.MeanSquaredError, YES, SAID),
    "MeanAbsoluteError": (metrics.MeanAbsoluteError, YES, SAID),
    "RootMeanSquaredError": (metrics.RootMeanSquaredError, YES, SAID),
    "MeanAbsolutePercentageError": (metrics.MeanAbsolutePercentageError, YES, SAID),
    "MeanSquaredLogarithmicError": (metrics.MeanSquaredLogarithmicError, YES, SAID),
    "LogCoshError": (metrics.LogCoshError, YES, SAID),
    "CosineSimilarity": (metrics.CosineSimilarity, ONE_HOT, SCORES),
    "Poisson": (metrics.Poisson, YES, SAID),
    "KLDivergence": (metrics.KLDivergence, ONE_HOT, SCORES),
    "Hinge": (metrics.Hinge, 2 * YES - 1, SAID),
    "SquaredHinge": (metrics.SquaredHinge, 2 * YES - 1, SAID),
    "CategoricalHinge": (metrics.CategoricalHinge, ONE_HOT, SCORES),
    "Accuracy": (metrics.Accuracy, IDS, IDS.flip(0)),
    "BinaryAccuracy": (metrics.BinaryAccuracy, YES, SAID),
    "CategoricalAccuracy": (metrics.CategoricalAccuracy, ONE_HOT, SCORES),
    "SparseCategoricalAccuracy": (metrics.SparseCategoricalAccuracy, IDS, SCORES),
    "TopKCategoricalAccuracy": (lambda **k: metrics.TopKCategoricalAccuracy(2, **k), ONE_HOT, SCORES),
    "SparseTopKCategoricalAccuracy": (lambda **k: metrics.SparseTopKCategoricalAccuracy(2, **k), IDS, SCORES),
    "BinaryCrossentropy": (metrics.BinaryCrossentropy, YES, SAID),
    "CategoricalCrossentropy": (metrics.CategoricalCrossentropy, ONE_HOT, SCORES),
    "SparseCategoricalCrossentropy": (metrics.SparseCategoricalCrossentropy, IDS, SCORES),
    "ignore_class": (lambda **k: metrics.SparseCategoricalCrossentropy(ignore_class=2, **k), IDS, SCORES),
    "Precision": (metrics.Precision, YES, SAID),
    "Precision at 3": (lambda **k: metrics.Precision(thresholds=[0.2, 0.5, 0.9], **k), YES, SAID),
    "Precision at even": (lambda **k: metrics.Precision(thresholds=[0.0, 0.5, 1.0], **k), YES, SAID),
    "Recall": (metrics.Recall, YES, SAID),
    "Recall top_k": (lambda **k: metrics.Recall(top_k=1, class_id=2, **k), ONE_HOT, SCORES),
    "TruePositives": (metrics.TruePositives, YES, SAID),
    "FalsePositives at 3": (lambda **k: metrics.FalsePositives(thresholds=[0.2, 0.5, 0.9], **k), YES, SAID),
    "TrueNegatives at even": (lambda **k: metrics.TrueNegatives(thresholds=[0.0, 0.5, 1.0], **k), YES, SAID),
    "FalseNegatives": (metrics.FalseNegatives, YES, SAID),
    "AUC": (metrics.AUC, YES, SAID),
    "AUC PR": (lambda **k: metrics.AUC(curve="PR", **k), YES, SAID),
    "AUC PRGAIN": (lambda **k: metrics.AUC(curve="PRGAIN", **k), YES, SAID),
    "AUC minoring": (lambda **k: metrics.AUC(summation_method="minoring", thresholds=[0.5, 0.8], **k), YES, SAID),
    "function": (lambda **k: metrics.MeanMetricWrapper(lambda a, b: (a - b).abs(), **k), YES, SAID),
    "loss": (lambda **k: metrics.MeanMetricWrapper(losses.Huber(), **k), YES, SAID),
}
PURE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
BUILT_IN = [name for name in metrics.__all__ if isinstance(getattr(metrics, name), type)]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "y_true", "y_pred", "expected"),
    [
        (metrics.MeanSquaredError(), [[0.0, 1.0]], [[2.0, 2.0]], 2.5),
        (metrics.MeanAbsoluteError(), [0.0, 1.0], [[2.0], [2.0]], 1.5),
        (metrics.RootMeanSquaredError(), [[0.0, 0.0]], [[3.0, 4.0]], math.sqrt(12.5)),
        (metrics.MeanAbsolutePercentageError(), [2.0, 4.0], [[1.0], [4.0]], 25.0),
        (metrics.MeanSquaredLogarithmicError(), [[0.0, 1.0]], [[0.0, 3.0]], math.log(2) ** 2 / 2),
        (metrics.LogCoshError(), [[0.0], [0.0]], [[1.0], [-1.0]], math.log(math.cosh(1))),
        (metrics.CosineSimilarity(), [[3.0, 4.0], [1.0, 0.0]], [[8.0, 6.0], [-2.0, 0.0]], (0.96 - 1.0) / 2),
        (metrics.CosineSimilarity(axis=0), [[3.0], [4.0]], [[8.0], [6.0]], 0.96),
        (metrics.KLDivergence(), [[0.5, 0.5]], [[0.25, 0.75]], 0.5 * math.log(4 / 3)),
        (metrics.Poisson(), [[2.0]], [[math.e]], math.e - 2),
        (metrics.Hinge(), [[0.0], [1.0]], [[0.5], [0.25]], (1.5 + 0.75) / 2),
        (metrics.SquaredHinge(), [[-1.0], [1.0]], [[0.5], [0.5]], (2.25 + 0.25) / 2),
        (metrics.CategoricalHinge(), [[0.0, 1.0]], [[0.5, 0.75]], 0.75),
        (metrics.R2Score(), [1.0, 4.0, 3.0], [[2.0], [4.0], [4.0]], 1 - 2 / (14 / 3)),
        (metrics.R2Score(num_regressors=1), [1.0, 4.0, 3.0], [2.0, 4.0, 4.0], 1 - 2 / (14 / 3) * 2 / 1),
        (metrics.R2Score(num_regressors=2), [1.0, 4.0, 3.0], [2.0, 4.0, 4.0], 1 - 2 / (14 / 3)),
        (metrics.Accuracy(), [[1], [2]], [1, 3], 0.5),
        (metrics.BinaryAccuracy(), YES, SAID, 0.5),
        (metrics.BinaryAccuracy(threshold=0.65), YES, SAID, 0.75),
        (metrics.CategoricalAccuracy(), ONE_HOT, SCORES, 0.75),
        (metrics.SparseCategoricalAccuracy(), IDS, SCORES, 0.75),
        (metrics.SparseCategoricalAccuracy(), IDS.unsqueeze(1).float(), SCORES, 0.75),
        (metrics.TopKCategoricalAccuracy(k=1), ONE_HOT, SCORES, 0.75),
        (metrics.SparseTopKCategoricalAccuracy(k=2), IDS, SCORES, 0.75),
        (metrics.SparseTopKCategoricalAccuracy(k=5), IDS, SCORES, 1.0),
        (metrics.SparseTopKCategoricalAccuracy(k=2, from_sorted_ids=True), [3, 1], [[2, 3, 1], [0, 2, 1]], 0.5),
        (metrics.BinaryCrossentropy(), [[1.0]], [[0.25]], -math.log(0.25)),
        (metrics.BinaryCrossentropy(from_logits=True), [[1.0]], [[0.0]], math.log(2)),
        (metrics.CategoricalCrossentropy(label_smoothing=1.0), [[0.0, 1.0]], [[0.5, 0.5]], math.log(2)),
        (metrics.SparseCategoricalCrossentropy(), [1], [[0.25, 0.75]], -math.log(0.75)),
        (metrics.Precision(), YES, SAID, 2 / 3),
        (metrics.Recall(), YES, SAID, 2 / 3),
        (metrics.Precision(thresholds=0.95), YES, SAID, 0.0),
        (metrics.Precision(top_k=1), ONE_HOT, SCORES, 0.75),
        (metrics.Recall(class_id=2), ONE_HOT, SCORES, 0.0),
        (metrics.Recall(class_id=2, thresholds=0.4), ONE_HOT, SCORES, 0.5),
        (metrics.TruePositives(), YES, SAID, 2.0),
        (metrics.FalsePositives(), YES, SAID, 1.0),
        (metrics.FalsePositives(thresholds=0.6), YES, torch.tensor([[0.9], [0.5], [0.3], [0.7]]), 0.0),
        (metrics.TrueNegatives(0.7), YES, SAID, 1.0),
        (metrics.FalseNegatives(), YES, SAID, 1.0),
        (metrics.AUC(), YES, SAID, 2 / 3),
        (metrics.AUC(from_logits=True), YES, torch.logit(SAID), 2 / 3),
        (metrics.AUC(), [0, 1], [0.1, 0.9], 1.0),
    ],
    ids=repr,
)
def test_closed_forms(metric, y_true, y_pred, expected):
    assert metric(y_true, y_pred).item() == pytest.approx(expected, rel=1e-6)


def test_several_thresholds_give_several_results():
    metric = metrics.Precision(thresholds=[0.8, 0.2])  # in the order given
    assert metric(YES, SAID).tolist() == [1.0, 0.75]
    assert metrics.Recall(thresholds=[0.8, 0.2])(YES, SAID).tolist() == pytest.approx([1 / 3, 1.0])


KINDS = {
    "TruePositives": lambda y, said: y & said,
    "FalsePositives": lambda y, said: ~y & said,
    "TrueNegatives": lambda y, said: ~y & ~said,
    "FalseNegatives": lambda y, said: y & ~said,
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "thresholds", [None, 0.25, [0.7], [0.3, 0.6], [0.0, 0.5, 1.0], np.array([0.0, 0.25, 0.5, 0.75, 1])]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_counts_are_sums_of_weights(name, thresholds, weighted):
    rng = np.random.default_rng(0)
    y, p = rng.random((50, 3)) < 0.4, rng.integers(0, 9, (50, 3)) / np.float32(8)  # also on thresholds
    w = rng.integers(0, 8, (50, 3)) / 4.0 if weighted else np.ones((50, 3))  # sums of quarters are exact
    metric = getattr(metrics, name)(thresholds)
    for part in (slice(0, 20), slice(20, 50)):
        metric.update_state(y[part].astype("int32"), p[part], w[part] if weighted else None)
    each = [0.5] if thresholds is None else np.atleast_1d(thresholds).tolist()
    expected = [float(w[KINDS[name](y, p > np.float32(limit))].sum()) for limit in each]
    assert metric.result().tolist() == (expected[0] if len(each) == 1 else expected)
    assert metric.thresholds == each


def test_the_four_counts_add_up_and_make_precision_and_recall():
    tp, fp, tn, fn = (getattr(metrics, name)()(YES, SAID).item() for name in KINDS)
    assert tp + fp + tn + fn == len(YES)
    assert metrics.Precision()(YES, SAID).item() == pytest.approx(tp / (tp + fp))
    assert metrics.Recall()(YES, SAID).item() == pytest.approx(tp / (tp + fn))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(None, "raw_values"), ("uniform_average", "uniform_average"), ("variance_weighted_average", "variance_weighted")],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_r2_is_that_of_scikit_learn(ours, theirs, weighted):
    rng = np.random.default_rng(0)
    y = rng.normal(1000, [1, 2, 0.1], (300, 3))
    p = y + rng.normal(0, 1, y.shape)
    w = rng.integers(0, 3, 300).astype("float64") if weighted else None
    metric = metrics.R2Score(ours, dtype="float64")
    for start in range(0, 300, 70):
        part = slice(start, start + 70)
        metric.update_state(y[part], p[part], None if w is None else w[part])
    expected = r2_score(y, p, sample_weight=w, multioutput=theirs)
    # Sums of squares of 1000 against a variance of 0.01: 1e8 times the rounding of float64.
    np.testing.assert_allclose(metric.result().numpy(), expected, rtol=1e-6)
    assert metric.state["num_samples"].item() == 900  # as Keras counts


def test_r2_of_targets_that_are_all_alike():
    metric = metrics.R2Score()
    assert metric.result().item() == 0.0
    alike = torch.full((100, 1), 0.1)
    assert metric(alike, alike).item() == 1.0
    assert metric(alike, alike + 1).item() == 0.0
    metric.reset_state()
    for rows in range(1, 60):  # sums that float64 has to round
        metric.update_state(torch.full((rows, 1), 0.1, dtype=torch.float64), torch.zeros(rows, 1), [1 / rows] * rows)
    assert metric.result().item() == 0.0
    metric.reset_state()
    assert metric(torch.zeros(2, 3), torch.zeros(2, 3), [0.0, 0.0]).item() == 0.0
    with pytest.raises(ValueError, match="counted 3 outputs, and now 2"):
        metric.update_state(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"predictions of shape \(B, U\), found \(2, 2, 2\)"):
        metrics.R2Score().update_state(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))


def test_r2_leaves_out_what_a_mask_hides():
    y, p = torch.tensor([[1.0], [4.0], [3.0], [9.0]]), torch.tensor([[2.0], [4.0], [4.0], [float("nan")]])
    set_mask(p, torch.tensor([True, True, True, False]))
    metric = metrics.R2Score(num_regressors=1)
    assert metric(y, p).item() == pytest.approx(1 - 2 / (14 / 3) * 2 / 1)


def test_the_cosine_metric_grows_and_the_loss_of_its_name_falls():
    assert metrics.get("cosine_similarity").direction == "max"
    loss = metrics.get(losses.cosine_similarity)
    assert (loss.direction, loss.name) == ("min", "cosine_similarity")
    assert metrics.get(losses.CosineSimilarity()).direction == "min"
    assert loss([[0.0, 1.0]], [[0.0, 3.0]]).item() == -1.0
    assert metrics.get("cosine_similarity")([[0.0, 1.0]], [[0.0, 3.0]]).item() == 1.0


def test_the_functions_of_losses_are_here_too():
    assert metrics.mean_squared_error is losses.mean_squared_error
    assert metrics.hinge is losses.hinge


def test_auc_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(500, generator=generator) < 0.4).float()
    p = (torch.randint(0, 199, (500,), generator=generator) + 0.5) / 199  # never on a threshold
    above = p[y == 1].unsqueeze(1) - p[y == 0].unsqueeze(0)
    expected = (above > 0).float().mean() + 0.5 * (above == 0).float().mean()
    assert metrics.AUC()(y, p).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("curve", ["ROC", "PR", "PRGAIN"])
@pytest.mark.parametrize("method", ["interpolation", "minoring", "majoring"])
@pytest.mark.parametrize("thresholds", [None, [0.1, 0.3, 0.35, 0.9]])
def test_the_auc_of_several_labels_is_the_mean_of_theirs(curve, method, thresholds):
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(60, 3, generator=generator) < 0.4).float()
    p, weight = torch.rand(60, 3, generator=generator), torch.rand(60, generator=generator)
    options = {"curve": curve, "summation_method": method, "thresholds": thresholds}
    each = [metrics.AUC(**options)(y[:, i], p[:, i], weight).item() for i in range(3)]
    for known in (None, 3):
        auc = metrics.AUC(**options, multi_label=True, num_labels=known)
        weighted = metrics.AUC(**options, multi_label=True, num_labels=known, label_weights=[1, 0.5, 0])
        for metric, expected in ((auc, sum(each) / 3), (weighted, (each[0] + 0.5 * each[1]) / 1.5)):
            assert metric.result().item() == metrics.AUC(**options).result().item()  # of nothing
            for part in (slice(0, 17), slice(17, 60)):
                metric.update_state(y[part], p[part], weight[part])
            assert metric.result().item() == pytest.approx(expected, rel=1e-6)


def test_numbers_of_labels_that_differ_are_refused():
    auc = metrics.AUC(name="auc", multi_label=True)
    auc(torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"^auc counts 3 labels, found predictions of shape \(4, 2\)"):
        auc(torch.ones(4, 2), torch.ones(4, 2))
    auc.reset_state()
    auc(torch.ones(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"^a counts 2 labels, found predictions of shape \(4, 3\)"):
        metrics.AUC(name="a", multi_label=True, num_labels=2)(torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"^a with multi_label takes predictions of shape \(B, L\), found \(4,\)"):
        metrics.AUC(name="a", multi_label=True)(torch.ones(4), torch.ones(4))
    with pytest.raises(ValueError, match=r"^a has 2 label_weights, found predictions \(4, 3\)"):
        metrics.AUC(name="a", label_weights=[1, 2])(torch.ones(4, 3), torch.ones(4, 3))


@pytest.mark.parametrize("known", [None, 2])
def test_fit_counts_labels_apart(known):
    x, y = torch.rand(50, 4), (torch.rand(50, 2) < 0.5).float()
    model = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(2, "sigmoid")])
    auc = metrics.AUC(name="auc", multi_label=True, num_labels=known)
    model.compile("sgd", "binary_crossentropy", metrics=[auc])
    history = model.fit(x, y, batch_size=16, epochs=2, validation_data=(x, y), verbose=0).history
    expected = [metrics.AUC()(y[:, i], torch.as_tensor(model.predict(x, verbose=0))[:, i]).item() for i in range(2)]
    assert history["val_auc"][-1] == pytest.approx(sum(expected) / 2, rel=1e-6)
    assert model.evaluate(x, y, return_dict=True, verbose=0)["auc"] == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_precision_over_recall_is_interpolated_by_counts():
    # Above 0: 3 right of 4; above 0.5: 2 of 3. Between them precision is (4 - 1 - n) / (4 - n) for n in [0, 1].
    expected = (1 - math.log(4 / 3)) / 3 + 2 / 3 * 2 / 3
    assert metrics.AUC(num_thresholds=3, curve="PR")(YES, SAID).item() == pytest.approx(expected)


def test_predictions_that_are_not_numbers_do_not_stop_a_run():
    nan = torch.full((4, 1), float("nan"))
    assert metrics.AUC()(YES, nan).item() == 0.5  # all alike
    assert math.isnan(metrics.BinaryCrossentropy()(YES, nan).item())
    assert metrics.Recall()(YES, nan).item() == 0.0
    assert metrics.Recall(thresholds=[0.0, 0.5, 1.0])(YES, nan).tolist() == [0.0, 0.0, 0.0]


def test_nothing_counted_is_zero():
    for name in ("AUC", "Precision", "MeanSquaredError", "SparseCategoricalAccuracy", "AUC PR"):
        assert CASES[name][0]().result().item() == 0.0


# --- weights and batches ----------------------------------------------------------------------------------------------


@PURE
def test_many_batches_are_one(case):
    make, y, p = case
    whole, parts = make(), make()
    w = torch.tensor([1.0, 2.0, 0.0, 0.5])
    whole.update_state(y, p, w)
    for rows in (slice(0, 3), slice(3, 4)):
        parts.update_state(y[rows], p[rows], sample_weight=w[rows])
    torch.testing.assert_close(parts.result(), whole.result())


@PURE
def test_a_weight_of_two_is_the_row_twice_and_of_zero_the_row_gone(case):
    make, y, p = case
    weighted, repeated = make(), make()
    weighted.update_state(y, p, [2.0, 0.0, 1.0, 1.0])
    again = torch.tensor([0, 0, 2, 3])
    repeated.update_state(y[again], p[again])
    torch.testing.assert_close(weighted.result(), repeated.result())
    column = make()
    column.update_state(y, p, [[2.0], [0.0], [1.0], [1.0]])
    torch.testing.assert_close(column.result(), repeated.result())


def test_weights_on_inner_dimensions():
    y, p = torch.zeros(2, 2, 1), torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]])
    metric = metrics.MeanAbsoluteError()
    assert metric(y, p, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).item() == 1.0
    metric.reset_state()
    assert metric(y, p, [0.0, 1.0]).item() == 6.0


def test_ignored_rows_never_count():
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=-1)
    assert metric([1, -1], [[0.5, 0.5], [0.9, 0.1]]).item() == pytest.approx(math.log(2))
    metric.reset_state()
    assert metric([1, -1], [[0.5, 0.5], [0.9, 0.1]], [3.0, 1.0]).item() == pytest.approx(math.log(2))


def test_a_function_with_one_number_for_a_batch_counts_by_rows():
    metric = metrics.get(lambda y_true, y_pred: (y_true - y_pred).abs().mean())
    metric.update_state(torch.zeros(3, 1), torch.ones(3, 1))
    metric.update_state(torch.zeros(1, 1), torch.full((1, 1), 5.0))
    assert metric.result().item() == 2.0


def test_sums_over_many_rows_do_not_drift():
    metric = metrics.BinaryAccuracy()
    variables = {"total": torch.tensor(2.0**24, dtype=torch.float64), "count": torch.tensor(2.0**24).double()}
    for _ in range(100):
        variables = metric.update(variables, [1.0], [1.0])
    assert variables["total"].item() == 2**24 + 100
    assert metric.compute(variables).item() == 1.0


@pytest.mark.parametrize(
    ("metric", "y", "p"),
    [
        (metrics.Accuracy(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.BinaryAccuracy(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.CategoricalAccuracy(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.SparseCategoricalAccuracy(), torch.zeros(3, 3), torch.zeros(3, 3)),
        (metrics.TopKCategoricalAccuracy(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.SparseTopKCategoricalAccuracy(), torch.zeros(3, 3), torch.zeros(3, 3)),
        (metrics.MeanSquaredError(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.AUC(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.TruePositives(), torch.zeros(3), torch.zeros(3, 3)),
        (metrics.Precision(class_id=0), torch.zeros(3), torch.zeros(3)),
    ],
    ids=repr,
)
def test_shapes_that_do_not_fit(metric, y, p):
    with pytest.raises(ValueError, match=r"shape"):
        metric.update_state(y, p)


def test_weights_that_do_not_fit():
    for metric in (metrics.BinaryAccuracy(), metrics.AUC()):
        with pytest.raises(ValueError, match="sample_weight of shape"):
            metric.update_state(YES, SAID, [1.0, 2.0])


# --- the pure core ----------------------------------------------------------------------------------------------------


@PURE
def test_update_is_pure(case):
    make, y, p = case
    metric = make()
    before = metric.init_variables()
    kept = {name: value.clone() for name, value in before.items()}
    after = metric.update(before, y, p)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, kept[name])
        assert after[name].shape == value.shape
        assert after[name].dtype == value.dtype == torch.float64
    metric.update_state(y, p)
    torch.testing.assert_close(metric.result(), metric.compute(after))


@pytest.mark.parametrize("weighted", [False, True])
@PURE
def test_a_trace_under_fake_tensors_is_the_update(case, weighted):
    make, y, p = case
    metric = make()
    assert metric.traceable
    w = (torch.tensor([1.0, 2.0, 0.0, 0.5]),) if weighted else ()
    start = metric.update(metric.init_variables(), y, p)
    traced = make_fx(lambda *args: metric.update(*args), tracing_mode="fake")(start, y, p, *w)
    y2, p2 = y.flip(0).contiguous(), p.flip(0).contiguous()
    expected = metric.update(start, y2, p2, *w)
    found = traced(start, y2, p2, *w)
    for name, value in expected.items():
        assert torch.equal(found[name], value)


# --- the stateful face ------------------------------------------------------------------------------------------------


@PURE
def test_reset_copy_pickle(case):
    make, y, p = case
    metric = make()
    metric.update_state(y, p)
    first = metric.result()
    twin = copy.deepcopy(metric)
    metric.reset_states()
    assert all((v == 0).all() for v in metric.variables)
    assert torch.equal(twin.result(), first)
    metric.update_state(y, p)
    assert torch.equal(metric.result(), first)


def test_state_can_be_put_back():
    metric, other = metrics.Precision(name="p"), metrics.Precision(name="p")
    metric.update_state(YES, SAID)
    other.state = metric.state
    assert torch.equal(other.result(), metric.result())
    assert [v.tolist() for v in metric.variables] == [[2.0], [1.0]]
    assert torch.equal(pickle.loads(pickle.dumps(metric)).result(), metric.result())


def test_a_metric_keeps_no_graph():
    pred = SAID.clone().requires_grad_()
    metric = metrics.MeanSquaredError()
    metric.update_state(YES, pred)
    assert not metric.variables[0].requires_grad


def test_mean_of_values():
    mean = metrics.Mean()
    mean.update_state([1.0, 3.0])
    mean.update_state(8.0)
    assert mean.result().item() == 4.0
    mean.update_state([[1.0, 3.0]], sample_weight=[2.0])
    assert mean.result().item() == pytest.approx(16.0 / 5)


def test_result_dtype():
    assert metrics.MeanSquaredError()(YES, SAID).dtype == torch.float32
    assert metrics.MeanSquaredError(dtype="float64")(YES, SAID).dtype == torch.float64
    config.set_floatx("float64")
    assert metrics.AUC().dtype == "float64"


def test_a_subclass_with_keras_methods_alone_is_not_traced():
    class Rows(metrics.Metric):
        seen = 0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen += len(y_pred)

        def result(self):
            return torch.tensor(float(self.seen))

        def reset_state(self):
            self.seen = 0

    metric = Rows()
    assert not metric.traceable
    assert metric(YES, SAID).item() == 4.0
    assert metric.name == "rows"
    assert metrics.get(metric) is metric


def test_a_subclass_must_say_what_it_does():
    metric = metrics.Metric()
    for call in (metric.init_variables, lambda: metric.update({}, 0, 0), lambda: metric.compute({})):
        with pytest.raises(NotImplementedError, match="Metric does not define"):
            call()


# --- identifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in BUILT_IN if n not in ("Metric", "MeanMetricWrapper", "TorchMetric")])
def test_names_classes_instances_configs(name):
    cls = getattr(metrics, name)
    assert type(metrics.get(name)) is cls
    assert type(metrics.get(cls)) is cls
    metric = cls(name="mine")
    assert metrics.get(metric) is metric
    form = json.loads(json.dumps(metrics.serialize(metric)))
    assert (form["module"], form["class_name"], form["registered_name"]) == ("keras.metrics", name, None)
    again = metrics.get(form)
    assert type(again) is cls
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("alias", "cls"),
    [
        ("mse", metrics.MeanSquaredError),
        ("MSE", metrics.MeanSquaredError),
        ("mae", metrics.MeanAbsoluteError),
        ("MAE", metrics.MeanAbsoluteError),
        ("bce", metrics.BinaryCrossentropy),
        ("BCE", metrics.BinaryCrossentropy),
        ("mape", metrics.MeanAbsolutePercentageError),
        ("MAPE", metrics.MeanAbsolutePercentageError),
        ("msle", metrics.MeanSquaredLogarithmicError),
        ("MSLE", metrics.MeanSquaredLogarithmicError),
        ("log_cosh_error", metrics.LogCoshError),
        ("kl_divergence", metrics.KLDivergence),
        ("hinge", metrics.Hinge),
        ("r2_score", metrics.R2Score),
        ("auc", metrics.AUC),
        ("true_positives", metrics.TruePositives),
        ("top_k_categorical_accuracy", metrics.TopKCategoricalAccuracy),
        ("accuracy", metrics.Accuracy),
    ],
)
def test_aliases(alias, cls):
    assert type(metrics.get(alias)) is cls
    if alias != "accuracy":
        resolved = metrics.resolve(alias)
        assert (type(resolved), resolved.name) == (cls, alias)


@pytest.mark.parametrize(
    ("output", "y", "kind"),
    [
        ((None, 1), (8,), "Binary"),
        ((None, 1), (8, 1), "Binary"),
        ((None, 10), (8,), "SparseCategorical"),
        ((None, 10), (8, 1), "SparseCategorical"),
        ((None, 10), (8, 10), "Categorical"),
        ((None, 5, 10), (8, 5), "SparseCategorical"),
    ],
)
def test_accuracy_is_chosen_by_shapes(output, y, kind):
    for name in ("accuracy", "acc", "Accuracy", "ACC"):
        metric = metrics.resolve(name, output, y)
        assert (type(metric).__name__, metric.name) == (kind + "Accuracy", name)
    for name in ("crossentropy", "ce"):
        metric = metrics.resolve(name, output, y)
        assert (type(metric).__name__, metric.name) == (kind + "Crossentropy", name)
    with pytest.raises(ValueError, match="chosen by shapes"):
        metrics.resolve("acc")


def test_functions_and_losses_become_means():
    def gap(y_true, y_pred):
        return (y_true - y_pred).abs()

    metric = metrics.get(gap)
    assert metric.name == "gap"
    assert metric(YES, SAID).item() == pytest.approx(1.7 / 4)
    assert metrics.get("huber").name == "huber"
    assert metrics.get(losses.Huber(2.0))(YES, SAID).item() == metrics.get("huber")(YES, SAID).item()
    weighted = metrics.get(losses.Huber())
    assert weighted(YES, SAID, [0.0, 1.0, 0.0, 0.0]).item() == pytest.approx(0.18)
    torch_metric = metrics.get(torch.nn.L1Loss(reduction="none"))
    assert torch_metric(YES, SAID).item() == pytest.approx(1.7 / 4)
    assert {m.direction for m in (weighted, torch_metric, metrics.get("huber"))} == {"min"}


def test_functions_are_saved_when_they_are_known():
    metric = metrics.get(metrics.binary_accuracy)
    again = metrics.get(json.loads(json.dumps(metrics.serialize(metric))))
    assert (again.fn, again.name) == (metrics.binary_accuracy, "binary_accuracy")

    @register_keras_serializable("tests")
    def mine(y_true, y_pred, factor=1.0):
        return factor * (y_true - y_pred)

    metric = metrics.MeanMetricWrapper(mine, "mine", factor=2.0)
    again = metrics.deserialize(json.loads(json.dumps(metrics.serialize(metric))))
    assert (again.fn, again.kwargs) == (mine, {"factor": 2.0})
    with pytest.raises(ValueError, match="Cannot save a lambda"):
        metrics.serialize(metrics.get(lambda y_true, y_pred: y_pred))


def test_the_functions():
    assert metrics.accuracy([1, 2], [[1], [3]]).tolist() == [[1.0], [0.0]]
    assert metrics.binary_accuracy([1, 0], [0.4, 0.4], threshold=0.3).tolist() == [1.0, 0.0]
    assert metrics.categorical_accuracy(ONE_HOT.bool(), SCORES).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert metrics.sparse_categorical_accuracy(IDS.unsqueeze(1), SCORES).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert metrics.top_k_categorical_accuracy(ONE_HOT, SCORES, k=2).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert metrics.sparse_top_k_categorical_accuracy(IDS, SCORES, k=3).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_what_is_no_metric():
    with pytest.raises(ValueError, match=r"Unknown metric 'acuracy'.*'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(TypeError, match="Could not interpret metric identifier 5"):
        metrics.get(5)
    with pytest.raises(MismatchError, match="Unknown class 'Nothing'"):
        metrics.get({"module": "keras.metrics", "class_name": "Nothing", "config": {}})
    with pytest.raises(TypeError, match="found None"):
        metrics.resolve(None)
    assert metrics.get(None) is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.AUC(curve="RUC"), ValueError, r"Unknown curve 'RUC'.*'ROC'"),
        (lambda: metrics.AUC(summation_method="x"), ValueError, "Unknown summation_method"),
        (lambda: metrics.AUC(num_thresholds=1), ValueError, r"num_thresholds must be .* 2 or more, found 1"),
        (lambda: metrics.AUC(thresholds=[0.5, 1.5]), ValueError, r"\[0, 1\], found 1.5"),
        (lambda: metrics.AUC(multi_label="yes"), ValueError, "multi_label must be True or False, found 'yes'"),
        (lambda: metrics.AUC(multi_label=True, num_labels=0), ValueError, "num_labels must be a positive integer"),
        (lambda: metrics.AUC(num_labels=2), ValueError, "num_labels goes with multi_label=True, found 2"),
        (lambda: metrics.AUC(label_weights=[1.0, -1.0]), ValueError, "label_weights must be .* found -1.0"),
        (lambda: metrics.Precision(thresholds=[]), ValueError, "at least one threshold"),
        (lambda: metrics.Precision(thresholds=-0.1), ValueError, "found -0.1"),
        (lambda: metrics.TruePositives(thresholds=[]), ValueError, "at least one threshold"),
        (lambda: metrics.FalsePositives("a"), ValueError, "thresholds must be a number in .* found 'a'"),
        (lambda: metrics.TrueNegatives([0.5, None]), ValueError, "found None"),
        (lambda: metrics.FalseNegatives(1.5), ValueError, "found 1.5"),
        (lambda: metrics.Recall(top_k=0), ValueError, "top_k must be"),
        (lambda: metrics.Recall(class_id=True), ValueError, "class_id must be"),
        (lambda: metrics.BinaryAccuracy(threshold="x"), ValueError, "threshold must be a finite number"),
        (lambda: metrics.CosineSimilarity(axis=0.5), ValueError, "axis must be an int"),
        (lambda: metrics.R2Score("mean"), ValueError, "Unknown class_aggregation 'mean'.*'uniform_average'"),
        (lambda: metrics.R2Score(num_regressors=-1), ValueError, "num_regressors must be a whole number of 0 or more"),
        (lambda: metrics.TopKCategoricalAccuracy(k=0), ValueError, "k must be a positive integer"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", "max"),
        ("val_acc", "max"),
        ("sparse_top_k_categorical_accuracy", "max"),
        ("auc_3", "max"),
        ("AUC", "max"),
        ("out_precision", "max"),
        ("recall", "max"),
        ("f1", "max"),
        ("F1Score", "max"),
        ("loss", "min"),
        ("val_loss", "min"),
        ("mse", "min"),
        ("MAE", "min"),
        ("root_mean_squared_error", "min"),
        ("val_binary_crossentropy", "min"),
        ("ce", "min"),
        ("val_cosine_similarity", "max"),
        ("R2Score", "max"),
        ("logcosh", "min"),
        ("out_squared_hinge", "min"),
        ("val_kld", "min"),
        ("val_true_positives_1", "max"),
        ("TrueNegatives", "max"),
        ("false_positives", "min"),
        ("out_false_negatives", "min"),
        ("gap", None),
        ("once", None),
    ],
)
def test_direction(name, expected):
    assert metrics.direction(name) == expected


@PURE
def test_every_metric_knows_its_direction(case):
    metric = case[0](name="x")
    if not isinstance(metric, metrics.MeanMetricWrapper) or type(metric) is not metrics.MeanMetricWrapper:
        assert metrics.direction(metric) in ("max", "min")


# --- torchmetrics -----------------------------------------------------------------------------------------------------


def test_torchmetrics_for_classes():
    metric = metrics.get(torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro"))
    assert (metric.traceable, metric.direction, metric.name) == (False, "max", "multiclass_accuracy")
    for y in (IDS, IDS.unsqueeze(1), IDS.float()):
        metric.reset_state()
        metric.update_state(y[:2], SCORES[:2])
        metric.update_state(y[2:], SCORES[2:])
        assert metric.result().item() == 0.75
    with pytest.raises(ValueError, match="cannot weigh samples"):
        metric.update_state(IDS, SCORES, [1.0] * 4)
    with pytest.raises(ValueError, match="A file cannot hold the metric MulticlassAccuracy"):
        metrics.serialize(metric)


def test_torchmetrics_for_numbers():
    metric = metrics.get(torchmetrics.MeanSquaredError)
    assert metric.direction == "min"
    assert metric(YES.squeeze(1), SAID).item() == pytest.approx(metrics.MeanSquaredError()(YES, SAID).item())
    binary = metrics.get(torchmetrics.classification.BinaryAUROC())
    assert binary(YES.squeeze(1), SAID).item() == pytest.approx(2 / 3)


def test_anything_with_the_three_methods_will_do():
    class Largest:
        def __init__(self):
            self.value = 0.0

        def update(self, preds, target):
            self.value = max(self.value, (preds - target).abs().max().item())

        def compute(self):
            return self.value

        def reset(self):
            self.value = 0.0

    metric = metrics.get(Largest())
    assert metric(YES, SAID).item() == pytest.approx(0.7)
    assert (metric.direction, metric.init_variables()) == (None, {})
    metric.reset_state()
    assert metric.result().item() == 0.0


def test_names_are_unique_where_keras_makes_them_so():
    assert [metrics.AUC().name, metrics.AUC().name, metrics.Recall().name] == ["auc", "auc_1", "recall"]
    assert np.isclose(metrics.AUC().thresholds[0], -1e-7)


def test_a_metric_written_as_for_keras():
    class Largest(metrics.Metric):
        def __init__(self, name="largest", **kwargs):
            super().__init__(name=name, **kwargs)
            self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")
            self.rows = self.add_weight(shape=(2,), initializer="ones", dtype="int32")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.copy_(torch.maximum(self.seen, (y_pred - y_true).abs().max()))
            self.rows.add_(len(y_pred))

        def result(self):
            return self.seen

    metric = Largest()
    assert not metric.traceable
    assert metric.rows.dtype == torch.int32
    predicted = torch.tensor([1.0, -3.0], requires_grad=True)
    metric.update_state(torch.zeros(2), predicted)
    metric.update_state(torch.zeros(2), predicted / 2)
    assert metric.result().item() == 3.0
    assert not metric.result().requires_grad  # nothing of the graph is kept
    assert metric.rows.tolist() == [5, 5]
    assert [id(v) for v in metric.variables] == [id(metric.seen), id(metric.rows)]
    twin = copy.deepcopy(metric)
    metric.reset_state()
    assert metric.result().item() == 0.0
    twin.update_state(torch.zeros(1), torch.tensor([7.0]))
    assert twin.result().item() == 7.0
