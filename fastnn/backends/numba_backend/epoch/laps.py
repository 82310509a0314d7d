"""How long each part of a step takes, by the processor's cycle counter.

A variant of `run_batches` notes it, which is compiled when it is first asked for: in the ordinary
one `laps` is None, and no text of it is left. A lap ends where a part of the step has been done: to
that part, of that layer, are added the cycles since the lap before it. So the parts make up the
whole of a call, and nothing is counted twice.

A processor does not wait at the end of a lap for what it has begun: some hundred cycles may count
with the part that follows.
"""

from __future__ import annotations

import numpy as np

from ..checked import Range
from ..jit import jit_part
from ..language import Address, Int, Kernel
from ..microkernel import microkernel

PARTS = (
    "load", "prepare", "forward", "activation", "stages", "loss", "mask", "turn",
    "input gradient", "update", "backward", "optimizer", "biases", "meeting", "rest",
)  # fmt: skip
"""What a lap may belong to.

"load" reads samples and finds their zeros, "prepare" finds those of what another layer takes in, or
transposes it, "mask" is the derivative of ReLU where it is a pass of its own, "turn" transposes
gradients, "backward" is update and input gradient in one pass, and "meeting" all that the members
of a team tell each other, waiting included.
"""

(
    LOAD, PREPARE, FORWARD, ACTIVATION, STAGES, LOSS, MASK, TURN,
    INPUT_GRADIENT, UPDATE, BACKWARD, OPTIMIZER, BIASES, MEETING, REST,
) = range(len(PARTS))  # fmt: skip

ROW_BYTES = 8 * len(PARTS)


class Laps:
    """Cycles by layer and part, of one thread.

    Parameters
    ----------
    layers
        How many blocks the network has.
    """

    def __init__(self, layers: int) -> None:
        # the first row begins with the counter at the end of the last lap
        self._numbers = np.zeros((1 + layers, len(PARTS)), np.int64)

    @property
    def address(self) -> int:
        """What the compiled function is given."""
        return int(self._numbers.ctypes.data)

    @property
    def range(self) -> Range:
        """What the compiled function may touch."""
        return Range.of(self._numbers, "laps")

    @property
    def cycles(self) -> np.ndarray:
        """All so far, [layers, parts]; may be written to, as to begin anew."""
        return self._numbers[1:]


@microkernel
def begin_lap(k: Kernel, laps: Address) -> None:
    """Begin the first lap."""
    k.store_integer(k.cycles(), laps)


@microkernel
def add_lap(k: Kernel, laps: Address, layer: Int, part: Int) -> None:
    """End a lap, count it, and begin the next."""
    now, place = k.cycles(), laps + (layer + 1) * ROW_BYTES + part * 8
    k.store_integer(k.load_integer(place) + (now - k.load_integer(laps)), place)
    k.store_integer(now, laps)


@jit_part
def lap(laps, layer, part):
    """End a lap, which belongs to a part of a layer, if laps are counted."""
    if laps is not None:
        add_lap(laps, layer.number, part)
