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

import itertools
from functools import partial

from llvmlite import ir

from ..language import Address, Int, Kernel, Matrix, Real
from ..machine import HAS_BFLOAT16, MACHINE
from ..microkernel import microkernel
from .loading import ELEMENTS, converted
from .matmul import BLOCK_COLUMNS, Sums, add_to, strided, write_product
from .pairs import (
    above_zero,
    flushing_denormals,
    fma_pairs,
    nearest,
    paired,
    rounded,
    store_rounded,
)

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
def load_pairs(
    k: Kernel,
    scale: Real,
    first: Address,
    second: Address,
    code: Int,
    vectors: Int,
    rows: Matrix,
    pairs: Address,
) -> None:
    """scale * two samples, as `load_row` has them, rounded to bfloat16 by rows and in pairs.

    `pairs` may be 0, and then nothing is written there. So many vectors of each are whole.
    Why it is fast: samples become bfloat16 as they are loaded. As float32 they were written to
    memory and read again, twice as many bytes as all that is written here.
    """
    factor = k.broadcast(scale)
    for case in k.cases(code, tuple(ELEMENTS)):
        element, nbytes = ELEMENTS[case]
        kind = ir.VectorType(element, k.lanes)
        with k.loop(0, vectors) as j:
            place = j * (k.lanes * nbytes)
            loaded = [k.load_as(sample + place, kind, 1) for sample in (first, second)]
            both = [converted(k, x, k.vector_type, nbytes) * factor for x in loaded]
            for i, vector in enumerate(both):
                store_rounded(k, vector, rows.row(i) + j * (k.vector_bytes // 2))
            with k.when(pairs.differs(0)):
                k.store(paired(k, both[0], both[1]), pairs + j * k.vector_bytes)


@microkernel
def matmul_pairs(
    k: Kernel, alpha: Real, A: Matrix, B: Matrix, C: Matrix, keep: Int, mask: Matrix
) -> None:
    """C = keep * C + alpha * A B in float32, for A and B of words, pairs of bfloat16.

    As `matmul`; the inner dimension counts pairs. Numbers below the smallest normal one are zeros,
    as the instruction has them. Where `mask` is not above 0, as the output of a ReLU, C becomes 0;
    with a mask at the address 0 nowhere. A mask that is such a small number is above 0, as ever.
    """
    add = add_to(k, alpha, C, k.fma_rounded_once)

    def finish(total: Sums, height: int, columns: int, row: Int, offset: Int, kept: Int) -> None:
        with k.when(mask.address.differs(0)):
            for i, j in itertools.product(range(height), range(columns)):
                place = mask.row(row + i) + offset + j * k.vector_bytes
                total[i, j] = k.where(above_zero(k, k.load(place)), total[i, j], k.zero())
        add(total, height, columns, row, offset, kept)

    with flushing_denormals(k):
        write_product(
            k, strided(k, A), B, C, keep, partial(fma_pairs, k), finish,
            BLOCK_PAIRS, COLUMNS_AT_ONCE, TILE_COLUMNS,
        )  # fmt: skip


@microkernel
def update_pairs(
    k: Kernel, alpha: Real, A: Matrix, B: Matrix, C: Matrix, rows: Matrix, pairs: Matrix
) -> None:
    """C += alpha * A B, as `matmul_pairs` has it, and what C is then packed as by `pack_pairs`.

    Why it is fast: weights are packed while they are in registers, where a pass of its own reads
    all of them once more. And they are asked for before the sums: these take half of the time that
    they take in float32, so to wait for memory behind them is twice the share.
    """
    scale = k.broadcast(alpha)

    def finish(total: Sums, height: int, columns: int, row: Int, offset: Int, kept: Int) -> None:
        target, moved = C.shifted(row * C.row_stride + offset), {}
        for i, j in itertools.product(range(height), range(columns)):
            address = target.row(i) + j * k.vector_bytes
            moved[i, j] = k.fma_rounded_once(scale, total[i, j], k.load(address))
            k.store(moved[i, j], address)
        with k.when(rows.address.differs(0)):
            in_rows = rows.row(row) + offset // 2
            for (i, j), vector in moved.items():
                store_rounded(k, vector, in_rows + i * rows.row_stride + j * (k.vector_bytes // 2))
        in_pairs = pairs.row(row // 2) + offset
        for i, j in itertools.product(range(0, height, 2), range(columns)):
            high = moved[i + 1, j] if i + 1 < height else k.zero()
            both = paired(k, moved[i, j], high)
            k.store(both, in_pairs + i // 2 * pairs.row_stride + j * k.vector_bytes)

    with flushing_denormals(k):
        write_product(
            k, strided(k, A), B, C, k.integer(1), partial(fma_pairs, k), finish,
            BLOCK_PAIRS, COLUMNS_AT_ONCE, TILE_COLUMNS, asked_from=0,
        )  # fmt: skip


@microkernel
def round_rows(k: Kernel, like: Real, source: Matrix, bits: Matrix, target: Matrix) -> None:
    """target = source, rounded to bfloat16 but in float32: those rows of which a bit is set.

    Shapes: source and target [rows, columns], bits [rows, 64-bit words]; where there are none, at
    the address 0, all rows. For kernels that skip zeros: these multiply float32, and are to
    multiply what pairs would have.
    """
    all_rows = k.where(bits.address.equals(0), k.integer(1), k.integer(0))
    with k.loop(0, source.rows) as row:
        any_bit = k.variable(all_rows)
        with k.loop(0, bits.columns) as word:
            any_bit[0] = any_bit[0] | k.load_integer(bits.row(row) + bits.column_stride * word)
        with k.when(any_bit[0].differs(0)), k.loop(0, k.vectors(source)) as j:
            offset = j * k.vector_bytes
            k.store(nearest(k, k.load(source.row(row) + offset)), target.row(row) + offset)
