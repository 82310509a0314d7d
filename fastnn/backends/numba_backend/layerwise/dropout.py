"""The kernel of dropout."""

from __future__ import annotations

from ..jit import jit
from ..kernels.philox import BLOCK_WORDS, kept, random_words
from ..kernels.rows import span
from ..language import Int, Kernel, Matrix, Real, matrix_at, microkernel
from .arrays import DONE, REFUSED, data, is_rows, length, matrix


@microkernel
def drop(k: Kernel, scale: Real, X: Matrix, Y: Matrix, words: Matrix, threshold: Int) -> None:
    """Y = scale X where the element's word is at least `threshold`, else 0.

    Shapes: X and Y [rows, columns], rows of neighbouring elements; words [rows, columns] of 32
    bits, and a vector's length of more memory behind them.
    """
    scales = k.broadcast(scale)
    with k.loop(0, X.rows) as row:
        source, target, mask = X.row(row), Y.row(row), words.row(row)

        def body(offset: Int, count: int, load, store, source=source, target=target, mask=mask):
            chosen = kept(k, mask + offset // (k.element_bytes // 4), threshold)
            store(k.where(chosen, scales * load(source + offset), k.zero()), target + offset)

        span(k, X.columns, body)


@jit
def run(scale, itemsize, X, Y, words, key, step, threshold):
    """Run `drop` on array objects, after drawing the words. Y is without gaps."""
    if not is_rows(itemsize, X):
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    blocks = (rows * columns + BLOCK_WORDS - 1) // BLOCK_WORDS
    random_words(key, step, 0, blocks, data(words))
    drawn = matrix_at(data(words), 4 * columns, 4, rows, columns)
    drop(scale, matrix(X), matrix(Y), drawn, threshold)
    return DONE
