"""Dropout: which numbers of a matrix stay, by the random words of `philox.py`."""

from __future__ import annotations

from llvmlite import ir

from ..language import INT32, INT64, Condition, Int, Kernel, Matrix, Real
from ..microkernel import microkernel
from .rows import span


@microkernel
def drop(k: Kernel, factor: Real, X: Matrix, words: Matrix, threshold: Int, Y: Matrix) -> None:
    """Y = factor X where the element's word is not below `threshold`, else 0.

    Shapes: X and Y [rows, columns], rows of neighbouring elements; words [rows, columns] of 32
    bits, and a vector's length of more memory behind them.
    """
    factors = k.broadcast(factor)
    with k.loop(0, X.rows) as row:
        source, target, mask = X.row(row), Y.row(row), words.row(row)

        def body(offset: Int, count: int, load, store, source=source, target=target, mask=mask):
            chosen = _kept(k, mask + offset // (k.element_bytes // 4), threshold)
            store(k.where(chosen, factors * load(source + offset), k.zero()), target + offset)

        span(k, X.columns, body)


def _kept(k: Kernel, words: Int, threshold: Int) -> Condition:
    """Write the comparison of a vector's lanes: those whose 32-bit word is at least `threshold`.

    `words` is the address of the word of lane 0; it need not be aligned. The threshold lies from 0
    to 2^32, both included.
    """
    loaded = k.load_as(words, ir.VectorType(INT32, k.lanes), 1)
    wide = k.builder.zext(loaded, ir.VectorType(INT64, k.lanes))
    return Condition(k, k.builder.icmp_unsigned(">=", wide, k.in_every_lane(threshold.code)))
