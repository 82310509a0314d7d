"""scikit-learn's own tests of its multi-layer perceptron, of the release that is installed.

The estimators in them are fastnn's.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network

import fastnn.sklearn

pytestmark = pytest.mark.filterwarnings("default")  # as scikit-learn runs them

PLACE = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
if PLACE is None or PLACE.loader is None:
    pytest.skip("scikit-learn is installed without its tests", allow_module_level=True)

EXCEPTIONS = {
    "test_gradient": "calls a private method; tests/test_sklearn.py checks the gradient of L-BFGS",
}
"""The tests that do not pass, with the reason of each."""


@pytest.fixture
def global_random_seed() -> int:
    """What scikit-learn's tests take it to be unless they are told."""
    return 42


def exchanged() -> ModuleType:
    """Return scikit-learn's tests as they are with fastnn's estimators in the place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in fastnn.sklearn.__all__:
            patch.setattr(sklearn.neural_network, name, getattr(fastnn.sklearn, name))
        module = importlib.util.module_from_spec(PLACE)
        PLACE.loader.exec_module(module)
    return module


for name, function in vars(exchanged()).items():
    if name.startswith("test_"):
        if name in EXCEPTIONS:
            pytest.mark.xfail(reason=EXCEPTIONS[name], strict=True)(function)
        globals()[name] = function


def test_exceptions_exist():
    assert set(EXCEPTIONS) <= set(globals())
