"""Networks and perceptrons of scikit-learn: the same predictions."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import BatchNorm, Dense, Dropout, Network, ReLU, Rescaling, Sigmoid, Tanh

neural_network = pytest.importorskip("sklearn.neural_network")
MLPClassifier, MLPRegressor = neural_network.MLPClassifier, neural_network.MLPRegressor
make_pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline
estimators = pytest.importorskip("fastnn.sklearn")
clone = pytest.importorskip("sklearn.base").clone

ACTIVATIONS = {"identity": None, "relu": ReLU, "tanh": Tanh, "logistic": Sigmoid}


def tolerance(dtype) -> dict[str, float]:
    """Of sums of a few dozen terms of about 1, one after the other in a few layers."""
    return dict.fromkeys(("rtol", "atol"), 200 * np.finfo(dtype).eps)


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few epochs are no convergence
        return estimator.set_params(max_iter=5, random_state=0).fit(X, y)


@pytest.fixture(name="X")
def data(rng, dtype):
    return rng.standard_normal((67, 6)).astype(dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_a_classifier_there_and_back(activation, hidden, X, dtype, backend):
    labels = np.array(["apple", "pear", "plum"])
    y = labels[np.abs(X[:, :3]).argmax(axis=1)]
    theirs = fitted(MLPClassifier(hidden, activation), X, y)
    ours = fastnn.from_sklearn(theirs, backend=backend)
    assert (ours.dtype, ours.loss, ours.backend) == (dtype, "softmax_cross_entropy", backend)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), **tolerance(dtype))
    np.testing.assert_array_equal(theirs.classes_[ours.predict(X)], theirs.predict(X))
    back = ours.to_sklearn(classes=theirs.classes_)
    assert (back.activation, back.hidden_layer_sizes) == (
        activation if hidden else "identity",
        hidden,
    )
    np.testing.assert_array_equal(back.predict_proba(X), theirs.predict_proba(X))
    np.testing.assert_array_equal(back.predict(X), theirs.predict(X))
    assert back.score(X, y) == theirs.score(X, y)


def test_two_classes_there_and_back(X, dtype, backend):
    y = np.where(X[:, 0] > X[:, 1], "yes", "no")
    theirs = fitted(MLPClassifier((7,)), X, y)
    ours = fastnn.from_sklearn(theirs, backend=backend)
    assert (ours[-1].output_units, ours.loss) == (1, "binary_cross_entropy")
    of_yes = theirs.predict_proba(X)[:, 1:]
    np.testing.assert_allclose(ours.predict_proba(X), of_yes, **tolerance(dtype))
    np.testing.assert_array_equal(theirs.classes_[ours.predict(X)], theirs.predict(X))
    back = ours.to_sklearn(classes=theirs.classes_)
    np.testing.assert_array_equal(back.predict_proba(X)[:, 1:], of_yes)
    np.testing.assert_array_equal(back.predict(X), theirs.predict(X))


def test_several_labels_there_and_back(X, dtype, backend):
    y = (X[:, :3] > 0.2).astype(int)
    theirs = fitted(MLPClassifier((7,)), X, y)
    ours = fastnn.from_sklearn(theirs, backend=backend)
    assert (ours[-1].output_units, ours.loss) == (3, "binary_cross_entropy")
    expected = theirs.predict_proba(X)
    np.testing.assert_allclose(ours.predict_proba(X), expected, **tolerance(dtype))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    loss = ours.evaluate(X, y).loss
    back = ours.to_sklearn()
    np.testing.assert_array_equal(back.predict_proba(X), expected)
    np.testing.assert_array_equal(back.predict(X), theirs.predict(X))
    # the same loss, but for the penalty: so training goes on where it stood
    summed = -(y * np.log(expected) + (1 - y) * np.log1p(-expected)).sum(axis=1)
    assert loss == pytest.approx(summed.mean(), rel=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor_there_and_back(outputs, X, dtype, backend):
    y = X[:, :outputs] - X[:, -1:]
    theirs = fitted(
        MLPRegressor(hidden_layer_sizes=(9, 4), activation="tanh"), X, y if outputs > 1 else y[:, 0]
    )
    ours = fastnn.from_sklearn(theirs, backend=backend)
    assert (ours.dtype, ours.loss) == (dtype, "half_squared_error")
    predicted = theirs.predict(X)
    np.testing.assert_allclose(ours.predict(X), predicted.reshape(-1, outputs), **tolerance(dtype))
    back = ours.to_sklearn()
    assert isinstance(back, MLPRegressor)
    np.testing.assert_array_equal(back.predict(X), predicted)


def test_rates_there_and_back(X, dtype, backend):
    theirs = MLPRegressor(loss="poisson", hidden_layer_sizes=(9,))
    theirs = fitted(theirs, X, np.exp(X[:, 0]).round())
    ours = fastnn.from_sklearn(theirs, backend=backend)
    assert ours.loss == "poisson"
    np.testing.assert_allclose(ours.predict(X)[:, 0], theirs.predict(X), **tolerance(dtype))
    np.testing.assert_array_equal(ours.to_sklearn().predict(X), theirs.predict(X))


def test_half_the_squared_error(X):
    network = Network([Dense(6, 2)], loss="half_squared_error", dtype=X.dtype, seed=0)
    theirs = network.to_sklearn()
    np.testing.assert_allclose(theirs.predict(X), network.predict(X), **tolerance(X.dtype))


def test_two_classes_are_one_output_there(X, dtype):
    y = (X[:, 0] > 0).astype(int)
    network = Network([Dense(6, 5), ReLU(), Dense(5, 2)], dtype=dtype, seed=0)
    network.fit(X, y, epochs=3)
    theirs = network.to_sklearn(classes=["no", "yes"])
    assert theirs.out_activation_ == "logistic"
    np.testing.assert_array_equal(theirs.predict(X) == "yes", network.predict(X))
    assert theirs.coefs_[-1].shape == (5, 1)
    np.testing.assert_allclose(
        theirs.predict_proba(X), network.predict_proba(X), **tolerance(dtype)
    )


def test_batch_norm_and_rescaling_become_part_of_dense_layers(X, dtype, rng):
    y = rng.integers(0, 3, len(X))
    layers = [Rescaling(0.5), BatchNorm(6), Rescaling(-3.0), Dense(6, 5), BatchNorm(5), ReLU()]
    layers += [Dropout(0.2), BatchNorm(5), Dense(5, 4), ReLU(), Dense(4, 3), Rescaling(2.0)]
    network = Network(layers, dtype=dtype, seed=0)
    network.fit(X, y, epochs=5)
    theirs = network.to_sklearn()
    assert [weights.shape for weights in theirs.coefs_] == [(6, 5), (5, 4), (4, 3)]
    assert {weights.dtype for weights in theirs.coefs_} == {dtype}
    np.testing.assert_allclose(
        theirs.predict_proba(X), network.predict_proba(X), **tolerance(dtype)
    )
    assert theirs.loss_curve_ == network.history.loss
    assert theirs.n_iter_ == 5


def test_what_an_estimator_can_do_then(X, rng):
    y = rng.integers(0, 3, len(X))
    before = np.random.get_state()[2]  # noqa: NPY002 - how many numbers have been drawn
    theirs = Network([Dense(6, 5), ReLU(), Dense(5, 3)], dtype=X.dtype, seed=0).to_sklearn()
    assert np.random.get_state()[2] == before  # noqa: NPY002
    assert theirs.get_params() == MLPClassifier((5,)).get_params()
    weights = theirs.coefs_[0].copy()
    theirs.partial_fit(X, y)
    # a first step of Adam is that of the rate for each weight, none of them remembered
    moved = np.abs(theirs.coefs_[0] - weights)
    assert moved.max() == pytest.approx(theirs.learning_rate_init, rel=1e-3)
    assert fitted(clone(theirs), X, y).n_iter_ == 5


@pytest.mark.parametrize(
    "estimator",
    [
        estimators.MLPClassifier((7,)),
        estimators.MLPClassifier((7,), activation="gelu", dropout=0.2, batch_norm=True),
        estimators.MLPRegressor(hidden_layer_sizes=(7,), optimizer="momentum", solver="sgd"),
    ],
)
def test_files_of_skops(estimator, X, tmp_path):
    skops = pytest.importorskip("skops.io")
    of_classes = isinstance(estimator, estimators.MLPClassifier)
    y = np.abs(X[:, :3]).argmax(axis=1) if of_classes else X[:, 0]
    estimator = fitted(clone(estimator), X, y)
    skops.dump(estimator, tmp_path / "estimator.skops")
    types = skops.get_untrusted_types(file=tmp_path / "estimator.skops")
    assert all(name.startswith("fastnn.") or name == "numpy.dtype" for name in types)
    again = skops.load(tmp_path / "estimator.skops", trusted=types)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    # and it goes on to the same bits
    for one in (again, estimator):
        one.partial_fit(X, y)
    for ours, theirs in zip(again.coefs_, estimator.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_skops_trusts_what_to_sklearn_made(X, tmp_path):
    skops = pytest.importorskip("skops.io")
    estimator = Network([Dense(6, 5), ReLU(), Dense(5, 3)], dtype=X.dtype, seed=0).to_sklearn()
    skops.dump(estimator, tmp_path / "estimator.skops")
    again = skops.load(tmp_path / "estimator.skops")
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))


def test_another_dtype(X):
    theirs = fitted(MLPRegressor(hidden_layer_sizes=(4,)), X, X[:, 0])
    network = fastnn.from_sklearn(theirs, dtype="float32", optimizer="adam", seed=0)
    assert network.dtype == np.float32
    np.testing.assert_allclose(network.predict(X)[:, 0], theirs.predict(X), **tolerance("float32"))
    network.fit(X, X[:, 0])


def test_estimators_that_are_refused(X):
    pipeline = make_pipeline(MLPClassifier())
    with pytest.raises(TypeError, match=r"MLPRegressor of scikit-learn, got .*Pipeline"):
        fastnn.from_sklearn(pipeline)
    with pytest.raises(ValueError, match=r"expected a fitted one, got MLPRegressor\(\)"):
        fastnn.from_sklearn(MLPRegressor())
    other = fitted(MLPRegressor(hidden_layer_sizes=(4,)), X, X[:, 0])
    other.out_activation_ = "tanh"
    with pytest.raises(TypeError, match=r"got MLPRegressor.* with outputs by tanh"):
        fastnn.from_sklearn(other)
    own = fitted(estimators.MLPClassifier((4,)), X, X[:, 0] > 0)
    with pytest.raises(TypeError, match=r"got fastnn\.sklearn\..*, whose network_ is a network"):
        fastnn.from_sklearn(own)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Dense(6, 5), fastnn.GELU(), Dense(5, 3)], r"write GELU\(\).*: expected one of ReLU"),
        (
            [Dense(6, 5), ReLU(), Dense(5, 4), Tanh(), Dense(4, 3)],
            r"Tanh.* the same activation, re",
        ),
        ([Dense(6, 5), ReLU(), Dense(5, 4), Dense(4, 3)], r"Dense\(4, 3.* the same activation, re"),
        ([ReLU(), Dense(6, 3)], r"write ReLU\(\).* a dense layer before each"),
        ([Dense(6, 5), ReLU(), Tanh(), Dense(5, 3)], r"write Tanh\(\).* a dense layer before each"),
        ([Dense(6, 3), ReLU()], r"write ReLU\(\).* a dense layer at the end"),
        ([Dense(6, 3), ReLU(), BatchNorm(3)], r"write BatchNorm.* a dense layer at the end"),
        ([Dropout(0.5)], "write no dense layer.* a dense layer at the end"),
        ([Dense(6, 1)], "at least two classes"),
        ([Dense(6, 3), fastnn.Activation(np.sin, np.cos)], "it is not one of fastnn's own"),
    ],
)
def test_networks_that_are_refused(layers, message):
    with pytest.raises(TypeError, match=message):
        Network(layers).to_sklearn()


def test_bad_classes():
    network = Network([Dense(6, 3)])
    for classes in (["a", "b"], ["b", "a", "c"], [["a", "b", "c"]], [0.5, 1.5, 2.5]):
        with pytest.raises(ValueError, match="classes: expected 3 labels in ascending order"):
            network.to_sklearn(classes=classes)
    for loss in ("mse", "binary_cross_entropy"):
        with pytest.raises(ValueError, match="classes: expected None, as "):
            Network([Dense(6, 3)], loss=loss).to_sklearn(classes=[0, 1, 2])


@pytest.mark.parametrize(
    ("own", "expected"),
    [("float16", "float32"), (">f4", "float32"), (">f8", "float64"), ("int8", "float64")],
)
def test_the_dtype_that_is_nearest(own, expected):
    theirs = fitted(MLPRegressor(hidden_layer_sizes=2), [[0.0], [1.0]], [0.0, 1.0])
    theirs.coefs_ = [weights.astype(own) for weights in theirs.coefs_]
    ours = fastnn.from_sklearn(theirs)
    assert ours.dtype == expected
    np.testing.assert_array_equal(ours[0].weights, theirs.coefs_[0])


def test_an_estimator_that_was_changed():
    theirs = fitted(MLPRegressor(hidden_layer_sizes=2), [[0.0], [1.0]], [0.0, 1.0])
    theirs.activation = ["relu"]
    with pytest.raises(ValueError, match="estimator: expected the activation identity or relu"):
        fastnn.from_sklearn(theirs)
    theirs.activation, theirs.coefs_ = "relu", [w.astype(np.longdouble) for w in theirs.coefs_]
    if np.longdouble is not np.float64 and np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match=r"estimator, coefs_\[0\]: expected data that computes"):
            fastnn.from_sklearn(theirs)


def test_another_loss():
    network = Network([Dense(6, 3)])
    network.use(lambda y, p: 0.0, lambda y, p: p)
    with pytest.raises(TypeError, match="to_sklearn: expected a network with the loss 'softmax"):
        network.to_sklearn()


def test_without_scikit_learn(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastnn.interchange.sklearn", raising=False)
    monkeypatch.delattr("fastnn.interchange.sklearn", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        Network([Dense(4, 3)]).to_sklearn()
