"""Losses, products and optimisers at zeros, infinities, NaN and numbers of 1e30."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from elementwise import each_row

from fastnn.backends import numpy_backend as reference
from fastnn.bench.trainings import OPTIMIZERS

INF, NAN = np.inf, np.nan
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def both(numba_backend, name, *arguments):
    return [getattr(module, name)(*arguments) for module in (reference, numba_backend)]


def assert_alike(found, expected, dtype, lost=4.0):
    """The same, NaN and infinities too, but for rounding and what is below the smallest normal."""
    np.testing.assert_allclose(
        found, expected, rtol=16 * np.finfo(dtype).eps, atol=lost * np.finfo(dtype).tiny
    )


@pytest.mark.parametrize(
    ("logits", "label", "loss"),
    [
        ([1e30, 0, 1], 0, 0.0),
        ([1e30, 0, 1], 1, 1e30),
        ([1e30, -1e30, 0], 0, 0.0),
        ([1e30, -1e30, 0], 1, 2e30),
        ([3e38, -3e38, 0], 1, 6e38),  # which float32 doesn't hold
        ([-INF, 0, 0], 1, np.log(2)),
        ([-INF, 0, 0], 0, INF),
        ([INF, 0, 0], 0, NAN),
        ([INF, 0, 0], 1, NAN),
        ([-INF, -INF, -INF], 0, NAN),
        ([NAN, 0, 0], 1, NAN),
        ([0, NAN, 0], 0, NAN),
        ([0, -200, -1e4], 0, 0.0),
        ([0, -200, -1e4], 2, 1e4),
    ],
    ids=str,
)
def test_softmax_cross_entropy(numba_backend, logits, label, loss, dtype):
    Z, labels = np.array([logits] * 3, dtype), np.full(3, label)
    for found in both(numba_backend, "softmax_cross_entropy", Z, labels):
        assert_alike(found, np.full(3, loss).astype(dtype), dtype)
        assert (found == 0).all() == (loss == 0)
    for name, arguments in [
        ("softmax", (Z,)),
        ("softmax_cross_entropy_gradient", (Z, labels)),
        ("smoothed_cross_entropy", (Z, labels, 0.1)),
        ("smoothed_cross_entropy_gradient", (Z, labels, 0.1)),
    ]:
        expected, found = both(numba_backend, name, *arguments)
        assert_alike(found, expected, dtype)
        if name != "smoothed_cross_entropy":
            assert np.isnan(found).any() == np.isnan(loss)
            assert np.isnan(found).all() == np.isnan(loss)


@pytest.mark.parametrize("row", **each_row)
def test_signs_of_zeros(numba_backend, row, dtype):
    """Functions that are 0 at 0 keep its sign, but for ReLU of NumPy."""
    X = np.tile(np.array([[0.0], [-0.0]], dtype), 19)
    name, constants = row.layer._function, row.layer._numbers
    for found in both(numba_backend, "elementwise_forward", name, X, *constants):
        if name not in ("relu", "sigmoid", "softplus"):
            np.testing.assert_array_equal(found, 0)
            np.testing.assert_array_equal(np.signbit(found), np.signbit(X))


def test_what_is_the_same_to_the_bit(numba_backend, rng, dtype):
    X = np.concatenate([rng.normal(size=(50, 37)), 1e30 * rng.normal(size=(50, 37))]).astype(dtype)
    G, T = rng.normal(size=(2, *X.shape)).astype(dtype)
    for name, constants in (("relu", ()), ("leaky_relu", (0.1,)), ("rescale", (1 / 3,))):
        for arguments in (
            ("elementwise_forward", name, X, *constants),
            ("elementwise_backward", name, X, G, *constants),
        ):
            np.testing.assert_array_equal(*both(numba_backend, *arguments))
    np.testing.assert_array_equal(*both(numba_backend, "mean_squared_error_gradient", X, T))


NUMBERS = (0.0, -0.0, 1e-40, -1e-40, 1.0, 100.0, -100.0, 800.0, -800.0, 1e30, -1e30, INF, -INF, NAN)


@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_losses_of_one_output(numba_backend, target, dtype):
    Z = np.array(NUMBERS, dtype)[:, np.newaxis]
    T = np.full_like(Z, target)
    for name in ("binary_cross_entropy", "poisson_loss", "mean_squared_error"):
        for expected, found in (
            both(numba_backend, name, Z, T),
            both(numba_backend, f"{name}_gradient", Z, T),
        ):
            assert_alike(found, expected, dtype)
            where = [np.isnan(number) for number in NUMBERS]
            if name == "poisson_loss" and found.ndim == 1 and target:
                where = [
                    is_nan or number == INF for is_nan, number in zip(where, NUMBERS, strict=True)
                ]
            np.testing.assert_array_equal(np.isnan(found).ravel(), where)
    for losses in both(numba_backend, "binary_cross_entropy", Z, T):
        of = dict(zip(map(str, NUMBERS), losses, strict=True))
        top = dtype.type(1e30)
        assert (of["1e+30"], of["-1e+30"]) == (dtype.type(1 - target) * top, target * top)
        assert of["inf"] == (0 if target == 1 else INF)
        assert of["-inf"] == (0 if target == 0 else INF)


def test_rates_beyond_the_inverse_of_the_smallest_number(numba_backend, dtype):
    """Where exp(-z) is no normal number, exp(z) is finite for a while: it is no inverse of that."""
    edge = -np.log(np.finfo(dtype).tiny.astype(np.float64))
    Z = np.array([[edge - 0.1], [edge + 0.1], [edge + 1.3], [edge + 2]], dtype)
    plain, compiled = both(numba_backend, "poisson_loss", Z, np.zeros_like(Z))
    np.testing.assert_array_equal(np.isinf(plain), [False, False, False, True])
    assert_alike(compiled, plain, dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(numba_backend, name, dtype):
    """Parameters and gradients of every kind beside each other, twice, so that state is too."""
    tiny = float(np.finfo(dtype).tiny)
    numbers = (*NUMBERS, tiny, -tiny, tiny / 4, float(np.finfo(dtype).smallest_subnormal), -1.0)
    P, G = np.array(list(itertools.product(numbers, numbers)), dtype).T.copy()
    optimizer, results = OPTIMIZERS[name](), []
    for module in (reference, numba_backend):
        parameters, state = P.copy(), [np.zeros_like(P) for _ in optimizer.state_names]
        for step in range(2):
            optimizer.step(module, parameters, G.copy(), state, step)
        results.append([parameters, *state])
    # state below the smallest normal number is zero on one backend, which divides it by an epsilon
    epsilon = getattr(optimizer, "epsilon", 1.0)
    for expected, found in zip(*results, strict=True):
        assert_alike(found, expected, dtype, lost=4 / epsilon)
    # what nothing moves keeps its bits
    still = (G == 0) & ~np.isnan(P) & (P != 0) & np.isfinite(P)
    if name != "adamw":
        for parameters, *_ in results:
            np.testing.assert_array_equal(parameters[still], P[still])
    # a gradient below the smallest normal number moves a parameter by what it should
    small = (np.abs(G) < tiny) & (G != 0) & (P == 0)
    if name == "sgd":
        for parameters, *_ in results:
            unit = float(np.finfo(dtype).smallest_subnormal)
            expected = -0.2 * G[small].astype(np.longdouble)
            assert (np.abs(parameters[small] - expected) <= unit).all()


def test_clipping(numba_backend, dtype):
    for module in (reference, numba_backend):
        for numbers, expected in [
            ([0.0, -0.0], [0, 0]),
            ([3e30, -4e30], [0.6, -0.8]),
            ([3e-30, 4e-30], [3e-30, 4e-30]),
            ([INF, 1.0], [NAN, 0]),
            ([NAN, 1.0], [NAN, NAN]),
        ]:
            gradient = np.array(numbers, dtype)
            module.clip_by_global_norm([gradient], 1.0)
            assert_alike(gradient, np.array(expected, dtype), dtype)


def test_norms_beyond_float64_clip_to_zero(numba_backend):
    """Squares are added up in float64, where those of 1e200 are infinite."""
    for module in (reference, numba_backend):
        gradient = np.array([1e200, 1.0])
        module.clip_by_global_norm([gradient], 1.0)
        np.testing.assert_array_equal(gradient, 0)


def test_products(numba_backend, rng, dtype):
    """While the sum of sizes is finite, so is every sum; what is beyond depends on the order."""
    X = rng.normal(size=(9, 40)).astype(dtype)
    W = rng.normal(size=(40, 35)).astype(dtype)
    scale = np.finfo(dtype).max / 2 / (np.abs(X).max() * np.abs(W).max() * 40)
    W *= scale
    for output in both(numba_backend, "dense_forward", X, W, np.zeros(35, dtype)):
        assert np.isfinite(output).all()
        exact = X.astype(np.longdouble) @ W.astype(np.longdouble)
        bound = 21 * np.finfo(dtype).eps * (np.abs(X).astype(np.longdouble) @ np.abs(W))
        assert (np.abs(output - exact) <= bound).all()
    # infinite where one summand is, NaN where summands of both signs are, or 0 times infinity
    for at, kind in [(INF, np.isposinf), (-INF, np.isneginf), (NAN, np.isnan)]:
        X = np.ones((3, 40), dtype)
        X[1, 7] = at
        one = np.ones((40, 35), dtype)
        for output in both(numba_backend, "dense_forward", X, one, np.zeros(35, dtype)):
            assert kind(output[1]).all()
            np.testing.assert_array_equal(output[::2], 40)
    X[1, 7], X[1, 8] = INF, -INF
    for output in both(numba_backend, "dense_forward", X, one, np.zeros(35, dtype)):
        assert np.isnan(output[1]).all()
    X[1, 8] = 1
    one[7] = 0
    for output in both(numba_backend, "dense_forward", X, one, np.zeros(35, dtype)):
        assert np.isnan(output[1]).all()


def test_batch_norm(numba_backend, dtype):
    """A column of one number is normalised to 0, whatever the number; NaN stays in its column."""
    top = float(np.finfo(dtype).max)
    columns = np.array([0.0, -0.0, 1e-40, 1e30, top, -top, 12345.678, INF, NAN, 1.0], dtype)
    X = np.tile(columns, (7, 1))
    X[3, 9] = 2.0
    one, zero = np.ones(10, dtype), np.zeros(10, dtype)
    for output, *_ in both(numba_backend, "batch_norm_forward", X, one, zero, 1e-3):
        np.testing.assert_array_equal(output[:, :7], 0)
        assert np.isnan(output[:, 7:9]).all()
        assert np.isfinite(output[:, 9]).all()
