"""7. Alignment: the kernels of the rung below, on rows that begin at cache lines.

What changed: not a line of code. Rows are filled up with zeros to multiples of 16 numbers, and
every array begins at a multiple of 64 bytes. NumPy's begin at multiples of 16.

Count before you run: a row of 100 floats, 400 bytes, begins in the midst of a line three times of
four, and then of the vectors in it at least every second lies in two lines and counts twice. For
that there is more to do: 112 units for 100, 208 for 200, 16 for 10, in all 15 %.

Tried and lost: the padding without the alignment, all arrays 16 bytes further: 1.45 times as long.
Rows of 128 and 256 numbers: 1.22 times, with 14 and 23 % more to do, and they compete for few sets
of the cache; in `fastnn/memory.py` long rows have an odd number of lines.
"""

import numpy as np

from .beforehand import layers
from .beforehand import prepare_aligned as prepare
from .r06_row_kernels import step

DTYPE = np.float32

__all__ = ["DTYPE", "layers", "prepare", "step"]
