"""Every parameter of the estimators, and all data, against what they can't be: one table.

The words are scikit-learn's own where it refuses, fastnn's where only fastnn does. What is refused
is so before anything is trained.
"""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import numpy as np
import pytest

import fastnn

neural_network = pytest.importorskip("sklearn.neural_network")
estimators = pytest.importorskip("fastnn.sklearn")
sparse = pytest.importorskip("scipy.sparse")
NotFittedError = pytest.importorskip("sklearn.exceptions").NotFittedError

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
X, Y = np.linspace(-1, 1, 24).reshape(6, 4), np.array([0, 1, 2, 0, 1, 2])
KINDS = [getattr(estimators, name) for name in estimators.__all__]
QUICK = {"hidden_layer_sizes": (5,), "max_iter": 2, "random_state": 0}
NOTHING: list[Any] = ["x", b"x", 1j, [0.1, 0.2], {}, object(), NAN, None]
NOT_REAL: list[Any] = [*NOTHING, np.float32(NAN), -1, -INF, np.array([1]), (0.5,), "3"]
NOT_COUNTS: list[Any] = [*NOT_REAL, 0, 0.5, 2.0, False]
NOT_FLAGS: list[Any] = [*NOTHING, 0, 1, 0.5, np.array([True])]

PARAMETERS: dict[str, list[Any]] = {
    "hidden_layer_sizes": [-1, 0, 1.5, None, "x", NAN, (0,), (-1, 3), (1.5,), (2.0,), (True,),
                           ("a",), [[3]], (NAN,), (None,), np.array([2.0]), np.ones((2, 2), int),
                           (2**63,), (10**5000,)],
    "activation": [*NOTHING, 3, np.sin, fastnn.ReLU, ["relu", "relu"], [3], [["relu"]], [None],
                   fastnn.Dense(5, 5)],
    "solver": [*NOTHING, 3, "SGD", True],
    "alpha": [*NOT_REAL, HUGE],
    "batch_size": [*NOT_COUNTS, "Auto"],
    "learning_rate": [*NOTHING, 0.1, "Constant"],
    "learning_rate_init": [*NOT_REAL, 0, HUGE],
    "power_t": [*NOT_REAL, HUGE],
    "max_iter": NOT_COUNTS,
    "shuffle": NOT_FLAGS,
    "random_state": ["x", -1, 1.5, NAN, [1, 2], np.random.default_rng(0), HUGE],
    "tol": [*NOT_REAL, HUGE],
    "verbose": ["x", -1, NAN, None, [1]],
    "warm_start": NOT_FLAGS,
    "momentum": [*NOT_REAL, 1.5, HUGE],
    "nesterovs_momentum": NOT_FLAGS,
    "early_stopping": NOT_FLAGS,
    "validation_fraction": [*NOT_REAL, 0, 1.0, HUGE],
    "beta_1": [*NOT_REAL, 1.0, HUGE],
    "beta_2": [*NOT_REAL, 1.0, HUGE],
    "epsilon": [*NOT_REAL, 0, HUGE],
    "n_iter_no_change": NOT_COUNTS,
    "max_fun": NOT_COUNTS,
    "loss": [*NOTHING, "log_loss", 3],
    "class_weight": ["x", 3, NAN, object(), {3: 1.0}, {0: -1.0}, {0: NAN}, {0: "x"}, {"a": 1.0},
                     [{0: 1.0}], [3], {0: 0.0, 1: 0.0, 2: 0.0}, {0: HUGE}],
    "dropout": [*NOTHING, -1, 1.0, HUGE, (0.1, 0.2), [1.0], [NAN], ["x"], [True]],
    "batch_norm": NOT_FLAGS,
    "optimizer": ["x", 3, NAN, fastnn.Adam, object(), ["adam"]],
    "schedule": ["x", 3, 0.1, NAN, [print]],
    "callbacks": ["x", 3, NAN, [3], ["print"], {}],
    "threads": [0, -1, 1.5, NAN, "2", [2], 1j],
}  # fmt: skip

BESIDE: dict[str, dict[str, Any]] = {
    "validation_fraction": {"early_stopping": True},
    "power_t": {"solver": "sgd", "learning_rate": "invscaling"},
    "momentum": {"solver": "sgd"},
    "max_fun": {"solver": "lbfgs"},
}
"""Parameters with which one is used."""

NO_NUMBERS: list[Any] = [
    np.full((6, 4), 1j), np.full((6, 4), "a"), np.full((6, 4), object()), "text", {1, 2},
    iter([1, 2]), object(), 3.0, X[0], X[:0], X[:, :0], X[None], [], [[1, 2, 3, 4], [1]], X * NAN,
    X + INF, np.ma.masked_less(X, 0), [[None] * 4] * 6, np.zeros((6, 4), "M8[s]"),
    np.zeros((6, 4), "m8[s]"), np.zeros((6, 4), [("a", float)]), [[HUGE] * 4] * 6,
    sparse.csr_matrix(X * NAN), [[np.datetime64("2026-01-01")] * 4] * 6,
    [[np.timedelta64(1, "s"), 1.0, 2.0, 3.0]] * 6,
    np.array([[np.datetime64("2026-01-01"), 1.0, 2.0, 3.0]] * 6, object),
]  # fmt: skip
NO_TARGETS: list[Any] = [
    np.full(6, 1j), np.full(6, object()), "text", {"a": 1}, 3, [[1], [1, 2]], Y[:5], Y[:0],
    Y[None, None], Y * NAN, Y + INF, [None] * 6, np.ma.masked_equal(Y, 1), object(),
]  # fmt: skip

GIVEN: dict[str, list[Any]] = {
    "X": [*NO_NUMBERS, None, X[:5]],
    "y": [*NO_TARGETS, None],
    "sample_weight": [
        -np.ones(6), NAN * np.ones(6), INF * np.ones(6), np.zeros(6), np.ones(5), X, "x", ["x"] * 6,
        np.full(6, 1j), np.full(6, 1e308), [[1], [1, 2]], object(), [None] * 6,
        np.ma.masked_equal(np.arange(6), 1),
    ],
    "X_val": [*NO_NUMBERS, None, X[:5], X[:, :3]],
    "y_val": [*NO_TARGETS, None],
    "classes": [None, [], [0, 1], "abc", 3, [0, 1, 2, NAN], [[0, 1, 2]], object(), [0.5, 1, 2],
                ["a", "b", "c"], {0, 1, 2}, [None] * 3, [1j, 2, 3]],
}  # fmt: skip
"""Of data that methods take, what each of them can't be."""

OF_THE_CLASSIFIER: list[Any] = [Y + 0.5, np.array([1, "a", 2, None, 1, 2], object),
                                Y.astype(bytes)]  # fmt: skip
OF_THE_REGRESSOR: list[Any] = [Y.astype("M8[s]"), np.full(6, "a"), Y.astype(bytes), [HUGE] * 6,
                               sparse.csr_matrix(np.eye(6))]  # fmt: skip


def said(function: Any, *arguments: Any, **given: Any) -> str:
    """Return what is said of arguments."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            function(*arguments, **given)
        except (ValueError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"no refusal, {type(error).__name__}: {error}"
    return "accepted"


@pytest.fixture(autouse=True)
def no_training(request, monkeypatch):
    """Nothing is trained, unless a test asks for it."""
    if "trained" in request.fixturenames:
        return

    def train(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr("fastnn.sklearn.base.BaseMLP._fit_stochastic", train)
    monkeypatch.setattr("fastnn.sklearn.lbfgs.fit", train)


@pytest.fixture
def trained():
    """For a test that trains."""


def test_the_table_is_whole():
    known = {name for kind in KINDS for name in inspect.signature(kind).parameters}
    assert known == PARAMETERS.keys()
    methods = {"fit", "partial_fit"}
    taken = {
        name for kind in KINDS for m in methods for name in inspect.signature(getattr(kind, m))
        .parameters
    }  # fmt: skip
    assert taken - {"self"} == GIVEN.keys()


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_is_refused_by_name(kind, name):
    if name not in inspect.signature(kind).parameters:
        pytest.skip("has none of this name")
    wrong = []
    for value in PARAMETERS[name]:
        words = {}
        for backend in fastnn.available_backends():
            with fastnn.use_backend(backend):
                options = {**QUICK, **BESIDE.get(name, {}), name: value}
                words[backend] = said(kind(**options).fit, X, Y)
        found = words[backend]
        named = rf"\w+Error: (The '{name}' parameter of .* must be .* Got .* instead|"
        named += rf"(.*\b)?{name}\b.*(: expected .*, got |must be > 0, got ))"
        if len(set(words.values())) > 1 or not re.match(named, found, re.S):
            wrong.append(f"{value!r:.40}: {words}"[:400])
    assert wrong == [], "\n".join(wrong)


def same_words(kind: type, found: str, method: str, **given: Any) -> bool:
    """Say whether scikit-learn's estimator refuses it in these words."""
    theirs = getattr(neural_network, kind.__name__)
    in_partial_fit = found == said(getattr(theirs(**QUICK), method), **given)
    given.pop("classes", None)
    return in_partial_fit or found == said(theirs(**QUICK).fit, **given)


DATA_CASES = [
    (kind, method, name)
    for kind in KINDS
    for method in ("fit", "partial_fit")
    for name in inspect.signature(getattr(kind, method)).parameters
    if name != "self"
]


@pytest.mark.parametrize(("kind", "method", "name"), DATA_CASES)
def test_data_are_refused(kind, method, name):
    """Also on the layer path, where a hidden layer is one that only Python knows."""
    good: dict[str, Any] = {"X": X, "y": Y if "Classifier" in kind.__name__ else Y * 1.0}
    good |= {"X_val": X, "y_val": good["y"]} if name.endswith("_val") else {}
    good |= {"classes": [0, 1, 2]} if (kind, method) == (KINDS[0], "partial_fit") else {}
    values = [*GIVEN[name]]
    if name in ("y", "y_val"):
        values += OF_THE_CLASSIFIER if "Classifier" in kind.__name__ else OF_THE_REGRESSOR
    wrong = []
    own = fastnn.Activation(np.sin, np.cos)
    for value in values:
        words = []
        given = {**good, name: value}
        for activation in ("relu", own):
            for backend in fastnn.available_backends():
                with fastnn.use_backend(backend):
                    call = getattr(kind(**QUICK, activation=activation), method)
                    words.append(said(call, **given))
        refused = re.match(r"(Value|Type|UFuncType)Error: ", words[0])
        named = re.match(
            rf"\w+: (X_val, y_val: |(.*\b)?{name}\b.*(expected|has classes not in|contains)|"
            rf"Negative values in data passed to `{name}`|.*requires {name} to be passed)",
            words[0],
        )
        if len(set(words)) > 1 or not refused or not (
            named or same_words(kind, words[0], method, **given)
        ):  # fmt: skip
            wrong.append(f"{value!r:.40}: {words}"[:400])
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_refused(kind, trained):
    fitted = kind(**QUICK)
    theirs = getattr(neural_network, kind.__name__)(**QUICK)
    names = ("predict", "predict_proba", "predict_log_proba", "score")
    methods = [name for name in names if hasattr(kind, name)]
    for method in methods:
        more = [Y] if method == "score" else []
        with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted"):
            getattr(fitted, method)(X, *more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(X, Y)
        theirs.fit(X, Y)
    wrong = []
    for value in (*GIVEN["X"][:-1], X[:, :3]):
        for method in methods:
            more = [Y] if method == "score" else []
            found = said(getattr(fitted, method), value, *more)
            named = re.match(r"(ValueError|TypeError): (Input )?X\b.*(expect|contains)", found)
            if not named and (
                found == "accepted" or found != said(getattr(theirs, method), value, *more)
            ):
                wrong.append(f"{method} {value!r:.40}: {found}"[:300])
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("power_t", [2**63, 10**9, 1e300])
def test_a_rate_that_falls_at_once(power_t, trained):
    """A power of integers would take for ever."""
    options = {"solver": "sgd", "learning_rate": "invscaling", "power_t": power_t}
    with pytest.warns(UserWarning, match="Maximum iterations"):
        fitted = estimators.MLPRegressor(**QUICK, **options).fit(X, Y)
    assert np.isfinite(fitted.loss_)


@pytest.mark.parametrize("kind", KINDS)
def test_times_of_polars(kind):
    """Which it would count in some unit, from 1970 on."""
    polars = pytest.importorskip("polars")
    days = polars.DataFrame({"day": np.arange(6).astype("M8[D]"), "x": X[:, 0]})
    times = polars.DataFrame({"time": np.arange(6).astype("m8[ms]")})
    for table, said_of in ((days, "Date"), (times, "Duration")):
        with pytest.raises(TypeError, match=f"X: expected real numbers, got dtype {said_of}"):
            kind(**QUICK).fit(table, Y)
