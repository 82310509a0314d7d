"""A network cut into blocks: what its tables are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from fastnn import memory
from fastnn.backends.description import (
    HIDDEN_DENSITY,
    BatchNorm,
    Dense,
    Dropout,
    Elementwise,
    Layer,
    Learned,
)

Stage = Elementwise | Dropout | BatchNorm

FEW_SAMPLES = 2
"""Batches up to this size are handled sample by sample."""


@dataclass
class Block:
    """A Dense layer, or the input itself, a ReLU right after it, and the stages after that."""

    dense: Dense | None
    units: int
    relu: bool = False
    stages: list[Stage] = field(default_factory=list)


def split(layers: Sequence[Layer]) -> tuple[float, list[Block]]:
    """Return the scale of the input and the blocks.

    There is a block for the input where more than rescaling comes before the first Dense layer.
    """
    scale = 1.0
    blocks: list[Block] = []
    for layer in layers:
        if isinstance(layer, Dense):
            blocks.append(Block(layer, layer.output_units))
        elif not blocks and _is(layer, "rescale"):
            scale *= layer.constants[0]
        else:
            if not blocks:
                units = next(la.input_units for la in layers if isinstance(la, Dense))
                blocks.append(Block(None, units))
            block = blocks[-1]
            if _is(layer, "relu") and block.dense and not (block.relu or block.stages):
                block.relu = True
            else:
                block.stages.append(layer)
    return scale, blocks


def _is(layer: Stage, function: str) -> TypeGuard[Elementwise]:
    """Say whether a layer is a certain elementwise function."""
    return isinstance(layer, Elementwise) and layer.function == function


def density_after(block: Block, density: float) -> float:
    """Return the share of non-zeros expected behind a block, from that of the data."""
    if block.dense is not None:
        density = HIDDEN_DENSITY if block.relu else 1.0
    positive = block.relu
    for stage in block.stages:
        density, positive = stage.density(density, positive)
    return density


def chunks_of(dense: Sequence[Dense]) -> int:
    """Return into how many chunks the layers are cut, 1, 2 or 4: what threads can share.

    It depends on the network's shape alone, as it decides the order of sums.
    """
    weights = sum(layer.input_units * layer.output_units for layer in dense)
    return 1 if weights < 1 << 14 else 2 if weights < 1 << 20 else 4


class Structure:
    """A network as compiled code sees it: its blocks, its types and how its work is cut.

    Attributes
    ----------
    dense, learned : list
        The Dense layers, and all layers with parameters.
    dropouts : int
        How many layers are Dropout.
    weighted, sparse : bool
        Whether samples have weights; whether they are CSR.
    label_smoothing : float
        The share of a target that is spread over all classes.
    clip_norm : float
        What the norm of the gradient is clipped at; 0 where it is not.
    bfloat16 : bool
        Whether operands of products are rounded to bfloat16.
    parameters_end : int
        How many numbers the flat vector of parameters has at least.
    collected : array or None
        Where gradients are clipped, memory for all of one.
    scale : float
        What the input is multiplied by as it is loaded.
    blocks : list of Block
    chunks : int
        Into how many parts the input units of each layer are cut.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: str,
        batch_size: int,
        dtype: np.dtype,
        input_dtype: np.dtype,
        density: float,
        weighted: bool = False,
        sparse: bool = False,
        label_smoothing: float = 0.0,
        clip_norm: float = 0.0,
        bfloat16: bool = False,
    ):
        self.layers = tuple(layers)
        self.loss = loss
        self.batch_size = batch_size
        self.dtype = dtype
        self.input_dtype = input_dtype
        self.density = density
        self.weighted = weighted
        self.sparse = sparse
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.bfloat16 = bfloat16
        self.dense = [layer for layer in layers if isinstance(layer, Dense)]
        self.learned = [layer for layer in layers if isinstance(layer, Learned)]
        self.parameters_end = max(
            layer.last_offset + memory.row_stride(layer.output_units, dtype)
            for layer in self.learned
        )
        self.collected = memory.aligned_zeros(self.parameters_end, dtype) if clip_norm else None
        self.dropouts = sum(layer.kind == "dropout" for layer in layers)
        self.scale, self.blocks = split(layers)
        # a step of few samples is not worth sharing, and one chunk saves it the adding of slots
        self.chunks = 1 if batch_size <= FEW_SAMPLES else chunks_of(self.dense)

    def places(self) -> list[tuple[str, int, int]]:
        """Return the name of each parameter, and where it begins and ends in the flat vector."""
        places = []
        for number, layer in enumerate(self.learned):
            row = memory.row_stride(layer.output_units, self.dtype)
            vectors = ["scale", "shift", "running_mean", "running_variance"]
            if isinstance(layer, Dense):
                rows = memory.round_up(layer.input_units, memory.ROW_BLOCK)
                end = layer.weights_offset + rows * layer.row_stride
                places.append((f"weights of learned layer {number}", layer.weights_offset, end))
                vectors = ["biases"]
            for name in vectors:
                offset = getattr(layer, f"{name}_offset")
                places.append((f"{name} of learned layer {number}", offset, offset + row))
        return places
