"""Batch normalisation. A column is a unit, so a vector holds neighbouring units.

In all kernels matrices are [rows, columns], with rows of neighbouring numbers at any address, and
vectors are [columns], given by their addresses. `grouped` is 1 where WIDTH vectors of columns may
be passed through side by side, which takes 0.6 to 0.85 of the time where a matrix is large; or 0
where the order of a column's sums must not depend on where the matrix begins, as in the epoch,
whose columns threads share.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..language import Address, Int, Kernel, Matrix, Real, Vector, pairwise_sum
from ..microkernel import microkernel
from .rows import span

WIDTH = 4
"""Vectors of columns in a group, so that memory is read in stretches."""

Terms = Callable[[Int, int], tuple[Vector, ...]]
"""Of a row and the number of a vector in it: what is added up."""


def _column_sums(k: Kernel, rows: Int, count: int, size: int, terms: Terms) -> list[list[Vector]]:
    """Write the sums over all rows of `size` terms for each of `count` vectors of columns.

    Returns the sums of the first term, one for each vector, then those of the second. WIDTH sums
    hide the latency of an addition: one for each of four vectors; or four for one vector, of rows
    0, 4, 8, ..., of rows 1, 5, 9, ... and so on.
    """
    parts = WIDTH // count
    whole = rows // parts * parts
    sums = k.variables(k.zero(), size, count, parts)
    for first, last, step in ((k.integer(0), whole, parts), (whole, rows, 1)):
        with k.loop(first, last, step) as row:
            for i, j in itertools.product(range(step), range(count)):
                for n, term in enumerate(terms(row + i, j)):
                    sums[n, j, i] = sums[n, j, i] + term
    return [
        [pairwise_sum([sums[n, j, i] for i in range(parts)]) for j in range(count)]
        for n in range(size)
    ]


@microkernel
def column_statistics(
    k: Kernel, row_share: Real, X: Matrix, mean: Address, variance: Address, grouped: Int
) -> None:
    """mean = X_0 + row_share Σ_n (X_n - X_0), variance = row_share Σ_n (X_n - mean)².

    row_share is 1 / rows. Two passes: the sum of squares less the square of the sum would cancel.
    From the first row on, as the NumPy backend's says why.
    """
    row_shares = k.broadcast(row_share)

    def body(offset: Int, count: int, load, store) -> None:
        at = [offset + j * k.vector_bytes for j in range(count)]

        first = [load(X.row(0) + a) for a in at]

        def difference(row: Int, j: int) -> tuple[Vector]:
            return (load(X.row(row) + at[j]) - first[j],)

        (totals,) = _column_sums(k, X.rows, count, 1, difference)
        means = [row_shares * total + number for total, number in zip(totals, first, strict=True)]

        def square(row: Int, j: int) -> tuple[Vector]:
            deviation = load(X.row(row) + at[j]) - means[j]
            return (deviation * deviation,)

        (totals,) = _column_sums(k, X.rows, count, 1, square)
        for j in range(count):
            store(means[j], mean + at[j])
            store(row_shares * totals[j], variance + at[j])

    span(k, X.columns, body, WIDTH, grouped)


@microkernel
def normalize(
    k: Kernel,
    epsilon: Real,
    X: Matrix,
    Y: Matrix,
    scale: Address,
    shift: Address,
    mean: Address,
    variance: Address,
) -> None:
    """Y = scale (X - mean) / σ + shift, where σ = √(variance + epsilon).

    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015, algorithm 1.
    Why it is fast: root and division once a column.
    """
    epsilons = k.broadcast(epsilon)

    def body(offset: Int, count: int, load, store) -> None:
        at = [offset + j * k.vector_bytes for j in range(count)]
        means, shifts = ([load(vector + a) for a in at] for vector in (mean, shift))
        factors = [
            _inverse_deviation(k, load(variance + a), epsilons) * load(scale + a) for a in at
        ]
        with k.loop(0, X.rows) as row:
            for a, middle, factor, addend in zip(at, means, factors, shifts, strict=True):
                centred = load(X.row(row) + a) - middle
                store(k.fma(factor, centred, addend), Y.row(row) + a)

    span(k, X.columns, body, WIDTH)


def _inverse_deviation(k: Kernel, variance: Vector, epsilon: Vector) -> Vector:
    """1 / σ."""
    return k.constant(1.0) / k.call("sqrt", variance + epsilon)


@microkernel
def normalize_gradient(
    k: Kernel,
    epsilon: Real,
    row_share: Real,
    X: Matrix,
    G: Matrix,
    dX: Matrix,
    scale: Address,
    mean: Address,
    variance: Address,
    dscale: Address,
    dshift: Address,
    grouped: Int,
) -> None:
    """dscale = Σ_n G_n X̂_n, dshift = Σ_n G_n, dX = scale / σ (G - row_share (dshift + X̂ dscale)).

    Here X̂ = (X - mean) / σ, with σ as in `normalize`. row_share is 1 / rows where mean and
    variance are those of X, and 0 where they are constants. dX may be G.
    """
    epsilons, row_shares = k.broadcast(epsilon), k.broadcast(row_share)
    constants = row_shares.equals(0.0)

    def body(offset: Int, count: int, load, store) -> None:
        at = [offset + j * k.vector_bytes for j in range(count)]
        means = [load(mean + a) for a in at]
        inverses = [_inverse_deviation(k, load(variance + a), epsilons) for a in at]

        def normal(row: Int, j: int) -> Vector:
            value: Vector = (load(X.row(row) + at[j]) - means[j]) * inverses[j]
            return value

        def terms(row: Int, j: int) -> tuple[Vector, Vector]:
            gradient = load(G.row(row) + at[j])
            return gradient, gradient * normal(row, j)

        of_shift, of_scale = _column_sums(k, X.rows, count, 2, terms)
        factors = [load(scale + a) * inverse for a, inverse in zip(at, inverses, strict=True)]
        for j in range(count):
            store(of_shift[j], dshift + at[j])
            store(of_scale[j], dscale + at[j])
        # before the loop, as a product that stands in it would be fused with a difference
        shares = [(row_shares * of_shift[j], row_shares * of_scale[j]) for j in range(count)]
        with k.loop(0, X.rows) as row:
            for j in range(count):
                gradient = load(G.row(row) + at[j])
                rest = gradient - shares[j][0] - normal(row, j) * shares[j][1]
                # not left to a row_share of 0, whose product with infinity is NaN
                rest = k.where(constants, gradient, rest)
                store(factors[j] * rest, dX.row(row) + at[j])

    span(k, X.columns, body, WIDTH, grouped)


@microkernel
def move_average(k: Kernel, kept: Real, rest: Real, average: Address, vector: Address) -> None:
    """average <- kept * average + rest * vector, with factors kept and rest.

    Both `average` and `vector` are the address of one aligned vector.
    """
    term = k.broadcast(rest) * k.load(vector)
    k.store(k.fma(k.broadcast(kept), k.load(average), term), average)
