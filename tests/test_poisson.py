"""Poisson's loss and half the squared error: values, gradients, both paths, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import BATCHES

import fastnn
from fastnn import Dense, Network, Tanh, backends

NAMES = ("poisson", "half_squared_error")


def expected(z, t):
    """Return losses and gradient in higher precision."""
    z, t = z.astype(np.longdouble), t.astype(np.longdouble)
    return (np.exp(z) - t * z).sum(axis=1), (np.exp(z) - t) / len(z)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("outputs", [1, 5, 16, 35])
def test_values_and_gradients(batch, outputs, backend, dtype, arrange, rng):
    operations = backends.load(backend)
    z = arrange(rng.normal(scale=3, size=(batch, outputs)).astype(dtype))
    t = arrange(rng.poisson(2.0, size=(batch, outputs)).astype(dtype))
    losses, gradient = expected(z, t)
    bound = np.finfo(dtype).eps * (np.exp(z) + np.abs(t * z) + t)
    off = np.abs(operations.poisson_loss(z, t) - losses)
    assert (off <= (4 + outputs) * bound.sum(axis=1)).all()
    found = operations.poisson_loss_gradient(z, t)
    assert found.dtype == dtype
    assert (np.abs(found - gradient) * batch <= 8 * bound).all()


def test_extreme_logits(backend, dtype):
    operations = backends.load(backend)
    z = np.array([[-np.inf, 0.0], [1e4, 0.0], [-1e4, 0.0], [np.nan, 0.0], [-1e4, 0.0]], dtype)
    t = np.array([[0.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]], dtype)
    with np.errstate(over="ignore"):  # as in training
        losses, gradient = operations.poisson_loss(z, t), operations.poisson_loss_gradient(z, t)
    np.testing.assert_array_equal(losses, [1.0, np.inf, 20001.0, np.nan, 1.0])
    np.testing.assert_array_equal(gradient[:, 0] * 5, np.array([0, np.inf, -2, np.nan, 0], dtype))


def largest_logarithm(dtype):
    """Return the largest number whose exponential is finite."""
    found = np.log(np.finfo(dtype).max).astype(dtype)
    while np.exp(found.astype(np.longdouble)) > np.finfo(dtype).max:
        found = np.nextafter(found, np.zeros((), dtype))
    return found


def test_rates_up_to_the_largest_number(backend, dtype):
    """exp(z) is infinite where it is beyond the largest number, and not before."""
    operations, highest = backends.load(backend), largest_logarithm(dtype)
    factors = [1, 0.9999, 0.99, 0.985, 0.5, 0.01, 0, -0.5, -0.98]
    z = (highest * np.array(factors, dtype))[:, np.newaxis]
    t = np.zeros_like(z)
    losses, gradient = expected(z, t)
    bound = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(operations.poisson_loss(z, t), losses, rtol=bound)
    np.testing.assert_allclose(operations.poisson_loss_gradient(z, t), gradient, rtol=bound)
    beyond = np.full((3, 20), np.nextafter(highest, np.array(np.inf, dtype)))
    with np.errstate(over="ignore"):
        assert (operations.poisson_loss_gradient(beyond, np.ones_like(beyond)) == np.inf).all()


@pytest.mark.parametrize("path", ["compiled epoch", "layer by layer"])
def test_a_rate_near_the_largest_number_is_no_divergence(path, backend, dtype):
    logarithm = 0.99 * largest_logarithm(dtype)
    dense = Dense(2, 2, 0.5, weights="zeros", biases=lambda rng, shape: np.full(shape, logarithm))
    network = Network([dense], loss="poisson", backend=backend, dtype=dtype)
    X, y = np.zeros((5, 2)), np.zeros((5, 2))
    if path == "compiled epoch":
        loss = network.fit(X, y, batch_size=5).loss[0]
    else:
        loss = network.train_step(X, y)
    assert loss == pytest.approx(2 * np.exp(float(logarithm)), rel=100 * float(np.finfo(dtype).eps))
    assert np.isfinite(dense.parameters["biases"]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 33])
def test_both_backends_train_alike(batch, weighted, name, dtype, rng):
    X = rng.normal(size=(40, 6)).astype(dtype)
    y = rng.poisson(1.5, size=(40, 3))
    weights = rng.random(40) if weighted else None
    networks = [
        Network(
            [Dense(6, 9, 0.01), Tanh(), Dense(9, 3, 0.01)],
            loss=name, backend=kind, dtype=dtype, seed=0,
        )
        for kind in ("numba", "numpy")
    ]  # fmt: skip
    assert networks[0].explain().startswith("compiled epoch")
    histories = [
        network.fit(X, y, epochs=3, batch_size=batch, sample_weight=weights) for network in networks
    ]
    steps = 3 * -(-40 // batch)
    bound = 40 * steps * np.finfo(dtype).eps
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=bound)
    assert histories[0].accuracy == []
    for a, b in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_allclose(a, b, atol=bound)


def test_half_squared_error_is_so_many_times_mse(rng):
    X, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    half, mean = (
        Network([Dense(4, 3)], loss=name, seed=0, dtype="f8")
        for name in ("half_squared_error", "mse")
    )
    assert half.evaluate(X, y).loss == pytest.approx(mean.evaluate(X, y).loss * 1.5, rel=1e-14)
    gradients = [network.gradients(X, y)[1][0]["weights"] for network in (half, mean)]
    np.testing.assert_allclose(gradients[0], gradients[1] * 1.5, rtol=1e-13)


def test_answers_are_rates(rng):
    X = rng.normal(size=(300, 4)).astype(np.float32)
    rates = np.exp(X @ [0.5, -0.5, 0.2, 0.0])
    network = Network([Dense(4, 1)], loss="PoissonNLLLoss", optimizer=fastnn.Adam(0.05), seed=0)
    network.fit(X, rates, epochs=30)
    assert network.loss == "poisson"
    np.testing.assert_allclose(network.predict(X)[:, 0], rates, rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_files_hold_the_loss(name, tmp_path, rng):
    network = Network([Dense(4, 2)], loss=name, seed=0)
    network.save(tmp_path / "model.safetensors")
    loaded = fastnn.load(tmp_path / "model.safetensors")
    X = rng.normal(size=(5, 4))
    assert loaded.loss == name
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[1.0, -1.0]], r"y: expected finite numbers of at least 0, got -1.0 at index 0"),
        ([[1.0, np.nan]], r"y: expected finite numbers of at least 0, got nan at index 0"),
        ([[np.inf, 1.0]], r"y: expected finite numbers of at least 0, got inf at index 0"),
        ([[1.0, 1e300]], r"got 1e\+300 at index 0, which is infinite in float32"),
        ([[1.0]], r"y: expected shape \(1, 2\), got \(1, 1\)"),
    ],
)
def test_refused_targets(y, message):
    network = Network([Dense(3, 2)], loss="poisson", seed=0)
    with pytest.raises(ValueError, match=message):
        network.fit(np.ones((1, 3)), np.array(y))
    with pytest.raises(TypeError, match="predict_proba: expected a network with the loss"):
        network.predict_proba(np.ones((1, 3)))
