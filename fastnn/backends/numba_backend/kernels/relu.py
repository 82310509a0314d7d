"""ReLU behind a Dense layer, which is computed with it. As a stage it is in `activations.py`."""

from __future__ import annotations

import numpy as np

from ..language import Address, Int, Kernel, Matrix, Real, Vector, pairwise_sum
from ..microkernel import microkernel

IDENTITY, RELU = 0, 1
"""Codes of the activations."""

TERM = np.dtype([("address", np.int64), ("row_stride", np.int64)])
"""A matrix that is added up, in bytes."""


def clip_threshold(k: Kernel, relu: Int) -> Vector:
    """Write what numbers are clipped at from below: 0 where `relu` is 1, minus infinity where 0."""
    return k.where(relu.equals(RELU), k.zero(), k.constant(float("-inf")))


@microkernel
def activate(
    k: Kernel,
    like: Real,
    terms: Address,
    count: Int,
    biases: Address,
    activation: Int,
    target: Matrix,
) -> None:
    """target = activation(sum of the terms + biases).

    Shapes: terms [count] records TERM of matrices as large as the target; biases [columns].
    A term is the product of a chunk of the input units with their rows of the weights; in a team
    also what another member has sent, the sum of such products. There are 1 to 4 of them, and they
    are added as (0 + 1) + (2 + 3), so that the sum doesn't depend on who computed which.
    Why it is fast: each term is read where it lies, once.
    ReLU keeps NaN: x < 0 ? 0 : x.
    """
    threshold = clip_threshold(k, activation)
    for number in k.cases(count, range(1, 5)):
        places = []
        for record in range(0, number * TERM.itemsize, TERM.itemsize):
            address = k.load_address(terms + record, "a term")
            places.append((address, k.load_integer(terms + (record + 8))))
        with k.loop(0, target.rows) as row, k.loop(0, k.vectors(target)) as j:
            offset = j * k.vector_bytes
            values = [k.load(address + row * stride + offset) for address, stride in places]
            value = pairwise_sum(values) + k.load(biases + offset)
            k.store(k.maximum(threshold, value), target.row(row) + offset)


@microkernel
def mask_by_sign(k: Kernel, like: Real, G: Matrix, A: Matrix) -> None:
    """G *= (A > 0), the gradient of ReLU; A is its output or its input, above 0 together."""
    with k.loop(0, G.rows) as row, k.loop(0, k.vectors(G)) as j:
        address = G.row(row) + j * k.vector_bytes
        positive = k.load(A.row(row) + j * k.vector_bytes) > 0.0
        k.store(k.where(positive, k.load(address), k.zero()), address)
