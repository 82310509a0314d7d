"""Tests of kernels once more, in processes that are told of another processor than this one.

And in one that has the checked build. Each takes all tests with its marker, so that what it
imports, collects and compiles it does once. A test, or a parameter of one, that is marked with
`once` is none of theirs, and neither is what is of float64 alone: with vectors of 256 bits it has
as many numbers in one as float32 with 128. All are run at each width by the job `vectors` of every
night.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import ulps
from conftest import POISON, POISONED, ROOT

from fastnn.backends.numba_backend.machine import MACHINE

BITS = "FASTNN_VECTOR_BITS"
x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 alone")
posix = pytest.mark.skipif(sys.platform == "win32", reason="protects pages by mprotect")
OTHERS = {
    "256 bits": ("every_width", {BITS: "256"}, ()),
    "128 bits": ("every_width", {BITS: "128"}, ()),
    "no fused multiply-add": (
        "without_fma",
        {
            BITS: "128",
            "NUMBA_CPU_NAME": "nehalem",
            "NUMBA_CPU_FEATURES": "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16",
        },
        x86,
    ),
    "checked build": (
        "checked_build",
        {BITS: str(MACHINE.vector_bits), "FASTNN_CHECKED": "1"},
        posix,
    ),
}
"""Which tests run again, what they are told, and where they do."""


@pytest.mark.parametrize(
    ("marker", "told"),
    [pytest.param(marker, told, marks=where) for marker, told, where in OTHERS.values()],
    ids=OTHERS,
)
def test_all_of(marker, told):
    if BITS in os.environ:
        pytest.skip("this is that other process")
    if marker == "every_width":
        if MACHINE.vector_bits <= int(told[BITS]):
            pytest.skip("nothing narrower to ask for")
        told = told | {"FASTNN_TEST_BITS": ulps.bits_of_results()}
    files = [
        file
        for file in sorted((ROOT / "tests").glob("test_*.py"))
        if f"mark.{marker}" in file.read_text("utf-8")
    ]
    assert files
    chosen = ["-m", f"{marker} and not once", "-k", "not float64"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *chosen, *files],
        cwd=ROOT, env=os.environ | told, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(not POISONED, reason="glibc alone can")
@pytest.mark.parametrize("size", [3000, 10**6, 10**8])
def test_new_memory_is_filled_with_large_numbers(size):
    """In all tests: what is read before it is written would show."""
    for _ in range(2):
        numbers = np.empty(size // 4, np.float32)
        assert (numbers.view(np.uint8) == POISON).all()
        assert numbers[0] > 1e38
        del numbers
