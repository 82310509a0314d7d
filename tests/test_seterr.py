"""Whatever `np.seterr` has been told, fastnn computes; who is called back finds it unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import BatchNorm, Dense, Dropout, Network, ReLU, Sigmoid
from fastnn.bench.trainings import OPTIMIZERS

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings(
        "ignore:X. 6 of 6 columns",
        "ignore:the loss",
        "ignore:the validation loss",
        "ignore:Stochastic Optimizer",
        "ignore:lbfgs failed",
    ),
]


@pytest.fixture(autouse=True)
def strict():
    with np.errstate(all="raise"):
        yield


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scale", [1.0, 1e-42, 1e30])
def test_a_network_under_strict_rules(optimizer, scale, rng):
    """Inputs whose products underflow and overflow float32."""
    X = rng.normal(size=(70, 6)) * scale
    y = np.arange(70) % 3
    layers = [Dense(6, 9), BatchNorm(9), ReLU(), Dropout(0.2), Dense(9, 8), Sigmoid(), Dense(8, 3)]
    network = Network(layers, optimizer=OPTIMIZERS[optimizer](), seed=0)
    seen = []
    network.fit(
        X, y, epochs=2, batch_size=16, validation_data=(X, y), train_accuracy=True,
        callbacks=[lambda *_: seen.append(np.geterr())], on_divergence="ignore",
    )  # fmt: skip
    assert seen == [np.geterr()] * 2
    network.train_step(X[:7], y[:7])
    network.gradients(X[:7], y[:7])
    network.evaluate(X, y)
    network.forward(X)
    network.predict_proba(X)
    network.predict(X[:1])
    network(X)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "poisson"])
@pytest.mark.parametrize("scale", [1e-42, 1e30])
def test_losses_under_strict_rules(loss, scale, rng):
    X = rng.normal(size=(70, 6)) * scale
    y = (rng.normal(size=(70, 2)) > 0).astype(float)
    network = Network([Dense(6, 2)], loss=loss, seed=0, clip_norm=1.0)
    network.fit(X, y, epochs=2, sample_weight=np.full(70, 0.5), on_divergence="ignore")
    network.evaluate(X, y)
    network.predict(X)
    assert np.geterr() == dict.fromkeys(("divide", "over", "under", "invalid"), "raise")


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("scale", [1.0, 1e-42])
def test_estimators_under_strict_rules(solver, scale, rng):
    estimators = pytest.importorskip("fastnn.sklearn")
    X = rng.normal(size=(70, 6)) * scale
    options = {"hidden_layer_sizes": (9,), "solver": solver, "max_iter": 3, "random_state": 0}
    classifier = estimators.MLPClassifier(**options)
    classifier.fit(X, np.arange(70) % 3).predict_log_proba(X)
    regressor = estimators.MLPRegressor(**options)
    regressor.fit(X, X[:, :2], sample_weight=np.full(70, 0.5)).predict(X)
