"""What the four notebooks check of their building blocks, stated anew.

They use layers alone, in float64, with the default backend or any other.
"""

from __future__ import annotations

import functools

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


# The notebooks' own classes, as short as they are there, beside fastnn's.


class NotebookFCLayer:
    """The third notebook's layer, for one sample [1, units] at a time."""

    def __init__(self, weights, bias):
        self.weights, self.bias = np.array(weights), np.array(bias)[None, :]

    def forward_propagation(self, input_data):
        self.input = input_data
        return np.dot(self.input, self.weights) + self.bias

    def backward_propagation(self, output_error, learning_rate):
        input_error = np.dot(output_error, self.weights.T)
        self.weights -= learning_rate * np.dot(self.input.T, output_error)
        self.bias -= learning_rate * output_error
        return input_error


class NotebookActivationLayer:
    """The third notebook's layer of a pair of functions."""

    def __init__(self, activation, activation_prime):
        self.activation, self.activation_prime = activation, activation_prime

    def forward_propagation(self, input_data):
        self.input = input_data
        return self.activation(self.input)

    def backward_propagation(self, output_error, learning_rate):
        return self.activation_prime(self.input) * output_error


def tanh(x):
    return np.tanh(x)


def tanh_prime(x):
    return 1 - np.tanh(x) ** 2


def notebook_mse(y_true, y_pred):
    return np.mean(np.power(y_true - y_pred, 2))


def notebook_mse_prime(y_true, y_pred):
    return 2 * (y_pred - y_true) / y_true.size


XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[0.0], [1.0], [1.0], [0.0]])


@pytest.mark.parametrize("form", ["fastnn's own", "the notebook's functions"])
def test_xor_takes_the_steps_of_the_third_notebook(backend, form):
    if form == "fastnn's own":
        activation, pair = Tanh, (fastnn.mse, fastnn.mse_prime)
    else:
        activation = functools.partial(Activation, tanh, tanh_prime)
        pair = (notebook_mse, notebook_mse_prime)
    uniform = fastnn.initializers.uniform(-0.5, 0.5)
    net = Network(backend=backend, dtype=np.float64, seed=1)
    net.add(Dense(2, 3, weights=uniform, biases=uniform))
    net.add(activation())
    net.add(Dense(3, 1, weights=uniform, biases=uniform))
    net.add(activation())
    net.use(*pair)

    theirs = [
        NotebookFCLayer(net[0].weights, net[0].biases),
        NotebookActivationLayer(tanh, tanh_prime),
        NotebookFCLayer(net[2].weights, net[2].biases),
        NotebookActivationLayer(tanh, tanh_prime),
    ]
    errors = []
    for _ in range(30):
        error = 0
        for x, y in zip(XOR_X[:, None, :], XOR_Y[:, None, :], strict=True):
            output = x
            for layer in theirs:
                output = layer.forward_propagation(output)
            error += notebook_mse(y, output)
            gradient = notebook_mse_prime(y, output)
            for layer in reversed(theirs):
                gradient = layer.backward_propagation(gradient, 0.1)
        errors.append(error / 4)

    history = net.fit(XOR_X, XOR_Y, epochs=30, batch_size=1, shuffle=False)
    np.testing.assert_allclose(history.loss, errors, rtol=1e-9)
    for i in (0, 2):
        np.testing.assert_allclose(net[i].weights, theirs[i].weights, rtol=1e-9)
        np.testing.assert_allclose(net[i].biases, theirs[i].bias[0], rtol=1e-9)
    outputs = net.predict(XOR_X)
    assert outputs.shape == (4, 1)


@pytest.mark.parametrize("activation", [Tanh, functools.partial(Activation, tanh, tanh_prime)])
def test_xor_is_solved_one_sample_at_a_time(activation):
    network = Network(seed=0, dtype=np.float64)
    network.add(Dense(2, 3))
    network.add(activation())
    network.add(Dense(3, 1))
    network.add(activation())
    network.use(fastnn.mse, fastnn.mse_prime)
    history = network.fit(XOR_X, XOR_Y, epochs=1000, batch_size=1, shuffle=False)
    assert history.loss[-1] < 0.001
    np.testing.assert_array_equal(network.predict(XOR_X).round(), XOR_Y)


def test_free_functions_train_a_list_of_layers(digits):
    X, y, X_val, y_val = digits
    network = []
    network.append(Dense(X.shape[1], 100, seed=0))
    network.append(ReLU())
    network.append(Dense(100, 10, seed=1))
    losses = [
        fastnn.train(network, x_batch, y_batch)
        for x_batch, y_batch in fastnn.iterate_minibatches(X, y, batchsize=32, shuffle=False)
    ]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2
    activations = fastnn.forward(network, X_val)
    assert [activation.shape[1] for activation in activations] == [100, 100, 10]
    predicted = fastnn.predict(network, X_val)
    np.testing.assert_array_equal(predicted, activations[-1].argmax(axis=-1))
    assert np.mean(predicted == y_val) > 0.8


def test_free_functions_and_methods_agree(digits, backend):
    X, y, X_val, _ = digits
    layers = [Dense(784, 20, seed=0), ReLU(), Dense(20, 10, seed=1)]
    network = Network(
        [Dense(784, 20, seed=0), ReLU(), Dense(20, 10, seed=1)], backend=backend, dtype=np.float64
    )
    for start in range(0, 320, 32):
        batch = X[start : start + 32], y[start : start + 32]
        np.testing.assert_allclose(fastnn.train(layers, *batch), network.train_step(*batch))
    np.testing.assert_array_equal(fastnn.predict(layers, X_val), fastnn.predict(network, X_val))
    np.testing.assert_allclose(fastnn.forward(layers, X_val)[-1], network.forward(X_val)[-1])


def test_the_sigmoid_that_was_tanh():
    x = np.linspace(-1, 1, 320).reshape(10, 32)
    np.testing.assert_allclose(Tanh().forward(x), np.tanh(x), rtol=1e-14)
    np.testing.assert_allclose(fastnn.Sigmoid().forward(x), 1 / (1 + np.exp(-x)), rtol=1e-14)
    for layer in (Tanh(), fastnn.Sigmoid()):
        derived = layer.backward(x, np.full((10, 32), 1 / 320))
        numeric = eval_numerical_gradient(lambda x, layer=layer: layer.forward(x).mean(), x=x)
        np.testing.assert_allclose(derived, numeric, rtol=RTOL, atol=0)


def test_the_penalty_of_the_second_notebook(rng):
    """Dense(l2=reg / 2) takes the notebook's step, its second division left out."""
    reg, rate = 0.01, 0.1
    layer = Dense(7, 5, rate, l2=reg / 2, seed=0)
    weights, biases = layer.weights.copy(), layer.biases.copy()
    input, grad_output = rng.normal(size=(6, 7)), rng.normal(size=(6, 5)) / 6
    layer.backward(input, grad_output)
    moved = weights - rate * (input.T @ grad_output + reg * weights)
    np.testing.assert_allclose(layer.weights, moved, rtol=1e-12)
    np.testing.assert_allclose(layer.biases, biases - rate * grad_output.sum(axis=0), rtol=1e-12)


def test_large_logits_of_the_notebooks():
    """Where the notebooks' formulas give infinity and NaN."""
    logits, answers = np.array([[710.0, 0.0], [-800.0, -801.0]]), np.array([0, 0])
    losses = fastnn.softmax_crossentropy_with_logits(logits, answers)
    np.testing.assert_allclose(losses, [0.0, np.log1p(np.exp(-1.0))], rtol=1e-12, atol=1e-300)
    assert np.isfinite(fastnn.grad_softmax_crossentropy_with_logits(logits, answers)).all()


def test_scaling_by_the_training_images():
    train, test = np.array([[0.0, 10.0]]), np.array([[5.0, 20.0]])
    np.testing.assert_allclose(fastnn.normalize(test, train), [[0.5, 2.0]])
    np.testing.assert_allclose(fastnn.standardize(test, train), [[0.0, 3.0]])
