"""Dropout of array objects."""

from __future__ import annotations

from ..jit import jit
from ..kernels.dropout import drop
from ..kernels.philox import BLOCK_WORDS, random_words
from ..microkernel import matrix_at
from .arrays import DONE, REFUSED, data, is_rows, length, matrix


@jit
def dropout(scale, itemsize, X, Y, words, key, step, threshold):
    """Run `drop` on array objects, after drawing the words. Y is without gaps."""
    if not is_rows(itemsize, X):
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    blocks = (rows * columns + BLOCK_WORDS - 1) // BLOCK_WORDS
    random_words(key, step, 0, blocks, data(words))
    drawn = matrix_at(data(words), 4 * columns, 4, rows, columns)
    drop(scale, matrix(X), drawn, threshold, matrix(Y))
    return DONE
