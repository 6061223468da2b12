"""scikit-learn's own checks of an estimator: all of them, without exceptions."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from fanin.sklearn import DenseClassifier, DenseRegressor


@parametrize_with_checks([DenseClassifier(), DenseRegressor()])
def test_scikit_learns_checks(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else the check of arrays of other libraries is skipped
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [(DenseClassifier(), "check_classifiers_multilabel_output_format_predict"),
     (DenseRegressor(), "check_regressor_multioutput")],
)  # fmt: skip
def test_the_checks_are_there(estimator, kind):
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(estimator)}
    assert len(names) > 50
    assert {kind, "check_sample_weight_equivalence_on_dense_data", "check_estimators_pickle"} <= names
