"""Softmax cross-entropy of the compiled epoch: loss, gradient and prediction in one pass."""

from __future__ import annotations

from collections.abc import Callable

from ..language import Address, Int, Kernel, Matrix, Real, Value, Vector
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
    Why it is fast: as many rows as a vector has lanes, a square, are turned in registers, so that
    each lane has a sample, and a class takes one exponential for all of them. A row by itself is a
    vector that few classes don't fill, and waits for the sum of its own lanes: with three classes
    it takes two and a half times as long, with a thousand 1.2 times. What is left after the
    squares is taken row by row; from half a square on the last one begins so early that it is
    whole, and rows that come again are written again.
    Maxima and sums go over the classes by halves, as over the lanes of a row, so a sample has the
    same bits in any batch.
    """

    def finish(row: Int, maximum: Real) -> None:
        at_label = k.load_integer(labels + row * 8) * k.element_bytes
        entry = G.row(row) + at_label
        k.store_real(k.load_real(entry) - scale, entry)
        margin = maximum - k.load_real(Z.row(row) + at_label)
        k.store_real(margin, margins + row * k.element_bytes)

    whole = (Z.rows + k.lanes // 2) // k.lanes * k.lanes
    in_squares = k.where(Z.rows < k.lanes, k.integer(0), whole)
    with k.loop(0, in_squares, k.lanes) as next_row:
        start = k.minimum(next_row, Z.rows - k.lanes)
        maxima, totals, firsts = square_of_softmax(k, scale, Z, G, start)
        k.store_as(firsts.code, predictions + start * 8, 8)
        k.store_anywhere(totals, sums + start * k.element_bytes)
        k.store_anywhere(maxima, margins + start * k.element_bytes)
        with k.loop(start, start + k.lanes) as row:
            finish(row, k.load_real(margins + row * k.element_bytes))
    with k.loop(in_squares, Z.rows) as row:
        maximum, total, first = row_of_softmax(k, scale, Z, Z.row(row), G.row(row))
        k.store_integer(first, predictions + row * 8)
        k.store_real(total, sums + row * k.element_bytes)
        finish(row, maximum)


def row_of_softmax(
    k: Kernel, scale: Real, Z: Matrix, z: Address, g: Address
) -> tuple[Real, Real, Int]:
    """Write g = scale * softmax(z), a row; return its maximum, its sum and its prediction."""
    vectors = k.vectors(Z)

    def logit(j: Int) -> Vector:
        inside = k.lane_before(Z.columns - j * k.lanes)
        return k.where(inside, k.load(z + j * k.vector_bytes), k.constant(float("-inf")))

    maximum, first = first_largest(k, logit, Z)
    maxima = k.broadcast(maximum)
    total = k.variable(k.zero())
    with k.loop(0, vectors) as j:
        power = exponential(k, logit(j) - maxima)
        k.store(power, g + j * k.vector_bytes)
        total[0] = total[0] + power
    denominator = k.lane_sum(total[0])
    share = k.broadcast(scale / denominator)
    with k.loop(0, vectors) as j:
        k.store(share * k.load(g + j * k.vector_bytes), g + j * k.vector_bytes)
    return maximum, denominator, first


def square_of_softmax(
    k: Kernel, scale: Real, Z: Matrix, G: Matrix, start: Int
) -> tuple[Vector, Vector, Value]:
    """Write what `row_of_softmax` does for as many rows as a vector has lanes, `start` the first.

    Of each square of G, row i holds class i of all samples, until it is turned back.
    """
    lowest, vectors = k.constant(float("-inf")), k.vectors(Z)
    z, g = (M.shifted(start * M.row_stride) for M in (Z, G))
    largest, sums = k.variables(lowest, k.lanes), k.variables(k.zero(), k.lanes)

    with k.loop(0, vectors) as j:
        inside, offset = k.lane_before(Z.columns - j * k.lanes), j * k.vector_bytes
        rows = [k.where(inside, k.load(z.row(i) + offset), lowest) for i in range(k.lanes)]
        for i, logits in enumerate(k.transpose(rows)):
            largest[i] = k.maximum(largest[i], logits)
            k.store(logits, g.row(i) + offset)
    maxima = by_halves([largest[i] for i in range(k.lanes)], k.maximum)

    def place(column: Int) -> Int:
        return g.row(column & (k.lanes - 1)) + column // k.lanes * k.vector_bytes

    first = k.variable(Value(k, k.in_every_lane(k.integer(-1).code)))
    with k.loop(0, Z.columns) as ascending:
        column = Z.columns - 1 - ascending
        logits = k.load(place(column))
        here = Value(k, k.in_every_lane(column.code))
        first[0] = k.where(logits.equals(maxima), here, first[0])
        k.store(exponential(k, logits - maxima), place(column))
    with k.loop(Z.columns, vectors * k.lanes) as column:
        k.store(k.zero(), place(column))

    with k.loop(0, vectors) as j:
        for i in range(k.lanes):
            sums[i] = sums[i] + k.load(g.row(i) + j * k.vector_bytes)
    denominators = by_halves([sums[i] for i in range(k.lanes)], lambda a, b: a + b)
    shares = k.broadcast(scale) / denominators
    with k.loop(0, vectors) as j:
        offset = j * k.vector_bytes
        columns = [shares * k.load(g.row(i) + offset) for i in range(k.lanes)]
        for i, row in enumerate(k.transpose(columns)):
            k.store(row, g.row(i) + offset)
    return maxima, denominators, first[0]


def by_halves(vectors: list[Vector], operation: Callable[[Vector, Vector], Vector]) -> Vector:
    """Write the sum, or the like, of vectors in the order in which `lane_sum` takes lanes."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        vectors = [operation(a, b) for a, b in zip(vectors[:half], vectors[half:], strict=True)]
    return vectors[0]


def first_largest(k: Kernel, vector: Callable[[Int], Vector], matrix: Matrix) -> tuple[Real, Int]:
    """Write the search for the largest number of a row, and its first place; -1 for NaN.

    `vector` gives vector j of a row of the matrix; what is not to be found there is minus infinity.
    """
    vectors = k.vectors(matrix)
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
    # beside NaN alone, padding is the largest
    return maximum, k.where(first[0] < matrix.columns, first[0], k.integer(-1))
