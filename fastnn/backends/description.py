"""What a layer tells compiled code of itself: plain records, which every backend may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastnn.backends import numpy_backend

HIDDEN_DENSITY = 0.5
"""Share of non-zeros expected after ReLU."""

RATES, PENALTY_FACTOR = 4, 3
"""How many numbers of each step a layer that learns has, float64, and the place of the last one:
its rate, Adam's correction, the share by which weights shrink, what the penalty is multiplied by.
"""


@dataclass(frozen=True)
class Rule:
    """How a gradient moves the parameters of a layer; `numpy_backend.py` has the formulas.

    `beta1` is the momentum of "momentum" and "nesterov" and the rho of "rmsprop". `epsilon` is more
    than 0 in the network's dtype where a rule divides by it.
    """

    kind: str = "sgd"
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Dense:
    """Output = input @ weights + biases; offsets and stride count elements of the flat vector.

    The loss has l2 * sum(weights^2) added to it.
    """

    input_units: int
    output_units: int
    weights_offset: int
    row_stride: int
    biases_offset: int
    l2: float = 0.0
    rule: Rule = Rule()
    kind: ClassVar[str] = "dense"

    @property
    def last_offset(self) -> int:
        """Where the last of its vectors begins."""
        return self.biases_offset

    @property
    def by_plain_sgd(self) -> bool:
        """Whether update kernels do all there is to do."""
        return self.rule.kind == "sgd" and self.l2 == 0


@dataclass(frozen=True)
class Elementwise:
    """Output = function(input), with the constants of the function behind it.

    `from_output` says whether the derivative is computed from the output, not from the input.
    """

    function: str
    constants: tuple[float, ...] = ()
    from_output: bool = False
    kind: ClassVar[str] = "elementwise"

    def density(self, density: float, positive: bool) -> tuple[float, bool]:
        """Read off the reference equation what becomes of zeros and of negative numbers."""
        at_zero, below_zero = numpy_backend.elementwise_forward(
            self.function, np.array([[0.0, -1.0]]), *self.constants
        )[0]
        if at_zero != 0:
            return 1.0, bool(below_zero >= 0)
        if below_zero == 0:
            return density * (1.0 if positive else HIDDEN_DENSITY), True
        return density, positive


@dataclass(frozen=True)
class Dropout:
    """Output = input / (1 - p) where a random word is not below p, 0 elsewhere; by `key`."""

    p: float
    key: int
    kind: ClassVar[str] = "dropout"

    def density(self, density: float, positive: bool) -> tuple[float, bool]:
        """Zeros are added."""
        return density * (1 - self.p), positive


@dataclass(frozen=True)
class BatchNorm:
    """Output = scale * (input - mean) / sqrt(variance + epsilon) + shift, of each unit.

    Offsets count elements of the flat vector, in which the running statistics lie as well.
    """

    units: int
    scale_offset: int
    shift_offset: int
    running_mean_offset: int
    running_variance_offset: int
    momentum: float
    epsilon: float
    rule: Rule = Rule()
    kind: ClassVar[str] = "batch_norm"

    @property
    def input_units(self) -> int:
        """The width of the input."""
        return self.units

    @property
    def output_units(self) -> int:
        """The width of the output."""
        return self.units

    @property
    def last_offset(self) -> int:
        """Where the last of its vectors begins."""
        offsets = self.scale_offset, self.shift_offset
        return max(*offsets, self.running_mean_offset, self.running_variance_offset)

    def density(self, density: float, positive: bool) -> tuple[float, bool]:
        """Nothing stays zero."""
        return 1.0, False


Layer = Dense | Elementwise | Dropout | BatchNorm
Learned = Dense | BatchNorm
