"""Kernels that go back and update in one pass over the weights, beside the separate products."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sum_bound
from test_epoch_kernel import Case, aligned, call_gather, call_matmul, matrix

from fastnn import memory
from fastnn.backends.numba_backend.epoch import table
from fastnn.backends.numba_backend.epoch.records import BY_COLUMNS, EVERY_NUMBER, WITH_UPDATE
from fastnn.backends.numba_backend.jit import jit
from fastnn.backends.numba_backend.kernels import matmul, relu, rows, sparse
from fastnn.backends.numba_backend.machine import MACHINE, MACHINES, lanes

pytestmark = pytest.mark.every_width

ALPHA = -0.25
"""What A^T G is multiplied by."""
ANY_BLOCK = min(machine.block_inner for machine in MACHINES.values())
"""So many samples are one block of the product on every machine."""
TILE = MACHINE.backward_vectors


@jit
def call_by_unit(alpha, A, bits, G, W, dX, dots, keep):
    rows.nonzero_bits(alpha, A, bits)
    sparse.backward_by_unit(alpha, A, bits, G, W, dX, dots, keep)


@jit
def call_from_few(alpha, A, G, outputs, W, dX):
    matmul.backward_from_few(alpha, A, G, outputs, W, dX)


@jit
def call_mask(like, G, A):
    relu.mask_by_sign(like, G, A)


@jit
def call_column_sums(scale, source, target):
    rows.add_column_sums(scale, source, target)


def active(rng, shape):
    """What a ReLU puts out: every other number is zero."""
    return np.maximum(rng.integers(-3, 4, shape), 0).astype(np.float64)


def spread(rng, shape, exactly):
    """Numbers of either sign: such that no sum of them is rounded, or any."""
    return rng.integers(-8, 9, shape).astype(float) if exactly else rng.standard_normal(shape)


def by_unit(A, G, W, before, keep, dtype):
    """Return W and dX behind `backward_by_unit`, and W behind `gather`, which updates alone.

    Shapes: A and `before`, what dX was, [units, samples], G [samples, columns], W [units, columns].
    """
    (units, samples), columns = A.shape, W.shape[1]
    padded = memory.round_up(samples, lanes(dtype.itemsize))
    a, g, w, alone, dx = (aligned(array, dtype) for array in (A, G, W, W, before))
    sets = np.zeros((units, 1), np.int64)
    # what other units have left there
    dots = aligned(np.full((padded, lanes(dtype.itemsize)), np.nan), dtype)
    call_by_unit(
        dtype.type(ALPHA), matrix(a, units, padded), matrix(sets, units, 1),
        matrix(g, padded, columns), matrix(w, units, columns), matrix(dx, units, padded),
        matrix(dots, padded, lanes(dtype.itemsize)), keep,
    )  # fmt: skip
    widest = MACHINE.gather_vectors * lanes(dtype.itemsize)
    for first in range(0, columns, widest):
        width = min(widest, columns - first)
        call_gather(
            dtype.type(ALPHA), matrix(a, units, padded), matrix(a, units, padded),
            matrix(sets, units, 1), matrix(g[:, first:], padded, width),
            matrix(alone[:, first:], units, width), 1, 1,
        )  # fmt: skip
    return w[:units, :columns], dx[:units, :samples], alone[:units, :columns]


def numbers_of(samples, itemsize):
    return {"few": lanes(itemsize) - 1, "vector": lanes(itemsize)}.get(samples, samples)


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("vectors", [1, 2, TILE, TILE + 1, 2 * TILE + 3])
@pytest.mark.parametrize("samples", [1, "few", "vector", 33, 64])
def test_by_unit(samples, vectors, keep, dtype, rng):
    """The update has the bits of the product alone; sums of whole numbers are exact in any order.

    Where keep is 0 it doesn't matter what was there.
    """
    samples, columns, units = (
        numbers_of(samples, dtype.itemsize),
        vectors * lanes(dtype.itemsize),
        9,
    )
    A = active(rng, (units, samples))
    for exactly in (True, False):
        G, W = spread(rng, (samples, columns), exactly), spread(rng, (units, columns), exactly)
        before = spread(rng, A.shape, exactly) if keep else np.full(A.shape, np.nan)
        G, W, before = (array.astype(dtype).astype(float) for array in (G, W, before))
        moved, dX, alone = by_unit(A, G, W, before, keep, dtype)
        assert moved.tobytes() == alone.tobytes()
        expected = np.where(A > 0, W @ G.T, 0) + (before if keep else 0)
        bound = 0 if exactly else sum_bound(columns, abs(W) @ abs(G.T) + 9, dtype)
        assert (abs(dX - expected) <= bound).all()
        if exactly:
            assert (moved == W + ALPHA * A @ G).all()


def test_by_unit_in_two_halves(dtype, rng):
    """As where G doesn't stay in the cache: the second call adds to what the first one found."""
    half, units, samples = 3 * lanes(dtype.itemsize), 9, 20
    A, G = active(rng, (units, samples)), spread(rng, (samples, 2 * half), True)
    W, dX = spread(rng, (units, 2 * half), True), np.full(A.shape, np.nan)
    for keep, part in enumerate((slice(half), slice(half, None))):
        _, dX, _ = by_unit(A, G[:, part], W[:, part], dX, keep, dtype)
    assert (dX == np.where(A > 0, W @ G.T, 0)).all()


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("vectors", [1, TILE + 1])
def test_by_unit_what_is_masked_spoils_nothing(vectors, number, keep, dtype, rng):
    """Neither a gradient that isn't finite, where a unit is 0, nor that of an input that is NaN."""
    units, samples, columns = 6, 20, vectors * lanes(dtype.itemsize)
    A, W = active(rng, (units, samples)), spread(rng, (units, columns), True)
    G, before = spread(rng, (samples, columns), True), spread(rng, (units, samples), True)
    A[:, 3] = 0, 1, 0, 2, 0, 0
    A[5, 7] = np.nan
    G[3] = number
    moved, dX, alone = by_unit(A, G, W, before, keep, dtype)
    np.testing.assert_array_equal(moved, alone)
    assert np.isfinite(moved[[0, 2, 4]]).all()
    assert not np.isfinite(moved[[1, 3]]).any()
    assert np.isnan(moved[5]).all()
    masked = ~(A > 0)  # NaN as well
    assert masked[5, 7]
    assert (dX[masked] == keep * before[masked]).all()
    assert np.isfinite(np.delete(dX, 3, axis=1)).all()
    assert not np.isfinite(dX[[1, 3], 3]).any()


def from_few(A, G, W, dtype):
    """Return W and dX behind `backward_from_few`, and behind the separate products.

    Shapes: A [samples, units], G [samples, outputs], W [units, outputs].
    """
    (samples, units), outputs = A.shape, W.shape[1]
    vector, padded = lanes(dtype.itemsize), memory.round_up(samples, lanes(dtype.itemsize))
    one, alpha = dtype.type(1), dtype.type(ALPHA)
    a, g, w, turned, g_turned, alone = (aligned(x, dtype) for x in (A, G, W, A.T, G.T, W))
    dx, back = (aligned(np.full(shape, np.nan), dtype) for shape in (a.shape, turned.shape))
    call_from_few(
        alpha, matrix(a, samples, units), matrix(g, samples, outputs), outputs,
        matrix(w, units, outputs), matrix(dx, samples, units),
    )  # fmt: skip
    call_matmul(
        one, matrix(alone, units, outputs), matrix(g_turned, outputs, padded),
        matrix(back, units, padded), 0,
    )  # fmt: skip
    call_mask(one, matrix(back, units, padded), matrix(turned, units, padded))
    call_matmul(
        alpha, matrix(a.T, units, samples), matrix(g, samples, vector),
        matrix(alone, units, vector), 1,
    )  # fmt: skip
    # the whole vector of a row: what pads it stays zero
    in_one = w[:units, :vector], dx[:samples, :units]
    return in_one, (alone[:units, :vector], back[:units, :samples].T)


@pytest.mark.parametrize("samples", [1, 7, 100, MACHINE.block_inner, 2 * MACHINE.block_inner + 5])
def test_from_few(samples, dtype, rng):
    """To the bit as the separate products, as far as these add all samples in one block."""
    vector = lanes(dtype.itemsize)
    for outputs in range(1, min(TILE, vector) + 1):
        units = 2 * vector
        A, W = active(rng, (samples, units)), spread(rng, (units, outputs), False)
        A *= rng.random(A.shape)
        G = spread(rng, (samples, outputs), False)
        (moved, dX), (alone, back) = from_few(A, G, W, dtype)
        assert np.array_equal(dX, back)
        if samples <= MACHINE.block_inner:
            assert moved.tobytes() == alone.tobytes()
        A, G, W = (array.astype(dtype).astype(float) for array in (A, G, W))
        expected = W + ALPHA * A.T @ G
        bound = sum_bound(samples, abs(W) + A.T @ abs(G), dtype)
        assert (abs(moved[:, :outputs] - expected) <= bound).all()
        assert not moved[:, outputs:].any()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_from_few_beside_numbers_that_are_not_finite(number, dtype, rng):
    """The ReLU masks what it did in a pass of its own; a dense product spoils what it touches."""
    vector, outputs = lanes(dtype.itemsize), min(TILE, lanes(dtype.itemsize))
    A, W = active(rng, (9, 3 * vector)), spread(rng, (3 * vector, outputs), True)
    G = spread(rng, (9, outputs), True)
    A[4, 1] = np.nan
    A[2, :2] = 0, 1
    G[2, 0] = number
    (moved, dX), (alone, back) = from_few(A, G, W, dtype)
    np.testing.assert_array_equal(moved[:, :outputs], alone[:, :outputs])
    np.testing.assert_array_equal(dX, back)
    assert dX[4, 1] == dX[2, 0] == 0
    assert not np.isfinite(dX[2, 1])
    assert np.isfinite(np.delete(dX, 2, axis=0)).all()


@pytest.mark.parametrize("batch_size", [100, ANY_BLOCK])
def test_a_network_has_the_same_bits_either_way(batch_size, dtype, monkeypatch):
    """Of two outputs, which are few on any machine."""
    if lanes(dtype.itemsize) == 2:
        pytest.skip("with so short vectors the gradient goes back by rows")

    def trained():
        case = Case((30, 40, 2), batch_size, 3 * ANY_BLOCK - 20, dtype)
        program = case.program(density=1.0)
        last = program.training.layers[-1]
        assert last["update_by"] == EVERY_NUMBER
        totals = case.run(program)
        return last["gradient_by"], (case.parameters.tobytes(), totals)

    way, found = trained()
    assert way == WITH_UPDATE
    monkeypatch.setattr(table, "in_one_pass", lambda *_: False)
    assert trained() == (BY_COLUMNS, found)


def test_the_derivative_of_relu(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    A = np.array([[1, 0, -0.0, -1, np.nan, np.inf, -np.inf, tiny, -tiny]])
    a, g = aligned(np.repeat(A, 5, axis=0), dtype), aligned(np.full((5, 9), 2), dtype)
    width = memory.round_up(9, lanes(dtype.itemsize))
    call_mask(dtype.type(1), matrix(g, 5, width), matrix(a, 5, width))
    assert (g[:5, :9] == [2, 0, 0, 0, 0, 2, 0, 2, 0]).all()


@pytest.mark.parametrize("count", [2, 6, 64])
@pytest.mark.parametrize("vectors", [1, 3])
def test_sums_of_columns(vectors, count, dtype, rng):
    """Whole numbers, of which sums are exact: all rows, and what was there."""
    width = vectors * lanes(dtype.itemsize)
    G, b = spread(rng, (count, width), True), spread(rng, (1, width), True)
    source, target = aligned(G, dtype), aligned(b, dtype)
    call_column_sums(dtype.type(ALPHA), matrix(source, count, width), target.ctypes.data)
    assert (target[0, :width] == b + ALPHA * G.sum(axis=0)).all()
