"""The finite differences that check every other gradient."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import (
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    activations,
    check_gradients,
    eval_numerical_gradient,
)


def test_gradient_of_a_cubic():
    x = np.linspace(-1, 1, 12).reshape(2, 3, 2)
    before = x.copy()
    gradient = eval_numerical_gradient(lambda x: (x**3).sum(), x)
    np.testing.assert_allclose(gradient, 3 * before**2, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(x, before)


def test_x_is_restored_when_f_raises():
    x = np.ones(3)
    with pytest.raises(ZeroDivisionError):
        eval_numerical_gradient(lambda x: 1 / 0, x)
    np.testing.assert_array_equal(x, np.ones(3))


def test_verbose(capsys):
    eval_numerical_gradient(lambda x: float(x.sum()), np.zeros((1, 2)), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(")")[0] for line in lines] == ["(0, 0", "(0, 1"]


@pytest.mark.parametrize("x", [np.ones(3, np.float32), np.ones(3, int), [1.0, 2.0], 1.0])
def test_x_must_be_float64(x):
    with pytest.raises(TypeError, match="x: expected a float64 array, got"):
        eval_numerical_gradient(np.sum, x)


def test_bad_arguments():
    with pytest.raises(ValueError, match="one number, got shape \\(3,\\)"):
        eval_numerical_gradient(lambda x: x, np.ones(3))
    with pytest.raises(ValueError, match="h: expected"):
        eval_numerical_gradient(np.sum, np.ones(3), h=0.0)
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="x: expected a writable array"):
        eval_numerical_gradient(np.sum, frozen)


class Sine(Layer):
    def __init__(self, factor: float = 1.0):
        self.factor = factor

    def forward(self, input):
        return np.sin(input)

    def backward(self, input, grad_output):
        return self.factor * grad_output * np.cos(input)


class OwnDense(Layer):
    """A layer of a user's own with parameters, whose gradient by the weights may be off."""

    def __init__(self, error: float = 0.0):
        self.W, self.error = np.ones((4, 3)), error

    input_units, output_units = 4, 3

    @property
    def parameters(self):
        return {"W": self.W}

    def forward(self, input):
        return input @ self.W

    def gradients(self, input, grad_output):
        gradient = input.T @ grad_output
        gradient[1, 2] += self.error * np.abs(gradient).max()
        return grad_output @ self.W.T, {"W": gradient}

    def backward(self, input, grad_output):
        grad_input, gradients = self.gradients(input, grad_output)
        self.W -= 0.1 * gradients["W"]
        return grad_input


SAMPLES = np.random.default_rng(7).normal(size=(6, 5)), np.array([0, 2, 1, 1, 0, 2])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", ["relu", *activations.BY_NAME])
def test_gradients_of_our_own_layers(name):
    activation = ReLU() if name == "relu" else activations.BY_NAME[name]()
    layers = [Rescaling(2), Dense(5, 6, l2=0.1), BatchNorm(6), activation, Dropout(0.3)]
    network = Network([*layers, Dense(6, 3)], dtype="float32")
    before = [value.copy() for layer in network for value in layer.parameters.values()]
    check_gradients(network, *SAMPLES)
    after = [value for layer in network for value in layer.parameters.values()]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("mse", SAMPLES[0][:, :3]),
        ("mse", SAMPLES[1]),
        ("binary_cross_entropy", SAMPLES[0][:, :3] > 0),
        ("poisson", np.floor(np.abs(SAMPLES[0][:, :3]))),
    ],
)
def test_gradients_of_losses(loss, y):
    check_gradients(Network([Dense(5, 3)], loss=loss), SAMPLES[0], y)


def test_a_wrong_derivative_is_found():
    right = [Dense(5, 4), Sine(), OwnDense()]
    check_gradients(Network(right, seed=0), *SAMPLES)
    with pytest.raises(AssertionError, match=r"Sine\(\): the derivative by input is .* at \["):
        check_gradients(Network([Dense(5, 4), Sine(1.001), OwnDense()], seed=0), *SAMPLES)
    with pytest.raises(AssertionError, match=r"OwnDense\(\): the derivative by W is .* \[1, 2\]"):
        check_gradients(Network([Dense(5, 4), Sine(), OwnDense(0.001)], seed=0), *SAMPLES)


def test_a_wrong_derivative_of_a_loss_is_found():
    network = Network([Dense(5, 3)])
    network.use(lambda y, z: np.mean((z - y) ** 2), lambda y, z: (z - y) / z.size)
    with pytest.raises(AssertionError, match="the derivative by the output is"):
        check_gradients(network, SAMPLES[0], np.ones((6, 3)))


def test_an_output_that_is_another_each_time():
    class Noise(Layer):
        rng = np.random.default_rng(0)

        def forward(self, input):
            return input + self.rng.normal(size=input.shape)

        def backward(self, input, grad_output):
            return grad_output

    with pytest.raises(ValueError, match=r"the same each time, got Noise\(\)"):
        check_gradients(Network([Noise(), Dense(5, 3)]), *SAMPLES)


def test_a_forward_without_a_backward_does_not_train():
    """Before, it took the identity's, and trained with a wrong gradient."""

    class Forward(Layer):
        def forward(self, input):
            return np.sin(input)

    class Logged(ReLU):
        def forward(self, input):
            return super().forward(input)

    class StraightThrough(Layer):
        def forward(self, input):
            return np.round(input)

        def backward(self, input, grad_output):
            return super().backward(input, grad_output)

    refused = Network([Dense(5, 4), Forward(), Dense(4, 3)])
    refused.predict(SAMPLES[0])
    for train in (refused.fit, refused.train_step, refused.gradients):
        with pytest.raises(TypeError, match=r"Forward\(\): expected a backward that goes with"):
            train(*SAMPLES)
    replaced = Network([Dense(5, 4), Layer(), Dense(4, 3)])
    replaced[1].forward = np.sin
    with pytest.raises(TypeError, match=r"expected a backward"):
        replaced.fit(*SAMPLES)
    for layer in (Logged(), StraightThrough(), Layer()):
        Network([Dense(5, 4), layer, Dense(4, 3)]).fit(*SAMPLES)


def test_a_loss_may_keep_something_for_its_derivative(rng):
    kept = []

    def loss(y, z):
        kept[:] = [z - y]
        return np.mean(kept[0] ** 2)

    network = Network([Dense(3, 2)], seed=0)
    network.use(loss, lambda y, z: 2 * kept[0] / z.size)
    check_gradients(network, rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))
