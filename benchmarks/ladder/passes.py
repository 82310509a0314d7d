"""The passes that rungs 9 and 10 have in common: calls of the package's kernels, and no loops but
over tiles."""

from fastnn.backends.numba_backend.epoch.forward import tile_of
from fastnn.backends.numba_backend.jit import jit_part
from fastnn.backends.numba_backend.kernels.loading import load_nonzeros
from fastnn.backends.numba_backend.kernels.relu import IDENTITY, RELU, TERM, activate
from fastnn.backends.numba_backend.kernels.rows import (
    add_column_sums,
    nonzero_bits,
    transpose,
    turn_bits,
)
from fastnn.backends.numba_backend.kernels.softmax import softmax_cross_entropy
from fastnn.backends.numba_backend.kernels.sparse import backward_by_unit, gather
from fastnn.backends.numba_backend.machine import MACHINE
from fastnn.backends.numba_backend.microkernel import submatrix, transposed

ALONE, IN_PAIRS = MACHINE.gather_vectors, MACHINE.scatter_vectors
"""Vectors of a row that `gather` holds in registers."""
TERM_BYTES = TERM.itemsize
UNITS_AT_ONCE = 128
"""Rows of the weights that stay in the first-level cache: two words of bits."""


@jit_part
def gather_tiles(scale, V, bits, M, C, rows_at_once, keep, tile):
    """C = keep C + scale V M, tile by tile of columns."""
    for column in range(0, M.columns, tile):
        width = min(tile, M.columns - column)
        gather(
            scale, V, bits, submatrix(M, 0, column, M.rows, width),
            submatrix(C, 0, column, C.rows, width), rows_at_once, keep,
            submatrix(M, 0, column, 0, width),
        )  # fmt: skip


@jit_part
def multiply_by_bits(one, s, X, bits, W, Z):
    """Z = X W, sample by sample, of X only what is not zero."""
    tile = tile_of(W.columns, ALONE * s.lanes, s.lanes)
    for unit in range(0, X.columns, UNITS_AT_ONCE):
        units = min(UNITS_AT_ONCE, X.columns - unit)
        gather_tiles(
            one, submatrix(X, 0, unit, X.rows, units),
            submatrix(bits, 0, unit // 64, X.rows, (units + 63) // 64),
            submatrix(W, unit, 0, units, W.columns), Z, 1, 0 if unit == 0 else 1, tile,
        )  # fmt: skip


@jit_part
def turn(bits, by_unit):
    """Say by unit what is said by sample, 64 units at a time."""
    for word in range(bits.columns):
        turn_bits(
            submatrix(bits, 0, word, bits.rows, 1), submatrix(by_unit, 64 * word, 0, 64, 1)
        )  # fmt: skip


@jit_part
def forward(one, s, samples):
    """Take samples through both hidden layers; note what is not zero."""
    load_nonzeros(one, samples, s.row_bytes, 0, 0, s.code, s.X, s.bits0)
    turn(s.bits0, s.by_unit0)
    multiply_by_bits(one, s, s.X, s.bits0, s.W1, s.A1)
    activate(one, s.terms, 1, s.b1, RELU, s.A1)
    nonzero_bits(one, s.A1, s.bits1)
    turn(s.bits1, s.by_unit1)
    multiply_by_bits(one, s, s.A1, s.bits1, s.W2, s.A2)
    activate(one, s.terms + TERM_BYTES, 1, s.b2, RELU, s.A2)


@jit_part
def gradient_of_loss(one, s, labels):
    """Add the biases of the last layer, and compute G3."""
    activate(one, s.terms + 2 * TERM_BYTES, 1, s.b3, IDENTITY, s.Z)
    share = one / type(one)(s.Z.rows)
    softmax_cross_entropy(share, s.Z, s.G3, labels, s.predictions, s.margins, s.sums)


@jit_part
def backward(factor, s):
    """W += factor X^T G, b += factor sum(G), from G3 and G2 on, but for W3."""
    one = type(factor)(1)
    add_column_sums(factor, s.G3, s.b3)
    add_column_sums(factor, s.G2, s.b2)
    backward_by_unit(
        factor, transposed(s.A1), s.by_unit1, s.G2, s.W2, s.turned1, s.dots, 0
    )  # fmt: skip
    transpose(one, s.turned1, s.G1)
    add_column_sums(factor, s.G1, s.b1)
    tile = tile_of(s.W1.columns, IN_PAIRS * s.lanes, s.lanes)
    gather_tiles(factor, transposed(s.X), s.by_unit0, s.G1, s.W1, 2, 1, tile)
