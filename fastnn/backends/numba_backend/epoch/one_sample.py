"""Batches of one sample: an update of the weights and the next product with them, in one pass.

A step with one sample computes little for each number of W and moves all of it three times: the
product reads it, the update reads and writes it. So the update of the first layer waits for the
next sample, and a row of W is multiplied by that sample as soon as it has been changed:

    W -= rate * P^T G,  Z = X W

where P is the sample before and G the gradient that it left. Only the first layer can wait: of
the others, the step of the layer below reads W in between.
"""

from __future__ import annotations

from ..jit import jit_part, operation, record_at
from ..kernels.rows import clear, put_real, real_at
from ..language import Address, Kernel, Matrix, Real
from ..microkernel import microkernel, shifted, submatrix

ROWS_AT_ONCE = 64
"""Rows of W that are passed through tile by tile, so that it is read in long stretches."""


@microkernel
def update_then_product(
    k: Kernel, alpha: Real, p: Address, g: Address, x: Address, W: Matrix, z: Address
) -> None:
    """W += alpha * P^T G, then Z += X W.

    Shapes: P and X [rows], W [rows, columns], G and Z [columns]; at most MACHINE.scatter_vectors
    whole vectors of columns.
    Why it is fast: G and Z stay in registers, and each number of W is read and written once.
    """
    scale = k.broadcast(alpha)
    for width in k.cases(k.vectors(W), range(1, k.machine.scatter_vectors + 1)):
        gradient = [scale * k.load(g + j * k.vector_bytes) for j in range(width)]
        total = k.variables(k.zero(), width)
        for j in range(width):
            total[j] = k.load(z + j * k.vector_bytes)
        with k.loop(0, W.rows) as row:
            before = k.broadcast(k.load_real(p + row * k.element_bytes))
            now = k.broadcast(k.load_real(x + row * k.element_bytes))
            for j in range(width):
                address = W.row(row) + j * k.vector_bytes
                weights = k.fma(before, gradient[j], k.load(address))
                k.store(weights, address)
                total[j] = k.fma(now, weights, total[j])
        for j in range(width):
            k.store(total[j], z + j * k.vector_bytes)


@jit_part
def nothing_waits(one, layer):
    """Prepare a layer for its first sample: an update by zeros changes nothing."""
    put_real(type(one)(0), layer.waiting_factor)
    clear(one, layer.waiting)
    # what the call before left may be infinite, and zero times infinity is NaN
    clear(one, submatrix(layer.gradient, 0, 0, 1, layer.gradient.columns))


@operation
def update_and_multiply(one, record, parameters, itemsize):
    """W -= rate * P^T G, then slot = X W, for the first layer, which is in one chunk."""
    layer = record_at(record, 0)
    factor = real_at(one, layer.waiting_factor)
    weights = shifted(layer.weights, parameters)
    columns = layer.weights.columns
    clear(one, submatrix(layer.slots, 0, 0, 1, columns))
    for unit in range(0, layer.input_units, ROWS_AT_ONCE):
        units = min(ROWS_AT_ONCE, layer.input_units - unit)
        for column in range(0, columns, layer.scatter_tile):
            offset = column * itemsize
            W = submatrix(weights, unit, column, units, min(layer.scatter_tile, columns - column))
            update_then_product(
                factor, layer.waiting.address + unit * itemsize, layer.gradient.address + offset,
                layer.inputs.address + unit * itemsize, W, layer.slots.address + offset,
            )  # fmt: skip
    # the sample that was multiplied is the next whose update waits; the other row takes a new one
    inputs, waiting = layer.inputs, layer.waiting
    inputs.address, waiting.address = waiting.address, inputs.address
