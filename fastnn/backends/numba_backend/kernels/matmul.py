"""The dense matrix product: the tile in registers, which both wings use, and the epoch's products.

The operands of the epoch's products are aligned, and their rows padded to whole vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fastnn.memory import LINE_BYTES

from ..jit import KernelOperation
from ..language import Address, Int, Kernel, Matrix, Real, Variables, Vector, pairwise_sum
from ..machine import MACHINE, PAGE_BYTES
from ..microkernel import microkernel

BLOCK_INNER = MACHINE.block_inner
BLOCK_COLUMNS = MACHINE.block_columns


@microkernel
def matmul(k: Kernel, alpha: Real, A: Matrix, B: Matrix, C: Matrix, keep: Int) -> None:
    """C = keep * C + alpha * A B; `keep` is 0 or 1.

    Rows of B and C are whole vectors; A may have any strides, so it may be the transpose of what is
    stored: it is read one number at a time, and aligned or not is all the same to it.
    Why it is fast: a tile of C stays in registers, for MACHINE.tile_rows rows by
    MACHINE.tile_columns vectors. Each step of the inner loop loads a column of A, one number a
    row, and a row of B, and multiplies each with each: with 8 x 3 that is 24 fused
    multiply-adds for 11 loads, and 24 sums that don't wait for each other.
    Rows left over go through tiles of half the height, down to one row.
    It goes through B in blocks that stay in the second-level cache.
    Tried and lost: copying blocks of A and B into the order in which they are read. Rows whose
    stride is an odd number of cache lines don't need it.
    What is kept of a C of long rows is asked for before the inner loop, as processors don't foresee
    rows in pages of their own.
    """
    _write_with_fma(k, strided(k, A), alpha, B, C, keep)


def _write_with_fma(k: Kernel, left: Left, alpha: Real, B: Matrix, C: Matrix, keep: Int) -> None:
    write_product(
        k, left, B, C, keep, k.fma, add_to(k, alpha, C, k.fma),
        BLOCK_INNER, BLOCK_COLUMNS, k.machine.tile_columns,
    )  # fmt: skip


def multiply_samples(
    k: Kernel, alpha: Real, samples: Address, first: Int, B: Matrix, C: Matrix, keep: Int
) -> None:
    """C = keep * C + alpha * X B, where the rows of X lie anywhere, as a user's samples do.

    `samples` holds their addresses; of each row the bytes from `first` on are multiplied. All else
    is as in `matmul`, and so is every bit.
    """
    _write_with_fma(k, rows_at(k, samples, first), alpha, B, C, keep)


def multiply_samples_turned(
    k: Kernel, alpha: Real, samples: Address, first: Int, B: Matrix, C: Matrix, keep: Int,
    later: Int,
) -> None:  # fmt: skip
    """C = keep * C + alpha * X^T B, with X as in `multiply_samples`.

    The addresses of as many samples that are multiplied later begin `later` bytes behind those of
    X. While a number of X is multiplied, the one at its place in the later sample is asked for.
    """
    _write_with_fma(k, columns_at(k, samples, first, later), alpha, B, C, keep)


MULTIPLY_SAMPLES, MULTIPLY_SAMPLES_TURNED = (
    KernelOperation(write, write.__name__) for write in (multiply_samples, multiply_samples_turned)
)
"""Compiled where the first layer takes dense samples as they lie."""


class Walk(NamedTuple):
    """A walk along some rows of a left operand, which is read number by number."""

    start: Int
    """Where it begins: an address, or an offset."""
    step: Int | int
    """What leads to the next column."""
    column: Callable[[Int], Iterator[Real]]
    """Loads what is in the rows at a place of the walk, each number as it is asked for."""


Left = Callable[[Int, Int | int, int], Walk]
"""Of a row, a column and a height: the walk along so many rows from there on."""


def strided(k: Kernel, A: Matrix) -> Left:
    """Return the left operand that is a matrix, of any strides and at any address.

    A whole tile asks for the line behind its numbers. Of a transpose that are the next rows of all
    columns, each in a page of its own, which processors don't foresee; if not, it does no harm.
    """

    def walk(row: Int, column: Int | int, height: int) -> Walk:
        def numbers(place: Int) -> Iterator[Real]:
            if height == k.machine.tile_rows:
                k.prefetch(place + LINE_BYTES)
            return (k.load_real_anywhere(place + i * A.row_stride) for i in range(height))

        start = A.shifted(column * A.column_stride).row(row)
        return Walk(start, A.column_stride, numbers)

    return walk


def rows_at(k: Kernel, addresses: Address, first: Int) -> Left:
    """Return the left operand whose rows lie where a list says, from byte `first` of each on."""

    def walk(row: Int, column: Int | int, height: int) -> Walk:
        rows = [k.load_address(addresses + (row + i) * 8, "a sample") for i in range(height)]

        def numbers(place: Int) -> Iterator[Real]:
            return (k.load_real_anywhere(start + place) for start in rows)

        return Walk(first + column * k.element_bytes, k.element_bytes, numbers)

    return walk


def columns_at(k: Kernel, addresses: Address, first: Int, later: Int) -> Left:
    """Return the transpose of `rows_at`, which asks for rows whose addresses come `later`."""

    def walk(row: Int, column: Int | int, height: int) -> Walk:
        offset = first + row * k.element_bytes

        def numbers(place: Int) -> Iterator[Real]:
            start = k.load_address(place, "a sample") + offset
            k.prefetch(k.load_integer(place + later) + offset)
            return (k.load_real_anywhere(start + i * k.element_bytes) for i in range(height))

        return Walk(addresses + column * 8, 8, numbers)

    return walk


Fma = Callable[[Vector, Vector, Vector], Vector]
Sums = Variables[Vector]
"""Of a tile: `[row, vector]`."""
Finish = Callable[[Sums, int, int, Int, Int, Int], None]
"""Writes what is done with the sums of a tile, so many rows by so many vectors of them, from a row
on and from so many bytes of it; and whether they are added to what is there (1 or 0)."""


def write_product(
    k: Kernel, left: Left, B: Matrix, C: Matrix, keep: Int,
    fma: Fma, finish: Finish, block_inner: int, block_columns: int, widest: int,
    asked_from: int = PAGE_BYTES,
) -> None:  # fmt: skip
    """Write what `matmul` does, with `fma` for a multiply-add and `finish` for its end.

    In blocks of so many rows of B and so many vectors of columns, and tiles of at most `widest`.
    Where C is kept and its rows are longer than `asked_from` bytes, a tile is asked for before
    its sums are computed.
    """
    vectors = k.vectors(C)
    start = k.variable(k.integer(0))
    with k.loop_while(lambda: start[0] < vectors):
        rest = vectors - start[0]
        # a vector that would be left alone goes with the last block: 3 + 2 + 2, not 3 + 3 + 1
        count = k.where(rest.equals(block_columns + 1), rest, k.minimum(rest, block_columns))
        stop = start[0] + count
        with k.loop(0, B.rows, block_inner) as inner:
            B_block = B.shifted(inner * B.row_stride)._replace(
                rows=k.minimum(B.rows - inner, block_inner)
            )
            kept = k.where(inner.equals(0), keep, k.integer(1))
            column = k.variable(start[0])
            with k.loop_while(lambda: column[0] < stop):
                rest = stop - column[0]
                # four left are two tiles of two, not three and one
                width = k.where(rest.equals(widest + 1), k.integer(2), k.minimum(rest, widest))
                offset = column[0] * k.vector_bytes
                for columns in k.cases(width, range(1, widest + 1)):
                    for row, height in row_tiles(k, C.rows, k.machine.tile_rows):
                        with k.when(kept.equals(1) & (C.row_stride > asked_from)):
                            tile = C.shifted(row * C.row_stride + offset)
                            for i, j in itertools.product(range(height), range(columns)):
                                k.prefetch(tile.row(i) + j * k.vector_bytes)
                        total = register_tile(
                            k, height, columns, left(row, inner, height), B_block.shifted(offset),
                            lambda row, j: k.load(row + j * k.vector_bytes), fma,
                        )  # fmt: skip
                        finish(total, height, columns, row, offset, kept)
                column[0] = column[0] + width
        start[0] = stop


def add_to(k: Kernel, alpha: Real, C: Matrix, fma: Fma) -> Finish:
    """Return what stores alpha * sums in C, or adds them by `fma` to what is there."""
    scale = k.broadcast(alpha)

    def finish(total: Sums, height: int, columns: int, row: Int, offset: Int, kept: Int) -> None:
        target = C.shifted(row * C.row_stride + offset)
        for case in k.cases(kept, (0, 1)):
            for i, j in itertools.product(range(height), range(columns)):
                address = target.row(i) + j * k.vector_bytes
                if case:
                    k.store(fma(scale, total[i, j], k.load(address)), address)
                else:
                    k.store(scale * total[i, j], address)

    return finish


def row_tiles(k: Kernel, rows: Int, height: int) -> Iterator[tuple[Int, int]]:
    """Write loops over rows by tiles of `height`, then of half of it, down to one row.

    Yields the first row of a tile, and its height, for the loop to write what is done with it.
    """
    start = k.integer(0)
    while height:
        row, stop = k.variable(start), rows - (height - 1)
        with k.loop_while(lambda row=row, stop=stop: row[0] < stop):  # type: ignore[misc]
            yield row[0], height
            row[0] = row[0] + height
        start, height = row[0], height // 2


def register_tile(
    k: Kernel,
    height: int,
    width: int,
    walk: Walk,
    B: Matrix,
    load: Callable[[Int, int], Vector],
    fma: Fma | None = None,
) -> Variables[Vector]:
    """Write a tile of A B, `height` rows by `width` vectors, whose sums stay in registers.

    `load(row, j)` loads vector j of a row of B, of whose sizes only the number of rows counts. A is
    read number by number, as `walk` says. `fma` is what multiplies and adds, `k.fma` if not given.
    """
    fma = fma or k.fma
    total = k.variables(k.zero(), height, width)
    place, b_row = k.variable(walk.start), k.variable(B.address)
    with k.loop(0, B.rows):
        b_vectors = [load(b_row[0], j) for j in range(width)]
        for i, number in enumerate(walk.column(place[0])):
            factor = k.broadcast(number)
            for j in range(width):
                total[i, j] = fma(factor, b_vectors[j], total[i, j])
        place[0] = place[0] + walk.step
        b_row[0] = b_row[0] + B.row_stride
    return total


@microkernel
def backward_from_few(
    k: Kernel, alpha: Real, A: Matrix, G: Matrix, outputs: Int, W: Matrix, dX: Matrix
) -> None:
    """dX = G W^T where A > 0, else 0; then W += alpha A^T G: the backward pass of a layer of few
    outputs behind a ReLU, whose output A is.

    Shapes: A and dX [samples, units], G [samples, outputs], W [units, outputs], its rows one vector
    and as many as fill vectors; at most MACHINE.backward_vectors outputs.
    Why it is fast: as many rows of W as a vector has lanes are transposed in registers; then each
    number of G, in every lane, serves two multiply-adds, and nothing is transposed in memory.
    """
    scale = k.broadcast(alpha)
    most = min(k.machine.backward_vectors, k.lanes)
    with k.loop(0, W.rows // k.lanes) as block:
        rows = W.shifted(block * k.lanes * W.row_stride)
        offset = block * k.vector_bytes
        weights = k.transpose([k.load(rows.row(i)) for i in range(k.lanes)])
        total = k.variables(k.zero(), most)
        for count in k.cases(outputs, range(1, most + 1)):
            with k.loop(0, A.rows) as s:
                inputs = k.load(A.row(s) + offset)
                back = k.zero()
                for j in range(count):
                    number = k.broadcast(k.load_real(G.row(s) + j * k.element_bytes))
                    total[j] = k.fma(number, inputs, total[j])
                    back = k.fma(number, weights[j], back)
                k.store(k.where(inputs > 0.0, back, k.zero()), dX.row(s) + offset)
        sums = [total[j] for j in range(most)] + [k.zero()] * (k.lanes - most)
        for i, change in enumerate(k.transpose(sums)):
            k.store(k.fma(scale, change, k.load(rows.row(i))), rows.row(i))


@microkernel
def matmul_transposed(k: Kernel, like: Real, A: Matrix, B: Matrix, C: Matrix) -> None:
    """C = A B^T, the input gradient of a small batch: A is the gradient, B the weights as they lie.

    Rows are whole vectors, and the rows of B fill vectors too; A and B are zero in their padding.
    Why it is fast: for few rows of A nothing is gained by putting them side by side in a
    vector, as a product with a transposed A does. Here a vector runs along the inner dimension;
    `lanes` sums are transposed in registers and added, which gives a vector of C.
    """
    with k.loop(0, k.vectors(C)) as block, k.loop(0, C.rows) as row:
        b_rows = B.shifted(block * k.lanes * B.row_stride)
        total = k.variables(k.zero(), k.lanes)
        with k.loop(0, k.vectors(A)) as j:
            offset = j * k.vector_bytes
            factor = k.load(A.row(row) + offset)
            for i in range(k.lanes):
                total[i] = k.fma(factor, k.load(b_rows.row(i) + offset), total[i])
        sums = k.transpose([total[i] for i in range(k.lanes)])
        k.store(pairwise_sum(sums), C.row(row) + block * k.vector_bytes)
