"""Aligned memory and the padded layout of parameters.

Every backend sees the same layout, so that parameters never move when the
backend changes. A matrix starts on a 64-byte boundary and so does each of its
rows: a vector load never straddles two cache lines, which on its own doubled
the throughput of a dense kernel whose data are in the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import guards
from fastnn.checks import Array

LINE_BYTES = 64
"""Bytes in a cache line, and in the widest vector register that kernels use."""

ROW_BLOCK = 16
"""Matrices are padded to a multiple of this many rows (the edge of the largest register tile)."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def row_stride(units: int, dtype: np.dtype[Any]) -> int:
    """Return the distance, in elements, between rows of `units` elements.

    Rows fill whole cache lines. From eight lines on their number is odd: with
    an even stride, and worst with a power of two, the rows of a tile compete
    for a few sets of the first-level cache.
    """
    lines = round_up(units * dtype.itemsize, LINE_BYTES) // LINE_BYTES
    if lines >= 8 and lines % 2 == 0:
        lines += 1
    return lines * LINE_BYTES // dtype.itemsize


class SparseRows:
    """Samples of which only the numbers that are not zero are kept, row by row (CSR).

    Parameters
    ----------
    values, columns : arrays of shape [numbers]
        Numbers and the columns where they stand. Those of one place are added up.
    starts : array of shape [rows + 1]
        Where in these the rows begin; each ends where the next begins.
    units
        The number of columns.
    dtype
        Of the numbers, float32 or float64.

    Raises
    ------
    ValueError
        If a column does not exist, or rows do not lie one after the other.
    """

    def __init__(
        self, values: Array, columns: Array, starts: Array, units: int, dtype: np.dtype[Any]
    ) -> None:
        self.values = np.ascontiguousarray(values, canonical(np.dtype(dtype)))
        # copies: kernels trust them, whatever happens to the caller's arrays meanwhile
        self.columns = np.array(columns, np.int64)
        self.starts = np.array(starts, np.int64)
        numbers = min(len(self.values), len(self.columns))
        if self.starts[0] != 0 or self.starts[-1] > numbers or (np.diff(self.starts) < 0).any():
            raise ValueError("X: expected CSR whose rows lie one after the other, got another")
        used = self.columns[: self.starts[-1]]
        if len(used) and not 0 <= used.min() <= used.max() < units:
            raise ValueError(
                f"X: expected CSR with columns from 0 to {units - 1}, got {used.min()} to "
                f"{used.max()}"
            )
        self.shape = len(self.starts) - 1, units

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""
        return self.values.dtype

    @property
    def density(self) -> float:
        """The share of numbers that are not zero, or might not be."""
        return int(self.starts[-1]) / max(self.shape[0] * self.shape[1], 1)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Array) -> Array:
        """Return some rows, by their numbers, as a dense matrix."""
        dense = np.zeros((len(rows), self.shape[1]), self.dtype)
        for target, row in zip(dense, rows, strict=True):
            part = slice(self.starts[row], self.starts[row + 1])
            np.add.at(target, self.columns[part], self.values[part])
        return dense


def canonical(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the one object for `dtype`, of which copies and pickles make another.

    Kernels compare dtypes by identity, and what they refuse is copied first.
    """
    return np.dtype(dtype.char)


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """Return a flat array of `size` zeros whose address is a multiple of `LINE_BYTES`."""
    nbytes = size * dtype.itemsize
    if guards.CHECKED:
        return guards.guarded(nbytes, LINE_BYTES).view(dtype)
    buffer = np.zeros(nbytes + LINE_BYTES, np.uint8)
    start = -buffer.ctypes.data % LINE_BYTES
    # a slice that is viewed in another dtype takes twice as long, and a network makes a dozen
    return np.ndarray(size, dtype, buffer, start)


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies: `offset` and `stride` (between rows) in elements."""

    shape: tuple[int, ...]
    offset: int
    stride: int

    @property
    def size(self) -> int:
        """Elements from the first to the last, padding included."""
        rows = round_up(self.shape[0], ROW_BLOCK) if len(self.shape) == 2 else 1
        return rows * self.stride

    @property
    def place_of_padding(self) -> int | None:
        """An element that is padding, None where there is none."""
        if self.shape[-1] < self.stride:
            return self.offset + self.shape[-1]
        used = math.prod(self.shape)
        return self.offset + used if used < self.size else None


class Layout:
    """The places of named matrices and vectors in one flat vector.

    Parameters
    ----------
    shapes
        The shape of each parameter by name, one- or two-dimensional.
    dtype
        float32 or float64.

    Attributes
    ----------
    slots : dict of str to Slot
    size : int
        Elements of the flat vector, a whole number of cache lines.
    place_of_padding : int or None
        One element that is no parameter's, None where there is none.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.slots: dict[str, Slot] = {}
        self.size = 0
        self.place_of_padding: int | None = None
        for name, shape in shapes.items():
            slot = Slot(shape, self.size, row_stride(shape[-1], dtype))
            self.slots[name] = slot
            if self.place_of_padding is None:
                self.place_of_padding = slot.place_of_padding
            self.size += slot.size

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.dtype = canonical(self.dtype)

    def view(self, vector: Array, name: str) -> Array:
        """Return parameter `name` as a view of `vector`, without its padding."""
        slot = self.slots[name]
        if len(slot.shape) == 1:
            return vector[slot.offset : slot.offset + slot.shape[0]]
        rows, columns = slot.shape
        end = slot.offset + rows * slot.stride
        return vector[slot.offset : end].reshape(rows, slot.stride)[:, :columns]

    def flat(self, vector: Array, name: str) -> Array:
        """Return parameter `name` as a flat view of `vector`, its padding included."""
        slot = self.slots[name]
        return vector[slot.offset : slot.offset + slot.size]

    def padding(self, vector: Array) -> list[Array]:
        """Return what `vector` holds between and behind the parameters, as views."""
        parts = []
        ends = [*[slot.offset for slot in self.slots.values()][1:], self.size]
        for slot, end in zip(self.slots.values(), ends, strict=True):
            rows = vector[slot.offset : end].reshape(-1, slot.stride)
            parts.append(rows[:, slot.shape[-1] :])
            if len(slot.shape) == 2:
                parts.append(rows[slot.shape[0] :])
        return [part for part in parts if part.size]
