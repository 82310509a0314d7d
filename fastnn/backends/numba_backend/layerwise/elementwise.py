"""Elementwise functions of array objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..jit import KernelOperation, call, jit
from . import arrays
from .arrays import (
    C_CONTIGUOUS,
    DONE,
    F_CONTIGUOUS,
    REFUSED,
    are_alike,
    data,
    dimensions,
    flags,
    is_rows,
    length,
    stride,
)


@jit
def run(first, second, kernel, itemsize, X, G, Y):
    """Run a kernel of `kernels/elementwise.py`, which is given by its address, on array objects.

    `first` and `second` are the constants of the function. X and G, which may be the same, have
    one shape, and Y is as `empty_like` makes it for X.
    """
    if dimensions(X) != 2 or dimensions(G) != 2 or not are_alike(X, G):
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    if flags(X) & flags(G) & flags(Y) & (C_CONTIGUOUS | F_CONTIGUOUS) != 0:
        # one row without gaps
        call(kernel, first, second, data(X), 0, data(G), 0, data(Y), 0, 1, rows * columns)
        return DONE
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and is_rows(itemsize, Y)):
        return REFUSED
    call(
        kernel, first, second, data(X), stride(X, 0), data(G), stride(G, 0), data(Y), stride(Y, 0),
        rows, columns,
    )  # fmt: skip
    return DONE


_run = arrays.Entries(run, 5, numbers=2)


class KernelEntries(dict[np.dtype[Any], tuple[Callable[..., int], int]]):
    """The entry point of `run` by dtype, and the address of one kernel, ready to be handed to it.

    Parameters
    ----------
    kernel
        One of those in `kernels/elementwise.py`.
    """

    def __init__(self, kernel: KernelOperation) -> None:
        super().__init__()
        self.kernel = kernel

    def __missing__(self, dtype: np.dtype[Any]) -> tuple[Callable[..., int], int]:
        entry = _run[dtype]
        self[dtype] = entry, self.kernel.address(dtype)
        return self[dtype]
