"""Samples that lie by columns, copied by a kernel so that they lie by rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import at_the_end_of_memory, perceptron, unaligned

from fastnn.backends.numba_backend.kernels.columns import copying
from fastnn.backends.numba_backend.layerwise import columns
from fastnn.backends.numba_backend.machine import lanes

pytestmark = pytest.mark.every_width

FLOATS = ["float32", "float64"]
NUMBERS = [f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)] + FLOATS
COPIED = [*NUMBERS, "bool", "float16"]
PAIRS = [(dtype, dtype) for dtype in COPIED]
PAIRS += [(a, b) for a in NUMBERS for b in FLOATS if a != b]
"""What there are kernels for."""


@pytest.fixture(autouse=True)
def _few_numbers_too(monkeypatch):
    monkeypatch.setattr(columns, "MANY", 0)


class WithoutNumPysCopy:
    """NumPy, which copies nothing."""

    empty = staticmethod(np.empty)

    def ascontiguousarray(self, array, dtype):
        raise AssertionError(f"NumPy is asked to copy {array.shape} to {dtype}")


def any_bits(rng, shape, dtype):
    """Return numbers of all sizes: of floats NaN, infinity and denormals as well."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    bits = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    numbers = bits.view(dtype)[..., 0]
    numbers[0, :2], numbers[-1, -1] = [0, 1], 1
    return numbers


def shapes(target):
    """Return shapes around whole vectors, and around the rows that are copied at once."""
    n = lanes(max(np.dtype(target).itemsize, 4))
    return [(n, n), (n + 1, n), (n, 2 * n - 1), (63, n + 3), (64, 2 * n), (67, 3 * n + 1), (130, n)]


def expected(X, dtype):
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(X, dtype).tobytes()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_bit_is_that_of_numpy(rng, monkeypatch, source, target):
    monkeypatch.setattr(columns, "np", WithoutNumPysCopy())
    for shape in shapes(target):
        X = any_bits(rng, shape, source)
        wide = np.asfortranarray(np.repeat(any_bits(rng, shape, source), 3, axis=1))
        for laid_out in (
            np.asfortranarray(X),
            np.asfortranarray(X[:, ::-1])[:, ::-1],
            unaligned(np.ascontiguousarray(X.T)).T,
            wide[:, 1::3],
            np.asfortranarray(np.vstack([X, X]))[1 : 1 + len(X)],
        ):
            rows = columns.by_rows(laid_out, np.dtype(target))
            assert rows.flags.c_contiguous
            assert rows.dtype == target
            assert rows.tobytes() == expected(laid_out, target), (shape, laid_out.strides)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page by mprotect")
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_nothing_is_touched_beyond_the_end(rng, monkeypatch, source, target):
    class AtTheEnd(WithoutNumPysCopy):
        def empty(self, shape, dtype):
            return at_the_end_of_memory(np.zeros(shape, dtype))

    monkeypatch.setattr(columns, "np", AtTheEnd())
    for shape in shapes(target):
        X = at_the_end_of_memory(np.ascontiguousarray(any_bits(rng, shape, source).T)).T
        assert columns.by_rows(X, np.dtype(target)).tobytes() == expected(X, target)


def test_what_no_kernel_fits_is_left_to_numpy(rng, monkeypatch):
    asked = []

    class Noting(WithoutNumPysCopy):
        def ascontiguousarray(self, array, dtype):
            asked.append(array.shape)
            return np.ascontiguousarray(array, dtype)

    monkeypatch.setattr(columns, "np", Noting())
    n = lanes(4)
    X = np.asfortranarray(rng.normal(size=(4 * n, 2 * n)).astype("f4"))
    left = [
        X[: n - 1], X[:, : n - 1], X[::2], X[::-1], np.ascontiguousarray(X), X.astype(">f4"),
        X.astype("f2"), np.broadcast_to(X[:1], X.shape), np.broadcast_to(X[:, :1], X.shape),
    ]  # fmt: skip
    for array in left[:-1]:
        rows = columns.by_rows(array, np.dtype("f4"))
        assert rows.flags.c_contiguous
        assert rows.tobytes() == expected(array, "f4")
    assert asked == [array.shape for array in left[:-1]]
    # one column for all: its stride is none, and the kernel needs no other
    assert columns.by_rows(left[-1], np.dtype("f4")).tobytes() == expected(left[-1], "f4")
    monkeypatch.setattr(columns, "MANY", X.size + 1)
    assert columns.by_rows(X, np.dtype("f4")).tobytes() == expected(X, "f4")
    assert len(asked) == len(left)


def test_dtypes_of_one_size_share_a_kernel():
    """A second one of its name would have a number, and be compiled anew in each process."""
    found = [copying(np.dtype(source), np.dtype(target)) for source, target in PAIRS]
    names = {kernel._kernel.own_name for kernel, _ in found}
    assert len(names) == len({kernel for kernel, _ in found})
    assert not any("#" in name for name in names)
    assert copying(np.dtype("f4"), np.dtype("f4")) == copying(np.dtype("i4"), np.dtype("i4"))


def test_there_is_no_kernel_for_other_pairs():
    for source, target in [("f4", "f2"), ("f2", "f4"), ("c8", "f4"), ("f8", "i8"), (">f8", "f8")]:
        assert copying(np.dtype(source), np.dtype(target)) is None
    assert copying(np.dtype("c16"), np.dtype("c16")) is None


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", *FLOATS])
def test_training_and_prediction(rng, dtype, monkeypatch):
    """Bit for bit as from samples by rows, without a copy by NumPy."""
    X = rng.integers(0, 3, (300, 21)).astype(dtype)
    by_columns, y = np.asfortranarray(X), np.arange(300) % 4
    found = []
    for samples in (X, by_columns):
        network = perceptron(21, 9, 4, seed=1)
        network.fit(samples, y, epochs=2, batch_size=16)
        found.append([weights.tobytes() for weights in network.get_weights()])
        found[-1].append(network(samples).tobytes())
        if samples is X:
            monkeypatch.setattr(columns, "np", WithoutNumPysCopy())
    assert found[0] == found[1]
