"""What the four notebooks check of their building blocks, stated anew.

They use layers alone, in float64, with the default backend or any other.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import Activation, Dense, Layer, Network, ReLU, Tanh, eval_numerical_gradient

pytestmark = pytest.mark.usefixtures("backend")

RTOL = 1e-3
"""What the notebooks allow between a derived gradient and a numeric one."""


def test_relu_gradient_of_a_mean():
    x = np.linspace(-1, 1, 320).reshape(10, 32)
    derived = ReLU().backward(x, np.full((10, 32), 1 / 320))
    numeric = eval_numerical_gradient(lambda x: ReLU().forward(x).mean(), x=x)
    np.testing.assert_allclose(derived, numeric, rtol=RTOL, atol=0)


def test_initial_weights_and_biases():
    layer = Dense(128, 150)
    assert abs(layer.weights.mean()) < 0.05
    assert 1e-3 < layer.weights.std() < 1e-1
    assert abs(layer.biases.mean()) < 0.05


def test_affine_map_of_ramps():
    layer = Dense(3, 4)
    layer.weights = np.linspace(-1, 1, 12).reshape(3, 4)
    layer.biases = np.linspace(-1, 1, 4)
    output = layer.forward(np.linspace(-1, 1, 6).reshape(2, 3))
    first = [0.07272727, 0.41212121, 0.75151515, 1.09090909]
    second = [-0.90909091, 0.08484848, 1.07878788, 2.07272727]
    np.testing.assert_allclose(output, [first, second], rtol=1e-6)


def test_dense_input_gradient():
    x = np.linspace(-1, 1, 320).reshape(10, 32)
    layer = Dense(32, 64, learning_rate=0)
    numeric = eval_numerical_gradient(lambda x: layer.forward(x).sum(), x)
    np.testing.assert_allclose(layer.backward(x, np.ones((10, 64))), numeric, rtol=RTOL, atol=0)


def test_dense_parameter_gradients(rng):
    x = np.linspace(-1, 1, 320).reshape(10, 32)

    def layer_with(weights, biases) -> Dense:
        layer = Dense(32, 64, learning_rate=1)
        layer.weights, layer.biases = np.array(weights), np.array(biases)
        return layer

    weights, biases = rng.normal(size=(32, 64)), np.linspace(-1, 1, 64)
    trained = layer_with(weights, biases)
    trained.backward(x, np.ones((10, 64)) / 10)
    numeric_weights = eval_numerical_gradient(
        lambda w: layer_with(w, biases).forward(x).mean(0).sum(), weights
    )
    numeric_biases = eval_numerical_gradient(
        lambda b: layer_with(weights, b).forward(x).mean(0).sum(), biases
    )
    # At a rate of 1 the step is the gradient.
    np.testing.assert_allclose(weights - trained.weights, numeric_weights, rtol=RTOL, atol=1e-12)
    np.testing.assert_allclose(biases - trained.biases, numeric_biases, rtol=RTOL, atol=0)


def test_cross_entropy_gradient():
    logits = np.linspace(-1, 1, 500).reshape(50, 10)
    answers = np.arange(50) % 10
    derived = fastnn.grad_softmax_crossentropy_with_logits(logits, answers)
    numeric = eval_numerical_gradient(
        lambda z: fastnn.softmax_crossentropy_with_logits(z, answers).mean(), logits
    )
    np.testing.assert_allclose(derived, numeric, rtol=RTOL, atol=0)


def test_a_list_of_layers_trains_by_hand(digits):
    X, y, X_val, y_val = digits
    network = [Dense(784, 100, seed=0), ReLU(), Layer(), Dense(100, 10, seed=1)]

    def forward(X):
        activations = []
        for layer in network:
            X = layer.forward(X)
            activations.append(X)
        return activations

    rng = np.random.default_rng(0)
    for _ in range(3):
        for X_batch, y_batch in fastnn.iterate_minibatches(X, y, 32, shuffle=True, rng=rng):
            activations = forward(X_batch)
            gradient = fastnn.grad_softmax_crossentropy_with_logits(activations[-1], y_batch)
            for i in reversed(range(len(network))):
                gradient = network[i].backward(activations[i - 1] if i else X_batch, gradient)
    assert (forward(X_val)[-1].argmax(axis=1) == y_val).mean() > 0.8


def tanh(x):
    return np.tanh(x)


def tanh_prime(x):
    return 1 - np.tanh(x) ** 2


@pytest.mark.parametrize("activation", [Tanh, lambda: Activation(tanh, tanh_prime)])
def test_exclusive_or_one_sample_at_a_time(activation):
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [1], [1], [0]])
    network = Network(seed=0, dtype=np.float64)
    network.add(Dense(2, 3))
    network.add(activation())
    network.add(Dense(3, 1))
    network.add(activation())
    network.use(fastnn.mse, fastnn.mse_prime)
    history = network.fit(X, y, epochs=1000, batch_size=1, shuffle=False)
    assert history.loss[-1] < 0.001
    np.testing.assert_array_equal(network.predict(X).round(), y)


def test_lists_of_layers_and_free_functions(digits):
    X, y, X_val, y_val = digits
    network = [Dense(784, 100, seed=0), ReLU(), Dense(100, 10, seed=1)]
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(3):
        for X_batch, y_batch in fastnn.iterate_minibatches(X, y, 32, shuffle=True, rng=rng):
            losses.append(fastnn.train(network, X_batch, y_batch))
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2
    assert (fastnn.predict(network, X_val) == y_val).mean() > 0.8
    assert [a.shape[1] for a in fastnn.forward(network, X_val)] == [100, 100, 10]
