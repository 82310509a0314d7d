"""Products in bfloat16: float32 matrices as pairs of bfloat16, and the product of such pairs.

The instruction multiplies two bfloat16 numbers by two others and adds both products to a float32.
So the inner dimension of a product is cut into pairs, and a word of 32 bits holds a pair:

    rows     [rows, columns / 2] words: a row of bfloat16 numbers, the pairs along it
    pairs    [rows / 2, columns] words: two rows, the pairs across them

A product takes its left operand as rows, or as pairs transposed, and its right one as pairs. Where
the processor has no such instruction, two multiply-adds in float32 give the same bits; with AVX-512
that takes as long as the product in float32.
"""

from __future__ import annotations

from functools import partial

from ..language import Int, Kernel, Matrix, Real
from ..machine import HAS_BFLOAT16, MACHINE
from ..microkernel import microkernel
from .matmul import BLOCK_COLUMNS, add_to, strided, write_product
from .pairs import flushing_denormals, fma_pairs, paired, rounded

BLOCK_PAIRS = 512
"""Pairs after which sums go to memory; the same on all machines, as it decides the order of sums.
"""
TILE_COLUMNS = MACHINE.tile_columns if HAS_BFLOAT16 else 2
"""Vectors of a tile: to take pairs apart needs registers."""
COLUMNS_AT_ONCE = BLOCK_COLUMNS // MACHINE.tile_columns * (3 if HAS_BFLOAT16 else 4)


@microkernel
def pack_pairs(k: Kernel, like: Real, source: Matrix, rows: Matrix, pairs: Matrix) -> None:
    """Round a float32 matrix to bfloat16, by rows and in pairs of rows.

    What has the address 0 is not written. Rows of the source are whole vectors, those of `rows` an
    even number of half vectors; there is room for an even number of rows, and what is beyond the
    source is zero.
    """
    vectors = k.vectors(source)
    with k.loop(0, source.rows, 2) as row, k.loop(0, vectors, 2) as j:
        offset = j * k.vector_bytes
        two_rows, two_vectors = row + 1 < source.rows, j + 1 < vectors
        second_row = k.where(two_rows, row + 1, row)
        second = offset + k.where(two_vectors, k.integer(k.vector_bytes), k.integer(0))
        zero = k.zero()
        block = []
        for number in (row, second_row):
            line = [k.load(source.row(number) + offset), k.load(source.row(number) + second)]
            line[1] = k.where(two_vectors, line[1], zero)
            block.append(line)
        block[1] = [k.where(two_rows, vector, zero) for vector in block[1]]
        with k.when(rows.address.differs(0)):
            for i, (first, last) in enumerate(block):
                k.store(rounded(k, first, last), rows.row(row + i) + j // 2 * k.vector_bytes)
        with k.when(pairs.address.differs(0)):
            target = pairs.row(row // 2) + offset
            k.store(paired(k, block[0][0], block[1][0]), target)
            with k.when(two_vectors):
                k.store(paired(k, block[0][1], block[1][1]), target + k.vector_bytes)


@microkernel
def matmul_pairs(k: Kernel, alpha: Real, A: Matrix, B: Matrix, C: Matrix, keep: Int) -> None:
    """C = keep * C + alpha * A B in float32, for A and B of words, pairs of bfloat16.

    As `matmul`; the inner dimension counts pairs. Numbers below the smallest normal one are zeros,
    as the instruction has them.
    """
    with flushing_denormals(k):
        write_product(
            k, strided(k, A), B, C, keep,
            partial(fma_pairs, k), add_to(k, alpha, k.fma_rounded_once),
            BLOCK_PAIRS, COLUMNS_AT_ONCE, TILE_COLUMNS,
        )  # fmt: skip
