"""Kernels of the fully connected layer, for matrices as a user has them.

All three products of the layer are one kernel, C = A B + D, where an operand is an address and
two strides, so that a transposed operand is the same memory with its strides exchanged:

    forward           Y  = X   W   + b
    weight gradient   dW = X^T G
    input gradient    dX = G   W^T

Strides and addresses count bytes and may be any number; C has rows of neighbouring elements.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from llvmlite import ir

from ..jit import jit, jit_part
from ..kernels.matmul import register_tile, row_tiles
from ..kernels.rows import span
from ..language import Int, Kernel, Matrix, Real, Vector, microkernel
from ..machine import MACHINE
from .arrays import (
    DONE,
    REFUSED,
    WRITEABLE,
    data,
    dimensions,
    dtype_of,
    flags,
    length,
    stride,
)

FORWARD, WEIGHT_GRADIENT, INPUT_GRADIENT = 0, 1, 2
"""The operations of `product`."""

VECTOR_BYTES = MACHINE.bits // 8
TILE_ROWS = MACHINE.tile_rows
TILE_COLUMNS = MACHINE.tile_columns

BLOCK_INNER = 256
"""Rows of a copied panel of B, which then stays in the first two levels of cache."""
FOLD = 12
"""Adding the lanes of a sum costs as much as this many rows of the inner dimension cost to copy."""
COPY_ROWS = 64
"""From this many rows of A on, a panel of B is copied even if its rows could be read in place."""


@microkernel
def product_panel(
    k: Kernel,
    one: Real,
    a: Int,
    a_row: Int,
    a_column: Int,
    b: Int,
    b_row: Int,
    c: Int,
    c_row: Int,
    d: Int,
    d_row: Int,
    rows: Int,
    columns: Int,
    inner: Int,
    relu: Int,
) -> None:
    """C = A B + D, clipped at 0 where `relu` is 1; without D where its address is 0.

    Shapes: A [rows, inner], B [inner, columns], C and D [rows, columns]. `columns` fill 1, 2, 3 or
    6 vectors (in units of MACHINE.tile_columns: 3), the last of them maybe in part. Rows of B, C
    and D hold neighbouring elements; A has any strides. D may be C, and with a row stride of 0
    it is a row of biases.
    Why it is fast: a tile of C stays in registers. A is read number by number, so its strides
    and its alignment cost nothing. With 8 rows by 3 vectors there are 24 multiply-adds for
    11 loads, which leaves room for those loads of B that straddle two cache lines: nothing
    needs to be copied to be aligned. With few rows the tile is twice as wide, so that a row
    of B, which is used once or twice, is read in longer stretches.
    ReLU keeps NaN: x < 0 ? 0 : x.
    Tried and lost: half a vector for columns that fill no more; the loads of A set the pace then.
    """
    full = k.machine.tile_columns
    last = (columns - 1) // k.lanes
    chosen = k.lane_before(columns - last * k.lanes)
    threshold = k.where(relu.equals(1), k.zero(), k.constant(float("-inf")))
    for width in k.cases(last + 1, (*range(1, full + 1), 2 * full)):
        highest = k.machine.tile_rows if width <= full else k.machine.tile_rows // 2

        def load(row: Int, j: int, width: int = width) -> Vector:
            vector: Vector = _load(k, row, j, width, chosen)
            return vector

        for row, height in row_tiles(k, rows, highest):
            total = register_tile(
                k,
                height,
                width,
                Matrix(a + row * a_row, a_row, a_column, rows, inner),
                Matrix(b, b_row, k.integer(k.element_bytes), inner, columns),
                load,
            )
            places = list(itertools.product(range(height), range(width)))
            with k.when(d.differs(0)):
                for i, j in places:
                    total[i, j] = total[i, j] + load(d + (row + i) * d_row, j)
            for i, j in places:
                value = k.where(total[i, j] < threshold, threshold, total[i, j])
                _store(k, value, c + (row + i) * c_row, j, width, chosen)


def _below(index, stop):
    """Return the condition that a variable is below `stop`, to be written when asked for."""
    return lambda: index[0] < stop


def _load(k: Kernel, row: Int, j: int, width: int, chosen):
    """Load vector `j` of a row of `width`, of the last only the chosen lanes."""
    address = row + j * k.vector_bytes
    return k.load_lanes(address, chosen) if j == width - 1 else k.load_anywhere(address)


def _store(k: Kernel, value, row: Int, j: int, width: int, chosen) -> None:
    """Store vector `j` of a row of `width`, of the last only the chosen lanes."""
    address = row + j * k.vector_bytes
    if j == width - 1:
        k.store_lanes(value, address, chosen)
    else:
        k.store_anywhere(value, address)


@microkernel
def row_times_matrix(
    k: Kernel,
    one: Real,
    a: Int,
    a_column: Int,
    b: Int,
    b_row: Int,
    c: Int,
    d: Int,
    columns: Int,
    inner: Int,
    relu: Int,
) -> None:
    """C = A B + D for one row A, clipped at 0 where `relu` is 1; no D where its address is 0.

    Shapes: A [inner] with any stride, B [inner, columns], C and D [columns]; rows of B, C and D
    hold neighbouring elements.
    Why it is fast: B is read once, from the first row to the last, a few rows side by side, which
    is the order that prefetching serves best. C lies in the first-level cache.
    Tried and lost: tiles of C in registers, up to twelve vectors wide, each with a pass through B.
    """
    vectors = (columns + (k.lanes - 1)) // k.lanes
    last = vectors - 1
    chosen = k.lane_before(columns - last * k.lanes)
    threshold = k.where(relu.equals(1), k.zero(), k.constant(float("-inf")))
    start = k.variable(k.integer(0))
    # six: of rows 4 KB apart, eight would fill a set of the first-level cache, and C comes on top
    for height in (6, 1):
        with k.loop_while(_below(start, inner - (height - 1))):
            rows = [b + (start[0] + i) * b_row for i in range(height)]
            factors = [
                k.broadcast(k.load_real_anywhere(a + (start[0] + i) * a_column))
                for i in range(height)
            ]
            ends = k.where((start[0] + height).equals(inner), threshold, k.constant(-math.inf))
            # the first rows add D, later ones go on with what is there
            before = k.where(start[0].equals(0), d, c)

            def step(offset, load, store, rows=rows, factors=factors, ends=ends, before=before):
                sums = k.variables(k.zero(), 2)
                with k.when(before.differs(0)):
                    sums[0] = load(before + offset)
                for i, (row, factor) in enumerate(zip(rows, factors, strict=True)):
                    sums[i % 2] = k.fma(factor, load(row + offset), sums[i % 2])
                total = sums[0] + sums[1] if len(rows) > 1 else sums[0]
                store(k.where(total < ends, ends, total), c + offset)

            with k.loop(0, last) as j:
                step(j * k.vector_bytes, k.load_anywhere, k.store_anywhere)
            step(
                last * k.vector_bytes,
                lambda address: k.load_lanes(address, chosen),
                lambda vector, address: k.store_lanes(vector, address, chosen),
            )
            start[0] = start[0] + height


@microkernel
def copy_panel(
    k: Kernel,
    one: Real,
    b: Int,
    b_row: Int,
    b_column: Int,
    target: Int,
    target_row: Int,
    inner: Int,
    columns: Int,
) -> None:
    """target = B, in whole aligned vectors.

    Shapes: B [inner, columns] with any strides; target [inner, as many vectors as `columns`
    need], with space for `inner` rounded up to a multiple of the lanes.
    Where B's columns are contiguous (it is a transposed matrix), squares are transposed in
    registers.
    """
    vectors = (columns + (k.lanes - 1)) // k.lanes
    whole = columns // k.lanes
    by_rows = b_column.equals(k.element_bytes)
    by_columns = b_row.equals(k.element_bytes)

    def copy_numbers(first: Int) -> None:
        """Write the copy of the rows from `first` on, number by number."""
        with k.loop(first, inner) as row:
            place = target + row * target_row
            k.store(k.zero(), place + (vectors - 1) * k.vector_bytes)
            with k.loop(0, columns) as column:
                number = k.load_real_anywhere(b + row * b_row + column * b_column)
                k.store_real(number, place + column * k.element_bytes)

    with k.builder.if_else(by_rows) as (rows_contiguous, otherwise):
        with rows_contiguous:
            chosen = k.lane_before(columns - whole * k.lanes)
            with k.loop(0, inner) as row:
                source, place = b + row * b_row, target + row * target_row
                with k.loop(0, whole) as j:
                    vector = k.load_anywhere(source + j * k.vector_bytes)
                    k.store(vector, place + j * k.vector_bytes)
                with k.when(columns > whole * k.lanes):
                    vector = k.load_lanes(source + whole * k.vector_bytes, chosen)
                    k.store(vector, place + whole * k.vector_bytes)
        with otherwise, k.builder.if_else(by_columns) as (columns_contiguous, neither):
            with columns_contiguous:
                # a few last rows are not worth a square
                rest = inner - inner // k.lanes * k.lanes
                single = k.where(rest > k.lanes // 4, k.integer(0), rest)
                blocks = (inner - single + (k.lanes - 1)) // k.lanes
                with k.loop(0, vectors) as j, k.loop(0, blocks) as block:
                    chosen = k.lane_before(inner - block * k.lanes)
                    source = b + block * k.vector_bytes
                    column = j * k.lanes
                    rows = [
                        k.load_lanes(source + k.minimum(column + i, columns - 1) * b_column, chosen)
                        for i in range(k.lanes)
                    ]
                    place = target + block * k.lanes * target_row + j * k.vector_bytes
                    for i, vector in enumerate(k.transpose(rows)):
                        k.store(vector, place + i * target_row)
                copy_numbers(inner - single)
            with neither:
                copy_numbers(k.integer(0))


@microkernel
def products_of_rows(
    k: Kernel,
    one: Real,
    a: Int,
    a_row: Int,
    b: Int,
    b_row: Int,
    c: Int,
    c_row: Int,
    d: Int,
    rows: Int,
    columns: Int,
    inner: Int,
    relu: Int,
) -> None:
    """C = A B^T + D, each element of A B^T the product of two rows; clipped at 0 if `relu` is 1.

    Shapes: A [rows, inner], B [columns, inner], C [rows, columns], D [columns], all with rows of
    neighbouring elements; no D where its address is 0; `columns` at least as many as a vector has
    lanes. The input gradient of a small batch, with B the weights.
    Why it is fast: the weights, which are far more than all else, are read once and as they lie;
    a transposed copy of them would not be used often enough to pay. A vector runs along the
    inner dimension. At least as many sums as a vector has lanes are kept, for 4, 2 or 1 rows of A
    by several of B, and a vector's worth of them is folded into one vector at the end. Where B has
    few rows, all of them go by before the next of A, five at a time: ten outputs leave no rest.
    The last columns may overlap those before.
    Tried and lost: transposing the sums and adding them, which takes nearly twice the shuffles;
    cutting the inner dimension into blocks that fit the first-level cache.
    """
    whole = inner // k.lanes
    chosen = k.lane_before(inner - whole * k.lanes)
    thresholds = k.where(relu.equals(1), k.zero(), k.constant(-math.inf))
    few = columns < 2 * k.lanes
    # rows of B that stay in the first-level cache while those of A go by; all, if they are few
    block = k.where(few, columns, k.integer(k.lanes))
    with k.loop(0, columns, block) as first_column:
        end = k.minimum(first_column + block, columns)
        start: Any = k.integer(0)
        for height in (4, 2, 1):
            usual = min(max(k.lanes, 2 * k.machine.tile_rows) // height, k.lanes)
            # five divide ten and twenty; only AVX-512 has registers for four times five sums
            narrow = 5 if height == 4 and k.machine.bits == 512 else usual
            stop = rows - (height - 1)
            row = k.variable(start)
            chosen_width = k.where(few, k.integer(narrow), k.integer(usual))
            for width in k.cases(chosen_width, tuple(sorted({usual, narrow}))):
                with k.loop_while(_below(row, stop)):
                    with k.loop(first_column, end, width) as next_column:
                        column = k.minimum(next_column, columns - width)
                        total = k.variables(k.zero(), height, width)
                        a_rows = [a + (row[0] + i) * a_row for i in range(height)]
                        b_rows = [b + (column + j) * b_row for j in range(width)]
                        with k.loop(0, whole) as step:
                            _multiply_rows(k, total, a_rows, b_rows, step * k.vector_bytes)
                        with k.when(inner > whole * k.lanes):
                            offset = whole * k.vector_bytes
                            _multiply_rows(k, total, a_rows, b_rows, offset, chosen)
                        target = c + row[0] * c_row + column * k.element_bytes
                        addend = k.variable(Vector(k, _lanes(k, [k.zero()], 0, width)))
                        with k.when(d.differs(0)):
                            kind = addend[0].code.type
                            part = k.load_as(d + column * k.element_bytes, kind, 1)
                            addend[0] = Vector(k, part)
                        threshold = Vector(k, _lanes(k, [thresholds], 0, width))
                        sums = [total[i, j] for i in range(height) for j in range(width)]
                        folded = [
                            _lane_sums(k, sums[first : first + k.lanes])
                            for first in range(0, len(sums), k.lanes)
                        ]
                        for i in range(height):
                            value = Vector(k, _lanes(k, folded, i * width, width)) + addend[0]
                            value = k.where(value < threshold, threshold, value)
                            k.store_as(value.code, target + i * c_row, 1)
                    row[0] = row[0] + height
            start = row[0]


def _multiply_rows(k: Kernel, total, a_rows: list[Int], b_rows: list[Int], offset, chosen=None):
    """Write total[i, j] += a_i b_j for one vector of each of the rows."""

    def load(row: Int):
        address = row + offset
        return k.load_anywhere(address) if chosen is None else k.load_lanes(address, chosen)

    factors = [load(row) for row in a_rows]
    for j, row in enumerate(b_rows):
        vector = load(row)
        for i, factor in enumerate(factors):
            total[i, j] = k.fma(factor, vector, total[i, j])


def _lane_sums(k: Kernel, vectors: list[Vector]) -> Vector:
    """Return a vector whose lane i is the sum of the lanes of vector i, 0 if there are fewer.

    Two vectors are interleaved and their halves added, until one is left: a vector's number
    becomes a lane's, bit by bit.
    """
    half = k.lanes // 2
    positions = ir.VectorType(ir.IntType(32), k.lanes)
    low = ir.Constant(positions, [p for i in range(half) for p in (i, k.lanes + i)])
    high = ir.Constant(positions, [p for i in range(half, k.lanes) for p in (i, k.lanes + i)])
    vectors = vectors + [k.zero()] * (k.lanes - len(vectors))
    while len(vectors) > 1:
        middle = len(vectors) // 2
        pairs = zip(vectors[:middle], vectors[middle:], strict=True)
        vectors = [
            Vector(k, k.builder.shuffle_vector(x.code, y.code, low))
            + Vector(k, k.builder.shuffle_vector(x.code, y.code, high))
            for x, y in pairs
        ]
    return vectors[0]


def _lanes(k: Kernel, vectors: list[Vector], first: int, count: int) -> ir.Value:
    """Return `count` neighbouring lanes of vectors that are taken for one long one."""
    number = first // k.lanes
    pair = [vectors[min(i, len(vectors) - 1)].code for i in (number, number + 1)]
    lanes = range(first - number * k.lanes, first - number * k.lanes + count)
    positions = ir.Constant(ir.VectorType(ir.IntType(32), count), list(lanes))
    return k.builder.shuffle_vector(*pair, positions)


@microkernel
def column_sums(
    k: Kernel,
    one: Real,
    source: Int,
    source_row: Int,
    source_column: Int,
    target: Int,
    target_column: Int,
    rows: Int,
    columns: Int,
) -> None:
    """target = sum over the rows of source.

    Shapes: source [rows, columns], target [columns], with any strides.
    Why it is fast: where elements of a row are neighbours, four vectors of columns are summed at
    once, each in four sums that don't wait for each other: a line that two vectors share is still
    in the cache for the second. Where those of a column are neighbours, a vector of rows.
    """
    adjacent = (source_column - k.element_bytes) | (target_column - k.element_bytes)
    with k.builder.if_else(adjacent.equals(0)) as (by_vectors, one_by_one):
        with by_vectors:

            def body(offset: Int, count: int, load, store) -> None:
                sums = k.variables(k.zero(), count, 4)
                fours = rows // 4 * 4

                def add(row: Int, i: int) -> None:
                    for v in range(count):
                        place = source + offset + v * k.vector_bytes + row * source_row
                        sums[v, i] = sums[v, i] + load(place)

                with k.loop(0, fours, 4) as row:
                    for i in range(4):
                        add(row + i, i)
                with k.loop(fours, rows) as row:
                    add(row, 0)
                for v in range(count):
                    total = (sums[v, 0] + sums[v, 1]) + (sums[v, 2] + sums[v, 3])
                    store(total, target + offset + v * k.vector_bytes)

            span(k, columns, body, width=4)
        with one_by_one, k.loop(0, columns) as column:
            first = source + column * source_column
            down = k.variable(k.zero())
            whole = k.where(source_row.equals(k.element_bytes), rows // k.lanes, k.integer(0))
            with k.loop(0, whole) as j:
                down[0] = down[0] + k.load_anywhere(first + j * k.vector_bytes)
            total = k.variable(k.lane_sum(down[0]))
            with k.loop(whole * k.lanes, rows) as row:
                total[0] = total[0] + k.load_real_anywhere(first + row * source_row)
            k.store_as(total[0].code, target + column * target_column, 1)


@jit_part
def multiply(
    one, itemsize, a, a_row, a_column, b, b_row, b_column, c, c_row, d, d_row,
    rows, columns, inner, relu,
):  # fmt: skip
    """C = A B + D, by panels of columns.

    B is read in place where its rows are contiguous and are not used often. Else each panel of
    it is copied once, in memory that is allocated for this call: so calls from several threads
    never share it.
    """
    lanes = VECTOR_BYTES // itemsize
    if columns == 1:  # the stride along an axis of one element may be any number
        b_column = itemsize
    rows_meet = a_column == itemsize and b_row == itemsize and d_row == 0 and columns >= lanes
    vectors = (columns + lanes - 1) // lanes
    narrow = a_column == itemsize and vectors == 2 and columns * 7 <= vectors * lanes * 5
    if rows_meet and rows * FOLD <= inner and rows <= 2 * lanes:
        products_of_rows(
            one, a, a_row, b, b_column, c, c_row, d, rows, columns, inner, relu
        )  # fmt: skip
        columns = 0
    elif rows == 1 and b_column == itemsize:
        row_times_matrix(one, a, a_column, b, b_row, c, d, columns, inner, relu)
        columns = 0
    elif narrow and rows >= 2 * TILE_ROWS and inner >= COPY_ROWS:
        # too few columns to fill two vectors: let vectors run along the inner dimension
        # an odd number of vectors: rows 4 KB apart would compete for one set of the cache
        turned_row = ((inner + lanes - 1) // lanes | 1) * VECTOR_BYTES
        turned = np.empty(2 * lanes * turned_row + VECTOR_BYTES, np.uint8)
        b_turned = (turned.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
        copy_panel(one, b, b_column, b_row, b_turned, turned_row, columns, inner)
        products_of_rows(
            one, a, a_row, b_turned, turned_row, c, c_row, d, rows, columns, inner, relu
        )  # fmt: skip
        turned[0] = 0  # Numba frees an array after its last use, and addresses are none
        columns = 0
    in_place = b_column == itemsize and rows < COPY_ROWS
    panel = TILE_COLUMNS * lanes
    block = min(inner, BLOCK_INNER) if rows > TILE_ROWS or not in_place else inner
    panel_bytes = 0 if in_place or columns == 0 else (block + lanes) * panel * itemsize
    # numbers of A that follow one another may compete for a few sets of the caches
    compete = a_column % 1024 == 0 and a_row == itemsize and inner >= COPY_ROWS
    compete = compete and rows >= COPY_ROWS and columns > panel
    a_stride = (rows + lanes - 1) // lanes * VECTOR_BYTES + VECTOR_BYTES
    scratch = np.empty(panel_bytes + (inner * a_stride if compete else 0) + VECTOR_BYTES, np.uint8)
    aligned = (scratch.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    if compete:
        copy_panel(one, a, a_column, a_row, aligned + panel_bytes, a_stride, inner, rows)
        a, a_row, a_column = aligned + panel_bytes, itemsize, a_stride
    column = 0
    while column < columns:
        width = min(panel, columns - column)
        if in_place and rows < TILE_ROWS and columns - column > 2 * panel - lanes:
            width = min(2 * panel, columns - column)
        for start in range(0, inner, block):
            count = min(block, inner - start)
            from_b, from_row = b + start * b_row + column * b_column, b_row
            if not in_place:
                from_row = (width + lanes - 1) // lanes * VECTOR_BYTES
                copy_panel(one, from_b, b_row, b_column, aligned, from_row, count, width)
                from_b = aligned
            to = c + column * itemsize
            # the first block adds D, later ones go on with what is there
            addend, addend_row = d + column * itemsize if d != 0 else 0, d_row
            if start > 0:
                addend, addend_row = to, c_row
            product_panel(
                one, a + start * a_column, a_row, a_column, from_b, from_row, to, c_row,
                addend, addend_row, rows, width, count, relu if start + count == inner else 0,
            )  # fmt: skip
        column += width
    scratch[0] = 0  # as above


@jit
def product(one, operation, itemsize, A, B, C, D, relu):
    """C = A B + D, C = A^T B with D the column sums of B, or C = A B^T, by `operation`.

    The first is the layer's forward pass, with A = X, B = W, D = b, and clips at 0 where `relu`
    is 1; the second gives the gradients of the parameters, with A = X, B = G; the third
    that of the input, with A = G, B = W; there D counts for nothing. All are array objects.
    """
    kind = dtype_of(A)
    if (
        dimensions(A) != 2 or dimensions(B) != 2 or dimensions(C) != 2
        or dtype_of(B) != kind or dtype_of(C) != kind
    ):  # fmt: skip
        return REFUSED
    # axes of A: that of C's rows, and the inner one; axes of B: the inner one, and C's columns
    a_rows, b_inner = 0, 0
    if operation == WEIGHT_GRADIENT:
        a_rows = 1
    elif operation == INPUT_GRADIENT:
        b_inner = 1
    rows, columns, inner = length(A, a_rows), length(B, 1 - b_inner), length(A, 1 - a_rows)
    if (
        inner == 0 or inner != length(B, b_inner) or rows != length(C, 0) or columns != length(C, 1)
        or (stride(C, 1) != itemsize and columns > 1) or flags(C) & WRITEABLE == 0
    ):  # fmt: skip
        return REFUSED
    d = 0
    if operation != INPUT_GRADIENT:
        if dimensions(D) != 1 or dtype_of(D) != kind or length(D, 0) != columns:
            return REFUSED
        if operation == WEIGHT_GRADIENT:
            if flags(D) & WRITEABLE == 0:
                return REFUSED
            column_sums(
                one, data(B), stride(B, 0), stride(B, 1), data(D), stride(D, 0), inner, columns
            )  # fmt: skip
        elif stride(D, 0) != itemsize and columns > 1:
            return REFUSED
        else:
            d = data(D)
    multiply(
        one, itemsize, data(A), stride(A, a_rows), stride(A, 1 - a_rows),
        data(B), stride(B, b_inner), stride(B, 1 - b_inner), data(C), stride(C, 0), d, 0,
        rows, columns, inner, relu,
    )  # fmt: skip
    return DONE
