"""Sums of squares, in float64 whatever is squared."""

from __future__ import annotations

from llvmlite import ir

from ..language import DOUBLE, INT32, Address, Int, Kernel, Real, Vector, pairwise_sum
from ..microkernel import microkernel

SUMS = 4
"""Partial sums of `add_squares`."""


@microkernel
def add_squares(k: Kernel, like: Real, x: Address, count: Int, target: Address) -> None:
    """target = sum of the squares of x, [count], as one number of 64 bits.

    Why it is fast: four sums hide the latency of an addition.
    """
    whole = count // (SUMS * k.lanes) * SUMS
    sums = k.variables(wide_zero(k), SUMS)

    def add(vector: Vector, place: int) -> None:
        sums[place] = sums[place] + wide_square(k, vector)

    with k.loop(0, whole, SUMS) as j:
        for place in range(SUMS):
            add(k.load_anywhere(x + (j + place) * k.vector_bytes), place)
    with k.loop(whole * k.lanes, count, k.lanes) as start:
        chosen = k.lane_before(count - start)
        add(k.load_lanes(x + start * k.element_bytes, chosen), 0)
    store_wide_sum(k, (sums[0] + sums[1]) + (sums[2] + sums[3]), target)


def wide_zero(k: Kernel) -> Vector:
    """Zeros in float64, as many as a vector holds numbers."""
    return Vector(k, ir.Constant(ir.VectorType(DOUBLE, k.lanes), [0.0] * k.lanes))


def wide_square(k: Kernel, vector: Vector) -> Vector:
    """The squares of a vector in float64: those of 1e20 are beyond float32."""
    wide = vector
    if k.element != DOUBLE:
        wide = Vector(k, k.builder.fpext(vector.code, ir.VectorType(DOUBLE, k.lanes)))
    return wide * wide


def store_wide_sum(k: Kernel, total: Vector, target: Address) -> None:
    """Store the sum of a vector in float64 as one number of 64 bits."""
    lanes = [
        Vector(k, k.builder.extract_element(total.code, ir.Constant(INT32, lane)))
        for lane in range(k.lanes)
    ]
    k.store_as(pairwise_sum(lanes).code, target, 8)
