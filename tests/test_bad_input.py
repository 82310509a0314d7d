"""Bad input is refused by name before any kernel runs, on both backends alike."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import perceptron
from elementwise import ROWS

import fastnn
from fastnn import (
    Activation,
    BatchNorm,
    Dense,
    Dropout,
    Network,
    Rescaling,
)

pytestmark = pytest.mark.usefixtures("backend")

X = np.zeros((6, 4))
Y = np.zeros(6, int)


def labels_with(value) -> np.ndarray:
    labels = Y.astype(np.asarray(value).dtype)
    labels[2] = value
    return labels


BAD_X = [
    (X[0], ValueError, r"X: expected shape \[batch, 4\], got \(4,\)"),
    (np.zeros((6, 2, 2)), ValueError, r"got \(6, 2, 2\); flatten"),
    (np.zeros((6, 5)), ValueError, r"X: expected shape \[batch, 4\], got \(6, 5\)"),
    (X[:0], ValueError, "X: expected at least one row"),
    (np.full((6, 4), "a"), TypeError, "X: expected an array of real numbers, got dtype <U1"),
    (X.astype(object), TypeError, "X: expected an array of real numbers, got dtype object"),
    (X.astype(complex), TypeError, "X: expected an array of real numbers, got dtype complex"),
    (np.ma.masked_equal(X, 0), TypeError, "X: expected an array without masked elements"),
    ([[1, 2, 3, 4], [1]], ValueError, "X: expected a regular array"),
]
BAD_Y = [
    (labels_with(3), ValueError, "y: expected class ids from 0 to 2, got 3 at index 2"),
    (labels_with(-1), ValueError, "y: expected class ids from 0 to 2, got -1 at index 2"),
    (labels_with(1.5), ValueError, "y: expected whole class ids, got 1.5 at index 2"),
    (labels_with(np.nan), ValueError, "y: expected whole class ids, got nan at index 2"),
    (labels_with(np.inf), ValueError, "y: expected whole class ids, got inf at index 2"),
    (Y[:5], ValueError, "y: expected 6 class ids, one a row, got 5"),
    (
        np.zeros((6, 1), int),
        ValueError,
        r"y: expected class ids of shape \[6\], got shape \(6, 1\)",
    ),
    (np.array(["0"] * 6), TypeError, "y: expected an array of real numbers"),
    ([None] * 6, TypeError, "y: expected an array of real numbers"),
]


@pytest.fixture
def network() -> Network:
    return perceptron(4, 5, 3, seed=0)


@pytest.mark.parametrize(("bad", "error", "message"), BAD_X)
def test_bad_samples(network, bad, error, message):
    for method in (network.forward, network.predict, network.predict_proba):
        with pytest.raises(error, match=message):
            method(bad)
    for method in (network.train_step, network.gradients, network.evaluate, network.fit):
        with pytest.raises(error, match=message):
            method(bad, Y)
    with pytest.raises(error, match=message.replace("X", r"validation_data\[0\]")):
        network.fit(X, Y, validation_data=(bad, Y))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ma.masked_equal(np.zeros((6, 3)), 0), TypeError, "y: expected an array without masked"),
        ([[1, 2, 3], [1]], ValueError, "y: expected a regular array"),
        ([None] * 6, TypeError, "y: expected an array of real numbers"),
        (np.zeros((6, 2)), ValueError, r"y: expected shape \(6, 3\), got \(6, 2\)"),
    ],
)
def test_bad_real_targets(network, bad, error, message):
    network.use("mse")
    for call in (network.fit, network.evaluate, network.train_step, network.gradients):
        with pytest.raises(error, match=message):
            call(X, bad)


def test_ragged_targets_of_a_loss_of_ones_own(network):
    network.use(lambda t, p: 0.0, lambda t, p: p)
    with pytest.raises(ValueError, match="y: expected a regular array"):
        network.fit(X, [[1], [1, 2]])


@pytest.mark.parametrize(("bad", "error", "message"), BAD_Y)
def test_bad_labels(network, bad, error, message):
    before = network[0].weights.copy()
    for method in (network.train_step, network.gradients, network.evaluate, network.fit):
        with pytest.raises(error, match=message):
            method(X, bad)
    logits = np.zeros((6, 3))
    for function in (
        fastnn.softmax_crossentropy_with_logits,
        fastnn.grad_softmax_crossentropy_with_logits,
    ):
        with pytest.raises(error, match=message.replace("y:", "reference_answers:")):
            function(logits, bad)
    np.testing.assert_array_equal(network[0].weights, before)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, bool, np.float32, np.uint64])
def test_labels_of_any_whole_type(network, kind):
    answers = np.array([0, 1, 1, 0, 1, 0])
    assert network.evaluate(X, answers.astype(kind)) == network.evaluate(X, answers)


@pytest.mark.parametrize(
    "layer",
    [
        *[row.layer for row in ROWS],
        Dense(4, 3),
        Dropout(0.5),
        BatchNorm(4),
        Activation(np.sin, np.cos),
    ],
    ids=repr,
)
def test_layers(layer):
    good = np.ones((6, 4))
    G = np.ones(layer.forward(good).shape)
    for bad, error in [
        (good[0], ValueError),
        (good[:0], ValueError),
        (good.astype(str), TypeError),
        (good.astype(np.longdouble), TypeError),
    ]:
        with pytest.raises(error, match="input"):
            layer.forward(bad)
        with pytest.raises(error, match="input"):
            layer.backward(bad, G)
    for bad, error in [(G[:5], ValueError), (G[:, :2], ValueError), (G.astype(str), TypeError)]:
        with pytest.raises(error, match="grad_output: expected"):
            layer.backward(good, bad)


def test_dense_width():
    with pytest.raises(ValueError, match=r"input: expected shape \[batch, 4\], got \(6, 5\)"):
        Dense(4, 3).forward(np.ones((6, 5)))
    for name, shape in (("weights", (4, 3)), ("biases", (3,))):
        with pytest.raises(ValueError, match=rf"{name}: expected shape .*, got \(2, 2\)"):
            setattr(Dense(4, 3), name, np.ones((2, 2)))
        with pytest.raises(TypeError, match=name):
            setattr(Dense(4, 3), name, np.full(shape, "a"))


def test_logits():
    for function in (
        fastnn.softmax,
        lambda z: fastnn.softmax_crossentropy_with_logits(z, [0]),
        lambda z: fastnn.grad_softmax_crossentropy_with_logits(z, [0]),
    ):
        with pytest.raises(ValueError, match=r"logits: expected shape \[batch, units\]"):
            function(np.zeros(3))
        with pytest.raises(TypeError, match="logits"):
            function(np.array([["a"]]))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Dense(0, 3), ValueError, "input_units: expected an integer of at least 1, got 0"),
        (lambda: Dense(3, 2.0), TypeError, "output_units: expected an integer .*, got float 2.0"),
        (lambda: Dense(3, True), TypeError, "output_units: .*got True"),
        (lambda: Dense(3, "2"), TypeError, "output_units: .*got str '2'"),
        (lambda: Dense(3, 2, float("nan")), ValueError, "learning_rate: .*got nan"),
        (lambda: Dense(3, 2, float("inf")), ValueError, "learning_rate: .*got inf"),
        (lambda: Dense(3, 2, -0.1), ValueError, "learning_rate: .*at least 0, got -0.1"),
        (lambda: Dense(3, 2, "0.1"), TypeError, "learning_rate: .*got str '0.1'"),
        (lambda: Dense(3, 2, None), TypeError, "learning_rate: .*got NoneType None"),
        (lambda: Dense(3, 2, seed="x"), TypeError, "seed: .*got 'x'"),
        (lambda: Rescaling(float("nan")), ValueError, "scale: .*got nan"),
        (lambda: Network(dtype=np.float16), TypeError, "dtype: expected float32 or float64"),
        (lambda: Network(dtype=None), TypeError, "dtype: expected float32 or float64, got None"),
        (lambda: Network(dtype="thing"), TypeError, "dtype: expected float32 or float64"),
        (lambda: Network(seed=-1), ValueError, "seed: expected .*got int -1"),
        (lambda: Network(seed=1.5), TypeError, "seed: expected .*got 1.5"),
        (lambda: Dense(3, 2, 10**400), TypeError, "learning_rate: expected a finite number"),
        (lambda: Dense(3, 2, np.array("1")), TypeError, "learning_rate: expected a finite"),
        (lambda: Network(None), TypeError, "layers: expected layers in a list, got None"),
        (lambda: Network(dtype="i4,,"), TypeError, "dtype: expected float32 or float64"),
        (lambda: Network().predict(X), ValueError, "no layer yet"),
    ],
)
def test_construction(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": 1.0}, TypeError),
        ({"epochs": float("nan")}, TypeError),
        ({"epochs": True}, TypeError),
        ({"batch_size": 0}, ValueError),
        ({"batch_size": -32}, ValueError),
        ({"batch_size": "32"}, TypeError),
        ({"batch_size": 7, "drop_last": True}, ValueError),
        ({"shuffle": 1}, TypeError),
        ({"shuffle": "no"}, TypeError),
        ({"progress": None}, TypeError),
        ({"callbacks": 3}, TypeError),
        ({"callbacks": ["print"]}, TypeError),
        ({"validation_data": X}, TypeError),
    ],
    ids=str,
)
def test_fit_options(network, options, error):
    with pytest.raises(error, match=f"^{next(iter(options))}: expected"):
        network.fit(X, Y, **options)


class Narrowing(fastnn.Layer):
    """A user's layer that gives fewer logits than the layer before it."""

    def forward(self, input):
        return input[:, :2]

    def backward(self, input, grad_output):
        return np.pad(grad_output, ((0, 0), (0, input.shape[1] - 2)))


class Promising(Narrowing):
    output_units = 3


class NarrowingInTraining(Narrowing):
    def forward(self, input):
        return input[:, :2] if self.training else input


class Empty(fastnn.Layer):
    def forward(self, input):
        return input[:, :0]


@pytest.mark.parametrize("layer", [Narrowing, Promising, NarrowingInTraining, Empty])
def test_logits_fewer_than_labels_never_reach_a_kernel(layer):
    network = Network([Dense(4, 3), layer()])
    labels = np.array([0, 1, 2, 0, 1, 2])
    for method in (network.train_step, network.gradients, network.fit):
        with pytest.raises(ValueError, match=r"expected|class ids"):
            method(X, labels)


def test_a_width_can_not_be_changed():
    layer = Dense(4, 3)
    for name in ("input_units", "output_units"):
        with pytest.raises(AttributeError):
            setattr(layer, name, 40)


def test_labels_changed_in_a_callback_are_not_read(network):
    labels = Y.copy()

    def spoil(*_):
        labels[:] = 10**6

    twin = perceptron(4, 5, 3, seed=0)
    network.fit(X, labels, epochs=2, callbacks=[spoil])
    twin.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(network[0].weights, twin[0].weights)


def test_no_layer_joins_while_training(network):
    with pytest.raises(RuntimeError, match="while it is training"):
        network.fit(X, Y, callbacks=[lambda net, _: net.add(Dense(3, 3))])
    network.add(Dense(3, 3))
