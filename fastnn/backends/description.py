"""What a layer tells compiled code of itself: plain records, which every backend may read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rescaling:
    """Multiplies its input by a number."""

    scale: float


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

    @property
    def by_plain_sgd(self) -> bool:
        """Whether update kernels do all there is to do."""
        return self.rule.kind == "sgd" and self.l2 == 0


@dataclass(frozen=True)
class ReLU:
    """Output = max(input, 0)."""


@dataclass(frozen=True)
class Sigmoid:
    """Output = 1 / (1 + exp(-input))."""


@dataclass(frozen=True)
class Tanh:
    """Output = tanh(input)."""


@dataclass(frozen=True)
class Dropout:
    """Output = input / (1 - p) where a random word is not below p, 0 elsewhere; by `key`."""

    p: float
    key: int


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


Layer = Rescaling | Dense | ReLU | Sigmoid | Tanh | Dropout | BatchNorm
Learned = Dense | BatchNorm
