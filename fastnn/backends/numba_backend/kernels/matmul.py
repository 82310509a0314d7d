"""The dense matrix product: the tile in registers that serves both wings, and what the epoch adds.

In the epoch operands lie aligned and padded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from ..jit import jit_part
from ..language import Int, Kernel, Real, Variables, Vector, microkernel, pairwise_sum
from ..machine import MACHINE

BLOCK_INNER = MACHINE.block_inner
BLOCK_COLUMNS = MACHINE.block_columns
VECTOR_BYTES = MACHINE.bits // 8


@microkernel
def matmul_block(
    k: Kernel,
    alpha: Real,
    a: Int,
    a_stride: Int,
    a_step: Int,
    b: Int,
    b_stride: Int,
    c: Int,
    c_stride: Int,
    rows: Int,
    vectors: Int,
    inner: Int,
    keep: Int,
) -> None:
    """C = keep * C + alpha * A B.

    Shapes: A [rows, inner], B [inner, vectors], C [rows, vectors]; `keep` is 0 or 1. A number of A
    lies at a + row * a_stride + step * a_step, so A may be the transpose of what is stored:
    it is read one number at a time, and aligned or not is all the same to it.
    Why it is fast: a tile of C stays in registers, for MACHINE.tile_rows rows by
    MACHINE.tile_columns vectors. Each step of the inner loop loads a column of A, one number a
    row, and a row of B, and multiplies each with each: with 8 x 3 that is 24 fused
    multiply-adds for 11 loads, and 24 sums that don't wait for each other.
    Rows left over go through tiles of half the height, down to one row.
    Tried and lost: copying blocks of A and B into the order in which they are read. Rows whose
    stride is an odd number of cache lines don't need it.
    """
    scale = k.broadcast(alpha)
    column = k.variable(k.integer(0))
    with k.loop_while(lambda: column[0] < vectors):
        left = vectors - column[0]
        # four left are two tiles of two, not three and one
        widest = k.machine.tile_columns
        width = k.where(left.equals(widest + 1), k.integer(2), k.minimum(left, widest))
        first_b = b + column[0] * k.vector_bytes
        first_c = c + column[0] * k.vector_bytes
        for columns in k.cases(width, range(1, widest + 1)):
            for row, height in row_tiles(k, rows, k.machine.tile_rows):
                total = register_tile(
                    k, height, columns, inner, a + row * a_stride, a_stride, a_step,
                    first_b, b_stride, lambda row, j: k.load(row + j * k.vector_bytes),
                )  # fmt: skip
                target = first_c + row * c_stride
                for case in k.cases(keep, (0, 1)):
                    for i, j in itertools.product(range(height), range(columns)):
                        address = target + i * c_stride + j * k.vector_bytes
                        if case:
                            k.store(k.fma(scale, total[i, j], k.load(address)), address)
                        else:
                            k.store(scale * total[i, j], address)
        column[0] = column[0] + width


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
    inner: Int,
    a: Int,
    a_row: Int,
    a_column: Int,
    b: Int,
    b_row: Int,
    load: Callable[[Int, int], Vector],
) -> Variables[Vector]:
    """Write a tile of A B, `height` rows by `width` vectors, whose sums stay in registers.

    `load(row, j)` loads vector j of a row of B. A is read number by number, from any address.
    """
    total = k.variables(k.zero(), height, width)
    a_step, b_step = k.variable(a), k.variable(b)
    with k.loop(0, inner):
        b_vectors = [load(b_step[0], j) for j in range(width)]
        for i in range(height):
            factor = k.broadcast(k.load_real_anywhere(a_step[0] + i * a_row))
            for j in range(width):
                total[i, j] = k.fma(factor, b_vectors[j], total[i, j])
        a_step[0] = a_step[0] + a_column
        b_step[0] = b_step[0] + b_row
    return total


@microkernel
def matmul_transposed(
    k: Kernel,
    like: Real,
    a: Int,
    a_stride: Int,
    b: Int,
    b_stride: Int,
    c: Int,
    c_stride: Int,
    rows: Int,
    column_vectors: Int,
    inner_vectors: Int,
) -> None:
    """C = A B^T.

    Shapes: A [rows, inner_vectors], B [column_vectors * lanes, inner_vectors], C [rows,
    column_vectors]; both operands zero in their padding. The input gradient of a small batch:
    A is the gradient of the output, B the weights as they lie.
    Why it is fast: for few rows of A nothing is gained by putting them side by side in a
    vector, as a product with a transposed A does. Here a vector runs along the inner dimension;
    `lanes` sums are transposed in registers and added, which gives a vector of C.
    """
    with k.loop(0, column_vectors) as block, k.loop(0, rows) as row:
        b_rows = b + block * k.lanes * b_stride
        a_row = a + row * a_stride
        total = k.variables(k.zero(), k.lanes)
        with k.loop(0, inner_vectors) as j:
            offset = j * k.vector_bytes
            factor = k.load(a_row + offset)
            for i in range(k.lanes):
                total[i] = k.fma(factor, k.load(b_rows + i * b_stride + offset), total[i])
        sums = k.transpose([total[i] for i in range(k.lanes)])
        k.store(pairwise_sum(sums), c + row * c_stride + block * k.vector_bytes)


@jit_part
def matmul(alpha, a, a_stride, a_step, b, b_stride, c, c_stride, rows, vectors, inner, keep):
    """C = keep * C + alpha * A B, in blocks whose part of B stays in the second-level cache."""
    for column in range(0, vectors, BLOCK_COLUMNS):
        width = min(BLOCK_COLUMNS, vectors - column)
        for start in range(0, inner, BLOCK_INNER):
            matmul_block(
                alpha, a + start * a_step, a_stride, a_step,
                b + start * b_stride + column * VECTOR_BYTES, b_stride,
                c + column * VECTOR_BYTES, c_stride,
                rows, width, min(BLOCK_INNER, inner - start), keep if start == 0 else 1,
            )  # fmt: skip
