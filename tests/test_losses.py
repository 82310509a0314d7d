"""Softmax and cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import (
    eval_numerical_gradient,
    grad_softmax_crossentropy_with_logits,
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
