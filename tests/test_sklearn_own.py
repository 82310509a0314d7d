"""scikit-learn's own tests of its multi-layer perceptron, run on fastnn's estimators."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network

import fastnn.sklearn

SPEC = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
if SPEC is None or SPEC.loader is None:
    pytest.skip("scikit-learn is installed without its tests", allow_module_level=True)

EXCEPTIONS = {
    "test_gradient": "calls a private method; tests/test_sklearn.py checks gradients",
}
"""The tests that do not pass, with the reason of each."""


def _exchanged() -> dict[str, object]:
    """Return the tests and fixtures of the module, whose estimators are fastnn's."""
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    module.MLPClassifier = fastnn.sklearn.MLPClassifier
    module.MLPRegressor = fastnn.sklearn.MLPRegressor
    return vars(module)


