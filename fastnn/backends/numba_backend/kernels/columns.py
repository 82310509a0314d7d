"""Copying samples that lie by columns, as those of tables do, so that they lie by rows."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir

from fastnn.checks import FLOAT_DTYPES

from ..jit import KernelOperation
from ..language import FLOATS, Kernel, Matrix, bytes_of
from .loading import converted

ROWS_AT_ONCE = 64
"""Samples of which all columns are copied before others: a whole line of each, even of bytes."""


@functools.cache  # a kernel of its own for each name, whichever dtypes it is for
def _copying(name: str, element: ir.Type, dtype: np.dtype[Any] | None = None) -> KernelOperation:
    """Return a kernel that copies numbers; those of a given dtype become floats."""
    nbytes = bytes_of(element)

    def in_floats(k: Kernel, numbers: ir.Value) -> ir.Value:
        if dtype is None:
            return numbers
        if dtype.kind == "f":
            return converted(k, numbers, k.vector_type, nbytes).code
        convert = k.builder.sitofp if dtype.kind == "i" else k.builder.uitofp
        return convert(numbers, k.vector_type)

    def write(k: Kernel, source: Matrix, target: Matrix) -> None:
        """target = source, whose columns are neighbouring numbers; both at any address.

        Shapes: [rows, columns], of each a vector or more.
        Why it is fast: squares of lanes x lanes numbers are transposed in registers, and of what is
        begun of a line the rest follows before the first two caches have lost it. At an edge a
        square lies over its neighbour in part, so no end of a row asks for masks.
        Tried and lost: stores past the caches saved 3 %, and only where rows are whole lines;
        asking for the next squares in time cost 10 %, 128 samples at once 5 % or, of bytes, 80 %.
        """
        kind = ir.VectorType(element, k.lanes)
        narrows = nbytes > k.element_bytes
        stored_bytes = nbytes if dtype is None else k.element_bytes
        last_row, last_column = source.rows - k.lanes, source.columns - k.lanes
        with k.loop(0, source.rows, ROWS_AT_ONCE) as first:
            stop = k.minimum(first + ROWS_AT_ONCE, source.rows)
            with k.loop(0, source.columns, k.lanes) as column:
                column = k.minimum(column, last_column)
                of_columns = source.address + column * source.column_stride
                to_columns = target.shifted(column * stored_bytes)
                with k.loop(first, stop, k.lanes) as row:
                    row = k.minimum(row, last_row)
                    square = of_columns + row * nbytes
                    numbers = [
                        k.load_as(square + i * source.column_stride, kind, 1)
                        for i in range(k.lanes)
                    ]
                    if narrows:  # first, as fewer registers are turned then
                        numbers = [in_floats(k, number) for number in numbers]
                    for i, number in enumerate(k.transpose_codes(numbers)):
                        number = number if narrows else in_floats(k, number)
                        k.store_as(number, to_columns.row(row + i), 1)

    return KernelOperation(write, name)


NUMBERS = [np.dtype(f"{kind}{nbytes}") for kind in "iu" for nbytes in (1, 2, 4, 8)]
NUMBERS += FLOAT_DTYPES


def copying(
    source: np.dtype[Any], target: np.dtype[Any]
) -> tuple[KernelOperation, np.dtype[Any]] | None:
    """Return the kernel from one dtype to another and the dtype to ask it for, None without one."""
    nbytes = source.itemsize
    if source == target and nbytes in (1, 2, 4, 8):  # whatever they are
        of_lanes = np.dtype(np.float64 if nbytes == 8 else np.float32)
        return _copying(f"copy_{nbytes}_bytes", ir.IntType(8 * nbytes)), of_lanes
    if source in NUMBERS and target in FLOAT_DTYPES:
        element = FLOATS.get(source) or ir.IntType(8 * nbytes)
        return _copying(f"{source.name}_as_floats", element, source), target
    return None
