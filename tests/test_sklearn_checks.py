"""scikit-learn's checks of an estimator, all of them."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from fastnn.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("default")  # as scikit-learn runs them


@parametrize_with_checks(
    # as many epochs, and the same parameters for equal weights, as scikit-learn gives its own
    [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)]
)
def test_checks(estimator, check):
    check(estimator)
