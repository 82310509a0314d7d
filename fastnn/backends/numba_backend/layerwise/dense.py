"""Kernels of the fully connected layer, for matrices as a user has them.

All three products of the layer are one kernel, C = A B + D, whose operands are matrices of any
strides, so that a transposed operand is the same memory with its strides exchanged:

    forward           Y  = X   W   + b
    weight gradient   dW = X^T G
    input gradient    dX = G   W^T

Strides and addresses may be any number; C has rows of neighbouring elements.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from llvmlite import ir

from fastnn.guards import CHECKED

from ..jit import jit, jit_part
from ..kernels.matmul import register_tile, row_tiles, strided
from ..kernels.relu import clip_threshold
from ..kernels.rows import span
from ..language import INT32, INT64, Address, Int, Kernel, Matrix, Real, Vector
from ..machine import MACHINE, VECTOR_BYTES
from ..microkernel import allow, matrix_at, microkernel, submatrix, transposed
from .arrays import (
    DONE,
    NO_MEMORY,
    REFUSED,
    WRITEABLE,
    data,
    dimensions,
    dtype_of,
    flags,
    length,
    matrix,
    stride,
)

FORWARD, WEIGHT_GRADIENT, INPUT_GRADIENT = 0, 1, 2
"""The operations of `product`."""

TILE_ROWS = MACHINE.tile_rows
TILE_COLUMNS = MACHINE.tile_columns

PANEL_ROWS = 256
"""Rows of a copied panel of B, which then stays in the first two levels of cache."""
FOLD = 12
"""Adding the lanes of a sum costs as much as this many rows of the inner dimension cost to copy."""
COPY_ROWS = 64
"""From this many rows of A on, a panel of B is copied even if its rows could be read in place."""


@microkernel
def product_panel(
    k: Kernel, like: Real, A: Matrix, B: Matrix, C: Matrix, D: Matrix, relu: Int
) -> None:
    """C = A B + D, clipped at 0 where `relu` is 1; without D where its address is 0.

    Columns fill 1, 2, 3 or 6 vectors (in units of MACHINE.tile_columns: 3), the last of them maybe
    in part. Rows of B, C and D hold neighbouring elements; A has any strides. D may be C, and with
    a row stride of 0 it is a row of biases.
    Why it is fast: a tile of C stays in registers. A is read number by number, so its strides
    and its alignment cost nothing. With 8 rows by 3 vectors there are 24 multiply-adds for
    11 loads, which leaves room for those loads of B that straddle two cache lines: nothing
    needs to be copied to be aligned. With few rows the tile is twice as wide, so that a row
    of B, which is used once or twice, is read in longer stretches.
    ReLU keeps NaN: x < 0 ? 0 : x.
    Tried and lost: half a vector for columns that fill no more; the loads of A set the pace then.
    """
    full = k.machine.tile_columns
    last = (C.columns - 1) // k.lanes
    chosen = k.lane_before(C.columns - last * k.lanes)
    threshold = clip_threshold(k, relu)
    for width in k.cases(last + 1, (*range(1, full + 1), 2 * full)):
        highest = k.machine.tile_rows if width <= full else k.machine.tile_rows // 2

        def load(row: Int, j: int, width: int = width) -> Vector:
            vector: Vector = _load(k, row, j, width, chosen)
            return vector

        for row, height in row_tiles(k, C.rows, highest):
            total = register_tile(k, height, width, strided(k, A)(row, 0, height), B, load)
            places = list(itertools.product(range(height), range(width)))
            with k.when(D.address.differs(0)):
                for i, j in places:
                    total[i, j] = total[i, j] + load(D.row(row + i), j)
            for i, j in places:
                value = k.maximum(threshold, total[i, j])
                _store(k, value, C.row(row + i), j, width, chosen)


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
    k: Kernel, like: Real, A: Matrix, B: Matrix, C: Matrix, D: Matrix, relu: Int
) -> None:
    """C = A B + D for one row A, clipped at 0 where `relu` is 1; no D where its address is 0.

    Rows of B, C and D hold neighbouring elements.
    Why it is fast: B is read once, from the first row to the last, a few rows side by side, which
    is the order that prefetching serves best. C lies in the first-level cache.
    Tried and lost: tiles of C in registers, up to twelve vectors wide, each with a pass through B.
    """
    last = k.vectors(C) - 1
    chosen = k.lane_before(C.columns - last * k.lanes)
    threshold = clip_threshold(k, relu)
    start = k.variable(k.integer(0))
    # six: of rows 4 KB apart, eight would fill a set of the first-level cache, and C needs a place
    for height in (6, 1):
        with k.loop_while(_below(start, B.rows - (height - 1))):
            rows = [B.row(start[0] + i) for i in range(height)]
            factors = [
                k.broadcast(k.load_real_anywhere(A.address + (start[0] + i) * A.column_stride))
                for i in range(height)
            ]
            ends = k.where((start[0] + height).equals(B.rows), threshold, k.constant(-math.inf))
            # the first rows add D, later ones go on with what is there
            before = k.where(start[0].equals(0), D.address, C.address)

            def step(offset, load, store, rows=rows, factors=factors, ends=ends, before=before):
                sums = k.variables(k.zero(), 2)
                with k.when(before.differs(0)):
                    sums[0] = load(before + offset)
                for i, (row, factor) in enumerate(zip(rows, factors, strict=True)):
                    sums[i % 2] = k.fma(factor, load(row + offset), sums[i % 2])
                total = sums[0] + sums[1] if len(rows) > 1 else sums[0]
                store(k.where(total < ends, ends, total), C.address + offset)

            with k.loop(0, last) as j:
                step(j * k.vector_bytes, k.load_anywhere, k.store_anywhere)
            step(last * k.vector_bytes, *k.masked(chosen))
            start[0] = start[0] + height


@microkernel
def copy_panel(k: Kernel, like: Real, B: Matrix, target: Matrix) -> None:
    """target = B, in whole aligned vectors.

    B has any strides; the target has space for rows rounded up to a multiple of the lanes.
    Where B's columns are contiguous (it is a transposed matrix), squares are transposed in
    registers.
    """
    inner, columns, vectors = B.rows, B.columns, k.vectors(B)
    whole = columns // k.lanes
    by_rows = B.column_stride.equals(k.element_bytes)
    by_columns = B.row_stride.equals(k.element_bytes)

    def copy_numbers(first: Int) -> None:
        """Write the copy of the rows from `first` on, number by number."""
        with k.loop(first, inner) as row:
            place = target.row(row)
            k.store(k.zero(), place + (vectors - 1) * k.vector_bytes)
            with k.loop(0, columns) as column:
                number = k.load_real_anywhere(B.row(row) + column * B.column_stride)
                k.store_real(number, place + column * k.element_bytes)

    with k.if_else(by_rows) as (rows_contiguous, otherwise):
        with rows_contiguous:
            chosen = k.lane_before(columns - whole * k.lanes)
            with k.loop(0, inner) as row:
                source, place = B.row(row), target.row(row)
                with k.loop(0, whole) as j:
                    vector = k.load_anywhere(source + j * k.vector_bytes)
                    k.store(vector, place + j * k.vector_bytes)
                with k.when(columns > whole * k.lanes):
                    vector = k.load_lanes(source + whole * k.vector_bytes, chosen)
                    k.store(vector, place + whole * k.vector_bytes)
        with otherwise, k.if_else(by_columns) as (columns_contiguous, neither):
            with columns_contiguous:
                # a few last rows are not worth a square
                rest = inner - inner // k.lanes * k.lanes
                single = k.where(rest > k.lanes // 4, k.integer(0), rest)
                blocks = (inner - single + (k.lanes - 1)) // k.lanes
                with k.loop(0, vectors) as j, k.loop(0, blocks) as block:
                    chosen = k.lane_before(inner - block * k.lanes)
                    source = B.address + block * k.vector_bytes
                    numbers = [k.minimum(j * k.lanes + i, columns - 1) for i in range(k.lanes)]
                    rows = [
                        k.load_lanes(source + number * B.column_stride, chosen)
                        for number in numbers
                    ]
                    square = target.shifted(
                        block * k.lanes * target.row_stride + j * k.vector_bytes
                    )
                    for i, vector in enumerate(k.transpose(rows)):
                        k.store(vector, square.row(i))
                copy_numbers(inner - single)
            with neither:
                copy_numbers(k.integer(0))


@microkernel
def products_of_rows(
    k: Kernel, like: Real, A: Matrix, B: Matrix, C: Matrix, D: Matrix, relu: Int
) -> None:
    """C = A B^T + D, each element of A B^T the product of two rows; clipped at 0 if `relu` is 1.

    All have rows of neighbouring elements; D has one row, and there is none where its address is 0;
    C has at least as many columns as a vector has lanes. The input gradient of a small batch, with
    B the weights.
    Why it is fast: the weights, which are far more than all else, are read once and as they lie;
    a transposed copy of them would not be used often enough to pay. A vector runs along the
    inner dimension. At least as many sums as a vector has lanes are kept, for 4, 2 or 1 rows of A
    by several of B, and a vector's worth of them is folded into one vector at the end. Where B has
    few rows, all of them go by before the next of A, five at a time: ten outputs leave no rest.
    The last columns may overlap those before.
    Tried and lost: transposing the sums and adding them, which takes nearly twice the shuffles;
    cutting the inner dimension into blocks that fit the first-level cache.
    """
    columns, inner = C.columns, A.columns
    whole = inner // k.lanes
    chosen = k.lane_before(inner - whole * k.lanes)
    thresholds = clip_threshold(k, relu)
    few = columns < 2 * k.lanes
    # rows of B that stay in the first-level cache while those of A go by; all, if they are few
    block = k.where(few, columns, k.integer(k.lanes))
    with k.loop(0, columns, block) as first_column:
        end = k.minimum(first_column + block, columns)
        start: Any = k.integer(0)
        for height in (4, 2, 1):
            usual = min(max(k.lanes, 2 * k.machine.tile_rows) // height, k.lanes)
            # five divide ten and twenty; only AVX-512 has registers for four times five sums
            narrow = 5 if height == 4 and k.machine.vector_bits == 512 else usual
            stop = A.rows - (height - 1)
            row = k.variable(start)
            chosen_width = k.where(few, k.integer(narrow), k.integer(usual))
            for width in k.cases(chosen_width, tuple(sorted({usual, narrow}))):
                with k.loop_while(_below(row, stop)):
                    with k.loop(first_column, end, width) as next_column:
                        column = k.minimum(next_column, columns - width)
                        total = k.variables(k.zero(), height, width)
                        a_rows = [A.row(row[0] + i) for i in range(height)]
                        b_rows = [B.row(column + j) for j in range(width)]
                        with k.loop(0, whole) as step:
                            _multiply_rows(k, total, a_rows, b_rows, step * k.vector_bytes)
                        with k.when(inner > whole * k.lanes):
                            offset = whole * k.vector_bytes
                            _multiply_rows(k, total, a_rows, b_rows, offset, chosen)
                        target = C.shifted(row[0] * C.row_stride + column * k.element_bytes)
                        addend = k.variable(Vector(k, _lanes(k, [k.zero()], 0, width)))
                        with k.when(D.address.differs(0)):
                            kind = addend[0].code.type
                            part = k.load_as(D.address + column * k.element_bytes, kind, 1)
                            addend[0] = Vector(k, part)
                        threshold = Vector(k, _lanes(k, [thresholds], 0, width))
                        sums = [total[i, j] for i in range(height) for j in range(width)]
                        folded = [
                            k.lane_sums(sums[first : first + k.lanes])
                            for first in range(0, len(sums), k.lanes)
                        ]
                        for i in range(height):
                            value = Vector(k, _lanes(k, folded, i * width, width)) + addend[0]
                            value = k.maximum(threshold, value)
                            k.store_as(value.code, target.row(i), 1)
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


def _lanes(k: Kernel, vectors: list[Vector], first: int, count: int) -> ir.Value:
    """Return `count` neighbouring lanes of vectors that are taken for one long one."""
    number = first // k.lanes
    pair = [vectors[min(i, len(vectors) - 1)].code for i in (number, number + 1)]
    lanes = range(first - number * k.lanes, first - number * k.lanes + count)
    positions = ir.Constant(ir.VectorType(INT32, count), list(lanes))
    return k.builder.shuffle_vector(*pair, positions)


@microkernel
def column_sums(k: Kernel, like: Real, source: Matrix, target: Address, target_stride: Int) -> None:
    """target = sum over the rows of source.

    Shapes: source [rows, columns], target [columns], with any strides.
    Why it is fast: where elements of a row are neighbours, four vectors of columns are summed at
    once, each in four sums that don't wait for each other: a line that two vectors share is still
    in the cache for the second. Where those of a column are neighbours, a vector of rows.
    """
    rows = source.rows
    adjacent = (source.column_stride - k.element_bytes) | (target_stride - k.element_bytes)
    with k.if_else(adjacent.equals(0)) as (by_vectors, one_by_one):
        with by_vectors:

            def body(offset: Int, count: int, load, store) -> None:
                sums = k.variables(k.zero(), count, 4)
                fours = rows // 4 * 4

                def add(row: Int, i: int) -> None:
                    for v in range(count):
                        place = source.row(row) + offset + v * k.vector_bytes
                        sums[v, i] = sums[v, i] + load(place)

                with k.loop(0, fours, 4) as row:
                    for i in range(4):
                        add(row + i, i)
                with k.loop(fours, rows) as row:
                    add(row, 0)
                for v in range(count):
                    total = (sums[v, 0] + sums[v, 1]) + (sums[v, 2] + sums[v, 3])
                    store(total, target + offset + v * k.vector_bytes)

            span(k, source.columns, body, width=4)
        with one_by_one, k.loop(0, source.columns) as column:
            first = source.shifted(column * source.column_stride)
            down = k.variable(k.zero())
            together = source.row_stride.equals(k.element_bytes)
            whole = k.where(together, rows // k.lanes, k.integer(0))
            with k.loop(0, whole) as j:
                down[0] = down[0] + k.load_anywhere(first.address + j * k.vector_bytes)
            total = k.variable(k.lane_sum(down[0]))
            with k.loop(whole * k.lanes, rows) as row:
                total[0] = total[0] + k.load_real_anywhere(first.row(row))
            k.store_as(total[0].code, target + column * target_stride, 1)


@microkernel
def allocate(k: Kernel, nbytes: Int) -> Int:
    """The address of new memory, 0 where there is none."""
    return Int(k, k.builder.call(k.function("PyMem_RawMalloc", INT64, [INT64]), [nbytes.code]))


@microkernel
def release(k: Kernel, address: Int) -> None:
    """Give memory back."""
    k.builder.call(k.function("PyMem_RawFree", ir.VoidType(), [INT64]), [address.code])


@jit_part
def scratch_memory(nbytes):
    """Memory for this call, which kernels may touch in the checked build, and which is filled."""
    memory = allocate(nbytes)
    if CHECKED and memory != 0:
        allow(memory, nbytes)
    return memory


@jit_part
def aligned(address):
    """The first address from this one on at which vectors may lie; less than a vector further."""
    return (address + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES


@jit_part
def multiply(one, itemsize, A, B, C, D, relu):
    """C = A B + D, by the kernel that serves the shapes best; says whether there was memory.

    Memory is of the call, so calls from several threads never share it.
    """
    lanes = VECTOR_BYTES // itemsize
    rows, columns, inner = C.rows, C.columns, B.rows
    if columns == 1:  # the stride along an axis of one element may be any number
        B = matrix_at(B.address, B.row_stride, itemsize, inner, columns)
    a_rows_meet = A.column_stride == itemsize
    rows_meet = a_rows_meet and B.row_stride == itemsize and columns >= lanes
    vectors = (columns + lanes - 1) // lanes
    narrow = a_rows_meet and vectors == 2 and columns * 7 <= vectors * lanes * 5
    done = DONE
    if rows_meet and rows * FOLD <= inner and rows <= 2 * lanes:
        products_of_rows(one, A, transposed(B), C, D, relu)
    elif rows == 1 and B.column_stride == itemsize:
        row_times_matrix(one, A, B, C, D, relu)
    elif narrow and rows >= 2 * TILE_ROWS and inner >= COPY_ROWS:
        # too few columns to fill two vectors: let vectors run along the inner dimension
        # an odd number of vectors: rows 4 KB apart would compete for one set of the cache
        row_bytes = ((inner + lanes - 1) // lanes | 1) * VECTOR_BYTES
        memory = scratch_memory(2 * lanes * row_bytes + VECTOR_BYTES)
        if memory == 0:
            done = NO_MEMORY
        else:
            by_columns = matrix_at(aligned(memory), row_bytes, itemsize, columns, inner)
            copy_panel(one, transposed(B), by_columns)
            products_of_rows(one, A, by_columns, C, D, relu)
            release(memory)
    else:
        done = multiply_by_panels(one, itemsize, lanes, A, B, C, D, relu)
    return done


@jit_part
def multiply_by_panels(one, itemsize, lanes, A, B, C, D, relu):
    """C = A B + D, by panels of columns; says whether there was memory.

    B is read in place where its rows are contiguous and are not used often. Else each panel of
    it is copied once.
    """
    rows, columns, inner = C.rows, C.columns, B.rows
    in_place = B.column_stride == itemsize and rows < COPY_ROWS
    panel = TILE_COLUMNS * lanes
    block = min(inner, PANEL_ROWS) if rows > TILE_ROWS or not in_place else inner
    panel_bytes = 0 if in_place else (block + lanes) * panel * itemsize
    # numbers of A that follow one another may compete for a few sets of the caches
    compete = A.column_stride % 1024 == 0 and A.row_stride == itemsize and inner >= COPY_ROWS
    compete = compete and rows >= COPY_ROWS and columns > panel
    a_stride = (rows + lanes - 1) // lanes * VECTOR_BYTES + VECTOR_BYTES
    memory_bytes = panel_bytes + (inner * a_stride if compete else 0)
    memory = 0
    if memory_bytes != 0:
        memory = scratch_memory(memory_bytes + VECTOR_BYTES)
    done = DONE
    if memory == 0 and memory_bytes != 0:
        columns = 0
        done = NO_MEMORY
    elif compete:
        A_copied = matrix_at(aligned(memory) + panel_bytes, itemsize, a_stride, rows, inner)
        copy_panel(one, transposed(A), transposed(A_copied))
        A = A_copied
    column = 0
    while column < columns:
        width = min(panel, columns - column)
        if in_place and rows < TILE_ROWS and columns - column > 2 * panel - lanes:
            width = min(2 * panel, columns - column)
        for start in range(0, inner, block):
            count = min(block, inner - start)
            B_panel = submatrix(B, start, column, count, width)
            if not in_place:
                row_bytes = (width + lanes - 1) // lanes * VECTOR_BYTES
                copied = matrix_at(aligned(memory), row_bytes, itemsize, count, width)
                copy_panel(one, B_panel, copied)
                B_panel = copied
            C_panel = submatrix(C, 0, column, rows, width)
            # the first block adds D, later ones go on with what is there
            addend = C_panel
            if start == 0:
                addend = submatrix(D, 0, column, rows, width) if D.address != 0 else D
            product_panel(
                one, submatrix(A, 0, start, rows, count), B_panel, C_panel, addend,
                relu if start + count == inner else 0,
            )  # fmt: skip
        column += width
    if memory != 0:
        release(memory)
    return done


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
    left, right, target = matrix(A), matrix(B), matrix(C)
    if operation == WEIGHT_GRADIENT:
        left = transposed(left)
    elif operation == INPUT_GRADIENT:
        right = transposed(right)
    columns = right.columns
    if (
        left.columns == 0 or columns == 0 or left.columns != right.rows
        or left.rows != target.rows or columns != target.columns
        or (target.column_stride != itemsize and columns > 1) or flags(C) & WRITEABLE == 0
    ):  # fmt: skip
        return REFUSED
    biases = matrix_at(0, 0, itemsize, 1, columns)
    if operation != INPUT_GRADIENT:
        if dimensions(D) != 1 or dtype_of(D) != kind or length(D, 0) != columns:
            return REFUSED
        if operation == WEIGHT_GRADIENT:
            if flags(D) & WRITEABLE == 0:
                return REFUSED
            column_sums(one, right, data(D), stride(D, 0))
        elif stride(D, 0) != itemsize and columns > 1:
            return REFUSED
        else:
            biases = matrix_at(data(D), 0, itemsize, 1, columns)
    return multiply(one, itemsize, left, right, target, biases, relu)
