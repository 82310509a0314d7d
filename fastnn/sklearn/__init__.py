"""Estimators for scikit-learn: its multi-layer perceptrons, trained by fastnn.

    from fastnn.sklearn import MLPClassifier

takes the place of `from sklearn.neural_network import MLPClassifier`. `docs/scikit-learn.md` says
what is the same, and what there is beyond it.
"""

from fastnn import extras

try:
    import sklearn as _  # noqa: F401
except ImportError:
    raise ImportError(f"fastnn.sklearn needs scikit-learn: {extras.install('sklearn')}") from None

from fastnn.sklearn.classifier import MLPClassifier
from fastnn.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
