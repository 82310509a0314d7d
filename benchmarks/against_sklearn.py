"""fastnn's estimators beside scikit-learn's own, at default settings.

    python -m benchmarks.against_sklearn [--rounds 5] [--max-iter 10] [MNIST digits iris table]

The two are fitted in turn, and a ratio is that of two neighbouring fits: how many times as long
scikit-learn took. Both are given the same `random_state`, so that they take the same steps. The
threads of BLAS, which scikit-learn computes with, are those that it takes by itself; set
OPENBLAS_NUM_THREADS=1 and FASTNN_NUM_THREADS=1 to compare one thread with one. The costs of a first
fit are printed apart.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits, load_iris, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from threadpoolctl import threadpool_info

import fastnn
from fastnn.sklearn import MLPClassifier, MLPRegressor

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def mnist(dtype: type) -> Split:
    X, y, X_val, y_val, X_test, y_test = fastnn.load_dataset(flatten=True)
    X, y = np.concatenate([X, X_val]), np.concatenate([y, y_val])
    return X.astype(dtype), X_test.astype(dtype), y, y_test


def split(X: np.ndarray, y: np.ndarray) -> Split:
    return tuple(train_test_split(X, y, random_state=0))


DATA: dict[str, tuple[Callable[[], Split], type, type]] = {
    "MNIST, float32": (lambda: mnist(np.float32), MLPClassifier, TheirClassifier),
    "MNIST, float64": (lambda: mnist(np.float64), MLPClassifier, TheirClassifier),
    "digits": (lambda: split(*load_digits(return_X_y=True)), MLPClassifier, TheirClassifier),
    "iris": (lambda: split(*load_iris(return_X_y=True)), MLPClassifier, TheirClassifier),
    "table, two classes": (
        lambda: split(*make_classification(1334, 20, random_state=0)),
        MLPClassifier,
        TheirClassifier,
    ),
    "table, values": (
        lambda: split(*make_regression(1334, 20, random_state=0)),
        MLPRegressor,
        TheirRegressor,
    ),
}
"""Training set, test set, and the two estimators; the tables have 1,000 rows to train on."""

FIRST_FIT = """
import time
start = time.perf_counter()
from sklearn.datasets import load_iris
from {module} import MLPClassifier
imported = time.perf_counter()
MLPClassifier(max_iter=1).fit(*load_iris(return_X_y=True))
print(imported - start, time.perf_counter() - imported)
"""


def timed(kind: type, X: np.ndarray, y: np.ndarray, **options: Any) -> tuple[float, Any]:
    estimator = kind(random_state=0, **options)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y)
    return time.perf_counter() - start, estimator


def compare(name: str, rounds: int, options: dict[str, Any]) -> str:
    load, own, their = DATA[name]
    X, X_test, y, y_test = load()
    for kind in (own, their):  # what a first fit sets up is not in the times of either
        timed(kind, X[:300], y[:300], max_iter=1)
    ratios, seconds = [], []
    for _ in range(rounds):
        time_of_their, theirs = timed(their, X, y, **options)
        time_of_own, ours = timed(own, X, y, **options)
        ratios.append(time_of_their / time_of_own)
        seconds.append(time_of_own)
    scores = [estimator.score(X_test, y_test) for estimator in (ours, theirs)]
    return (
        f"| {name} | {len(X):,} x {X.shape[1]} | {ours.n_iter_}, {theirs.n_iter_} "
        f"| {statistics.median(seconds):.4f} | {statistics.median(ratios):.2f} "
        f"| {min(ratios):.2f}-{max(ratios):.2f} | {scores[0]:.4f} | {scores[1]:.4f} |"
    )


def first_fit(module: str, cache: str) -> str:
    """Return the seconds of import and of a first fit, of one epoch, in a new process."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-W", "ignore", "-c", FIRST_FIT.format(module=module)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    imported, fitted = map(float, run.stdout.split())
    return f"{imported:.2f} s for the import, {fitted:.3f} s for the fit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [*dict.fromkeys(re.match(r"\w+", name)[0] for name in DATA)]
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help=f"of {', '.join(names)}; by default all"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-iter", type=int, help="epochs, by default those of the estimators")
    options = parser.parse_args()
    if unknown := set(options.data) - set(names):
        parser.error(f"DATA: expected some of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    for flag, number in (("--rounds", options.rounds), ("--max-iter", options.max_iter)):
        if number is not None and number < 1:
            parser.error(f"{flag}: expected 1 or more, got {number}")
    given = {} if options.max_iter is None else {"max_iter": options.max_iter}
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    print(f"BLAS on {max(blas, default=1)} threads, {options.rounds} rounds\n")
    print("| data | training set | epochs | s | ratio | from-to | score | scikit-learn's |")
    print("| --- | --- | --- | ---: | ---: | --- | ---: | ---: |")
    for name in DATA:
        if name.startswith(tuple(options.data or names)):
            print(compare(name, options.rounds, given), flush=True)
    with tempfile.TemporaryDirectory() as cache:
        print("\nA first fit in a new process, one epoch of iris:")
        print(f"* fastnn, nothing cached: {first_fit('fastnn.sklearn', cache)}")
        print(f"* fastnn, kernels cached: {first_fit('fastnn.sklearn', cache)}")
        print(f"* scikit-learn: {first_fit('sklearn.neural_network', cache)}")


if __name__ == "__main__":
    main()
