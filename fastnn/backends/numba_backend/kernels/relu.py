"""ReLU behind a Dense layer, which is computed with it. As a stage it is in `activations.py`."""

from __future__ import annotations

from ..language import Address, Int, Kernel, Matrix, Real, Vector, pairwise_sum
from ..microkernel import microkernel

IDENTITY, RELU = 0, 1
"""Codes of the activations."""


def clip_threshold(k: Kernel, relu: Int) -> Vector:
    """Write what numbers are clipped at from below: 0 where `relu` is 1, minus infinity where 0."""
    return k.where(relu.equals(RELU), k.zero(), k.constant(float("-inf")))


@microkernel
def activate(
    k: Kernel,
    like: Real,
    slot: Matrix,
    slot_bytes: Int,
    slots: Int,
    biases: Address,
    activation: Int,
    target: Matrix,
) -> None:
    """target = activation(sum of the slots + biases).

    `slot` is the first slot, the next ones lie `slot_bytes` further; biases [columns].
    A slot holds the product of a chunk of the input units with their rows of the weights; in a
    team that of a member's chunks, which it has added.
    There are 1, 2 or 4 slots, by the network's shape, and they are added as
    (0 + 1) + (2 + 3), so that the sum doesn't depend on who computed which.
    ReLU keeps NaN: x < 0 ? 0 : x.
    """
    threshold = clip_threshold(k, activation)
    for count in k.cases(slots, (1, 2, 4)):
        with k.loop(0, target.rows) as row, k.loop(0, k.vectors(target)) as j:
            offset = j * k.vector_bytes
            parts = [k.load(slot.row(row) + offset + c * slot_bytes) for c in range(count)]
            value = pairwise_sum(parts) + k.load(biases + offset)
            k.store(k.maximum(threshold, value), target.row(row) + offset)


@microkernel
def mask_by_sign(k: Kernel, like: Real, G: Matrix, A: Matrix) -> None:
    """G *= (A > 0), the gradient of ReLU; A is its output or its input, above 0 together."""
    with k.loop(0, G.rows) as row, k.loop(0, k.vectors(G)) as j:
        address = G.row(row) + j * k.vector_bytes
        positive = k.load(A.row(row) + j * k.vector_bytes) > 0.0
        k.store(k.where(positive, k.load(address), k.zero()), address)
