"""`fastnn.sklearn` beside scikit-learn: L-BFGS, and samples that are sparse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastnn.bench.samples import SEED
from fastnn.checks import Array

from .tasks import Task
from .turns import in_turns

THEIRS = "scikit-learn"


def _kinds() -> tuple[Any, Any]:
    from sklearn.neural_network import MLPClassifier as Theirs

    from fastnn.sklearn import MLPClassifier

    return MLPClassifier, Theirs


def _lbfgs(name: str, hidden: int) -> Task:
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)

    def fit(number: int) -> Callable[[], Callable[[], float]]:
        def of_both() -> float:
            kind = _kinds()[number]
            return kind((hidden,), solver="lbfgs", random_state=SEED).fit(X, y).score(X, y)

        return lambda: of_both

    return Task({"fastnn": fit(0), THEIRS: fit(1)}, THEIRS, tolerance=0.01)


def _texts(columns: int) -> tuple[Any, Array]:
    """Return 2,000 rows with 100 numbers each, as counts of words are."""
    from scipy import sparse

    of = {"density": 100 / columns, "format": "csr", "dtype": np.float32}
    X = sparse.random(2_000, columns, random_state=SEED, **of)
    return X, np.arange(2_000) % 10


def _estimator(number: int) -> Any:
    options: dict[str, Any] = {"solver": "sgd", "momentum": 0, "max_iter": 2, "batch_size": 200}
    return _kinds()[number]((100,), shuffle=False, random_state=SEED, **options)


def _fit(columns: int) -> Task:
    X, y = _texts(columns)

    def fit(number: int) -> Callable[[], Callable[[], float]]:
        _kinds()
        return lambda: lambda: _estimator(number).fit(X, y).loss_

    return Task({"fastnn": fit(0), THEIRS: fit(1)}, THEIRS, tolerance=0.01)


def _predict(columns: int) -> Task:
    X, y = _texts(columns)
    ours, theirs = (_estimator(number).fit(X, y) for number in (0, 1))
    (first, second), (c, d) = theirs.coefs_, theirs.intercepts_

    def by_hand() -> Array:
        return (np.maximum(X @ first + c, 0) @ second + d).argmax(axis=1)

    return Task(
        {
            "fastnn": lambda: partial(ours.predict, X),
            THEIRS: lambda: partial(theirs.predict, X),
            "SciPy by hand": lambda: by_hand,
        },
        THEIRS,
        tolerance=0,
    )


EDGES = (
    in_turns(
        "lbfgs",
        "A few samples by `MLPClassifier(solver='lbfgs')` of fastnn.sklearn and of scikit-learn.",
        {
            f"{name}, {hidden} hidden units": partial(_lbfgs, name, hidden)
            for name, hidden in (("iris", 10), ("iris", 100), ("digits", 100))
        },
        rounds=5,
    ),
    in_turns(
        "sparse",
        "2,000 rows of a CSR matrix with 100 numbers each, through 100 hidden units to 10 classes.",
        {
            f"{task}, {columns:,} columns": partial(make, columns)
            for task, make in (("predict", _predict), ("two epochs", _fit))
            for columns in (2_000, 20_000)
        },
        rounds=5,
    ),
)
