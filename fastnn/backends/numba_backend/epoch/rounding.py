"""The first layer in bfloat16, where it skips zeros: float32 is multiplied, but rounded before.

Kernels that skip zeros have no use for pairs. So that both backends follow one rule of rounding,
they get operands that are rounded to bfloat16, in float32: the inputs where they lie, and copies of
weights and gradient. Of the weights those rows are copied again that have moved.
"""

from __future__ import annotations

from ..jit import operation, record_at
from ..kernels.bfloat16 import round_rows
from ..microkernel import nothing, submatrix
from .layer import rows_of_weights


@operation
def round_inputs(one, record, first, stop):
    """X = X rounded: own units, samples `first` to `stop`, one group."""
    layer = record_at(record, 0)
    unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
    X = submatrix(layer.inputs, first, unit, stop - first, units)
    round_rows(one, X, nothing(), X)


@operation
def round_weights(one, record, parameters, count):
    """Renew the copy of own rows of W: of those which `count` samples have moved, of all for 0."""
    layer = record_at(record, 0)
    unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
    moved = nothing()
    if count != 0:
        moved = submatrix(layer.bits_by_unit, unit, 0, units, (count + 63) // 64)
    W = rows_of_weights(layer, parameters, unit, units)
    copy = submatrix(layer.rounded_weights, unit, 0, units, layer.weights.columns)
    round_rows(one, W, moved, copy)


@operation
def round_gradient(one, record, count):
    """Copy the gradient, rounded: all of it, as own units want it."""
    layer = record_at(record, 0)
    G = submatrix(layer.gradient, 0, 0, count, layer.weights.columns)
    round_rows(one, G, nothing(), layer.multiplied_gradient)
