"""Lists of layers, and the functions that run them."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import BatchNorm, Dense, Dropout, Layer, Network, ReLU, Tanh, forward, predict, train

pytestmark = pytest.mark.usefixtures("backend")


def layers() -> list[Layer]:
    return [Dense(4, 6, seed=1), ReLU(), Layer(), Dense(6, 3, l2=0.1, seed=2)]


@pytest.fixture
def blobs(rng):
    y = rng.integers(0, 3, 60)
    return rng.normal(size=(60, 4)) + 4 * fastnn.one_hot(y, 4), y


def test_forward_and_predict(blobs):
    X, _ = blobs
    network = layers()
    activations = forward(network, X)
    assert len(activations) == 4
    np.testing.assert_allclose(activations[0], X @ network[0].weights, rtol=1e-10)
    np.testing.assert_array_equal(activations[2], np.maximum(activations[0], 0))
    np.testing.assert_array_equal(predict(network, X), activations[-1].argmax(axis=1))


def test_train_is_a_step_of_a_network(blobs):
    X, y = blobs
    by_hand = layers()
    network = Network(layers(), dtype=np.float64)
    for _ in range(5):
        np.testing.assert_allclose(train(by_hand, X, y), network.train_step(X, y), rtol=1e-10)
    for a, b in zip(by_hand, network, strict=True):
        for name, values in a.parameters.items():
            np.testing.assert_allclose(values, b.parameters[name], rtol=1e-10, atol=1e-14)


def test_a_network_does_what_its_methods_do(blobs):
    X, y = blobs
    one, other = (Network([Dense(4, 3)], loss="mse", seed=0) for _ in range(2))
    assert train(one, X, y) == other.train_step(X, y)
    np.testing.assert_array_equal(predict(one, X), other.predict(X))
    np.testing.assert_array_equal(forward(one, X), other.forward(X))


def test_layers_are_told_whether_they_train(blobs):
    X, y = blobs
    network = [Dense(4, 6), BatchNorm(6), Tanh(), Dropout(0.5), Dense(6, 3)]
    network[3].training = True
    np.testing.assert_array_equal(predict(network, X), predict(network, X))
    assert network[3].step == 0
    train(network, X, y)
    assert network[3].step == 1
    assert (network[1].running_variance != 1).any()
    assert [layer.training for layer in network] == [False, False, False, True, False]


def test_training_mode_ends_with_an_exception(blobs):
    X, y = blobs
    network = layers()
    for bad_X, bad_y in [(X[:, :3], y), (X, y + 3)]:
        with pytest.raises(ValueError, match=r"^[Xy]: expected"):
            train(network, bad_X, bad_y)
        assert not any(layer.training for layer in network)


@pytest.mark.parametrize("function", [forward, predict, lambda n, X: train(n, X, [0])])
def test_bad_networks(function):
    X = np.ones((1, 4))
    with pytest.raises(ValueError, match="network: expected at least one layer"):
        function([], X)
    with pytest.raises(TypeError, match="network: expected layers in a list"):
        function(Dense(4, 3), X)
    with pytest.raises(TypeError, match="network: expected layers alone, got 3"):
        function([Dense(4, 3), 3], X)
    with pytest.raises(ValueError, match="X: expected shape"):
        function(layers(), X[0])
