"""What compiled code has to know of a network: a record of each layer, and the blocks they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rescaling:
    """Multiplies its input by a number."""

    scale: float


@dataclass(frozen=True)
class Rule:
    """How a gradient moves the parameters of a layer; `steps.py` has the formulas.

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

HIDDEN_DENSITY = 0.5
"""Share of non-zeros expected after ReLU."""


@dataclass
class Block:
    """A Dense layer, or the input itself, a ReLU right after it, and the stages after that."""

    dense: Dense | None
    units: int
    relu: bool = False
    stages: list[Layer] = field(default_factory=list)


def split(layers: Sequence[Layer]) -> tuple[float, list[Block]]:
    """Return the scale of the input and the blocks.

    There is a block for the input where more than rescaling comes before the first Dense layer.
    """
    scale = 1.0
    blocks: list[Block] = []
    for layer in layers:
        if isinstance(layer, Dense):
            blocks.append(Block(layer, layer.output_units))
        elif not blocks and isinstance(layer, Rescaling):
            scale *= layer.scale
        else:
            if not blocks:
                units = next(la.input_units for la in layers if isinstance(la, Dense))
                blocks.append(Block(None, units))
            block = blocks[-1]
            if isinstance(layer, ReLU) and block.dense and not (block.relu or block.stages):
                block.relu = True
            else:
                block.stages.append(layer)
    return scale, blocks


def density_after(block: Block, density: float) -> float:
    """Return the share of non-zeros expected behind a block, from that of the data."""
    if block.dense is not None:
        density = HIDDEN_DENSITY if block.relu else 1.0
    positive = block.relu
    for stage in block.stages:
        if isinstance(stage, ReLU):
            density *= 1.0 if positive else HIDDEN_DENSITY
            positive = True
        elif isinstance(stage, Dropout):
            density *= 1 - stage.p
        elif isinstance(stage, Sigmoid | BatchNorm):
            density, positive = 1.0, isinstance(stage, Sigmoid)
    return density
