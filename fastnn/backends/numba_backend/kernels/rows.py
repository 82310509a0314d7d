"""Work on rows: walks along them, bits of what is not zero, sums over them, messages of threads.

All of it moves each number once or twice and computes little. But for `span`, which walks along
rows as users have them, rows lie at aligned addresses and are padded: a kernel works on whole
vectors, the last of a row with what pads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..language import INT64, Address, Int, Kernel, Matrix, Real
from ..microkernel import microkernel


def span(
    k: Kernel, columns: Int, body: Callable[..., Any], width: int = 1, grouped: int | Int = 1
) -> None:
    """Write a walk along a row of `columns` numbers.

    `body(offset, count, load, store)` writes what happens to `count` vectors, the first of them
    `offset` bytes from the start of the row: `width` whole ones for as long as there are so many,
    none where `grouped` is 0, then whole ones one by one, at last a vector in part, where
    `load(address)` and `store(vector, address)` leave alone what lies beyond the row.
    """
    whole = columns // k.lanes
    first = k.integer(0)
    if width > 1:
        first = whole // width * width * grouped
        with k.loop(0, first, width) as j:
            body(j * k.vector_bytes, width, k.load_anywhere, k.store_anywhere)
    with k.loop(first, whole) as j:
        body(j * k.vector_bytes, 1, k.load_anywhere, k.store_anywhere)
    with k.loop(whole, (columns + (k.lanes - 1)) // k.lanes) as j:
        body(j * k.vector_bytes, 1, *k.masked(k.lane_before(columns - j * k.lanes)))


MESSAGE_FIELDS = (
    "source", "source_stride", "parts", "part_bytes", "target", "target_stride", "columns",
)  # fmt: skip
"""What `transfer` moves: addresses and distances in bytes, how many parts are added."""


@microkernel
def integer_at(k: Kernel, address: Address) -> Int:
    """The 64-bit integer at an address."""
    return k.load_integer(address)


@microkernel
def put_integer(k: Kernel, number: Int, address: Address) -> None:
    """Store a 64-bit integer at an address."""
    k.store_integer(number, address)


@microkernel
def real_at(k: Kernel, like: Real, address: Address) -> Real:
    """The number at an address; only the type of `like` counts."""
    return k.load_real(address)


@microkernel
def put_real(k: Kernel, number: Real, address: Address) -> None:
    """Store a number at an address."""
    k.store_real(number, address)


@microkernel
def logarithm(k: Kernel, x: Real) -> Real:
    """log x."""
    return k.call("log", x)


@microkernel
def square_root(k: Kernel, x: Real) -> Real:
    """The square root of x."""
    return k.call("sqrt", x)


@microkernel
def clear(k: Kernel, like: Real, target: Matrix) -> None:
    """target = 0."""
    with k.loop(0, target.rows) as row, k.loop(0, k.vectors(target)) as j:
        k.store(k.zero(), target.row(row) + j * k.vector_bytes)


@microkernel
def transpose(k: Kernel, like: Real, source: Matrix, target: Matrix) -> None:
    """target = source^T, square blocks of `lanes` x `lanes` transposed in registers.

    Rows and columns of the source fill whole vectors.
    Why it is fast: every line of memory is read once and written once, whole.
    """
    with k.loop(0, source.rows // k.lanes) as r, k.loop(0, source.columns // k.lanes) as c:
        block = source.shifted(r * k.lanes * source.row_stride + c * k.vector_bytes)
        rows = [k.load(block.row(i)) for i in range(k.lanes)]
        block = target.shifted(c * k.lanes * target.row_stride + r * k.vector_bytes)
        for i, column in enumerate(k.transpose(rows)):
            k.store(column, block.row(i))


@microkernel
def nonzero_bits(k: Kernel, like: Real, source: Matrix, bits: Matrix) -> None:
    """bits[row] = the set of columns in which source[row] is not zero; NaN is not zero.

    Shapes: source [rows, columns], bits [rows, 64-bit words]; column 64 w + i is bit i of word w.
    Why it is fast: a comparison gives the bits of a whole vector. A kernel that visits the
    bits which are set needs no list of indices and no copy of the values, and a
    set of samples costs eight bytes where a list costs eight for each of them.
    Tried and lost: lists made by compressing vectors; writing them takes longer than reading
    the bits, by far where compressing to memory is microcoded.
    """
    per_word = 64 // k.lanes
    vectors = k.vectors(source)
    with k.loop(0, source.rows) as row:
        first = source.row(row)
        with k.loop(0, vectors, per_word) as start:
            word = k.variable(k.integer(0))
            with k.loop(start, k.minimum(start + per_word, vectors)) as j:
                nonzero = k.load(first + j * k.vector_bytes).differs(0.0)
                word[0] = word[0] | (k.bits(nonzero) << ((j - start) * k.lanes))
            k.store_integer(word[0], bits.row(row) + start // per_word * bits.column_stride)


@microkernel
def turn_bits(k: Kernel, bits: Matrix, target: Matrix) -> None:
    """target[j] = the set of the rows in which bit j is set: 64 words of 64 bits, transposed.

    Shapes: bits [up to 64, 1 word], target [64, 1 word], both one word after the other. There are
    64 words to read; what lies behind the rows doesn't count.
    Why it is fast: words i and i + 32 exchange halves, then those that are 16, 8, 4, 2 and 1 apart
    smaller pieces, a vector of them at a time. For words that share a vector, squares of words are
    transposed before, and back at the end.
    """
    builder, lanes = k.builder, k.vector_bytes // 8
    kind = ir.VectorType(INT64, lanes)

    def every(number: int) -> ir.Value:
        return ir.Constant(kind, [number] * lanes)

    def squares(codes: list[ir.Value]) -> list[ir.Value]:
        starts = range(0, len(codes), lanes)
        return [code for i in starts for code in k.transpose_codes(codes[i : i + lanes])]

    words = [k.load_as(bits.row(i), kind, 8) for i in range(0, 64, lanes)]
    for apart in (32, 16, 8, 4, 2, 1):
        if apart == lanes // 2:
            words = squares(words)
        step = apart // lanes or apart
        # of each 2 * apart bits the lower ones
        mask = every(sum(1 << i for i in range(64) if not i & apart))
        for i in range(len(words)):
            if not i & step:
                low, high = words[i], words[i + step]
                changed = builder.xor(builder.lshr(low, every(apart)), high)
                changed = builder.and_(changed, mask)
                words[i] = builder.xor(low, builder.shl(changed, every(apart)))
                words[i + step] = builder.xor(high, changed)
    rows = k.where(bits.rows.equals(64), k.integer(-1), (k.integer(1) << bits.rows) - 1)
    for i, code in enumerate(squares(words)):
        found = builder.and_(code, k.in_every_lane(rows.code, lanes))
        k.store_as(found, target.row(i * lanes), 8)


@microkernel
def transfer(k: Kernel, like: Real, messages: Address, count: Int, rows: Int) -> None:
    """For each of `count` messages: target = the sum of its parts, one or two of them.

    Shapes: messages [count] records of MESSAGE_FIELDS, each a 64-bit integer; parts and target
    [rows, columns], whole vectors.
    """
    with k.loop(0, count) as number:
        message = messages + number * (8 * len(MESSAGE_FIELDS))
        fields = [
            k.load_address(message + 8 * i, name)
            if name in ("source", "target")
            else k.load_integer(message + 8 * i)
            for i, name in enumerate(MESSAGE_FIELDS)
        ]
        source, source_stride, parts, part_bytes, target, target_stride, columns = fields
        for case in k.cases(parts, (1, 2)):
            with k.loop(0, rows) as row, k.loop(0, columns // k.lanes) as j:
                address = source + row * source_stride + j * k.vector_bytes
                value = k.load(address)
                if case == 2:
                    value = value + k.load(address + part_bytes)
                k.store(value, target + row * target_stride + j * k.vector_bytes)


@microkernel
def add_column_sums(k: Kernel, scale: Real, source: Matrix, target: Address) -> None:
    """target += scale * (sum over rows of source): the step of the biases.

    Shapes: source [rows, columns], rows a multiple of 2; target [columns].
    Why it is fast: two sums, of the even and the odd rows, hide the latency of an addition.
    """
    factor = k.broadcast(scale)
    with k.loop(0, k.vectors(source)) as j:
        column = source.shifted(j * k.vector_bytes)
        sums = k.variables(k.zero(), 2)
        with k.loop(0, source.rows, 2) as row:
            for i in range(2):
                sums[i] = sums[i] + k.load(column.row(row + i))
        address = target + j * k.vector_bytes
        k.store(k.fma(factor, sums[0] + sums[1], k.load(address)), address)
