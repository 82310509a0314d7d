"""Derivatives from kept outputs, and activations of a user's own."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from elementwise import ROWS, each_row

from fastnn import Activation, Dense, Layer, Network, Sigmoid, Tanh

pytestmark = pytest.mark.usefixtures("backend")


def test_known_values(dtype):
    X = np.log(np.array([[1.0, 3.0, 1 / 3]], dtype))
    np.testing.assert_allclose(Sigmoid().forward(X), [[0.5, 0.75, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(Tanh().forward(X), [[0, 0.8, -0.8]], rtol=1e-6, atol=1e-7)
    for layer in (Sigmoid(), Tanh()):
        assert layer.forward(X).dtype == layer.backward(X, X).dtype == dtype


def test_large_inputs_neither_overflow_nor_warn(dtype):
    X = np.array([[1e30, -1e30, 800.0, -800.0]], dtype)
    np.testing.assert_array_equal(Sigmoid().forward(X), [[1, 0, 1, 0]])
    np.testing.assert_array_equal(Tanh().forward(X), [[1, -1, 1, -1]])
    for layer in (Sigmoid(), Tanh()):
        np.testing.assert_array_equal(layer.backward(X, np.ones_like(X)), 0)


@pytest.mark.parametrize("layer", [row.layer for row in ROWS], ids=repr)
def test_dtypes(layer):
    whole = np.arange(6).reshape(2, 3)
    assert layer.forward(whole).dtype == np.float64
    single, double = whole.astype(np.float32), whole.astype(np.float64)
    assert layer.forward(single.astype(np.float16)).dtype == np.float32
    expected = layer.backward(double, double)
    for X, G in [(single, double), (double, single), (whole, double)]:
        found = layer.backward(X, G)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("row", **each_row)
def test_backward_is_that_of_its_argument(row, rng):
    def kind():
        return type(row.layer)(*row.layer._numbers)

    X, G = rng.normal(size=(2, 6, 5))
    expected = kind().backward(X, G)
    layer = kind()
    layer.training = True
    layer.forward(X)
    twin = pickle.loads(pickle.dumps(layer))
    np.testing.assert_allclose(layer.backward(X, G), expected, rtol=1e-14)
    np.testing.assert_allclose(layer.backward(X, G), expected, rtol=1e-14)
    np.testing.assert_allclose(twin.backward(X, G), expected, rtol=1e-14)
    # another array than that of the last forward pass, and one changed since
    layer.forward(G)
    np.testing.assert_allclose(layer.backward(X, G), expected, rtol=1e-14)
    layer.training = False
    layer.forward(X)
    X += 1
    np.testing.assert_array_equal(layer.backward(X, G), kind().backward(X, G))


def square_relu(x):
    return np.maximum(x, 0) ** 2


def square_relu_prime(x):
    return 2 * np.maximum(x, 0)


class TestOwn:
    def test_values(self, rng, dtype):
        layer = Activation(square_relu, square_relu_prime)
        X, G = rng.normal(size=(2, 4, 3)).astype(dtype)
        np.testing.assert_array_equal(layer.forward(X), square_relu(X))
        np.testing.assert_array_equal(layer.backward(X, G), G * square_relu_prime(X))
        assert layer.forward(X).dtype == layer.backward(X, G).dtype == dtype
        assert repr(layer) == "Activation(square_relu, square_relu_prime)"

    def test_results_are_cast(self, rng):
        layer = Activation(lambda x: (x > 0).tolist(), lambda x: np.zeros(x.shape, int))
        X = rng.normal(size=(4, 3)).astype(np.float32)
        assert layer.forward(X).dtype == layer.backward(X, X).dtype == np.float32

    def test_equals_the_layer_of_the_same_function(self, rng):
        y = rng.integers(0, 3, 20)
        X = rng.normal(size=(20, 4))
        networks = [
            Network([Dense(4, 6), layer, Dense(6, 3)], dtype=np.float64, seed=1)
            for layer in (Tanh(), Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2))
        ]
        losses = [network.fit(X, y, epochs=3, batch_size=5).loss for network in networks]
        np.testing.assert_allclose(*losses, rtol=1e-12)
        assert networks[1].explain().startswith("layer path: ")
        copy.deepcopy(networks[1]).fit(X, y)

    def test_bad_functions(self):
        with pytest.raises(TypeError, match="function: expected a function, got int 3"):
            Activation(3, np.cos)
        with pytest.raises(TypeError, match="derivative: expected a function"):
            Activation(np.sin, None)

    def test_bad_results(self, rng):
        X = rng.normal(size=(4, 3))
        with pytest.raises(ValueError, match=r"function\(input\): expected shape \(4, 3\)"):
            Activation(np.sum, np.cos).forward(X)
        with pytest.raises(TypeError, match=r"function\(input\): expected .* real numbers"):
            Activation(lambda x: x * 1j, np.cos).forward(X)
        with pytest.raises(ValueError, match=r"derivative\(input\): expected shape \(4, 3\)"):
            Activation(np.sin, lambda x: x[0]).backward(X, X)

    def test_a_function_can_not_write_into_its_input(self, rng):
        def in_place(x):
            x[x < 0] = 0
            return x

        with pytest.raises(ValueError, match="read-only"):
            Activation(in_place, np.cos).forward(rng.normal(size=(4, 3)))

    def test_can_not_be_saved(self, tmp_path):
        network = Network([Dense(3, 2), Activation(np.sin, np.cos)])
        with pytest.raises(TypeError, match=r"can't save Activation\(sin, cos\)"):
            network.save(tmp_path / "model")

    def test_the_refusal_says_how_to_keep_the_parameters(self, tmp_path):
        def built(seed):
            layers = [
                layer for _ in range(6) for layer in (Dense(3, 3), Activation(np.sin, np.cos))
            ]
            return Network(layers, seed=seed)

        network, path = built(0), tmp_path / "weights.npz"
        with pytest.raises(TypeError) as caught:
            network.fit(np.eye(3), np.arange(3), checkpoint=tmp_path / "training")
        saving, loading = re.findall(r"(?:numpy\.save|set_weights).*?\)+(?= )", str(caught.value))
        eval(saving, {"numpy": np, "path": path, "network": network})
        again = built(1)
        eval(f"again.{loading}", {"numpy": np, "path": path, "again": again})
        np.testing.assert_array_equal(again(np.eye(3)), network(np.eye(3)))


@pytest.mark.parametrize("squashing", [Sigmoid, Tanh])
def test_a_layer_that_writes_on_the_output_is_told(squashing, rng):
    class Doubling(Layer):
        def forward(self, input):
            input *= 2
            return input

    network = Network([Dense(4, 3), squashing(), Doubling()], seed=0)
    with pytest.raises(ValueError, match="read-only"):
        network.train_step(rng.normal(size=(5, 4)), np.arange(5) % 3)
