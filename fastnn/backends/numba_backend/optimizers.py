"""Kernels that move parameters; they see the flat vector, padding and all."""

from __future__ import annotations

from .arrays import (
    DONE,
    REFUSED,
    WRITEABLE,
    data,
    dimensions,
    dtype_of,
    flags,
    length,
    stride,
)
from .jit import jit
from .simd import Int, Kernel, Real, microkernel


@microkernel
def add_multiple(
    k: Kernel,
    factor: Real,
    source: Int,
    source_step: Int,
    target: Int,
    target_step: Int,
    count: Int,
) -> None:
    """target += factor * source.

    Shapes: source and target [count], steps in bytes.
    Why it is fast: one pass, no temporary vector.
    """
    adjacent = (source_step - k.element_bytes) | (target_step - k.element_bytes)
    whole = count // k.lanes
    factors = k.broadcast(factor)
    with k.builder.if_else(adjacent.equals(0)) as (by_vectors, one_by_one):
        with by_vectors:
            with k.loop(0, whole) as j:
                offset = j * k.vector_bytes
                step = factors * k.load_anywhere(source + offset)
                k.store_anywhere(k.load_anywhere(target + offset) + step, target + offset)
            with k.when(count > whole * k.lanes):
                offset = whole * k.vector_bytes
                chosen = k.lane_before(count - whole * k.lanes)
                step = factors * k.load_lanes(source + offset, chosen)
                total = k.load_lanes(target + offset, chosen) + step
                k.store_lanes(total, target + offset, chosen)
        with one_by_one, k.loop(0, count) as i:
            number = k.load_real_anywhere(source + i * source_step)
            before = k.load_real_anywhere(target + i * target_step)
            k.store_as((before + factor * number).code, target + i * target_step, 1)


@jit
def sgd(learning_rate, itemsize, parameters, gradient):
    """parameters <- parameters - learning_rate gradient; the arguments are array objects."""
    if (
        dimensions(parameters) != 1 or dimensions(gradient) != 1
        or length(parameters, 0) != length(gradient, 0)
        or dtype_of(parameters) != dtype_of(gradient)
        or flags(parameters) & WRITEABLE == 0
    ):  # fmt: skip
        return REFUSED
    count, target, source = length(parameters, 0), data(parameters), data(gradient)
    to, by = stride(parameters, 0), stride(gradient, 0)
    if source != target or to != by:
        # memory in common, but not element by element: a step would read what another wrote
        low, high = min(target, target + (count - 1) * to), max(target, target + (count - 1) * to)
        first, last = min(source, source + (count - 1) * by), max(source, source + (count - 1) * by)
        if first < high + itemsize and low < last + itemsize:
            return REFUSED
    if count == 1:
        to = by = itemsize
    add_multiple(-learning_rate, source, by, target, to, count)
    return DONE
