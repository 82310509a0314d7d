"""Layers: the contracts, and gradients by finite differences."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import BATCHES, SHAPES

import fastnn
from fastnn import BatchNorm, Dense, Layer, Network, ReLU, Rescaling, eval_numerical_gradient

pytestmark = pytest.mark.usefixtures("backend")

GRADIENT_TOLERANCE = 1e-6
"""Central differences with h = 1e-5 are off by h^2 and eps / h, about 1e-10 and 1e-11."""


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max()))


def away_from_zero(rng, shape):
    """Return values at least 0.1 from the kink of the rectified linear unit."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 1.0, shape)


@pytest.mark.parametrize(
    "layer", [Layer(), ReLU(), Rescaling(-0.7), Dense(5, 4, 0.0, seed=1)], ids=repr
)
@pytest.mark.parametrize("batch", BATCHES)
def test_input_gradient(layer, batch, rng):
    X = away_from_zero(rng, (batch, 5))
    G = rng.normal(size=layer.forward(X).shape)
    numeric = eval_numerical_gradient(lambda X: (layer.forward(X) * G).sum(), X)
    assert relative_error(layer.backward(X, G), numeric) < GRADIENT_TOLERANCE


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_parameter_gradients(shape, rng):
    layer = Dense(*shape, seed=3)
    X = rng.normal(size=(6, shape[0]))
    G = rng.normal(size=(6, shape[1]))
    _, gradients = layer.gradients(X, G)
    assert set(gradients) == {"weights", "biases"}
    for name, parameter in layer.parameters.items():
        values = parameter.copy()

        def loss(values, parameter=parameter):
            parameter[...] = values
            return (layer.forward(X) * G).sum()

        numeric = eval_numerical_gradient(loss, values)
        parameter[...] = values
        assert relative_error(gradients[name], numeric) < GRADIENT_TOLERANCE


def test_backward_takes_one_step_of_sgd(rng):
    layer = Dense(7, 3, learning_rate=0.25, seed=0)
    X, G = rng.normal(size=(5, 7)), rng.normal(size=(5, 3))
    weights, biases = layer.weights.copy(), layer.biases.copy()
    grad_input = layer.backward(X, G)
    # The input gradient belongs to the weights before the step.
    np.testing.assert_allclose(grad_input, G @ weights.T, rtol=1e-12)
    np.testing.assert_allclose(layer.weights, weights - 0.25 * X.T @ G, rtol=1e-12)
    np.testing.assert_allclose(layer.biases, biases - 0.25 * G.sum(0), rtol=1e-12)


def test_gradients_take_no_step(rng):
    layer = Dense(7, 3, seed=0)
    weights = layer.weights.copy()
    first = layer.gradients(rng.normal(size=(5, 7)), rng.normal(size=(5, 3)))[1]
    kept = first["weights"].copy()
    layer.gradients(rng.normal(size=(5, 7)), rng.normal(size=(5, 3)))
    np.testing.assert_array_equal(layer.weights, weights)
    np.testing.assert_array_equal(first["weights"], kept)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a network"])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_copy_shares_no_parameters(copied, alone, rng):
    layer = Dense(7, 3, optimizer=fastnn.SGD(0.1, momentum=0.5), seed=0)
    network = None if alone else fastnn.Network([layer], dtype=np.float64)
    X, G = rng.normal(size=(5, 7)), rng.normal(size=(5, 3))
    layer.backward(X, G)
    twin = copied(layer)
    before = layer.weights.copy()
    twin.backward(X, G)
    np.testing.assert_array_equal(layer.weights, before)
    layer.backward(X, G)
    np.testing.assert_array_equal(layer.weights, twin.weights)
    assert (layer.steps, twin.steps) == (2, 2)
    assert alone or network[0] is layer
    fastnn.Network([twin])  # which it does not belong to yet


def test_a_pickle_holds_parameters_once(rng):
    layer = Dense(130, 50, seed=0)
    layer.backward(rng.normal(size=(5, 130)), rng.normal(size=(5, 50)))
    assert len(pickle.dumps(layer)) < 1.2 * layer.weights.base.nbytes + 2000


def test_a_draw_that_fails_leaves_nothing_behind():
    layer = Dense(3, 2, weights=lambda rng, shape: np.ones(3))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^weights: expected shape \(3, 2\)"):
            layer.forward(np.ones((1, 3)))


def test_a_copy_draws_what_the_layer_would_have_drawn():
    layer = Dense(7, 3, seed=5)
    twin = copy.copy(layer)
    expected = Dense(7, 3, seed=5).weights
    np.testing.assert_array_equal(twin.weights, expected)
    np.testing.assert_array_equal(layer.weights, expected)


def test_gradients_of_a_layer_with_one_method_replaced(rng):
    layer = Dense(4, 3, seed=0)
    layer.backward = lambda input, grad_output: input
    with pytest.raises(TypeError, match="override gradients as well"):
        layer.gradients(rng.normal(size=(2, 4)), np.ones((2, 3)))


def test_gradients_of_an_activation_of_functions_that_can_not_be_copied(rng):
    class Uncopied:
        def __deepcopy__(self, memo):
            raise RuntimeError

        def __call__(self, X):
            return np.cos(X)

    X, G = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    found, none = fastnn.Activation(np.sin, Uncopied()).gradients(X, G)
    np.testing.assert_array_equal(found, G * np.cos(X))
    assert none == {}


def test_the_name_of_a_subclass_is_told():
    for kind, arguments in (
        (Dense, (3, 2)),
        (fastnn.BatchNorm, (3,)),
        (fastnn.Dropout, (0.5,)),
        (fastnn.LeakyReLU, (0.1,)),
        (fastnn.Activation, (np.sin, np.cos)),
    ):
        own = type("Own", (kind,), {})(*arguments)
        assert repr(own).startswith("Own(")


class TestConstants:
    def test_of_the_class(self):
        assert fastnn.LeakyReLU.slope.__doc__
        assert not hasattr(fastnn.ReLU, "slope")

    def test_changed_after_the_first_set(self, rng):
        layer, X = fastnn.LeakyReLU(0.5), -rng.uniform(0.1, 1.0, (5, 7))
        for slope in (0.5, 0.25, -2.0):
            layer.slope = slope
            np.testing.assert_array_equal(layer.forward(X), slope * X)
            np.testing.assert_array_equal(layer.backward(X, X), slope * X)

    def test_that_do_not_go_together(self):
        """Two of them, each of which may be what it is set to."""

        class Clip(fastnn.layers.Elementwise):
            low = type(fastnn.LeakyReLU.slope)("The lower bound.")
            high = type(fastnn.LeakyReLU.slope)("The upper bound.")

            def __init__(self, low, high):
                self.low, self.high = low, high

            @classmethod
            def _check_together(cls, low, high):
                if low >= high:
                    raise ValueError(f"low: expected a number below high, {high}, got {low}")

        with pytest.raises(ValueError, match=r"low: expected a number below high, 1\.0, got 2\.0"):
            Clip(2.0, 1.0)
        layer = Clip(0.0, 1.0)
        for name, value in (("low", 1.0), ("high", -1.0)):
            with pytest.raises(ValueError, match="low: expected a number below high"):
                setattr(layer, name, value)
            assert (layer.low, layer.high) == layer._numbers == (0.0, 1.0)
        layer.high = 0.5
        assert layer._numbers == (0.0, 0.5)

    def test_that_are_not_set_are_missed(self):
        class Own(fastnn.LeakyReLU):
            def __init__(self):
                pass

        layer = Own()
        assert not hasattr(layer, "slope")
        for use in (
            lambda: layer.slope,
            lambda: repr(layer),
            lambda: layer.forward(np.ones((2, 2))),
            lambda: layer.backward(np.ones((2, 2)), np.ones((2, 2))),
        ):
            with pytest.raises(AttributeError, match="Own: expected __init__ to set slope"):
                use()
        layer.slope = 0.5
        np.testing.assert_array_equal(layer.forward([[-1.0, 2.0]]), [[-0.5, 2.0]])

    def test_named_once_where_a_subclass_says_it_again(self):
        class Own(fastnn.LeakyReLU):
            slope = type(fastnn.LeakyReLU.slope)("Of the line below 0.")

        assert repr(Own(0.5)) == "Own(0.5)"


class TestDense:
    def test_known_values(self):
        layer = Dense(3, 4)
        layer.weights = np.arange(12).reshape(3, 4)
        layer.biases = [1, 0, -1, 0.5]
        output = layer.forward(np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]]))
        np.testing.assert_array_equal(output, [[-7, -8, -9, -7.5], [13, 14.5, 16, 20]])

    def test_xavier(self):
        weights = Dense(300, 200, seed=5).weights
        deviation = np.sqrt(2 / 500)
        # The mean of n draws has deviation s / sqrt(n), their deviation s / sqrt(2n): 5 of each.
        assert abs(weights.mean()) < 5 * deviation / np.sqrt(weights.size)
        assert abs(weights.std() / deviation - 1) < 5 / np.sqrt(2 * weights.size)
        assert not Dense(300, 200).biases.any()

    def test_views_are_live_and_assignment_copies(self, rng):
        layer = Dense(3, 2)
        view, values = layer.weights, rng.normal(size=(3, 2))
        layer.weights = values
        np.testing.assert_array_equal(view, values)
        values[0, 0] = 99.0
        assert view[0, 0] != 99.0
        layer.weights[1, 1] = 42.0
        assert layer.forward(np.array([[0.0, 1.0, 0.0]]))[0, 1] == 42.0

    def test_rows_are_aligned(self):
        weights = Dense(10, 3).weights
        assert weights.ctypes.data % 64 == 0
        assert weights.strides[0] % 64 == 0

    def test_seed(self):
        assert np.array_equal(Dense(4, 4, seed=1).weights, Dense(4, 4, seed=1).weights)
        assert not np.array_equal(Dense(4, 4).weights, Dense(4, 4).weights)

    def test_computes_in_the_promoted_type(self, rng):
        layer = Dense(3, 2)
        X = rng.normal(size=(4, 3))
        assert layer.forward(X.astype(np.float32)).dtype == np.float64
        assert layer.forward(np.ones((4, 3), int)).dtype == np.float64
        network = fastnn.Network([Dense(3, 2)])
        single = network[0]
        assert single.forward(X.astype(np.float32)).dtype == np.float32
        assert single.forward(X.astype(np.float16)).dtype == np.float32
        assert single.forward(np.ones((4, 3), np.uint8)).dtype == np.float32
        assert single.forward(X).dtype == np.float64
        before = single.weights.copy()
        grad_input = single.backward(X, np.ones((4, 2)))
        assert grad_input.dtype == np.float64
        expected = before - 0.1 * X.T @ np.ones((4, 2))
        np.testing.assert_allclose(single.weights, expected, rtol=1e-6, atol=1e-6)

    def test_learning_rate_can_change(self, rng):
        layer = Dense(3, 2, learning_rate=0)
        X, G, before = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), layer.weights.copy()
        layer.backward(X, G)
        np.testing.assert_array_equal(layer.weights, before)
        layer.learning_rate = 1
        layer.backward(X, G)
        np.testing.assert_allclose(layer.weights, before - X.T @ G, rtol=1e-12, atol=1e-14)


class TestReLU:
    def test_values(self, dtype):
        X = np.array([[-2.0, -0.0, 0.0, 3.0, np.inf, -np.inf]], dtype)
        np.testing.assert_array_equal(ReLU().forward(X), [[0, 0, 0, 3, np.inf, 0]])
        G = np.full(X.shape, 7.0, dtype)
        np.testing.assert_array_equal(ReLU().backward(X, G), [[0, 0, 0, 7, 7, 0]])
        assert ReLU().backward(X, G).dtype == dtype

    def test_nan_stays(self):
        assert np.isnan(ReLU().forward(np.array([[np.nan, 1.0]]))[0, 0])


def test_identity_passes_gradients_on(rng):
    G = rng.normal(size=(3, 4))
    assert Layer().forward(G) is G
    np.testing.assert_array_equal(Layer().backward(rng.normal(size=(3, 4)), G), G)


def test_what_a_layer_remembers_of_its_memory_follows_it(rng):
    layer = Dense(4, 3, 0.5, seed=1)
    X, G = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    layer.backward(X, G)
    twin = copy.deepcopy(layer)
    before = layer.weights.copy()
    twin.backward(X, G)
    np.testing.assert_array_equal(layer.weights, before)
    assert not np.array_equal(twin.weights, before)
    network = fastnn.Network([layer], dtype=np.float64)
    layer.weights = np.ones((4, 3))
    np.testing.assert_allclose(network.forward(X)[0], X @ np.ones((4, 3)) + layer.biases)
    network.add(Dense(3, 2))
    layer.weights.flags.writeable = False
    layer.weights = np.zeros((4, 3))
    np.testing.assert_array_equal(layer.forward(X), np.zeros((5, 3)) + layer.biases)
    layer.backward(X, G)
    np.testing.assert_allclose(layer.weights, -0.5 * X.T @ G)


def test_parameters_by_name_are_live_and_take_values(rng):
    """Assigning to the mapping was lost without a word."""
    layer = Dense(3, 2)
    network = Network([layer])
    values = rng.normal(size=(3, 2))
    network[0].parameters["weights"] = values
    np.testing.assert_array_equal(layer.weights, values.astype(np.float32))
    layer.parameters["biases"] += 1
    np.testing.assert_array_equal(layer.biases, np.ones(2))
    assert list(layer.parameters) == ["weights", "biases"]
    norm = BatchNorm(4)
    norm.parameters.update(scale=np.arange(4), shift=[5, 6, 7, 8])
    np.testing.assert_array_equal(norm.scale, np.arange(4))
    with pytest.raises(ValueError, match=r"weights: expected shape \(3, 2\), got \(2, 3\)"):
        layer.parameters["weights"] = values.T
    for name in ("running_mean", "bias"):
        with pytest.raises(KeyError, match=f"{name}: expected the name of a parameter"):
            norm.parameters[name] = np.zeros(4)
    with pytest.raises(TypeError, match="can't lose a parameter"):
        del layer.parameters["weights"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        ReLU().parameters["slope"] = 1


def test_columns_of_a_history_are_read_only():
    history = Network([Dense(3, 2)]).fit(np.ones((4, 3)), [0, 1, 0, 1])
    with pytest.raises(TypeError, match="does not support item assignment"):
        history.columns["loss"] = [0.0]
    history.to_dict()["loss"].clear()
    assert len(history) == 1
