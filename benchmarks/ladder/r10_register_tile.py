"""10. The register tile: where nothing is gained by skipping zeros, all sums stay in registers.

What changed: the last layer. `matmul` keeps a tile of the result, 8 rows by up to 3 vectors, in
registers; a column of the left operand and a row of the right one are loaded, and each number of
the one is multiplied with each vector of the other. `backward_from_few` turns the weights of ten
outputs in registers, and each number of G serves two multiply-adds.

Count before you run: ten outputs fill one vector. Skipping zeros, a row has one sum, and each
multiply-add waits four cycles for the one before: 32 x 92 x 4 = 12,000 cycles forward. A tile of 8
rows has eight sums that don't wait: 32 x 200 / 2 = 3,200 cycles, zeros and all. Backward a unit
that is active in 15 samples was a loop of 15 turns with its mispredicted end, 200 times.

Tried and lost: the tile for all layers. Rows of 100 and 200 outputs have 7 and 13 sums, which hide
the latency by themselves, so there skipping half of the units wins; see docs/compiled-epoch.md.
"""

import numpy as np

from fastnn.backends.numba_backend.jit import jit, record_at
from fastnn.backends.numba_backend.kernels.matmul import (
    backward_from_few,
    matmul,
    matmul_transposed,
)
from fastnn.backends.numba_backend.kernels.relu import mask_by_sign
from fastnn.backends.numba_backend.microkernel import transposed

from .beforehand import call_of, layers
from .beforehand import record_of_step as prepare
from .passes import backward, forward, gradient_of_loss

DTYPE = np.float32

__all__ = ["DTYPE", "layers", "prepare", "step"]


@jit
def take_step(factor, steps, samples, labels):
    s = record_at(steps, 0)
    one = type(factor)(1)
    forward(one, s, samples)
    matmul(one, s.A2, s.W3, s.Z, 0)
    gradient_of_loss(one, s, labels)
    if s.few != 0:
        backward_from_few(factor, s.A2, s.G3, s.classes, s.W3, s.G2)
    else:  # ten outputs are more than a narrower vector
        matmul_transposed(one, s.G3, s.W3, s.G2)
        mask_by_sign(one, s.G2, s.A2)
        matmul(factor, transposed(s.A2), s.G3, s.W3, 1)
    backward(factor, s)


step = call_of(take_step)
