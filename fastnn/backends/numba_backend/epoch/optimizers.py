"""How a gradient moves parameters, and the state beside them, in one pass.

Plain SGD needs nothing of this: its update kernels add to the weights what the gradient asks
for. Any other rule wants the whole gradient of a parameter before it moves it. So the update
kernels write the gradient of some rows of the weights to a buffer that stays in the first levels
of cache, and an operation of this file goes once through these rows and their state.

A network compiles the operation of its own rule alone. All have the same arguments:

    one                         of the dtype
    record                      address of a REGION: some matrix or vector of parameters
    rates                       address of two float64: the rate of this step, Adam's correction
    parameters                  address of the flat vector of parameters
    gradient                    address of the gradient of the first row, rows as far apart as those
                                of the parameters
    first_state, second_state   addresses of the state vectors parallel to it, as far as there are
    first, rows                 which rows

The gradient has decay * parameter added to it, the gradient of that penalty.

Each parameter is moved by itself, so no bit depends on who moves which rows. Nothing is read or
written behind the last vector of a row. What the gradient holds in the padding of that vector
counts as zero: a gradient of infinity leaves NaN there, which the state would keep for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..jit import operation, record_at
from ..kernels import optimizers as rules
from ..kernels.optimizers import Formula
from ..kernels.rows import put_real, real_at
from ..language import Int, Kernel, Real, microkernel

BLOCK_ROWS = 64
"""Rows that an operation moves at a time, a multiple of the bits of a word."""

REGION = np.dtype(
    [
        (name, np.int64)
        for name in (
            # the parameters: bytes from the start of the flat vector, bytes from row to row, units
            # of a row
            "parameters", "stride", "units",
            # address of a float64 for the sum of squares of rows that were moved, before they were
            "squares",
        )
    ]
    # twice the L2 factor; beta1 is also the momentum, and the rho of RMSprop
    + [(name, np.float64) for name in ("decay", "beta1", "beta2", "epsilon")]
)  # fmt: skip
"""Where a matrix or a vector of parameters lies, and the numbers of its rule."""

RATE_BYTES = 16
"""Of the two float64, rate and correction, of a learned layer in one step."""

UNROLL = 4
"""Vectors that a pass loads before it stores the first."""


def _pass(
    k: Kernel, formula: Formula, decay: Real, gradient: Int, moved: Sequence[Int],
    stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """Write the pass that puts a formula on rows of `moved`, the parameters and their state.

    Why it is fast: what moves is read and written once, without temporary vectors. Decay and
    sum of squares are two multiply-adds, done while the pass waits for memory.
    """
    decays = k.broadcast(decay)
    squares = k.variables(k.zero(), UNROLL)
    last = (units - 1) // k.lanes
    chosen = k.lane_before(units - last * k.lanes)

    def step(first: Int, width: int, whole: bool = True) -> None:
        places = [first + i * k.vector_bytes for i in range(width)]
        before = [[k.load(address + place) for address in moved] for place in places]
        gradients = [k.load(gradient + place) for place in places]
        for i, (place, g, (w, *state)) in enumerate(zip(places, gradients, before, strict=True)):
            g = g if whole else k.where(chosen, g, k.zero())
            squares[i] = k.fma(w, w, squares[i])
            after = formula(w, k.fma(decays, w, g), *state)
            for address, vector in zip(moved, after, strict=True):
                k.store(vector, address + place)

    with k.loop(0, rows) as row:
        first = row * stride
        column = k.variable(k.integer(0))
        for width in (UNROLL, 1):
            stop = last - (width - 1)
            with k.loop_while(lambda stop=stop: column[0] < stop):  # type: ignore[misc]
                step(first + column[0] * k.vector_bytes, width)
                column[0] = column[0] + width
        step(first + last * k.vector_bytes, 1, whole=False)
    return k.lane_sum((squares[0] + squares[1]) + (squares[2] + squares[3]))


@microkernel
def sgd_pass(
    k: Kernel, rate: Real, decay: Real,
    parameters: Int, gradient: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """Move rows by `rules.sgd`; the passes below do so by the rules of their names."""
    return _pass(k, rules.sgd(k, rate), decay, gradient, [parameters], stride, rows, units)


@microkernel
def momentum_pass(
    k: Kernel, rate: Real, decay: Real, momentum: Real,
    parameters: Int, gradient: Int, velocity: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    formula = rules.momentum(k, rate, momentum, nesterov=False)
    return _pass(k, formula, decay, gradient, [parameters, velocity], stride, rows, units)


@microkernel
def nesterov_pass(
    k: Kernel, rate: Real, decay: Real, momentum: Real,
    parameters: Int, gradient: Int, velocity: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    formula = rules.momentum(k, rate, momentum, nesterov=True)
    return _pass(k, formula, decay, gradient, [parameters, velocity], stride, rows, units)


@microkernel
def rmsprop_pass(
    k: Kernel, rate: Real, decay: Real, rho: Real, rest: Real, epsilon: Real,
    parameters: Int, gradient: Int, mean_square: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    formula = rules.rmsprop(k, rate, rho, rest, epsilon)
    return _pass(k, formula, decay, gradient, [parameters, mean_square], stride, rows, units)


@microkernel
def adam_pass(
    k: Kernel, rate: Real, correction: Real, decay: Real,
    beta1: Real, rest1: Real, beta2: Real, rest2: Real, epsilon: Real,
    parameters: Int, gradient: Int, mean: Int, mean_square: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    formula = rules.adam(k, rate, correction, beta1, rest1, beta2, rest2, epsilon)
    return _pass(k, formula, decay, gradient, [parameters, mean, mean_square], stride, rows, units)


@operation
def sgd(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """For layers with a penalty; without one, update kernels do all there is to do."""
    of, real = record_at(record, 0), type(one)
    place = of.parameters + first * of.stride
    total = sgd_pass(
        real(real_at(0.0, rates)), real(of.decay),
        parameters + place, gradient, of.stride, rows, of.units,
    )  # fmt: skip
    put_real(np.float64(total), of.squares)


@operation
def momentum(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """SGD with momentum; the first state is the velocity."""
    of, real = record_at(record, 0), type(one)
    place = of.parameters + first * of.stride
    total = momentum_pass(
        real(real_at(0.0, rates)), real(of.decay), real(of.beta1),
        parameters + place, gradient, first_state + place, of.stride, rows, of.units,
    )  # fmt: skip
    put_real(np.float64(total), of.squares)


@operation
def nesterov(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """SGD with Nesterov's momentum; the first state is the velocity."""
    of, real = record_at(record, 0), type(one)
    place = of.parameters + first * of.stride
    total = nesterov_pass(
        real(real_at(0.0, rates)), real(of.decay), real(of.beta1),
        parameters + place, gradient, first_state + place, of.stride, rows, of.units,
    )  # fmt: skip
    put_real(np.float64(total), of.squares)


@operation
def rmsprop(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """RMSprop; the first state is the mean square of the gradient."""
    of, real = record_at(record, 0), type(one)
    place = of.parameters + first * of.stride
    total = rmsprop_pass(
        real(real_at(0.0, rates)), real(of.decay),
        real(of.beta1), real(1.0 - of.beta1), real(of.epsilon),
        parameters + place, gradient, first_state + place, of.stride, rows, of.units,
    )  # fmt: skip
    put_real(np.float64(total), of.squares)


@operation
def adam(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """Adam; the states are the means of the gradient and of its square."""
    of, real = record_at(record, 0), type(one)
    place = of.parameters + first * of.stride
    total = adam_pass(
        real(real_at(0.0, rates)), real(real_at(0.0, rates + 8)), real(of.decay),
        real(of.beta1), real(1.0 - of.beta1), real(of.beta2), real(1.0 - of.beta2),
        real(of.epsilon), parameters + place, gradient,
        first_state + place, second_state + place, of.stride, rows, of.units,
    )  # fmt: skip
    put_real(np.float64(total), of.squares)


OPERATIONS = {
    "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "rmsprop": rmsprop, "adam": adam,
}  # fmt: skip
"""The operation of each kind of rule."""

STATES = {"sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 1, "adam": 2}
"""How many state vectors each kind of rule has."""


def address(kind: str, dtype: np.dtype[Any]) -> int:
    """Return where the operation of a kind of rule begins, for compiled code to call it."""
    return OPERATIONS[kind].address(dtype, REGION)
