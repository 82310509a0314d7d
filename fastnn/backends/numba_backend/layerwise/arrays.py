"""What a call from Python costs, and how it is kept small.

A layer of ten units is a few nanoseconds of arithmetic, so what the layer path pays for a small
batch is the way from Python to the kernel and back. Three habits keep it short:

A kernel is given the array objects themselves, as the integers `id(array)`, and reads their
address, shape and strides where NumPy keeps them. That saves the conversion of each array and
serves every layout, alignment and read-only array with one compilation for each dtype. Numba
would compile a variant for each kind of array. The layout of an array object
is part of NumPy's binary interface: the accessor macros of its C header are compiled into every
extension module.

A kernel is called by its entry point, which does not look up the types of its arguments again.

A kernel checks on its way what it needs: dimensions, one dtype, rows of neighbouring elements,
the right to write. If that does not hold it has touched nothing and returns `REFUSED`, and Python
hands it plain copies. The usual case pays for that by a few comparisons.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastnn import guards
from fastnn.checks import FLOAT_DTYPES, Array
from fastnn.guards import CHECKED

from ..checked import Range, watched
from ..jit import INTEGER, Function, KernelOperation, jit_part
from ..language import INT32, INT64, Int, Kernel
from ..microkernel import matrix_at, microkernel

DONE, REFUSED, NO_MEMORY = 0, 1, 2
"""What a kernel returns: whether it could work on the arrays as they are."""

_HEAD = object.__basicsize__
"""Bytes of an object before its own fields: its reference count and its type."""
_DATA, _DIMENSIONS_COUNT, _SHAPE, _STRIDES, _DTYPE, _FLAGS = (
    _HEAD + offset for offset in (0, 8, 16, 24, 40, 48)
)

C_CONTIGUOUS, F_CONTIGUOUS, WRITEABLE = 0x0001, 0x0002, 0x0400
"""Flags of an array, as NumPy's C header numbers them."""


def _check_layout() -> None:
    """Raise unless NumPy keeps arrays where its headers of today say."""
    array = np.zeros((2, 3), np.float32)[:, ::2]

    def word(address: int) -> int:
        return ctypes.c_int64.from_address(address).value

    found = (
        word(id(array) + _DATA),
        ctypes.c_int32.from_address(id(array) + _DIMENSIONS_COUNT).value,
        *(word(word(id(array) + field) + 8) for field in (_SHAPE, _STRIDES)),
        word(id(array) + _DTYPE),
        ctypes.c_int32.from_address(id(array) + _FLAGS).value & WRITEABLE,
    )
    expected = (array.ctypes.data, 2, array.shape[1], array.strides[1], id(array.dtype), WRITEABLE)
    if found != expected:
        raise ImportError(f"fastnn doesn't know the arrays of NumPy {np.__version__}")


_check_layout()


class Entries(dict[np.dtype[Any], Callable[..., int]]):
    """The entry points of a kernel by dtype, compiled or read from the cache when first asked for.

    Parameters
    ----------
    kernel
        A compiled function whose first arguments are numbers of the dtype and whose others are
        integers.
    integers, numbers
        How many there are of each.
    """

    def __init__(self, kernel: Function, integers: int, numbers: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.integers = integers
        self.numbers = numbers

    def __missing__(self, dtype: np.dtype[Any]) -> Callable[..., int]:
        if dtype not in FLOAT_DTYPES:
            raise TypeError(f"expected arrays of float32 or float64, got {dtype}")
        # by its letter: a dtype that equals float32 may be another object, with metadata
        number = np.dtype(dtype.char)
        entry = self.kernel.entry([number] * self.numbers + [INTEGER] * self.integers)
        if CHECKED:
            entry = _watched(entry, self.kernel.parameters)
        self[dtype] = entry
        return entry


def _watched(entry: Callable[..., int], names: list[str]) -> Callable[..., int]:
    """Return an entry point that compares what kernels do with the arrays that it is given.

    `names` are those of its parameters; where one is no array, it is of `NO_ARRAYS`.
    """

    def call(*arguments: Any) -> int:
        given = zip(names, arguments, strict=True)
        arrays = {
            name: ctypes.cast(value, ctypes.py_object).value
            for name, value in given
            if name not in NO_ARRAYS and isinstance(value, int) and value != 0
        }
        with watched(Range.of(array, name) for name, array in arrays.items()):
            return entry(*arguments)

    return call


NO_ARRAYS = {
    "operation", "itemsize", "relu", "kernel", "given", "key", "step", "threshold", "int64",
}  # fmt: skip
"""What integers are called that entry points take beside array objects."""


class KernelEntries(dict[np.dtype[Any], tuple[Callable[..., int], int]]):
    """By dtype: an entry point that takes a kernel's address, and the address to hand to it.

    Parameters
    ----------
    entries
        The entry points.
    kernel
        The kernel.
    """

    def __init__(self, entries: Entries, kernel: KernelOperation) -> None:
        super().__init__()
        self.entries = entries
        self.kernel = kernel

    def __missing__(self, dtype: np.dtype[Any]) -> tuple[Callable[..., int], int]:
        self[dtype] = pair = self.entries[dtype], self.kernel.address(dtype)
        return pair


def plain(array: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """Return `array`, or a copy, with contiguous rows and the one object that is its dtype."""
    # by the letter: a dtype that equals float32 may be another object, with metadata
    letter = (dtype or array.dtype).char
    rows = np.ascontiguousarray(array, letter)
    if CHECKED and not np.may_share_memory(rows, array):
        copy = guards.filled(array.shape, np.dtype(letter))
        copy[...] = array
        return copy
    return rows.view(letter)


def raise_if_refused(code: int, *arrays: Array) -> None:
    """Raise an exception if a kernel refused plain arrays too."""
    if code == NO_MEMORY:
        raise MemoryError("no memory for the copies that a product makes")
    if code != DONE:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"expected arrays that fit together, got shapes {shapes}")


# ------------------------------------------------------------------------------ in kernels


def _field(k: Kernel, address: Int, kind: ir.Type = INT64) -> Int:
    """Write the load of a field of an array object; the checked build knows nothing of these."""
    code = k.builder.load(k.builder.inttoptr(address.code, kind.as_pointer()))
    return Int(k, code if kind == INT64 else k.builder.zext(code, INT64))


@microkernel
def data(k: Kernel, array: Int) -> Int:
    """Address of the first element."""
    return _field(k, array + _DATA)


@microkernel
def dimensions(k: Kernel, array: Int) -> Int:
    """Number of axes."""
    return _field(k, array + _DIMENSIONS_COUNT, INT32)


@microkernel
def dtype_of(k: Kernel, array: Int) -> Int:
    """Address of the dtype object."""
    return _field(k, array + _DTYPE)


@microkernel
def flags(k: Kernel, array: Int) -> Int:
    """The array's flags."""
    return _field(k, array + _FLAGS, INT32)


@microkernel
def length(k: Kernel, array: Int, axis: Int) -> Int:
    """Elements along an axis."""
    return _field(k, _field(k, array + _SHAPE) + axis * 8)


@microkernel
def stride(k: Kernel, array: Int, axis: Int) -> Int:
    """Bytes from an element to the next along an axis."""
    return _field(k, _field(k, array + _STRIDES) + axis * 8)


@jit_part
def matrix(array):
    """The `Matrix` that an array object with two axes is."""
    return matrix_at(
        data(array), stride(array, 0), stride(array, 1), length(array, 0), length(array, 1)
    )


@jit_part
def is_rows(itemsize, X):
    """Say whether the array object is a matrix whose rows are neighbouring numbers, one or more."""
    return (
        dimensions(X) == 2 and length(X, 1) > 0 and (stride(X, 1) == itemsize or length(X, 1) == 1)
    )


@jit_part
def are_alike(X, Y):
    """Say whether two matrices have one shape and one dtype."""
    return (
        dtype_of(X) == dtype_of(Y) and length(X, 0) == length(Y, 0) and length(X, 1) == length(Y, 1)
    )


@jit_part
def is_of_columns(itemsize, vector, X):
    """Say whether the array object holds neighbouring numbers, one for each column of a matrix."""
    return (
        dimensions(vector) == 1 and dtype_of(vector) == dtype_of(X)
        and length(vector, 0) == length(X, 1)
        and (stride(vector, 0) == itemsize or length(vector, 0) == 1)
    )  # fmt: skip
