"""The operations of dropout, batch norm and squared error, on both backends."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import BATCHES, at_the_end_of_memory, sum_bound

from fastnn.backends import numpy_backend as reference

pytestmark = pytest.mark.every_width

UNITS = (1, 5, 16, 17, 33, 64, 129, 300)
"""Less than a vector, whole ones, groups of them, and one more than each."""


def both(numba_backend, name, *arguments):
    return [getattr(module, name)(*arguments) for module in (reference, numba_backend)]


# Dropout


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("batch", BATCHES)
def test_dropout_masks_are_equal_to_the_bit(numba_backend, rng, batch, units, dtype):
    X = rng.normal(size=(batch, units)).astype(dtype)
    for p, key, step in [(0.5, 0, 0), (0.1, 2**64 - 1, 1), (0.9, 2**63, 2**40), (0.25, 12345, 7)]:
        expected, found = both(numba_backend, "dropout", X, p, key, step)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == dtype


def test_dropout_draws_the_words_of_philox(numba_backend):
    X = np.ones((3, 7), np.float32)
    generator = np.random.Philox(key=99, counter=[0, 5, 0, 0])
    words = generator.random_raw(11).view(np.uint32)[:21].reshape(3, 7)
    for found in both(numba_backend, "dropout", X, 0.5, 99, 5):
        np.testing.assert_array_equal(found, 2.0 * (words >= 2**31))


def test_limits_of_dropout(numba_backend, dtype):
    X = np.full((9, 33), 3.0, dtype)
    for found in both(numba_backend, "dropout", X, 0.0, 1, 2):
        np.testing.assert_array_equal(found, X)
    # rounds to a threshold of 2^32, which no word reaches
    for found in both(numba_backend, "dropout", X, 1 - 2.0**-40, 1, 2):
        np.testing.assert_array_equal(found, 0)
    X[:] = np.nan
    X[:, ::2] = np.inf
    for found in both(numba_backend, "dropout", X, 0.5, 1, 2):
        kept = found != 0
        assert 0 < kept.sum() < X.size
        np.testing.assert_array_equal(found[kept], X[kept])


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_masks_are_as_random_as_they_should_be(numba_backend, p):
    n = 100_000
    X = np.ones((100, 1000), np.float32)
    masks = np.array(
        [numba_backend.dropout(X, p, key, step) != 0 for key in (1, 2) for step in (0, 1)]
    )
    deviation = 5 * np.sqrt(p * (1 - p) / n)
    for i, mask in enumerate(masks):
        assert abs(mask.mean() - (1 - p)) < deviation
        assert np.abs(mask.mean(axis=0) - (1 - p)).max() < 6 * np.sqrt(p * (1 - p) / 100)
        for other in masks[:i]:
            # independent: both kept as often as the product says
            assert abs((mask & other).mean() - (1 - p) ** 2) < 5 * (1 - p) * np.sqrt(p / n)
        assert abs((mask[:, 1:] & mask[:, :-1]).mean() - (1 - p) ** 2) < 10 * deviation


# Batch norm


def batch_norm_case(rng, batch, units, dtype):
    X = (rng.normal(size=units) + rng.normal(size=(batch, units))).astype(dtype)
    G = rng.normal(size=(batch, units)).astype(dtype)
    scale, shift, mean = rng.normal(size=(3, units)).astype(dtype)
    return X, G, scale, shift, mean, rng.uniform(0.1, 2, units).astype(dtype)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("batch", BATCHES)
def test_batch_norm_forward(numba_backend, rng, batch, units, dtype):
    X, _, scale, shift, mean, variance = batch_norm_case(rng, batch, units, dtype)
    x, a, b, m, v = (array.astype(np.float64) for array in (X, scale, shift, mean, variance))
    epsilon = 1e-3
    largest = np.abs(x).max(axis=0)
    for output, of_mean, of_variance in both(
        numba_backend, "batch_norm_forward", X, scale, shift, epsilon
    ):
        assert output.dtype == of_mean.dtype == of_variance.dtype == dtype
        assert (np.abs(of_mean - x.mean(0)) <= sum_bound(1, np.abs(x).mean(0), dtype) * batch).all()
        # an error of the mean enters squared
        bound = sum_bound(batch + 2, x.var(0), dtype) + sum_bound(batch, largest, dtype) ** 2
        assert (np.abs(of_variance - x.var(0)) <= bound).all()
        root = np.sqrt(x.var(0) + epsilon)
        expected = a * (x - x.mean(0)) / root + b
        magnitude = np.abs(a) * 2 * largest / root + np.abs(b)
        assert (np.abs(output - expected) <= sum_bound(batch + 8, magnitude, dtype)).all()
    root = np.sqrt(v + epsilon)
    arguments = X, scale, shift, mean, variance, epsilon
    for output in both(numba_backend, "batch_norm_inference", *arguments):
        assert output.dtype == dtype
        magnitude = np.abs(a) * (np.abs(x) + np.abs(m)) / root + np.abs(b)
        expected = a * (x - m) / root + b
        assert (np.abs(output - expected) <= sum_bound(6, magnitude, dtype)).all()


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("given", [False, True], ids=["training", "inference"])
def test_batch_norm_backward(numba_backend, rng, batch, units, given, dtype):
    X, G, scale, _, mean, variance = batch_norm_case(rng, batch, units, dtype)
    x, g, a, m, v = (array.astype(np.float64) for array in (X, G, scale, mean, variance))
    epsilon = 1e-3
    if not given:
        m, v = x.mean(0), x.var(0)
    root = np.sqrt(v + epsilon)
    normalized = (x - m) / root
    of_scale, of_shift = (g * normalized).sum(0), g.sum(0)
    # what cancels: each X̂ is a difference, and its errors are those of |X| + |mean|
    rough = (np.abs(x) + np.abs(x).mean(0) + np.abs(m)) / root
    rough_scale = (np.abs(g) * rough).sum(0)
    expected, magnitude = g, np.abs(g)
    if not given:
        expected = g - (of_shift + normalized * of_scale) / batch
        magnitude = np.abs(g) + (np.abs(g).sum(0) + rough * rough_scale) / batch
    for module in (reference, numba_backend):
        out = [np.full(units, np.nan, dtype) for _ in range(2)]
        if given:
            found = module.batch_norm_inference_backward(X, G, scale, mean, variance, epsilon, *out)
        else:
            found = module.batch_norm_backward(X, G, scale, epsilon, *out)
        assert found.dtype == dtype
        terms = 2 * batch + 12
        bound = sum_bound(terms, np.abs(a) * magnitude / root, dtype)
        assert (np.abs(found - a * expected / root) <= bound).all()
        assert (np.abs(out[0] - of_scale) <= sum_bound(terms, rough_scale, dtype)).all()
        assert (np.abs(out[1] - of_shift) <= sum_bound(batch, np.abs(g).sum(0), dtype)).all()


def test_batch_norm_of_large_numbers_that_hardly_differ(numba_backend, rng):
    X = (1e6 + rng.normal(size=(64, 9))).astype(np.float32)
    one = np.ones(9, np.float32)
    expected = X.astype(np.float64).var(0)
    for _, _, variance in both(numba_backend, "batch_norm_forward", X, one, one, 1e-5):
        np.testing.assert_allclose(variance, expected, rtol=0.2)


def test_a_gradient_of_nan_stays_in_its_column(numba_backend, rng, dtype):
    X, G, scale, _, mean, variance = batch_norm_case(rng, 7, 37, dtype)
    G[2, 5] = np.nan
    X[3, 36] = np.inf
    with np.errstate(invalid="ignore"):
        for module in (reference, numba_backend):
            out = np.empty(37, dtype), np.empty(37, dtype)
            found = module.batch_norm_backward(X, G, scale, 1e-5, *out)
            wrong = ~np.isfinite(found).all(axis=0)
            np.testing.assert_array_equal(np.flatnonzero(wrong), [5, 36])
            found = module.batch_norm_inference_backward(X, G, scale, mean, variance, 1e-5, *out)
            np.testing.assert_array_equal(np.argwhere(~np.isfinite(found)), [[2, 5]])


# Squared error


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("batch", BATCHES)
def test_mean_squared_error(numba_backend, rng, batch, units, dtype):
    Y, T = rng.normal(size=(2, batch, units)).astype(dtype)
    y, t = Y.astype(np.float64), T.astype(np.float64)
    expected = np.square(y - t).mean(axis=1)
    for losses in both(numba_backend, "mean_squared_error", Y, T):
        assert losses.dtype == dtype
        assert losses.shape == (batch,)
        assert (np.abs(losses - expected) <= sum_bound(units + 4, expected, dtype)).all()
    expected = 2 * (y - t) / (batch * units)
    for gradient in both(numba_backend, "mean_squared_error_gradient", Y, T):
        assert gradient.dtype == dtype
        assert (np.abs(gradient - expected) <= sum_bound(2, np.abs(expected), dtype)).all()


# Kernels: what vectors, layouts and addresses can get wrong


def calls(module, X, G, of_units):
    """Call every operation; return all arrays that come back."""
    scale, shift, mean, variance = of_units
    found = [module.dropout(X, 0.4, 2**63 + 5, 3)]
    found.extend(module.batch_norm_forward(X, scale, shift, 1e-3))
    found.append(module.batch_norm_inference(X, scale, shift, mean, variance, 1e-3))
    training, inference = np.full((2, 2, len(scale)), np.nan, X.dtype)
    found.append(module.batch_norm_backward(X, G, scale, 1e-3, *training))
    given = scale, mean, variance, 1e-3
    found.append(module.batch_norm_inference_backward(X, G, *given, *inference))
    found += [training, inference]
    found.append(module.mean_squared_error(X, G))
    found.append(module.mean_squared_error_gradient(X, G))
    return found


@pytest.mark.parametrize("shape", [(1, 1), (1, 19), (9, 1), (19, 23), (5, 70)], ids=str)
def test_every_argument_may_have_any_layout(numba_backend, rng, arrange, shape, dtype):
    X, G, *of_units = batch_norm_case(rng, *shape, dtype)
    expected = calls(numba_backend, X, G, of_units)
    X, G = arrange(X), arrange(G)
    of_units = [arrange(vector[np.newaxis])[0] for vector in of_units]
    for array in (X, G, *of_units):
        array.flags.writeable = False
    for a, b in zip(calls(numba_backend, X, G, of_units), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_strided_vectors_can_be_written_to(numba_backend, rng, dtype):
    X, G, scale, *_ = batch_norm_case(rng, 7, 11, dtype)
    plain, strided = np.empty((2, 11), dtype), np.full((11, 2), np.nan, dtype)
    numba_backend.batch_norm_backward(X, G, scale, 1e-3, *plain)
    numba_backend.batch_norm_backward(X, G, scale, 1e-3, *strided.T)
    np.testing.assert_array_equal(strided.T, plain)


def test_nothing_beyond_the_arrays_is_touched(numba_backend, rng, dtype):
    for units in (1, 15, 33, 65, 130):
        X, G, scale, *_ = batch_norm_case(rng, 5, units, dtype)
        whole = np.full((2, units + 40), np.nan, dtype)
        out = whole[:, 7 : 7 + units]
        numba_backend.batch_norm_backward(X, G, scale, 1e-3, *out)
        assert np.isfinite(out).all()
        out[...] = np.nan
        assert np.isnan(whole).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page by mprotect")
@pytest.mark.parametrize("units", UNITS)
def test_nothing_is_read_beyond_the_end(numba_backend, rng, units, dtype):
    for batch in (1, 2, 7):
        X, G, *of_units = (
            at_the_end_of_memory(array) for array in batch_norm_case(rng, batch, units, dtype)
        )
        calls(numba_backend, X, G, of_units)


def test_what_does_not_fit_never_reaches_a_kernel(numba_backend, dtype):
    X, G, v, w = (np.ones(shape, dtype) for shape in ((4, 3), (4, 2), 3, 2))
    other = np.dtype(np.float32 if dtype == np.float64 else np.float64)
    locked = v.copy()
    locked.flags.writeable = False
    backend = numba_backend
    for call in [
        lambda: backend.elementwise_forward("sigmoid", v),
        lambda: backend.elementwise_backward("tanh", X, G),
        lambda: backend.elementwise_backward("tanh", X, X[:3]),
        lambda: backend.dropout(v, 0.5, 0, 0),
        lambda: backend.batch_norm_forward(X, v, w, 1.0),
        lambda: backend.batch_norm_forward(v, v, v, 1.0),
        lambda: backend.batch_norm_inference(X, v, v, w, v, 1.0),
        lambda: backend.batch_norm_backward(X, G, v, 1.0, v.copy(), v.copy()),
        lambda: backend.batch_norm_backward(X, X, v, 1.0, v.copy(), w.copy()),
        lambda: backend.batch_norm_backward(X, X, v, 1.0, locked, v.copy()),
        lambda: backend.mean_squared_error(X, G),
        lambda: backend.mean_squared_error_gradient(X, X[:2]),
    ]:
        with pytest.raises(ValueError, match=r"fit|broadcast|read-only"):
            call()
    # a second array of another dtype is cast, as for the other operations
    np.testing.assert_array_equal(backend.elementwise_backward("tanh", X, X.astype(other)), 0)


def test_no_columns_are_refused(numba_backend, dtype):
    """Views of wider arrays, whose strides are those of rows; a kernel would write before them."""
    wide = np.ones((3, 40), dtype)
    empty, labels = wide[:, 20:20], np.zeros(3, np.int64)
    before = wide.copy()
    for call in [
        lambda: numba_backend.softmax(empty),
        lambda: numba_backend.softmax_cross_entropy(empty, labels),
        lambda: numba_backend.mean_squared_error(empty, empty),
        lambda: numba_backend.dropout(empty, 0.5, 0, 0),
        lambda: numba_backend.dense_forward(wide[:1, :3], empty, wide[0, :0]),
    ]:
        with pytest.raises(ValueError, match="fit together"):
            call()
    np.testing.assert_array_equal(wide, before)
