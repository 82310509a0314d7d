"""Batch norm: statistics of the batch in training, running ones in prediction."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from fastnn import Adam, BatchNorm, Dense, Network, ReLU
from fastnn.optimizers import SMALLEST_EPSILON

pytestmark = pytest.mark.usefixtures("backend")


def trained(layer: BatchNorm) -> BatchNorm:
    layer.training = True
    return layer


def test_training_normalises_the_batch(rng, dtype):
    X = (5 + 3 * rng.normal(size=(64, 9))).astype(dtype)
    network = Network([BatchNorm(9)], dtype=dtype)
    output = trained(network[0]).forward(X)
    assert output.dtype == dtype
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(output.mean(0), 0, atol=tolerance)
    np.testing.assert_allclose(output.var(0), X.var(0) / (X.var(0) + 1e-5), rtol=tolerance)


def test_running_statistics(rng):
    layer = trained(BatchNorm(3, momentum=0.75))
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(5):
        X = rng.normal(size=(8, 3))
        layer.forward(X)
        mean = 0.75 * mean + 0.25 * X.mean(0)
        variance = 0.75 * variance + 0.25 * X.var(0)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_variance, variance, rtol=1e-12)
    layer.training = False
    X = rng.normal(size=(8, 3))
    expected = (X - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer.forward(X), expected, rtol=1e-12)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    # a row's answer does not depend on its neighbours
    np.testing.assert_array_equal(layer.forward(X[:1]), layer.forward(X)[:1])


def test_a_batch_of_one_gives_shift(rng):
    layer = trained(BatchNorm(4))
    layer.shift = [1, 2, 3, 4]
    X, G = rng.normal(size=(2, 1, 4))
    np.testing.assert_array_equal(layer.forward(X), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(layer.backward(X, G), np.zeros((1, 4)))
    # one sample has no variance: 0 would be taken for that of the data
    np.testing.assert_array_equal(layer.running_mean, np.zeros(4))
    np.testing.assert_array_equal(layer.running_variance, np.ones(4))


@pytest.mark.parametrize("path", ["fit", "train_step"])
@pytest.mark.parametrize(("rows", "batch_size"), [(97, 32), (96, 32), (33, 16), (10, 3), (129, 64)])
def test_a_last_batch_of_one_spoils_no_statistics(rows, batch_size, path, rng, dtype):
    """The running averages are those of the batches that have a variance."""
    X = (3 + 2 * rng.normal(size=(rows, 5))).astype(dtype)
    y = rng.integers(0, 3, rows)
    network = Network([BatchNorm(5), Dense(5, 3)], seed=0, dtype=dtype)
    batches = [slice(start, start + batch_size) for start in range(0, rows, batch_size)]
    mean, variance = np.zeros(5), np.ones(5)
    for batch in batches:
        if path == "train_step":
            network.train_step(X[batch], y[batch])
        if len(X[batch]) > 1:
            mean += (X[batch].mean(0, np.float64) - mean) / 10
            variance += (X[batch].var(0, np.float64) - variance) / 10
    if path == "fit":
        network.fit(X, y, batch_size=batch_size, shuffle=False)
    # each batch adds the roundings of a mean of its size, and the averages few more
    tolerance = len(batches) * (4 + batch_size) * np.finfo(dtype).eps
    np.testing.assert_allclose(network[0].running_mean, mean, rtol=tolerance)
    np.testing.assert_allclose(network[0].running_variance, variance, rtol=tolerance)


@pytest.mark.parametrize("rows", [1, 2, 7, 32, 49, 100])
@pytest.mark.parametrize("value", [12345.678, 1000.0, 0.1, -3e7, 1e-40, 1.7e38])
@pytest.mark.parametrize("epsilon", [1e-30, SMALLEST_EPSILON])
def test_a_constant_column_gives_shift(value, rows, epsilon, dtype):
    layer = trained(BatchNorm(19, epsilon=epsilon))
    layer.shift = np.arange(19)
    X = np.full((rows, 19), value, dtype)
    np.testing.assert_array_equal(layer.forward(X), np.tile(np.arange(19), (rows, 1)))
    if rows > 1:
        dense = Dense(1, 19, 0.0, weights="zeros")
        norm = BatchNorm(19, momentum=0, epsilon=epsilon)
        in_epoch = Network([dense, norm, Dense(19, 2)], dtype=dtype, seed=0)
        dense.biases = X[0]
        in_epoch.fit(np.zeros((rows, 1)), np.arange(rows) % 2, batch_size=rows)
        np.testing.assert_array_equal(norm.running_mean, X[0])
        np.testing.assert_array_equal(norm.running_variance, np.zeros(19))


@pytest.mark.parametrize("epsilon", [1e-39, 1e-300])
def test_no_epsilon_that_rounds_to_zero(epsilon):
    """A column of one number would be 0 / 0 in float32."""
    with pytest.raises(ValueError, match=r"epsilon: expected a finite number of at least 1\.17"):
        BatchNorm(4, epsilon=epsilon)
    layer = BatchNorm(4)
    with pytest.raises(ValueError, match="epsilon: expected"):
        layer.epsilon = epsilon
    assert layer.epsilon == 1e-5


def test_a_large_mean_loses_no_digits(rng, dtype):
    """Differences of neighbouring numbers are exact, whatever they are added to."""
    eps, rows = np.finfo(dtype).eps, 100
    steps = rng.integers(-50, 50, (rows, 5))
    X = (1 + eps * steps).astype(dtype)
    layer = trained(BatchNorm(5, momentum=0, epsilon=1e-30))
    layer.forward(X)
    exact = steps.mean(axis=0)
    # the mean is rounded once, to a number beside 1
    found = (layer.running_mean.astype(np.float64) - 1) / eps
    np.testing.assert_allclose(found, exact, atol=0.5 + 50 * rows * eps)


def test_a_step_moves_scale_and_shift_alone(rng):
    layer = trained(BatchNorm(4, learning_rate=0.5))
    X, G = rng.normal(size=(2, 9, 4))
    layer.forward(X)
    mean, variance = layer.running_mean.copy(), layer.running_variance.copy()
    layer.backward(X, G)
    normalized = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5)
    np.testing.assert_allclose(layer.scale, 1 - 0.5 * (G * normalized).sum(0), rtol=1e-10)
    np.testing.assert_allclose(layer.shift, -0.5 * G.sum(0), rtol=1e-10)
    np.testing.assert_array_equal(layer.running_mean, mean)
    np.testing.assert_array_equal(layer.running_variance, variance)


def test_parameters_are_the_learned_ones(rng, dtype):
    network = Network([Dense(4, 5), BatchNorm(5), Dense(5, 2)], dtype=dtype)
    layer = network[1]
    assert set(layer.parameters) == {"scale", "shift"}
    assert network.parameter_count == 4 * 5 + 5 + 2 * 5 + 5 * 2 + 2
    for name in ("scale", "shift", "running_mean", "running_variance"):
        values = rng.normal(size=5).astype(dtype)
        setattr(layer, name, values)
        np.testing.assert_array_equal(getattr(layer, name), values)
        assert np.shares_memory(getattr(layer, name), network._parameters.vector)
        with pytest.raises(ValueError, match=rf"{name}: expected shape \(5,\)"):
            setattr(layer, name, np.ones(4))


def test_statistics_follow_the_layer_into_a_network(rng):
    layer = trained(BatchNorm(3))
    layer.forward(rng.normal(size=(8, 3)))
    before = copy.deepcopy(layer)
    network = Network([layer], dtype=np.float32)
    network.add(Dense(3, 2))
    np.testing.assert_allclose(layer.running_mean, before.running_mean, rtol=1e-6)
    np.testing.assert_allclose(layer.running_variance, before.running_variance, rtol=1e-6)


def test_dtypes(rng):
    X = rng.normal(size=(6, 3))
    single = trained(Network([BatchNorm(3)])[0])
    assert single.forward(X.astype(np.float32)).dtype == np.float32
    assert single.forward(np.ones((6, 3), np.uint8)).dtype == np.float32
    assert single.forward(X).dtype == np.float64
    assert single.backward(X, X.astype(np.float32)).dtype == np.float64
    assert trained(BatchNorm(3)).forward(X.astype(np.float32)).dtype == np.float64


def test_both_backends_agree(rng, dtype):
    X, y = rng.normal(size=(50, 6)), rng.integers(0, 3, 50)
    networks = [
        Network(
            [BatchNorm(6), Dense(6, 20), BatchNorm(20), ReLU(), Dense(20, 3)],
            seed=1,
            dtype=dtype,
            backend=name,
        )
        for name in ("numpy", "numba")
    ]
    # Whole batches alone: of two samples batch norm makes -1 and 1, whatever they were, and its
    # gradient is a difference of numbers that are almost equal.
    losses = [network.fit(X, y, epochs=3, batch_size=25).loss for network in networks]
    # 6 steps; each adds roundings of sums of 25 terms to numbers of order 1
    tolerance = 6 * 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(*losses, rtol=tolerance)
    np.testing.assert_allclose(
        *(network._parameters.vector for network in networks), rtol=tolerance, atol=tolerance
    )


def test_it_makes_a_badly_scaled_network_learn(digits):
    X, y, X_val, y_val = digits
    network = Network(
        [BatchNorm(784), Dense(784, 30), BatchNorm(30), ReLU(), Dense(30, 10)], seed=0
    )
    network.fit(1000 * X + 300, y, epochs=3)
    assert network.evaluate(1000 * X_val + 300, y_val).accuracy > 0.8


def test_a_diverged_loss_is_reported(rng):
    X, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    X[4, 1] = np.nan
    network = Network([BatchNorm(3), Dense(3, 2)], seed=0)
    with pytest.warns(RuntimeWarning, match="loss of epoch 1 is nan"):
        network.fit(X, y, on_divergence="warn")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": 0}, ValueError, "units: expected an integer of at least 1, got 0"),
        ({"units": 2.5}, TypeError, "units: expected an integer"),
        ({"learning_rate": -1}, ValueError, "learning_rate: expected"),
        ({"momentum": 1.5}, ValueError, "momentum: expected a number from 0 to 1, got 1.5"),
        ({"momentum": -0.5}, ValueError, "momentum: expected"),
        ({"momentum": "much"}, TypeError, "momentum: expected"),
        ({"epsilon": 0}, ValueError, "epsilon: expected a finite number of at least 1.17549e-38"),
        ({"epsilon": np.nan}, ValueError, "epsilon: expected"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        BatchNorm(**{"units": 3} | options)


def test_widths_must_match():
    with pytest.raises(ValueError, match=r"expected 3 input units.*BatchNorm\(4"):
        Network([Dense(5, 3), ReLU(), BatchNorm(4)])
    with pytest.raises(ValueError, match=r"input: expected shape \[batch, 3\], got \(2, 4\)"):
        BatchNorm(3).forward(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"grad_output: expected shape \(2, 3\)"):
        BatchNorm(3).backward(np.ones((2, 3)), np.ones((2, 4)))


def test_infinity_stays_in_no_state(rng, dtype):
    """What pads the vectors of an optimiser outlives parameters that a user restores."""
    layers = [Dense(20, 7), BatchNorm(7), ReLU(), Dense(7, 3)]
    network = Network(layers, optimizer=Adam(), dtype=dtype, seed=0)
    X = rng.normal(size=(10, 20))
    X[3] = np.finfo(np.float64).max
    with np.errstate(over="ignore"), pytest.warns(RuntimeWarning, match="loss of epoch 1"):
        network.fit(X.astype(dtype), np.zeros(10, int), batch_size=2, on_divergence="warn")
    assert not np.isfinite(network[1].scale).all()
    for layer in (network[0], network[1], network[3]):
        parameters = layer._parameters
        for vector in parameters.state:
            assert all((part == 0).all() for part in parameters.layout.padding(vector))


@pytest.mark.parametrize(("rows", "batch_size"), [(20, 1), (1, 32)])
def test_batches_of_one_are_told(rows, batch_size):
    network = Network([BatchNorm(3), Dense(3, 2)])
    with pytest.warns(
        UserWarning, match=r"batch_size: expected 2 or more with BatchNorm\(3, .*got 1"
    ):
        network.fit(np.ones((rows, 3)), np.arange(rows) % 2, batch_size=batch_size)
    Network([Dense(3, 2)]).fit(np.ones((rows, 3)), np.arange(rows) % 2, batch_size=batch_size)
