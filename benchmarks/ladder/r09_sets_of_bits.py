"""9. Sets of bits, made once and used three times: from here on the package's own kernels.

What changed: a comparison of 16 numbers gives 16 bits, and a word says which of 64 numbers are not
zero. `gather` walks along the bits that are set, with the row of the result in registers, where it
loaded and stored it for each. Turned by 64 x 64 bits, the same words say it by unit, for the
update; behind a ReLU they are its mask. `backward_by_unit` computes input gradient and update in
one pass, so a row of G is loaded once for two multiply-adds. A step is one call.

Count before you run: a multiply-add loads one vector and stores none, so two of them a cycle are
the bound: 1.9 million / 16 / 2 = 60,000 cycles, 13 to 20 us. The loop over a word ends once for up
to 64 numbers, so wrong guesses are fewer; pairs of neighbouring pixels halve them once more.

Tried and lost: lists by a compressing store, microcoded on a Zen 4; see docs/compiled-epoch.md.
"""

import numpy as np

from fastnn.backends.numba_backend.jit import jit, record_at
from fastnn.backends.numba_backend.kernels.rows import nonzero_bits, transpose
from fastnn.backends.numba_backend.kernels.sparse import backward_by_unit
from fastnn.backends.numba_backend.microkernel import transposed

from .beforehand import call_of, layers
from .beforehand import record_of_step as prepare
from .passes import backward, forward, gradient_of_loss, multiply_by_bits, turn

DTYPE = np.float32

__all__ = ["DTYPE", "layers", "prepare", "step"]


@jit
def take_step(factor, steps, samples, labels):
    s = record_at(steps, 0)
    one = type(factor)(1)
    forward(one, s, samples)
    nonzero_bits(one, s.A2, s.bits2)
    turn(s.bits2, s.by_unit2)
    multiply_by_bits(one, s, s.A2, s.bits2, s.W3, s.Z)
    gradient_of_loss(one, s, labels)
    backward_by_unit(factor, transposed(s.A2), s.by_unit2, s.G3, s.W3, s.turned2, s.dots, 0)
    transpose(one, s.turned2, s.G2)
    backward(factor, s)


step = call_of(take_step)
