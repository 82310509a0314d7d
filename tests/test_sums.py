"""Kernels that add up, against exact sums: `sums.py` has the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from sums import KERNELS, Operands
from test_ulps import long_enough

from fastnn.backends import numpy_backend as reference

SIZES = ((1, 1), (1, 19), (2, 5), (7, 33), (33, 10), (130, 17), (20, 300))
"""(batch, units)"""


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=long_enough)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.compute.__name__)
def test_bounds(numba_backend, kernel, dtype, size):
    for batch, units in SIZES:
        for module in (reference, numba_backend):
            rng = np.random.default_rng(5)
            of = Operands(rng, np.dtype(dtype), batch, units, size)
            with np.errstate(under="ignore"):
                for i, (found, exact, bound) in enumerate(kernel.compute(module, of)):
                    assert found.dtype == (dtype if found.ndim else np.float64)
                    excess = np.abs(found - exact) - bound
                    worst = np.unravel_index(np.argmax(excess), excess.shape)
                    assert (excess <= 0).all(), (
                        module.__name__, batch, units, i, worst, found[worst], exact[worst],
                        bound[worst],
                    )  # fmt: skip
