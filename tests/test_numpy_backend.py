"""The NumPy backend at numbers that were worked out without it: kinks, infinities, short formulas.

What is compiled is compared with this backend, so this one is compared with Python's `math`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import backends
from fastnn.backends import numpy_backend as reference

INF, NAN = math.inf, math.nan
SLOPE, ALPHA, SCALE = 0.25, 1.5, 3.0
L, A = 1.0507009873554805, 1.6732632423543772


def normal(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def logistic(x):
    return 1 / (1 + math.exp(-x))


def mish_slope(x):
    t = math.tanh(math.log1p(math.exp(x)))
    return t + x * (1 - t * t) * logistic(x)


TABLE = {
    # name: constants; values at -inf, 0, inf; slopes there; value and slope as functions
    "relu": ((), (0, 0, INF), (0, 0, 1), lambda x: max(x, 0), lambda x: float(x > 0)),
    "rescale": ((SCALE,), (-INF, 0, INF), (3, 3, 3), lambda x: 3 * x, lambda x: 3),
    "sigmoid": (
        (), (0, 0.5, 1), (0, 0.25, 0), logistic, lambda x: logistic(x) * logistic(-x),
    ),
    "tanh": ((), (-1, 0, 1), (0, 1, 0), math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "leaky_relu": (
        (SLOPE,), (-INF, 0, INF), (SLOPE, SLOPE, 1),
        lambda x: x if x > 0 else SLOPE * x, lambda x: 1 if x > 0 else SLOPE,
    ),
    "elu": (
        (ALPHA,), (-ALPHA, 0, INF), (0, ALPHA, 1),
        lambda x: x if x > 0 else ALPHA * math.expm1(x),
        lambda x: 1 if x > 0 else ALPHA * math.exp(x),
    ),
    "selu": (
        (), (-L * A, 0, INF), (0, L * A, L),
        lambda x: L * (x if x > 0 else A * math.expm1(x)),
        lambda x: L * (1 if x > 0 else A * math.exp(x)),
    ),
    "silu": (
        (), (0, 0, INF), (0, 0.5, 1), lambda x: x * logistic(x),
        lambda x: logistic(x) * (1 + x * logistic(-x)),
    ),
    "gelu": (
        (), (0, 0, INF), (0, 0.5, 1), lambda x: x * normal(x), lambda x: normal(x) + x * density(x),
    ),
    "softplus": (
        (), (0, math.log(2), INF), (0, 0.5, 1), lambda x: math.log1p(math.exp(x)), logistic,
    ),
    "mish": (
        (), (0, 0, INF), (0, 0.6, 1), lambda x: x * math.tanh(math.log1p(math.exp(x))), mish_slope,
    ),
}  # fmt: skip

FROM_OUTPUT = ("sigmoid", "tanh")


def computed(name, numbers, dtype, backend=reference):
    """Return values and slopes of a function, which gradients of 2 come back with."""
    X = np.array([numbers], dtype)
    with np.errstate(all="ignore"):
        Y = backend.elementwise_forward(name, X, *TABLE[name][0])
        value = Y if name in FROM_OUTPUT else X
        G = backend.elementwise_backward(name, value, np.full_like(X, 2), *TABLE[name][0])
    assert Y.dtype == G.dtype == dtype
    return Y[0], G[0] / 2


def test_the_table_has_all_functions():
    assert TABLE.keys() == reference.ELEMENTWISE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_kinks_and_infinities(name, dtype, backend):
    """A derivative at a kink is the one from below, compiled or not: at 0 a unit of ReLU is off."""
    _, values, slopes, _, _ = TABLE[name]
    rtol = 0 if name in ("relu", "rescale", "leaky_relu") else 16 * np.finfo(dtype).eps
    for zero in (0.0, -0.0):
        Y, slope = computed(name, [-INF, zero, INF], dtype, backends.load(backend))
        np.testing.assert_allclose(Y, values, rtol=rtol, atol=0)
        np.testing.assert_allclose(slope, slopes, rtol=rtol, atol=0)


@pytest.mark.parametrize("name", TABLE)
def test_values_by_pythons_math(name, dtype):
    numbers = [-30.0, -5.0, -1.0, -0.125, 0.125, 0.5, 1.0, 5.0, 30.0]
    _, _, _, value, slope = TABLE[name]
    Y, slopes = computed(name, numbers, dtype)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(Y, [value(x) for x in numbers], rtol=64 * eps, atol=4 * eps)
    np.testing.assert_allclose(slopes, [slope(x) for x in numbers], rtol=64 * eps, atol=4 * eps)


@pytest.mark.parametrize("name", TABLE)
def test_far_out_nothing_overflows(name, dtype):
    """Beyond 1000, where some functions take their argument for 1000, and beyond what exp takes."""
    for x in (-1e4, -1001.0, -999.0, 999.0, 1001.0, 1e4):
        (y,), (slope,) = computed(name, [x], dtype)
        _, values, slopes, _, _ = TABLE[name]
        side = 2 if x > 0 else 0
        expected = values[side]
        if not math.isfinite(expected):
            expected = x * slopes[side]
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(slope, slopes[side], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("name", TABLE)
def test_nan_stays(name, dtype):
    (y,), (slope,) = computed(name, [NAN], dtype)
    assert np.isnan(y)
    assert np.isnan(slope) or name in ("relu", "leaky_relu", "rescale", "elu", "selu")


class TestSteps:
    """One step of each rule on one number, worked out by hand."""

    @staticmethod
    def state(*numbers):
        return [np.array([number]) for number in numbers]

    def test_sgd(self):
        w, g = self.state(1.0, 0.5)
        reference.sgd_step(w, g, 0.25)
        assert w[0] == 0.875

    @pytest.mark.parametrize(("nesterov", "direction"), [(False, 3.0), (True, 2.75)])
    def test_momentum(self, nesterov, direction):
        w, g, v = self.state(1.0, 2.0, 4.0)
        reference.momentum_step(w, g, v, 0.5, 0.25, nesterov)
        assert v[0] == 3.0
        assert w[0] == 1.0 - 0.5 * direction

    def test_rmsprop(self):
        w, g, s = self.state(1.0, 3.0, 16.0)
        reference.rmsprop_step(w, g, s, 0.5, 0.75, 0.25)
        assert s[0] == 14.25
        assert w[0] == pytest.approx(1.0 - 0.5 * 3.0 / (math.sqrt(14.25) + 0.25), rel=1e-15)

    def test_adam(self):
        w, g, m, s = self.state(1.0, 3.0, 4.0, 16.0)
        reference.adam_step(w, g, m, s, 0.5, 0.25, 0.75, 0.25, 2)  # its third step
        assert m[0] == 3.25
        assert s[0] == 14.25
        mean, square = 3.25 / (1 - 0.25**3), 14.25 / (1 - 0.75**3)
        assert w[0] == pytest.approx(1.0 - 0.5 * mean / (math.sqrt(square) + 0.25), rel=1e-15)

    def test_clipping(self):
        parts = self.state(3.0, 4.0)
        reference.clip_by_global_norm(parts, 2.5)
        factor = 2.5 / (5.0 + 1e-6)
        assert [part[0] for part in parts] == pytest.approx([3.0 * factor, 4.0 * factor], rel=1e-15)
        # 1e-6 is added first, so a norm that is the bound is clipped, and one below is not
        for norm, untouched in ((1.0, False), (1.0 - 2e-6, True)):
            (part,) = self.state(norm)
            reference.clip_by_global_norm([part], 1.0)
            assert (part[0] == norm) == untouched
        (part,) = self.state(NAN)
        reference.clip_by_global_norm([part, *(ones := self.state(1.0))], 1.0)
        assert np.isnan(ones[0][0])

    def test_sums_in_float64(self):
        assert reference.sum_of_squares(np.float32([1e20, 1e20])) == pytest.approx(2e40, rel=1e-6)
        target = np.float32([1.0])
        reference.add_multiple(target, 0.5, np.float32([3.0]))
        assert target[0] == 2.5
        assert target.dtype == np.float32


class TestLosses:
    def test_softmax_cross_entropy(self, dtype):
        z, y = np.array([[0.0, math.log(3.0)], [1e4, -1e4]], dtype), np.array([0, 1])
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(reference.softmax(z), [[0.25, 0.75], [1, 0]], rtol=4 * eps)
        losses = reference.softmax_cross_entropy(z, y)
        np.testing.assert_allclose(losses, [math.log(4.0), 2e4], rtol=4 * eps)
        gradient = reference.softmax_cross_entropy_gradient(z, y)
        expected = [[-0.375, 0.375], [0.5, -0.5]]
        np.testing.assert_allclose(gradient, expected, rtol=4 * eps)
        assert losses.dtype == gradient.dtype == dtype

    def test_smoothed_cross_entropy(self, dtype):
        z, y, s = np.log(np.array([[1, 1, 2], [9, 3, 3]], dtype)), np.array([2, 1]), 0.3
        targets = np.array([[0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
        p = np.array([[0.25, 0.25, 0.5], [0.6, 0.2, 0.2]])
        eps = float(np.finfo(dtype).eps)
        losses = reference.smoothed_cross_entropy(z, y, s)
        np.testing.assert_allclose(losses, -(targets * np.log(p)).sum(axis=1), rtol=16 * eps)
        gradient = reference.smoothed_cross_entropy_gradient(z, y, s)
        np.testing.assert_allclose(gradient, (p - targets) / 2, rtol=16 * eps)
        assert losses.dtype == gradient.dtype == dtype

    def test_rows_far_apart(self, dtype):
        """Each row has a maximum of its own: beside that of another, this one's would vanish."""
        z, y = np.array([[1e3, 1e3], [-1e3, -1e3]], dtype), np.array([0, 1])
        losses = reference.smoothed_cross_entropy(z, y, 0.5)
        np.testing.assert_allclose(losses, math.log(2), rtol=4 * np.finfo(dtype).eps)

    def test_binary_cross_entropy(self, dtype):
        z = np.array([[0.0, 2.0, -2.0, INF], [0.5, 0.5, -0.5, -INF]], dtype)
        t = np.array([[0.25, 0.25, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]], dtype)
        eps = float(np.finfo(dtype).eps)
        q, r = logistic(2.0), logistic(0.5)
        expected = [
            math.log(2) - 0.25 * math.log(q) - 0.75 * math.log(1 - q) - math.log(1 - q),
            -math.log(1 - r) - 2 * math.log(r),
        ]
        losses = reference.binary_cross_entropy(z, t)
        np.testing.assert_allclose(losses, expected, rtol=16 * eps)
        gradient = reference.binary_cross_entropy_gradient(z, t)
        expected = np.array([[0.25, q - 0.25, -q, 0], [r, r - 1, 1 - r, 0]]) / 2
        np.testing.assert_allclose(gradient, expected, rtol=16 * eps)
        assert losses.dtype == gradient.dtype == dtype

    def test_poisson(self, dtype):
        z, t = np.array([[0.0, -INF], [1.0, 1.0]], dtype), np.array([[2.0, 0.0], [3.0, 0.5]], dtype)
        eps = float(np.finfo(dtype).eps)
        losses = reference.poisson_loss(z, t)
        np.testing.assert_allclose(losses, [1.0, 2 * math.e - 3.5], rtol=16 * eps)
        gradient = reference.poisson_loss_gradient(z, t)
        expected = [[-0.5, 0.0], [(math.e - 3) / 2, (math.e - 0.5) / 2]]
        np.testing.assert_allclose(gradient, expected, rtol=16 * eps)

    def test_squared_error(self, dtype):
        y, t = np.array([[1.0, 2.0], [0.0, 4.0]], dtype), np.array([[0.0, 4.0], [0.0, 1.0]], dtype)
        np.testing.assert_array_equal(reference.mean_squared_error(y, t), [2.5, 4.5])
        gradient = reference.mean_squared_error_gradient(y, t)
        np.testing.assert_array_equal(gradient, [[0.5, -1.0], [0.0, 1.5]])
        assert gradient.dtype == dtype


class TestLayers:
    def test_dense(self, dtype):
        X, W = np.array([[1.0, 2.0]], dtype), np.array([[1.0, -1.0], [2.0, -3.0]], dtype)
        b, G = np.array([0.5, 1.0], dtype), np.array([[1.0, -1.0]], dtype)
        assert reference.dense_forward(X, W, b).tolist() == [[5.5, -6.0]]
        assert reference.dense_forward(X, W, b, relu=True).tolist() == [[5.5, 0.0]]
        of_weights, of_biases = np.full_like(W, NAN), np.full_like(b, NAN)
        below = reference.dense_backward(X, W, G, of_weights, of_biases)
        assert below.tolist() == [[2.0, 5.0]]
        assert of_weights.tolist() == [[1.0, -1.0], [2.0, -2.0]]
        assert of_biases.tolist() == [1.0, -1.0]
        arguments = X, W, G, of_weights, of_biases
        assert reference.dense_backward(*arguments, input_gradient=False) is None

    def test_batch_norm(self, dtype):
        X = np.array([[1.0, 7.0], [3.0, 7.0]], dtype)
        scale, shift = np.array([2.0, 3.0], dtype), np.array([10.0, 20.0], dtype)
        eps = float(np.finfo(dtype).eps)
        Y, mean, variance = reference.batch_norm_forward(X, scale, shift, 3.0)
        assert mean.tolist() == [2.0, 7.0]
        assert variance.tolist() == [1.0, 0.0]
        assert Y.tolist() == [[9.0, 20.0], [11.0, 20.0]]
        G = np.array([[1.0, 2.0], [4.0, 2.0]], dtype)
        of_scale, of_shift = np.full_like(scale, NAN), np.full_like(shift, NAN)
        below = reference.batch_norm_backward(X, G, scale, 3.0, of_scale, of_shift)
        assert of_shift.tolist() == [5.0, 4.0]
        assert of_scale.tolist() == [1.5, 0.0]
        # G less its mean, and less X̂ (±0.5) times dL/dscale / 2, by 2 over the root of 4
        np.testing.assert_allclose(below[:, 0], [-1.125, 1.125], rtol=4 * eps)
        np.testing.assert_allclose(below[:, 1], 0, atol=eps)
        arguments = X, G, scale, mean, variance, 3.0, of_scale, of_shift
        below = reference.batch_norm_inference_backward(*arguments)
        np.testing.assert_allclose(below[:, 0], [1.0, 4.0], rtol=4 * eps)
        assert of_scale.tolist() == [1.5, 0.0]

    @pytest.mark.parametrize("shape", [(3, 5), (1, 1), (2, 4)])
    def test_dropout(self, shape, dtype):
        """Two 32-bit words of each of Philox's, the lower half first."""
        X = np.arange(1.0, 1 + np.prod(shape), dtype=dtype).reshape(shape)
        for p in (0.0, 0.25, 0.75):
            words = np.random.Philox(key=7, counter=[0, 3, 0, 0]).random_raw(X.size)
            halves = [half for word in words for half in (int(word) % 2**32, int(word) >> 32)]
            kept = np.array([half >= p * 2**32 for half in halves[: X.size]]).reshape(shape)
            Y = reference.dropout(X, p, 7, 3)
            np.testing.assert_allclose(Y, kept * X / (1 - p), rtol=4 * np.finfo(dtype).eps)
            assert Y.dtype == dtype

    def test_a_word_that_is_the_threshold(self, dtype, backend):
        """Kept: those below it are p of all. (One more or less shows in no statistics.)"""
        (word,) = np.random.Philox(key=7, counter=[0, 3, 0, 0]).random_raw(1)
        p = int(word) % 2**32 / 2**32
        X = np.ones((1, 1), dtype)
        assert backends.load(backend).dropout(X, p, 7, 3)[0, 0] > 0
        assert backends.load(backend).dropout(X, np.nextafter(p + 2**-32, 1), 7, 3)[0, 0] == 0
