"""The estimators for scikit-learn, beside scikit-learn's own and by themselves."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as reference
from conftest import ROOT
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastnn
from fastnn import paths
from fastnn.memory import SparseRows
from fastnn.sklearn import MLPClassifier, MLPRegressor, base, lbfgs

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def data(kind: str, n: int = 103, dtype: type = np.float64):
    """Return X, y and the names of the classes of the two estimators for such targets."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(n, 7)).astype(dtype)
    X[rng.random(X.shape) < 0.3] = 0
    signal = X @ rng.normal(size=(7, 3)) + 0.1 * rng.normal(size=(n, 3))
    y = {
        "three classes": signal.argmax(axis=1),
        "two classes": np.where(signal[:, 0] > 0, "yes", "no"),
        "several labels": (signal > 0).astype(int),
        "one value": signal[:, 0],
        "two values": signal[:, :2],
        "counts": rng.poisson(np.exp(signal[:, 0] / 3)),
    }[kind]
    classify = kind in CLASSES
    own = MLPClassifier if classify else MLPRegressor
    return X, y, own, reference.MLPClassifier if classify else reference.MLPRegressor


CLASSES = ("three classes", "two classes", "several labels")
VALUES = ("one value", "two values", "counts")
KINDS = (*CLASSES, *VALUES)

OPTIONS = {
    "defaults": {},
    "batches": {"batch_size": 17, "alpha": 0.3},
    "no penalty": {"batch_size": 17, "alpha": 0.0},
    "in order": {"batch_size": 20, "shuffle": False, "hidden_layer_sizes": (9, 8)},
    "logistic": {"activation": "logistic", "batch_size": 40},
    "tanh": {"activation": "tanh", "solver": "sgd"},
    "identity": {"activation": "identity", "hidden_layer_sizes": 4},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.02, "batch_size": 33},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    "plain": {"solver": "sgd", "momentum": 0.0, "batch_size": 1, "max_iter": 2},
    "all momentum": {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.3},
    "adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.02,
        "tol": 0.05, "n_iter_no_change": 2, "max_iter": 30,
    },
    "epsilon": {"epsilon": 1e-3, "beta_1": 0.7, "beta_2": 0.9},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2, "batch_size": 16},
    "lbfgs": {"solver": "lbfgs", "max_iter": 15, "alpha": 0.1},
}  # fmt: skip


def pair(kind: str, name: str = "defaults", dtype: type = np.float64, **more):
    """Return X, y and an estimator of each library that has not been fitted."""
    X, y, own, other = data(kind, dtype=dtype)
    options = {"hidden_layer_sizes": 12, "max_iter": 8, "random_state": 3} | OPTIONS[name] | more
    if kind == "counts":
        options["loss"] = "poisson"
    return X, y, own(**options), other(**options)


def assert_equal(own, other, steps: int = 100, dtype: type = np.float64) -> None:
    """Each step rounds sums of at most 100 terms otherwise."""
    bound = float(100 * steps * np.finfo(dtype).eps)
    for name in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "t_"):
        assert getattr(own, name) == getattr(other, name), name
    for name in ("coefs_", "intercepts_"):
        for found, expected in zip(getattr(own, name), getattr(other, name), strict=True):
            assert found.dtype == expected.dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    # of several values scikit-learn weighs the penalty otherwise in what it reports
    share = bound if own.n_outputs_ == 1 or hasattr(own, "classes_") else 0.05
    assert own.loss_ == pytest.approx(other.loss_, rel=share)
    if hasattr(other, "loss_curve_"):
        measures = {"loss_curve_": share, "best_loss_": share}
        measures |= {"best_validation_score_": bound, "validation_scores_": bound}
        for name, tolerance in measures.items():
            found, expected = getattr(own, name), getattr(other, name)
            assert (found is None) == (expected is None), name
            assert expected is None or found == pytest.approx(expected, rel=tolerance), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "lbfgs"])
def test_the_same_as_scikit_learn(kind, name):
    X, y, own, other = pair(kind, name)
    own.fit(X, y)
    assert_equal(own, other.fit(X, y))
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(other, method):
            found, expected = getattr(own, method)(X), getattr(other, method)(X)
            assert found.dtype == expected.dtype
            if found.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, expected)
    assert own.score(X, y) == pytest.approx(other.score(X, y))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "two values"])
def test_lbfgs_is_the_same_as_scikit_learn(kind):
    X, y, own, other = pair(kind, "lbfgs")
    own.fit(X, y)
    other.fit(X, y)
    # line searches make more of rounding than steps do
    assert own.n_iter_ == other.n_iter_
    assert own.loss_ == pytest.approx(other.loss_, rel=1e-6)
    for found, expected in zip(own.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_lbfgs(kind, weighted, backend, monkeypatch):
    monkeypatch.setattr(lbfgs, "PIECE_ROWS", 40)  # three pieces
    X, y, own, _ = pair(kind, "lbfgs", max_iter=1, alpha=0.3)
    weights = np.random.default_rng(0).random(len(X)) if weighted else None
    checked = []

    def check(function, start, **options):
        vector = start + 0.01
        _, gradient = function(vector)
        for place in range(0, len(vector), 7):
            ahead, behind = vector.copy(), vector.copy()
            ahead[place] += 1e-6
            behind[place] -= 1e-6
            slope = (function(ahead)[0] - function(behind)[0]) / 2e-6
            checked.append(abs(slope - gradient[place]) / max(1.0, abs(slope)))
        return minimize(function, start, **options)

    minimize = lbfgs.optimize.minimize
    monkeypatch.setattr(lbfgs.optimize, "minimize", check)
    own.fit(X, y, sample_weight=weights)
    assert len(checked) > 10
    assert max(checked) < 1e-7
    # a network that has no use for the optimiser it was computed with
    assert own.network_.optimizer is None
    assert own.network_[0].learning_rate > 0


def test_lbfgs_of_several_values_ends_where_there_is_no_gradient():
    X, y, own, _ = pair("two values", "lbfgs", max_iter=2000, tol=1e-6)
    own.fit(X, y)
    gradients = own.network_.gradients(X, y)[1]
    dense = [layer for layer in own.network_ if isinstance(layer, fastnn.Dense)]
    for layer, found in zip(dense, [g for g in gradients if g], strict=True):
        slope = found["weights"] + own.alpha / len(X) * layer.weights
        assert np.abs(slope).max() < 5e-3
        assert np.abs(found["biases"]).max() < 5e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["batches", "early stopping", "nesterov"])
def test_weights_of_samples(kind, name):
    X, y, own, other = pair(kind, name)
    weights = np.random.default_rng(1).integers(1, 5, len(X)) / 2.0
    own.fit(X, y, sample_weight=weights)
    other.fit(X, y, sample_weight=weights)
    if kind == "counts":  # what scikit-learn adds to the loss of a batch, here is added to all
        own.loss_curve_, own.loss_, own.best_loss_ = (
            other.loss_curve_,
            other.loss_,
            other.best_loss_,
        )
    assert_equal(own, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("power_t", [12, 40.0, 200, 1e6])
def test_a_rate_that_falls_to_nothing(power_t, dtype):
    options = {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1}
    X, y, own, other = pair("three classes", power_t=power_t, dtype=dtype, **options)
    own.fit(X, y)
    if power_t < 100:  # where scikit-learn's does not overflow
        assert_equal(own, other.fit(X, y), dtype=dtype)
    else:
        # no gradient moves a weight after the first epoch, but its velocity does
        _, _, _, other = pair("three classes", power_t=12, dtype=dtype, **options)
        assert_equal(own, other.fit(X, y), dtype=dtype)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_what_trains_goes_with_the_last_step(solver, monkeypatch):
    programs = []
    taking = paths.CompiledPath.__init__

    def taken(path, *arguments):
        programs.append(weakref.ref(arguments[3]))
        taking(path, *arguments)

    monkeypatch.setattr(paths.CompiledPath, "__init__", taken)
    X, y, own, _ = pair("three classes", solver=solver)
    own.fit(X, y)
    own.set_params(warm_start=True).fit(X, y).fit(X, y)
    gc.collect()
    first, second, third = (program() for program in programs)
    assert first is None
    assert second is third is not None  # more is to come
    if solver == "adam":
        own.partial_fit(X, y)
        assert programs[-1]() is second


@pytest.mark.parametrize("weighted", [False, True])
def test_an_epoch_is_one_call(weighted, monkeypatch):
    calls = []
    run = paths.CompiledPath._run

    def counted(path, call):
        calls.append(call.steps)
        return run(path, call)

    monkeypatch.setattr(paths.CompiledPath, "_run", counted)
    X, y, own, _ = pair("three classes", batch_size=20, max_iter=3)
    own.fit(X, y, sample_weight=np.arange(len(y)) if weighted else None)
    assert [steps for steps in calls if steps > 0] == 3 * [6]


def test_a_batch_without_weight_counts_for_nothing():
    X, y, own, _ = pair("three classes", batch_size=20, shuffle=False, alpha=0.5)
    weights = np.ones(len(y))
    weights[20:40] = 0
    other, rest = clone(own), weights > 0
    own.set_params(solver="sgd", momentum=0.0).fit(X, y, sample_weight=weights)
    other.set_params(solver="sgd", momentum=0.0).fit(X[rest], y[rest])
    for a, b in zip(own.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert own.loss_ * len(y) == pytest.approx(other.loss_ * rest.sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_and_warm_start(kind, solver):
    X, y, own, other = pair(kind, solver=solver, batch_size=20, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # batches are larger than the last part
        for estimator in (own, other):
            first = {"classes": np.unique(y)} if kind in CLASSES else {}
            if kind == "several labels":
                first = {"classes": [0, 1, 2]}
            estimator.partial_fit(X[:50], y[:50], **first)
            estimator.partial_fit(X[50:63], y[50:63])
            estimator.partial_fit(X[:50], y[:50])
    assert_equal(own, other)
    for estimator in (own, other):
        estimator.set_params(warm_start=True, max_iter=4)
        estimator.fit(X, y)
        estimator.fit(X, y)
    assert_equal(own, other)


def test_classes_that_first_batches_lack():
    X, y, own, other = pair("three classes")
    few = y < 2
    for estimator in (own, other):
        estimator.partial_fit(X[few], y[few], classes=[0, 1, 2])
        estimator.partial_fit(X, y)
    assert_equal(own, other)
    with pytest.raises(ValueError, match="`y` has classes not in"):
        own.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="classes must be passed"):
        clone(own).partial_fit(X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_float32(kind):
    X, y, own, other = pair(kind, "nesterov", np.float32, tol=0.0)
    own.fit(X, y)
    assert_equal(own, other.fit(X, y), dtype=np.float32)
    assert own.network_.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["batches", "early stopping", "invscaling", "lbfgs"])
def test_both_backends(kind, name):
    X, y, own, _ = pair(kind, name, activation="tanh")
    other = clone(own).fit(X, y)
    with fastnn.use_backend("numpy"):
        own.fit(X, y)
    assert (own.network_.backend, other.network_.backend) == ("numpy", "numba")
    if name == "lbfgs":
        np.testing.assert_allclose(own.coefs_[0], other.coefs_[0], atol=1e-5)
    else:
        assert_equal(own, other)


# CSR


@pytest.mark.parametrize("kind", ["three classes", "two values"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"batch_size": 1, "max_iter": 2, "solver": "sgd", "momentum": 0.0},
        {"batch_size": 33, "solver": "sgd"}, {"early_stopping": True, "validation_fraction": 0.2},
        {"threads": 2, "hidden_layer_sizes": (150, 120)},
        {"dropout": 0.2, "batch_norm": True, "batch_size": 33},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csr_gives_the_bits_of_dense(kind, options, dtype):
    X, y, own, _ = pair(kind, dtype=dtype)
    own.set_params(**options)
    dense, csr = clone(own).fit(X, y), clone(own).fit(sparse.csr_array(X), y)
    for found, expected in zip(csr.coefs_, dense.coefs_, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(csr.predict(sparse.csr_array(X)), dense.predict(X))
    with fastnn.use_backend("numpy"):
        layers = clone(own).fit(sparse.csr_matrix(X), y)
    for found, expected in zip(layers.coefs_, dense.coefs_, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e4 * np.finfo(dtype).eps)


def test_csr_is_never_made_dense():
    rng = np.random.default_rng(0)
    X = sparse.random_array((6000, 8000), density=0.001, format="csr", rng=rng, dtype=np.float32)
    y = rng.integers(0, 3, 6000)
    warm = MLPClassifier(1, max_iter=1).fit(X[:300], y[:300])
    warm.predict(X[:300])
    tracemalloc.start()
    try:
        MLPClassifier(1, max_iter=1).fit(X, y).predict(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6000 * 8000 * 4 / 2


def test_csr_may_change_while_it_is_trained_on():
    rng = np.random.default_rng(0)
    X = sparse.random_array((64, 50), density=0.2, format="csr", rng=rng)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    y = np.arange(64) % 3
    expected = MLPClassifier((8,), max_iter=2, random_state=0).fit(X.copy(), y)

    def spoil(network, history):
        X.indices[:] = 60

    spoiled = MLPClassifier((8,), max_iter=2, random_state=0, callbacks=[spoil]).fit(X, y)
    np.testing.assert_array_equal(spoiled.coefs_[0], expected.coefs_[0])


def test_what_stands_twice_in_csr_is_added_up():
    values, columns, starts = [1.0, 2.0, 5.0, 4.0], [1, 1, 0, 2], [0, 3, 3, 4]
    twice = sparse.csr_array((values, columns, starts), shape=(3, 3))
    X = np.array([[5.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    y = [1.0, 2.0, 3.0]
    own = MLPRegressor(hidden_layer_sizes=5, random_state=0, max_iter=5)
    fitted = [clone(own).fit(part, y) for part in (twice, X)]
    np.testing.assert_array_equal(fitted[0].coefs_[0], fitted[1].coefs_[0])
    rows = SparseRows(np.array(values), np.array(columns), np.array(starts), 3, np.float64)
    np.testing.assert_array_equal(rows[np.array([2, 0])], X[[2, 0]])
    assert (len(rows), rows.shape, rows.density) == (3, (3, 3), 4 / 9)


@pytest.mark.parametrize(
    ("columns", "starts", "message"),
    [
        ([0, 3], [0, 1, 2], "columns from 0 to 2, got 0 to 3"),
        ([0, -1], [0, 1, 2], "columns from 0 to 2, got -1 to 0"),
        ([0, 1], [0, 2, 1], "rows lie one after the other"),
        ([0, 1], [0, 1, 3], "rows lie one after the other"),
        ([0, 1], [1, 1, 2], "rows lie one after the other"),
    ],
)
def test_csr_that_kernels_could_not_trust(columns, starts, message):
    with pytest.raises(ValueError, match=message):
        SparseRows(np.ones(2), np.array(columns), np.array(starts), 3, np.float64)


# Beyond scikit-learn


def test_weights_of_classes():
    X, y, own, _ = pair("two classes")
    by_class = clone(own).set_params(class_weight={"yes": 3.0, "no": 1.0}).fit(X, y)
    by_sample = clone(own).fit(X, y, sample_weight=np.where(y == "yes", 3.0, 1.0))
    np.testing.assert_array_equal(by_class.coefs_[0], by_sample.coefs_[0])
    balanced = clone(own).set_params(class_weight="balanced")
    counts = {label: np.mean(y == label) for label in np.unique(y)}
    by_sample = clone(own).fit(X, y, sample_weight=[0.5 / counts[label] for label in y])
    np.testing.assert_allclose(balanced.fit(X, y).coefs_[0], by_sample.coefs_[0], rtol=1e-9)
    with pytest.raises(ValueError, match="class_weight: expected the weight of each class"):
        clone(balanced).partial_fit(X, y, classes=["no", "yes"])


@pytest.mark.parametrize(
    ("kind", "class_weight", "message"),
    [
        ("three classes", {0: -1.0}, r"class_weight\[0\]: expected .* at least 0, got -1"),
        ("three classes", dict.fromkeys(range(3), -1), r"class_weight\[0\]: expected"),
        ("two classes", {"no": np.nan}, r"class_weight\['no'\]: expected .*, got nan"),
        ("two classes", {"no": np.inf}, r"class_weight\['no'\]: expected .*, got inf"),
        ("three classes", {3: 1.0}, r"class_weight: expected classes among \[0 1 2\], got 3"),
        ("three classes", [{0: 1.0}], "class_weight: expected .* got a list"),
        ("several labels", [{0: 1, 1: -2}] * 3, r"class_weight\[1\]: expected .* got -2"),
    ],
)
def test_weights_of_classes_that_are_refused(kind, class_weight, message):
    X, y, own, _ = pair(kind)
    with pytest.raises(ValueError, match=message):
        own.set_params(class_weight=class_weight).fit(X, y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_weights_whose_sum_is_infinite(solver):
    X, y, own, _ = pair("three classes", solver=solver)
    weights = np.full(len(y), 1e308)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="expected a finite sum"):
        own.fit(X, y, sample_weight=weights)


def test_weights_of_classes_that_a_part_lacks():
    X, y, own, _ = pair("three classes")
    own.set_params(class_weight={2: 5.0})
    few = y < 2
    plain = clone(own).set_params(class_weight=None)
    for estimator in (own, plain):
        estimator.partial_fit(X[few], y[few], classes=[0, 1, 2])
    np.testing.assert_allclose(own.coefs_[0], plain.coefs_[0], rtol=1e-9)
    own.partial_fit(X, y)
    plain.partial_fit(X, y, sample_weight=np.where(y == 2, 5.0, 1.0))
    np.testing.assert_allclose(own.coefs_[0], plain.coefs_[0], rtol=1e-9)


@pytest.mark.parametrize("kind", ["three classes", "counts"])
def test_weights_of_zero_on_one_side_of_a_split(kind, monkeypatch):
    X, y, own, _ = pair(kind, early_stopping=True, max_iter=2)
    splits = []

    def split(*arrays, **options):
        splits.append(train_test_split(*arrays, **options))
        return splits[-1]

    monkeypatch.setattr(base, "train_test_split", split)
    own.fit(X, y)
    before = own.predict(X)
    train, kept_out = splits[0]
    for part, message in ((train, "11 samples kept out"), (kept_out, "92 samples to train on")):
        weights = np.zeros(len(y))
        weights[part] = 1.0
        with pytest.raises(ValueError, match=f"sample_weight.* among the {message}"):
            own.fit(X, y, sample_weight=weights)
    own.set_params(validation_fraction=0.005)
    with pytest.raises(ValueError, match="validation set is too small"):
        own.fit(2 * X, y)
    np.testing.assert_array_equal(own.predict(X), before)


def test_layers_are_as_parameters_say():
    X, y, own, _ = pair("three classes")
    own.set_params(
        hidden_layer_sizes=(9, 8, 7), activation=["gelu", fastnn.LeakyReLU(0.2), "identity"],
        dropout=[0.1, 0.0, 0.2], batch_norm=True,
    )  # fmt: skip
    own.fit(X, y)
    kinds = [type(layer).__name__ for layer in own.network_]
    assert kinds == [
        "Dense", "BatchNorm", "GELU", "Dropout", "Dense", "BatchNorm", "LeakyReLU",
        "Dense", "BatchNorm", "Dropout", "Dense",
    ]  # fmt: skip
    assert own.network_[6].slope == 0.2
    assert own.network_.explain().startswith("compiled epoch")
    assert [coefs.shape for coefs in own.coefs_] == [(7, 9), (9, 8), (8, 7), (7, 3)]
    again = clone(own).fit(X, y)
    np.testing.assert_array_equal(own.predict_proba(X), again.predict_proba(X))


class Own(fastnn.Layer):
    def forward(self, input):
        return 2 * input

    def backward(self, input, grad_output):
        return 2 * grad_output


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("loss", "squared_error", "poisson"),
        ("hidden_layer_sizes", (5,), (5, 5)),
        ("hidden_layer_sizes", 5, 6),
        ("activation", "relu", "tanh"),
        ("activation", fastnn.LeakyReLU(0.1), fastnn.LeakyReLU(0.2)),
        ("activation", Own(), Own()),
        ("dropout", 0.0, 0.5),
        ("batch_norm", False, True),
    ],
)
def test_what_a_network_was_built_with_stays(name, before, after):
    X, y, own, _ = pair("counts")
    own.set_params(loss="squared_error", warm_start=True).set_params(**{name: before}).fit(X, y)
    loss = own.loss_
    own.set_params(**{name: after})
    for train in (own.fit, own.partial_fit):
        with pytest.raises(ValueError, match=f"{name}: expected .*, with which the network was"):
            train(X, y)
    assert own.loss_ == loss
    own.set_params(warm_start=False).fit(X, y)
    own.partial_fit(X, y)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("hidden_layer_sizes", 5, [5]),
        ("activation", "relu", ["relu"]),
        ("activation", fastnn.LeakyReLU(0.1), [fastnn.LeakyReLU(0.1)]),
        ("dropout", 0.25, (0.25,)),
    ],
)
def test_other_ways_to_write_what_a_network_was_built_with(name, before, after):
    X, y, own, _ = pair("one value", warm_start=True)
    own.set_params(**{name: before}).fit(X, y)
    own.set_params(**{name: after}).fit(X, y)


def test_a_copy_goes_on_with_its_own_layers():
    X, y, own, _ = pair("one value", warm_start=True)
    own.set_params(activation=Own()).fit(X, y)
    assert copy.copy(own).activation is own.activation
    copy.copy(own).partial_fit(X, y)
    copy.deepcopy(own).partial_fit(X, y)
    pickle.loads(pickle.dumps(own)).partial_fit(X, y)


def test_optimizer_and_schedule():
    X, y, own, other = pair("three classes", solver="sgd", learning_rate_init=0.05, momentum=0.9)
    other.fit(X, y)
    given = fastnn.SGD(0.05, momentum=0.9, nesterov=True)
    own.set_params(solver="adam", optimizer=given).fit(X, y)
    assert_equal(own, other)
    assert own.network_.optimizer is not given
    own.set_params(optimizer=fastnn.SGD(9.0, 0.9, True), schedule=lambda step: 0.05).fit(X, y)
    assert_equal(own, other)
    own.set_params(optimizer="rmsprop", schedule=fastnn.schedules.CosineDecay(0.01, 8)).fit(X, y)
    assert isinstance(own.network_.optimizer, fastnn.RMSprop)
    assert own.score(X, y) > 0.4
    own.set_params(schedule=None, learning_rate_init=0.02).fit(X, y)
    assert own.network_.optimizer.learning_rate == 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_validation_data(kind):
    X, y, own, _ = pair(kind, max_iter=5)
    plain = clone(own).fit(X[:80], y[:80])
    own.fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    np.testing.assert_array_equal(own.coefs_[0], plain.coefs_[0])
    assert len(own.validation_scores_) == len(own.network_.history.val_loss) == 5
    assert own.validation_scores_[-1] == pytest.approx(own.score(X[80:], y[80:]))
    assert own.best_validation_score_ == max(own.validation_scores_)
    own.set_params(early_stopping=True, n_iter_no_change=1, tol=1.0, max_iter=50)
    own.fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert own.n_iter_ < 50
    assert own.score(X[80:], y[80:]) == pytest.approx(own.best_validation_score_)
    assert own.t_ == 80 * own.n_iter_


def test_partial_fit_with_validation_data():
    X, y, own, _ = pair("three classes", early_stopping=True)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        own.partial_fit(X, y, classes=[0, 1, 2])
    for _ in range(3):
        own.partial_fit(X, y, classes=[0, 1, 2], X_val=X, y_val=y)
    assert len(own.validation_scores_) == 3
    assert own.validation_scores_[-1] == own.score(X, y)


def test_callbacks():
    X, y, own, _ = pair("three classes", max_iter=20)
    stop = fastnn.EarlyStopping(monitor="val_loss", patience=1, min_delta=10.0)
    seen = []
    own.set_params(callbacks=[stop, lambda network, history: seen.append(history.loss[-1])])
    own.fit(X, y, X_val=X, y_val=y)
    assert own.n_iter_ == 2
    assert seen == own.loss_curve_
    own.set_params(callbacks=lambda network, history: len(history) == 3).fit(X, y)
    assert own.n_iter_ == 3
    history = own.network_.history
    assert len(history) == 3
    assert history.loss == own.loss_curve_
    assert history.accuracy[-1] > 0.2


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_callback_cannot_train_its_estimator(method):
    X, y, own, _ = pair("three classes", max_iter=2)
    expected = clone(own).fit(X, y)
    refused = []

    def train(network, history):
        copy.deepcopy(own).set_params(callbacks=None).partial_fit(X, y)
        with pytest.raises(RuntimeError, match="can't begin to train while it is training"):
            getattr(own, method)(X, y)
        with pytest.raises(RuntimeError):  # the one that runs is still known to
            network.fit(X, y)
        refused.append(method)

    own.set_params(callbacks=train).fit(X, y)
    assert len(refused) == 2
    np.testing.assert_array_equal(own.coefs_[0], expected.coefs_[0])
    own.set_params(callbacks=None).fit(X, y)


def test_a_callback_may_change_the_rate():
    X, y, own, _ = pair("one value", max_iter=6, batch_size=10)
    own.set_params(callbacks=fastnn.ReduceOnPlateau("loss", patience=1, min_delta=1e9)).fit(X, y)
    assert own._optimizer.learning_rate < own.learning_rate_init


def test_ctrl_c_ends_a_training_that_can_go_on():
    X, y, own, other = pair("three classes", max_iter=3)

    def interrupt(network, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        own.set_params(callbacks=interrupt).fit(X, y)
    other.set_params(max_iter=2).fit(X, y)
    assert_equal(own, other)
    own.set_params(callbacks=None, max_iter=2).fit(X, y)
    assert_equal(own, other)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_change_no_bit(threads):
    X, y, own, _ = pair("three classes", hidden_layer_sizes=(300, 200), max_iter=3)
    expected = clone(own).fit(X, y)
    own.set_params(threads=threads).fit(X, y)
    np.testing.assert_array_equal(own.coefs_[1], expected.coefs_[1])


def test_threads_that_the_environment_asks_for(monkeypatch):
    X, y, own, _ = pair("one value")
    monkeypatch.setenv("FASTNN_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="FASTNN_NUM_THREADS"):
        own.fit(X, y)
    monkeypatch.setenv("FASTNN_NUM_THREADS", "2")
    own.fit(X, y)


# As objects


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda own: pickle.loads(pickle.dumps(own))]
)
@pytest.mark.parametrize("kind", KINDS)
def test_copies_go_on_as_the_original(copied, kind):
    X, y, own, _ = pair(kind, warm_start=True)
    own.fit(X, y)
    twin = copied(own)
    np.testing.assert_array_equal(own.predict(X), twin.predict(X))
    losses = list(own.loss_curve_)
    twin.partial_fit(X, y)
    assert not np.array_equal(own.coefs_[0], twin.coefs_[0])
    assert own.loss_curve_ == losses
    own.partial_fit(X, y)
    np.testing.assert_array_equal(own.coefs_[0], twin.coefs_[0])
    assert len(pickle.dumps(own)) < 3 * own.network_._parameters.vector.nbytes + 30_000


def test_weights_that_a_user_puts_in_are_used():
    X, y, own, other = pair("one value")
    own.fit(X, y)
    other.fit(X, y)
    for estimator in (own, other):
        estimator.coefs_[1] = np.ones_like(estimator.coefs_[1])
        estimator.intercepts_[0][...] = 0.25
    np.testing.assert_allclose(own.predict(X), other.predict(X), rtol=1e-9)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(own)).predict(X), other.predict(X))
    for estimator in (own, other):
        estimator.set_params(warm_start=True, max_iter=2).fit(X, y)
    assert_equal(own, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.coefs_.__setitem__(0, np.ones((1, 12))), r"coefs_\[0\]: expected shape"),
        (lambda own: own.coefs_.__setitem__(1, 3), r"coefs_\[1\]: expected shape \(12, 1\), got"),
        (lambda own: own.intercepts_.__setitem__(0, [0.5]), r"intercepts_\[0\]: expected shape"),
        (lambda own: own.coefs_.append(np.ones((1, 1))), "coefs_: expected a list of 2"),
        (lambda own: own.intercepts_.pop(), "intercepts_: expected a list of 2 arrays, got 1"),
        (lambda own: setattr(own, "coefs_", 1.0), "coefs_: expected a list of 2 arrays, got 1.0"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(change, message):
    X, y, own, _ = pair("one value", warm_start=True)
    own.fit(X, y)
    weights = own.network_.get_weights()
    own.intercepts_[1] = np.ones(1)  # not taken over either
    change(own)
    for use in (
        own.predict,
        pickle.dumps,
        lambda X: own.fit(X, y),
        lambda X: own.partial_fit(X, y),
    ):
        with pytest.raises(ValueError, match=message):
            use(own if use is pickle.dumps else X)
    for found, expected in zip(own.network_.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_kinds_of_weights_that_a_user_puts_in():
    X, y, own, _ = pair("one value", hidden_layer_sizes=(4, 4, 4))
    own.fit(X, y)
    first, second = own.coefs_[1].copy(), own.coefs_[2].copy()
    held = own.coefs_
    own.coefs_[1], own.coefs_[2] = own.coefs_[2], own.coefs_[1]
    own.predict(X)
    np.testing.assert_array_equal(own.network_.layers[2].weights, second)
    np.testing.assert_array_equal(own.network_.layers[4].weights, first)
    assert own.coefs_ is held
    own.coefs_ = tuple(0.5 * coefs for coefs in own.coefs_)
    own.predict(X)
    np.testing.assert_array_equal(own.coefs_[1], 0.5 * second)
    own.coefs_[1] = first.astype(complex)
    with pytest.raises(TypeError, match=r"coefs_\[1\]: expected an array of real numbers"):
        own.predict(X)


def test_a_network_of_weights_alone():
    X, y, own, other = pair("one value", warm_start=True)
    other.fit(X, y)
    own.n_outputs_ = 1
    own.coefs_ = [np.ones((7, 5)), np.ones((6, 1))]
    own.intercepts_ = [np.ones(5), np.ones(1)]
    with pytest.raises(
        ValueError, match=r"coefs_\[1\]: expected shape \[5, outputs\], got \(6, 1\)"
    ):
        own.partial_fit(X, y)
    own.coefs_[1] = np.ones((5, 1))
    own.intercepts_[1] = 1.0
    with pytest.raises(ValueError, match=r"intercepts_\[1\]: expected shape \(1,\), got \(\)"):
        own.partial_fit(X, y)


def test_the_network_is_a_network(tmp_path):
    X, y, own, _ = pair("three classes")
    own.fit(X, y).network_.save(tmp_path / "model.safetensors")
    network = fastnn.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(network.predict(X), own.predict(X))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library):
    frames = pytest.importorskip(library)
    X, y, own, _ = pair("three classes")
    columns = [f"column {number}" for number in range(7)]
    frame = frames.DataFrame({name: X[:, i] for i, name in enumerate(columns)})
    own.fit(frame, frames.Series(y))
    np.testing.assert_array_equal(own.feature_names_in_, columns)
    np.testing.assert_array_equal(own.coefs_[0], clone(own).fit(X, y).coefs_[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        own.predict(frame[columns[::-1]])


def test_in_searches_and_pipelines():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(30, max_iter=60, random_state=0))
    assert cross_val_score(pipeline, X, y, cv=3).min() > 0.7
    search = GridSearchCV(pipeline, {"mlpclassifier__batch_norm": [False, True]}, cv=2, n_jobs=2)
    assert search.fit(X, y).best_score_ > 0.7


def test_what_a_training_says(capsys):
    X, y, own, other = pair("three classes", "adaptive", verbose=True)
    own.fit(X, y)
    said = capsys.readouterr().out
    other.fit(X, y)
    assert said == capsys.readouterr().out
    assert "Setting learning rate to" in said
    own.set_params(early_stopping=True, verbose=True).fit(X, y)
    assert "Validation score: " in capsys.readouterr().out


def test_warns_of_a_training_that_has_not_converged():
    X, y, own, _ = pair("three classes", max_iter=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own.fit(X, y)
    assert [(w.category, "Maximum iterations (2)" in str(w.message)) for w in caught] == [
        (ConvergenceWarning, True)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "swish"}, "activation"),
        ({"activation": ["relu"]}, "activation: expected one for each of 2 hidden layers, got 1"),
        ({"activation": ["relu", "swish"]}, "activation: expected one of .*'gelu'.*got 'swish'"),
        ({"activation": fastnn.Dense(4, 4)}, r"activation: expected a layer .* got Dense\(4, 4"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": [0.5, 1.0]}, "dropout: expected a finite number"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be > 0"),
        ({"optimizer": "adamax"}, "optimizer"),
        ({"schedule": 0.1}, "schedule"),
        ({"threads": 0}, "threads"),
        (
            {"schedule": lambda step: 0.1, "learning_rate": "adaptive"},
            "learning_rate: expected 'constant' beside schedule, got 'adaptive'",
        ),
        ({"solver": "lbfgs", "dropout": 0.1}, "dropout: expected none with solver='lbfgs'"),
        ({"solver": "lbfgs", "batch_norm": True}, "batch_norm: expected none with solver='lbfgs'"),
        ({"solver": "lbfgs", "optimizer": "adam"}, "optimizer: expected none with"),
        ({"solver": "lbfgs", "callbacks": [print]}, "callbacks: expected none with"),
    ],
)
def test_refused_parameters(options, message):
    X, y, own, _ = pair("one value", hidden_layer_sizes=(4, 4))
    with pytest.raises(ValueError, match=message):
        own.set_params(**options).fit(X, y)


def test_refused_data():
    X, y, own, _ = pair("three classes")
    with pytest.raises(ValueError, match="y_val: expected it beside X_val, got None"):
        own.fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="`y_val` has classes not in"):
        own.fit(X, y, X_val=X, y_val=y + 1)
    with pytest.raises(ValueError, match="X has 6 features, but MLPClassifier is expecting 7"):
        own.fit(X, y, X_val=X[:, :6], y_val=y)
    with pytest.raises(
        ValueError, match="sample_weight, class_weight: expected a finite sum above 0"
    ):
        clone(own).set_params(class_weight=dict.fromkeys(range(3), 0.0)).fit(X, y)
    with pytest.raises(ValueError, match="Negative values"):
        own.fit(X, y, sample_weight=-np.ones(len(y)))
    X, y, own, _ = pair("one value")
    for texts in (y.astype(str), y.astype(bytes), np.full(len(y), "high")):
        with pytest.raises(ValueError, match="y: expected real numbers, got an array of dtype"):
            own.fit(X, texts)
    with pytest.raises(ValueError, match=r"[Cc]omplex"):
        own.fit(X, y + 1j)
    own.fit(X, y.astype(object))
    X, y, own, _ = pair("counts")
    with pytest.raises(ValueError, match="y: expected numbers of at least 0 with loss='poisson'"):
        own.fit(X, y - 9)
    X, y, own, _ = pair("two values")
    own.partial_fit(X, y)
    with pytest.raises(ValueError, match="y: expected 2 targets a sample, got 1"):
        own.partial_fit(X, y[:, 0])


OTHER_CLASSES = {
    "three classes": np.arange(103) % 5, "two classes": np.arange(103) % 3,
    "several labels": np.eye(5, dtype=int)[np.arange(103) % 5],
}  # fmt: skip


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_refused_fit_leaves_the_classes_of_the_network(kind, solver):
    X, y, own, _ = pair(kind, solver=solver)
    own.fit(X, y)
    before, names = own.predict(X), set(vars(own))
    others = OTHER_CLASSES[kind]
    with pytest.raises(ValueError, match=r"[Ww]eights? .*zero"):
        own.fit(np.hstack([X, X]), others, sample_weight=np.zeros(len(y)))
    assert set(vars(own)) == names
    assert own.n_features_in_ == 7
    np.testing.assert_array_equal(own.predict(X), before)
    own.set_params(solver="adam")
    with pytest.raises(ValueError, match="`y` has classes not in"):
        own.partial_fit(X, others)
    own.partial_fit(X, y)


def test_a_refused_first_call_leaves_no_classes():
    X, y, own, _ = pair("three classes")
    with pytest.raises(ValueError, match=r"[Ww]eights? .*zero"):
        own.partial_fit(X, y, sample_weight=np.zeros(len(y)), classes=[0, 1, 2, 3])
    assert not hasattr(own, "classes_")
    own.partial_fit(X, y, classes=[0, 1, 2])
    assert own.n_outputs_ == 3


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_a_user_puts_in(kind, backend):
    X, y, own, _ = pair(kind)
    own.fit(X, y)
    others = OTHER_CLASSES[kind]
    own.classes_ = np.arange(5)
    before = own.coefs_[0].copy()
    with pytest.raises(ValueError, match="y: expected"):
        own.partial_fit(X, others)
    if kind == "three classes":
        own._label_binarizer.fit(others)
        with pytest.raises(ValueError, match="y: expected class ids from 0 to 2, got 3"):
            own.partial_fit(X, others)
        with pytest.raises(ValueError, match="y_val: expected class ids from 0 to 2, got 4"):
            own.partial_fit(X, y, X_val=X[:1], y_val=[4])
    if kind == "two classes":
        own._label_binarizer.fit(others)
        with pytest.raises(ValueError, match="y: expected numbers from 0 to 1, got 2"):
            own.partial_fit(X, others)
    np.testing.assert_array_equal(own.coefs_[0], before)


def test_classes_and_labels_do_not_take_turns():
    X, y, own, _ = pair("three classes")
    labels = np.eye(3, dtype=int)[y]
    own.fit(X, y)
    with pytest.raises(ValueError, match=r"y: expected shape \(103,\), .* got \(103, 3\)"):
        own.partial_fit(X, labels)
    own.fit(X, labels)
    with pytest.raises(ValueError, match=r"y: expected shape \(103, 3\), .* got \(103,\)"):
        own.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y: expected shape \(103, 3\), .* got \(103, 2\)"):
        own.partial_fit(X, labels[:, :2])
    own.partial_fit(X, labels)


def test_an_error_says_how_to_get_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None; import fastnn.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode != 0
    assert "pip install scikit-learn" in run.stderr
