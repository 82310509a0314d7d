"""Memory of the checked build: between pages that can't be touched, and filled on purpose.

FASTNN_CHECKED=1 asks for that build. Who writes beyond a buffer crashes there and then, who writes
just before it is found after the call, and who reads what nobody has written computes with NaN.
`backends/numba_backend/checked.py` is the other half of it: bounds of each load and store.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

import numpy as np
import numpy.typing as npt

from fastnn.checks import Array

CHECKED = os.environ.get("FASTNN_CHECKED", "").strip() not in ("", "0") and os.name == "posix"
"""Whether this process runs the checked build: guarded memory, and kernels that check addresses."""

CANARY = 0xA5
"""The byte that fills memory which nobody is to touch."""

FILLS = ("00", "ff", "nan")
"""What FASTNN_CHECKED_FILL may be: what new memory is filled with before it is written."""


class OutOfBoundsError(RuntimeError):
    """Raised by the checked build: a kernel was about to touch what it was not given, or did."""


class _Region(mmap.mmap):
    """Memory between two pages that can't be touched; what is not used of it holds canaries."""

    begin: int
    end: int

    def check(self) -> None:
        """Raise if what lies before or behind the memory in use has changed."""
        content = np.frombuffer(self, np.uint8)
        page = mmap.PAGESIZE
        for part, where in (
            (content[page : self.begin], "before"),
            (content[self.end : -page], "behind"),
        ):
            if (part != CANARY).any():
                nbytes = self.end - self.begin
                raise OutOfBoundsError(f"memory {where} a buffer of {nbytes} bytes was written")


_regions: weakref.WeakSet[_Region] = weakref.WeakSet()


def guarded(nbytes: int, line: int) -> Array:
    """Return zeroed bytes, at a multiple of `line`, between two pages that can't be touched.

    They end where the second one begins, but for less than a line. The page before is further off,
    so what lies between is filled with canaries.
    """
    page, nbytes = mmap.PAGESIZE, int(nbytes)
    size = -(-nbytes // line) * line
    pages = -(-size // page) * page
    region = _Region(-1, pages + 2 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    content = np.frombuffer(region, np.uint8)
    region.begin = page + pages - size
    region.end = region.begin + nbytes
    content[page : region.begin] = CANARY
    content[region.end : page + pages] = CANARY
    for edge in (content.ctypes.data, content.ctypes.data + page + pages):
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) != 0:
            raise MemoryError("a page can't be protected")
    _regions.add(region)
    return content[region.begin : region.end]


def check_guards() -> None:
    """Raise `OutOfBoundsError` if what lies beside guarded memory has been written to."""
    for region in _alive():
        region.check()


def _alive() -> tuple[_Region, ...]:
    """Return all regions; without a lock, which a child of a fork might inherit taken."""
    while True:
        try:
            return tuple(_regions)
        except RuntimeError:  # another thread has added one meanwhile
            continue


def fill(array: Array, value: str) -> None:
    """Fill an array with one of `FILLS`; integers take the bytes ff for NaN."""
    if value == "nan" and array.dtype.kind == "f":
        array[...] = np.nan
    else:
        byte = b"\0" if value == "00" else b"\xff"
        array[...] = np.frombuffer(array.itemsize * byte, array.dtype)


def filled(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array:
    """Return a guarded array, filled with what FASTNN_CHECKED_FILL says, by default NaN."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    array = guarded(count * dtype.itemsize, dtype.itemsize).view(dtype).reshape(shape)
    fill(array, FILL)
    return array


def filled_like(array: Array, dtype: npt.DTypeLike | None = None) -> Array:
    """Return a guarded array, filled likewise, laid out as `np.empty_like` does it."""
    like = np.empty_like(array, dtype)
    new = filled(like.size, like.dtype)
    return np.lib.stride_tricks.as_strided(new, like.shape, like.strides)


def _fill_asked_for() -> str:
    asked = os.environ.get("FASTNN_CHECKED_FILL", "").strip().lower() or "nan"
    if asked not in FILLS:
        raise ValueError(f"FASTNN_CHECKED_FILL: expected one of {FILLS}, got {asked!r}")
    return asked


FILL = _fill_asked_for()
