"""What parts of a step read out of a layer's record where it takes more than a field."""

from __future__ import annotations

from ..jit import jit_part
from ..kernels.rows import integer_at
from ..microkernel import shifted, submatrix


@jit_part
def chunk_at(layer, chunk):
    """Return where a chunk of the input units begins, and where it ends."""
    starts = layer.chunk_units
    return integer_at(starts + 8 * chunk), integer_at(starts + 8 * (chunk + 1))


@jit_part
def rows_of_weights(layer, parameters, unit, units):
    """Return some rows of W, where they lie among the parameters."""
    return submatrix(shifted(layer.weights, parameters), unit, 0, units, layer.weights.columns)


@jit_part
def weights_to_multiply(layer, parameters):
    """Return W, or the copy of it that is rounded to bfloat16; its address is that in memory."""
    weights = shifted(layer.weights, parameters)
    if layer.round_weights != 0:
        weights = shifted(layer.rounded_weights, 0)
    return weights
