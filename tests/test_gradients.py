"""Derived gradients against finite differences: every layer, every loss, and what they compose."""

from __future__ import annotations

import numpy as np
import pytest
from elementwise import ROWS
from lives import TARGETS
from random_networks import LOSSES as TARGETS_OF

import fastnn
from fastnn import (
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
    eval_numerical_gradient,
    losses,
)
from fastnn.bench.trainings import LAYERS

pytestmark = pytest.mark.usefixtures("backend")

BOUND = 1e-6
"""Of the relative error in float64. Central differences of step 1e-5 are good to about 1e-10."""


def own_softplus() -> Activation:
    return Activation(lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x)))


def relative_error(derived, numeric) -> float:
    return np.abs(derived - numeric).max() / max(np.abs(numeric).max(), 1e-8)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    "make",
    [
        *[lambda row=row: type(row.layer)(*row.layer._numbers) for row in ROWS],
        *[lambda make=make: make(5) for make in LAYERS.values()],
        own_softplus,
        lambda: Dense(5, 3, seed=1),
    ],
)
def test_gradient_of_the_input_of_each_layer(make, training, rng):
    layer = make()
    layer.training = training
    for values in layer.parameters.values():
        values[...] = rng.normal(size=values.shape)
    X = rng.normal(size=(7, 5))
    before = layer._changed_by_forward()
    output = layer.forward(X)
    G = rng.normal(size=output.shape)
    derived, of_parameters = layer.gradients(X, G)

    def loss(_):
        layer._change_back(before)
        return (G * layer.forward(X)).sum()

    assert relative_error(derived, eval_numerical_gradient(loss, X)) < BOUND
    assert set(of_parameters) == set(layer.parameters)
    for name, gradient in of_parameters.items():
        values = layer.parameters[name].copy()

        def loss_of(values, name=name):
            layer.parameters[name][...] = values
            return loss(None)

        assert relative_error(gradient, eval_numerical_gradient(loss_of, values)) < BOUND, name
        layer.parameters[name][...] = values


def huber(y_true, y_pred):
    return np.sqrt(1 + np.square(y_pred - y_true)).mean()


def huber_prime(y_true, y_pred):
    difference = y_pred - y_true
    return difference / np.sqrt(1 + np.square(difference)) / difference.size


STACKS = {
    "batch norm and dropout": lambda: [
        Dense(4, 9), BatchNorm(9), ReLU(), Dropout(0.3), Dense(9, 6, l2=0.1), Tanh(),
        Dense(6, 3, l2=0.02),
    ],
    "everything before the first dense layer": lambda: [
        Rescaling(0.5), BatchNorm(4), Sigmoid(), Dropout(0.2), Dense(4, 3),
    ],
    "activations last": lambda: [Dense(4, 6), own_softplus(), Dense(6, 3), BatchNorm(3), Sigmoid()],
    "tanh all through": lambda: [Dense(4, 5), Tanh(), Layer(), Dense(5, 3), Tanh()],
    "stages in a row": lambda: [
        Dense(4, 6), Tanh(), Sigmoid(), BatchNorm(6), Dropout(0.5), BatchNorm(6), Dense(6, 3),
    ],
}  # fmt: skip


LOSSES = (*[kind.name for kind in losses.BUILT_IN], "smoothed", "mse of rows", "own")


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_compositions(stack, loss, rng):
    network = Network(STACKS[stack](), dtype=np.float64, seed=5)
    if loss == "binary_cross_entropy" and isinstance(network[-1], Sigmoid):
        network.add(Tanh())
    X = rng.normal(size=(11, 4))
    targets = {"smoothed": "ids", "mse of rows": "real", "own": "real"}.get(loss)
    y = TARGETS[targets or TARGETS_OF[loss][0]](rng, 11, 3)
    if loss == "own":
        network.use(huber, huber_prime)
    elif loss == "smoothed":
        network.use(SoftmaxCrossEntropy(label_smoothing=0.2))
    else:
        network.use(loss.split()[0])
    for layer in network:
        for values in layer.parameters.values():
            values += 0.3 * rng.normal(size=values.shape)

    _, gradients = network.gradients(X, y)
    for layer, found in zip(network, gradients, strict=True):
        assert set(found) == set(layer.parameters)
        for name, derived in found.items():
            values = layer.parameters[name].copy()

            def loss_of(values, name=name, layer=layer):
                layer.parameters[name][...] = values
                return network.gradients(X, y)[0]

            numeric = eval_numerical_gradient(loss_of, values)
            layer.parameters[name][...] = values
            if np.abs(numeric).max() < 1e-9:
                # a bias before batch norm moves nothing: the mean takes it away again
                assert np.abs(derived).max() < 1e-9
            else:
                assert relative_error(derived, numeric) < BOUND, (layer, name)


def test_gradients_leave_the_network_as_it_was(rng):
    make = STACKS["batch norm and dropout"]
    X, y = rng.normal(size=(11, 4)), rng.integers(0, 3, 11)
    asked, plain = (Network(make(), dtype=np.float64, seed=5) for _ in range(2))
    for _ in range(3):
        loss, gradients = asked.gradients(X, y)
    assert asked.train_step(X, y) == plain.train_step(X, y) == loss
    for a, b in zip(asked, plain, strict=True):
        if isinstance(a, BatchNorm):
            np.testing.assert_array_equal(a.running_mean, b.running_mean)
            np.testing.assert_array_equal(a.running_variance, b.running_variance)
        if isinstance(a, Dropout):
            assert (a.key, a.step) == (b.key, b.step) == (a.key, 1)
    assert np.array_equal(asked._parameters.vector, plain._parameters.vector)
    # a step moves each parameter by its gradient
    before = Network(make(), dtype=np.float64, seed=5)
    for layer, old, found in zip(asked, before, gradients, strict=True):
        for name, gradient in found.items():
            expected = old.parameters[name] - 0.1 * gradient
            np.testing.assert_allclose(layer.parameters[name], expected, rtol=1e-12, atol=1e-15)


def test_functions_of_squared_error(rng):
    y_true, y_pred = rng.normal(size=(2, 3, 1, 4))
    numeric = eval_numerical_gradient(lambda y: fastnn.mse(y_true, y), y_pred)
    assert relative_error(fastnn.mse_prime(y_true, y_pred), numeric) < BOUND
