"""Steps of optimisers on array objects; they see the flat vector, padding and all."""

from __future__ import annotations

from ..jit import jit, jit_part
from ..kernels.optimizers import step_by
from ..kernels.squares import add_squares
from ..language import Address, Int, Kernel, Real
from ..microkernel import matrix_at, microkernel
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


@microkernel
def add_multiple(
    k: Kernel,
    factor: Real,
    source: Address,
    source_step: Int,
    target: Address,
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
    with k.if_else(adjacent.equals(0)) as (by_vectors, one_by_one):
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


@jit_part
def vector_like(array, itemsize, parameters):
    """Say whether an array object is a vector without gaps, as long as the parameters."""
    return (
        dimensions(array) == 1 and length(array, 0) == length(parameters, 0)
        and dtype_of(array) == dtype_of(parameters)
        and (stride(array, 0) == itemsize or length(array, 0) == 1)
    )  # fmt: skip


@jit_part
def vector_as_row(itemsize, vector):
    """A vector without gaps as a matrix of one row."""
    return matrix_at(data(vector), 0, itemsize, 1, length(vector, 0))


@jit_part
def apart(itemsize, a, b):
    """Say whether two vectors without gaps, of one length, have no memory in common."""
    return abs(data(a) - data(b)) >= length(a, 0) * itemsize


@jit_part
def can_move(itemsize, parameters, gradient, state):
    """Say whether parameters and state can be moved along a gradient, each as a whole."""
    return (
        dimensions(parameters) == 1
        and vector_like(parameters, itemsize, parameters)
        and vector_like(gradient, itemsize, parameters)
        and vector_like(state, itemsize, parameters)
        and flags(parameters) & flags(state) & WRITEABLE != 0
        and apart(itemsize, parameters, gradient)
        and apart(itemsize, parameters, state)
        and apart(itemsize, gradient, state)
    )


@jit
def momentum(rate, beta1, kernel, itemsize, parameters, gradient, velocity):
    """One step of momentum, of either kind; the arguments from `parameters` on are array objects.

    Here and below, `kernel` is the address of a kernel of `kernels/optimizers.py`. Three entry
    points, as each number that is handed over from Python costs 10 ns.
    """
    if not can_move(itemsize, parameters, gradient, velocity):
        return REFUSED
    none = type(rate)(0)
    step_by(
        kernel, rate=rate, correction=none, beta1=beta1, rest1=none,
        beta2=none, rest2=none, epsilon=none, shrinking=none, decay=none,
        parameters=vector_as_row(itemsize, parameters), gradient=data(gradient),
        first_state=data(velocity), second_state=0, squares=0,
    )  # fmt: skip
    return DONE


@jit
def rmsprop(rate, rho, rest, epsilon, kernel, itemsize, parameters, gradient, mean_square):
    """One step of RMSprop; the arguments from `parameters` on are array objects."""
    if not can_move(itemsize, parameters, gradient, mean_square):
        return REFUSED
    none = type(rate)(0)
    step_by(
        kernel, rate=rate, correction=none, beta1=rho, rest1=rest,
        beta2=none, rest2=none, epsilon=epsilon, shrinking=none, decay=none,
        parameters=vector_as_row(itemsize, parameters), gradient=data(gradient),
        first_state=data(mean_square), second_state=0, squares=0,
    )  # fmt: skip
    return DONE


@jit
def adam(
    rate, correction, beta1, rest1, beta2, rest2, epsilon, kernel, itemsize,
    parameters, gradient, mean, mean_square,
):  # fmt: skip
    """One step of Adam; the arguments from `parameters` on are array objects."""
    if not (
        can_move(itemsize, parameters, gradient, mean)
        and can_move(itemsize, parameters, gradient, mean_square)
        and apart(itemsize, mean, mean_square)
    ):
        return REFUSED
    none = type(rate)(0)
    step_by(
        kernel, rate=rate, correction=correction, beta1=beta1, rest1=rest1,
        beta2=beta2, rest2=rest2, epsilon=epsilon, shrinking=none, decay=none,
        parameters=vector_as_row(itemsize, parameters), gradient=data(gradient),
        first_state=data(mean), second_state=data(mean_square), squares=0,
    )  # fmt: skip
    return DONE


@jit
def sum_of_squares(one, itemsize, X, total):
    """total[0] = sum of the squares of X, in float64; the arguments are array objects."""
    if dimensions(X) != 1 or (stride(X, 0) != itemsize and length(X, 0) != 1):
        return REFUSED
    add_squares(one, data(X), length(X, 0), data(total))
    return DONE


@jit
def add(factor, itemsize, target, source):
    """target += factor source; the arguments are array objects."""
    if (
        dimensions(target) != 1 or dimensions(source) != 1
        or length(target, 0) != length(source, 0)
        or dtype_of(target) != dtype_of(source)
        or flags(target) & WRITEABLE == 0
    ):  # fmt: skip
        return REFUSED
    count, to, by = length(target, 0), stride(target, 0), stride(source, 0)
    if data(source) != data(target) or to != by:
        # memory in common, but not element by element: a step would read what another wrote
        low = min(data(target), data(target) + (count - 1) * to)
        high = max(data(target), data(target) + (count - 1) * to)
        first = min(data(source), data(source) + (count - 1) * by)
        last = max(data(source), data(source) + (count - 1) * by)
        if first < high + itemsize and low < last + itemsize:
            return REFUSED
    if count == 1:
        to = by = itemsize
    add_multiple(factor, data(source), by, data(target), to, count)
    return DONE
