"""Softmax cross-entropy of the compiled epoch: loss, gradient and prediction in one pass."""

from __future__ import annotations

from collections.abc import Callable

from ..language import Address, Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel
from .exponential import exponential


@microkernel
def softmax_cross_entropy(
    k: Kernel,
    scale: Real,
    Z: Matrix,
    G: Matrix,
    labels: Address,
    predictions: Address,
    margins: Address,
    sums: Address,
) -> None:
    """G = scale * (softmax(Z) - onehot(labels)), row by row.

    Shapes: logits Z and gradient G [rows, units], their rows padded, labels and predictions [rows]
    64-bit integers, margins and sums [rows]. G is zero in the padding. The loss of a row is
    margin + log(sum), where margin = max(Z) - Z[label] and sum = sum(exp(Z - max(Z))); the
    prediction is the first of the largest logits, -1 where there is none for NaN.
    Why it is fast: a row of few classes is one vector, and so one exponential.
    Tried and lost: transposing first, to have one sample a lane; no faster, and more to read.
    """
    vectors = k.vectors(Z)
    minus_infinity = k.constant(float("-inf"))

    with k.loop(0, Z.rows) as row:
        z, g = Z.row(row), G.row(row)
        label = k.load_integer(labels + row * 8)

        def logit(j: Int, z=z) -> Vector:
            inside = k.lane_before(Z.columns - j * k.lanes)
            return k.where(inside, k.load(z + j * k.vector_bytes), minus_infinity)

        maximum, first = first_largest(k, logit, vectors)
        maxima = k.broadcast(maximum)
        k.store_integer(first, predictions + row * 8)

        total = k.variable(k.zero())
        with k.loop(0, vectors) as j:
            power = exponential(k, logit(j) - maxima)
            k.store(power, g + j * k.vector_bytes)
            total[0] = total[0] + power
        denominator = k.lane_sum(total[0])

        share = k.broadcast(scale / denominator)
        with k.loop(0, vectors) as j:
            k.store(share * k.load(g + j * k.vector_bytes), g + j * k.vector_bytes)
        at_label = label * k.element_bytes
        k.store_real(k.load_real(g + at_label) - scale, g + at_label)
        k.store_real(maximum - k.load_real(z + at_label), margins + row * k.element_bytes)
        k.store_real(denominator, sums + row * k.element_bytes)


def first_largest(k: Kernel, vector: Callable[[Int], Vector], vectors: Int) -> tuple[Real, Int]:
    """Write the search for the largest number of a row, and its first place; -1 for NaN.

    `vector` gives vector j of the row; what is not to be found there is minus infinity.
    """
    largest = k.variable(k.constant(float("-inf")))
    with k.loop(0, vectors) as j:
        largest[0] = k.maximum(largest[0], vector(j))
    maximum = k.lane_maximum(largest[0])
    maxima = k.broadcast(maximum)

    first = k.variable(k.integer(-1))
    with k.loop(0, vectors) as ascending:
        j = vectors - 1 - ascending
        equal = k.bits(vector(j).equals(maxima))
        with k.when(equal.differs(0)):
            first[0] = j * k.lanes + k.lowest_bit(equal)
    return maximum, first[0]
