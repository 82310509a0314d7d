"""Softmax and cross-entropy, squared error, one-hot rows."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import (
    eval_numerical_gradient,
    grad_softmax_crossentropy_with_logits,
    losses,
    mse,
    mse_prime,
    one_hot,
    softmax,
    softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.usefixtures("backend")


def test_known_values():
    logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 2.0]])
    np.testing.assert_allclose(softmax(logits), [[0.125, 0.25, 0.625], [0.4, 0.4, 0.2]])
    loss = softmax_crossentropy_with_logits(logits, [2, 0])
    np.testing.assert_allclose(loss, -np.log([0.625, 0.4]))
    gradient = grad_softmax_crossentropy_with_logits(logits, [2, 0])
    np.testing.assert_allclose(gradient, [[0.0625, 0.125, -0.1875], [-0.3, 0.2, 0.1]])


def test_gradient_by_finite_differences(rng):
    logits, answers = rng.normal(size=(12, 7)), rng.integers(0, 7, 12)
    numeric = eval_numerical_gradient(
        lambda z: softmax_crossentropy_with_logits(z, answers).mean(), logits
    )
    gradient = grad_softmax_crossentropy_with_logits(logits, answers)
    assert np.abs(gradient - numeric).max() < 1e-6 * np.abs(numeric).max()


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_large_logits(size, dtype):
    logits = np.array([[size, 0.0, 0.0], [size, size, size]], dtype)
    loss = softmax_crossentropy_with_logits(logits, [0, 1])
    expected = 0.0 if size > 0 else -size + np.log(2)
    np.testing.assert_allclose(loss, [expected, np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, rtol=1e-6)
    assert np.isfinite(grad_softmax_crossentropy_with_logits(logits, [0, 1])).all()


def test_minus_infinity_in_a_wrong_class(dtype):
    logits = np.array([[-np.inf, 0.0, 0.0]], dtype)
    np.testing.assert_allclose(softmax_crossentropy_with_logits(logits, [1]), np.log(2), rtol=1e-6)
    gradient = grad_softmax_crossentropy_with_logits(logits, [1])
    np.testing.assert_allclose(gradient, [[0, -0.5, 0.5]], rtol=1e-6)


def test_nan_is_not_hidden(dtype):
    for at in (0, 1, 2):
        logits = np.zeros((1, 3), dtype)
        logits[0, at] = np.nan
        assert np.isnan(softmax_crossentropy_with_logits(logits, [1])).all()
        assert np.isnan(softmax(logits)).all()


def test_rows_of_the_gradient_sum_to_zero(rng, dtype):
    logits = rng.normal(size=(31, 10)).astype(dtype)
    gradient = grad_softmax_crossentropy_with_logits(logits, rng.integers(0, 10, 31))
    assert gradient.dtype == dtype
    assert np.abs(gradient.sum(axis=1)).max() <= 20 * np.finfo(dtype).eps / 31


def test_integer_logits_compute_in_float64():
    assert softmax(np.array([[1, 2, 3]])).dtype == np.float64


class TestSquaredError:
    def test_known_values(self):
        y_true, y_pred = [[0, 1], [1, 0]], [[0.5, 1.0], [0.0, 0.0]]
        assert mse(y_true, y_pred) == 0.3125
        np.testing.assert_array_equal(mse_prime(y_true, y_pred), [[0.25, 0.0], [-0.5, 0.0]])

    @pytest.mark.parametrize("shape", [(), (5,), (1, 1), (3, 4), (2, 3, 4)], ids=str)
    def test_any_shape(self, rng, shape, dtype):
        y_true, y_pred = rng.normal(size=(2, *shape)).astype(dtype)
        tolerance = 40 * np.finfo(dtype).eps
        expected = np.mean(np.power(y_true - y_pred, 2))
        assert abs(mse(y_true, y_pred) - expected) <= tolerance * expected
        gradient = mse_prime(y_true, y_pred)
        assert gradient.shape == shape
        assert gradient.dtype == dtype
        expected = 2 * (y_pred - y_true) / max(np.size(y_true), 1)
        np.testing.assert_allclose(gradient, expected, rtol=tolerance)

    def test_dtypes(self):
        single, double, whole = (np.ones((2, 2), kind) for kind in ("f4", "f8", "i8"))
        for pair, dtype in [
            ((whole, single), np.float32),
            ((double, single), np.float64),
            ((single, double), np.float64),
            ((whole, whole), np.float64),
        ]:
            assert mse_prime(*pair).dtype == dtype

    def test_nan_is_not_hidden(self):
        assert np.isnan(mse([0.0, 1.0], [np.nan, 1.0]))

    def test_bad_input(self):
        for function in (mse, mse_prime):
            with pytest.raises(ValueError, match=r"y_true: expected shape \(3, 2\), got \(3,\)"):
                function([0, 1, 2], np.zeros((3, 2)))
            with pytest.raises(ValueError, match=r"y_pred: expected .* one number, .* \(0,\)"):
                function([], [])
            with pytest.raises(ValueError, match="y_pred: expected a regular array"):
                function([1], [[1], [1, 2]])
            with pytest.raises(TypeError, match="y_true: expected an array of real numbers"):
                function(["a"], [1.0])
            with pytest.raises(TypeError, match="y_pred: expected an array of real numbers"):
                function([1.0], [1j])


class TestOneHot:
    def test_values(self):
        rows = one_hot([2, 0], 3)
        np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0]])
        assert rows.dtype == np.float32
        assert one_hot([2, 0], 3, np.float64).dtype == np.float64
        assert one_hot(np.array([], int), 3).shape == (0, 3)

    def test_bad_input(self):
        for labels, error, message in [
            ([0, 3], ValueError, "labels: expected class ids from 0 to 2, got 3 at index 1"),
            ([0, -1], ValueError, "labels: expected class ids from 0 to 2"),
            ([0.5], ValueError, "labels: expected whole class ids"),
            ([[0], [1]], ValueError, "labels: expected class ids of shape"),
            (["one"], TypeError, "labels: expected an array of real numbers"),
        ]:
            with pytest.raises(error, match=message):
                one_hot(labels, 3)
        with pytest.raises(ValueError, match="classes: expected an integer of at least 1, got 0"):
            one_hot([0], 0)
        with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
            one_hot([0], 1, int)


def test_functions_name_their_arguments(backend):
    logits, answers = np.zeros((2, 3)), np.zeros(2, int)
    for function in (softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits):
        with pytest.raises(ValueError, match=r"^logits: "):
            function(logits[0], answers)
        with pytest.raises(ValueError, match=r"^reference_answers: "):
            function(logits, answers + 3)
    with pytest.raises(ValueError, match=r"^logits: "):
        softmax(logits[0])


def test_weights_of_classes():
    """Balanced: n / (classes that occur * samples of the class); 1 for one that does not occur."""
    labels = np.array([0, 0, 0, 1])
    assert losses.class_weights("balanced", labels, 4).tolist() == [4 / 6, 2.0, 1.0, 1.0]
    assert losses.class_weights({1: 0.25, 2: 0.0}, labels, 3).tolist() == [1.0, 0.25, 0.0]
    found = losses.class_weights(np.array([1, 2], np.int8), labels, 2)
    assert found.dtype == np.float64
    assert found.tolist() == [1.0, 2.0]
