"""12. Threads: two of them share each step.

What changed: `threads=2`. Each thread owns some input units of every layer, with their rows of the
weights, so no weight ever goes from one core to another. What goes is the batch of activations and
of gradients; sums have the same order as with one thread, so the bits are the same.

Count before you run: a step has two meetings a layer, six in all, of 0.2 us each. Messages are 32 x
(100 + 200 + 10) numbers forward and 32 x 300 back, 2,400 cache lines at 3 to 11 ns: more than 5 us
of a step of 40. Loading and the loss are not shared well either. So expect 1.5, not 2.

Tried and lost: columns in place of rows, whose neighbouring lines bounce between caches; halves of
the batch, where all gradients are exchanged; `prange`, 3 to 40 us for each region.
"""

import numpy as np

from . import r11_whole_epoch
from .r11_whole_epoch import layers, train

DTYPE = np.float32
THREADS = 2

__all__ = ["DTYPE", "THREADS", "layers", "prepare", "train"]


def prepare(layers, batch_size):
    return r11_whole_epoch.prepare(layers, batch_size, THREADS)
