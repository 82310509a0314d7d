"""The dense matrix product: the tile in registers, which both wings use, and the epoch's products.

The operands of the epoch's products are aligned, and their rows padded to whole vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from ..language import Int, Kernel, Matrix, Real, Variables, Vector, pairwise_sum
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
    write_product(
        k, A, B, C, keep, k.fma, add_to(k, alpha, C, k.fma),
        BLOCK_INNER, BLOCK_COLUMNS, k.machine.tile_columns,
    )  # fmt: skip


Fma = Callable[[Vector, Vector, Vector], Vector]
Sums = Variables[Vector]
"""Of a tile: `[row, vector]`."""
Finish = Callable[[Sums, int, int, Int, Int, Int], None]
"""Writes what is done with the sums of a tile, so many rows by so many vectors of them, from a row
on and from so many bytes of it; and whether they are added to what is there (1 or 0)."""


def write_product(
    k: Kernel, A: Matrix, B: Matrix, C: Matrix, keep: Int,
    fma: Fma, finish: Finish, block_inner: int, block_columns: int, widest: int,
    asked_from: int = PAGE_BYTES,
) -> None:  # fmt: skip
    """Write what `matmul` does, with `fma` for a multiply-add and `finish` for its end.

    In blocks of so many rows of B and so many vectors of columns, and tiles of at most `widest`.
    Where C is kept and its rows are longer than `asked_from` bytes, a tile is asked for before
    its sums are computed.
    """
    vectors = k.vectors(C)
    with k.loop(0, vectors, block_columns) as first, k.loop(0, B.rows, block_inner) as inner:
        stop = k.minimum(first + block_columns, vectors)
        A_block = A.shifted(inner * A.column_stride)
        B_block = B.shifted(inner * B.row_stride)._replace(
            rows=k.minimum(B.rows - inner, block_inner)
        )
        kept = k.where(inner.equals(0), keep, k.integer(1))
        column = k.variable(first)
        with k.loop_while(lambda: column[0] < stop):
            left = stop - column[0]
            # four left are two tiles of two, not three and one (never with blocks of three)
            width = k.where(left.equals(widest + 1), k.integer(2), k.minimum(left, widest))
            offset = column[0] * k.vector_bytes
            for columns in k.cases(width, range(1, widest + 1)):
                for row, height in row_tiles(k, C.rows, k.machine.tile_rows):
                    with k.when(kept.equals(1) & (C.row_stride > asked_from)):
                        tile = C.shifted(row * C.row_stride + offset)
                        for i, j in itertools.product(range(height), range(columns)):
                            k.prefetch(tile.row(i) + j * k.vector_bytes)
                    total = register_tile(
                        k, height, columns, A_block.shifted(row * A.row_stride),
                        B_block.shifted(offset), lambda row, j: k.load(row + j * k.vector_bytes),
                        fma,
                    )  # fmt: skip
                    finish(total, height, columns, row, offset, kept)
            column[0] = column[0] + width


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
    A: Matrix,
    B: Matrix,
    load: Callable[[Int, int], Vector],
    fma: Fma | None = None,
) -> Variables[Vector]:
    """Write a tile of A B, `height` rows by `width` vectors, whose sums stay in registers.

    `load(row, j)` loads vector j of a row of B. A is read number by number, from any address; of
    their sizes only the number of rows of B counts. `fma` is what multiplies and adds, `k.fma` if
    not given.
    """
    fma = fma or k.fma
    total = k.variables(k.zero(), height, width)
    a_column, b_row = k.variable(A.address), k.variable(B.address)
    with k.loop(0, B.rows):
        b_vectors = [load(b_row[0], j) for j in range(width)]
        for i in range(height):
            factor = k.broadcast(k.load_real_anywhere(a_column[0] + i * A.row_stride))
            for j in range(width):
                total[i, j] = fma(factor, b_vectors[j], total[i, j])
        a_column[0] = a_column[0] + A.column_stride
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
