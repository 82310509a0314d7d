"""How a gradient moves parameters, and the state beside them, in one pass.

Plain SGD needs nothing of this: its update kernels add to the weights what the gradient asks
for. Any other rule wants the whole gradient of a parameter before it moves it. So the update
kernels write the gradient of some rows of the weights to a buffer that stays in the first levels
of cache, and an operation of this file goes once through these rows and their state.

A network compiles the operation of its own rule alone. All have the same arguments:

    rate, correction        of this step, of the dtype; the correction is Adam's
    record                  address of a record of RULE
    parameters, gradient    addresses of the rows
    first, second           addresses of the same rows of the state vectors, as far as there are any
    stride                  bytes from row to row
    rows, units             shape
    squares                 address of a float64, which is set to the sum of the squares of the
                            parameters before the step: what the penalty of L2 asks for

The gradient has decay * parameter added to it, the gradient of that penalty.

Each parameter is moved by itself, so no bit depends on who moves which rows. Nothing is read or
written behind the last vector of a row. What the gradient holds in the padding of that vector
counts as zero: a gradient of infinity leaves NaN there, which the state would keep for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .jit import operation, record_at
from .rows import put_real
from .simd import Int, Kernel, Real, Vector, microkernel

RULE = np.dtype([(name, np.float64) for name in ("decay", "beta1", "beta2", "epsilon")])
"""The numbers of a rule. `beta1` is also the momentum, and the rho of RMSprop."""

RATE_BYTES = 16
"""Of the two float64, rate and correction, of a learned layer in one step."""

UNROLL = 4
"""Vectors that a pass loads before it stores the first."""

Formula = Callable[..., Sequence[Vector]]
"""From a parameter, its gradient and its state to the new parameter and its new state."""


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
    """w <- w - rate g."""
    rates = k.broadcast(rate)

    def formula(w: Vector, g: Vector) -> list[Vector]:
        return [w - rates * g]

    return _pass(k, formula, decay, gradient, [parameters], stride, rows, units)


@microkernel
def momentum_pass(
    k: Kernel, rate: Real, decay: Real, momentum: Real,
    parameters: Int, gradient: Int, velocity: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """v <- momentum v + g;  w <- w - rate v."""
    rates, momenta = k.broadcast(rate), k.broadcast(momentum)

    def formula(w: Vector, g: Vector, v: Vector) -> list[Vector]:
        v = k.fma(momenta, v, g)
        return [w - rates * v, v]

    return _pass(k, formula, decay, gradient, [parameters, velocity], stride, rows, units)


@microkernel
def nesterov_pass(
    k: Kernel, rate: Real, decay: Real, momentum: Real,
    parameters: Int, gradient: Int, velocity: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """v <- momentum v + g;  w <- w - rate (g + momentum v)."""
    rates, momenta = k.broadcast(rate), k.broadcast(momentum)

    def formula(w: Vector, g: Vector, v: Vector) -> list[Vector]:
        v = k.fma(momenta, v, g)
        return [w - rates * k.fma(momenta, v, g), v]

    return _pass(k, formula, decay, gradient, [parameters, velocity], stride, rows, units)


@microkernel
def rmsprop_pass(
    k: Kernel, rate: Real, decay: Real, rho: Real, rest: Real, epsilon: Real,
    parameters: Int, gradient: Int, mean_square: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """s <- rho s + rest g^2;  w <- w - rate g / (sqrt(s) + epsilon)."""
    rates, rhos, rests, epsilons = (k.broadcast(n) for n in (rate, rho, rest, epsilon))

    def formula(w: Vector, g: Vector, s: Vector) -> list[Vector]:
        s = k.fma(rhos, s, rests * (g * g))
        return [w - rates * g / (k.call("sqrt", s) + epsilons), s]

    return _pass(k, formula, decay, gradient, [parameters, mean_square], stride, rows, units)


@microkernel
def adam_pass(
    k: Kernel, rate: Real, correction: Real, decay: Real,
    beta1: Real, rest1: Real, beta2: Real, rest2: Real, epsilon: Real,
    parameters: Int, gradient: Int, mean: Int, mean_square: Int, stride: Int, rows: Int, units: Int,
) -> Real:  # fmt: skip
    """m <- beta1 m + rest1 g;  s <- beta2 s + rest2 g^2;  w <- w - rate m / (c sqrt(s) + epsilon).

    Both means begin at zero, and what that lacks is made up for by the rate, which is the learning
    rate / (1 - beta1^t) in step t = 1, 2, ..., and by the correction c = 1 / sqrt(1 - beta2^t)
    (D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1).
    """
    rates, corrections, epsilons = (k.broadcast(n) for n in (rate, correction, epsilon))
    beta1s, rest1s, beta2s, rest2s = (k.broadcast(n) for n in (beta1, rest1, beta2, rest2))

    def formula(w: Vector, g: Vector, m: Vector, s: Vector) -> list[Vector]:
        m = k.fma(beta1s, m, rest1s * g)
        s = k.fma(beta2s, s, rest2s * (g * g))
        return [w - rates * m / k.fma(k.call("sqrt", s), corrections, epsilons), m, s]

    return _pass(k, formula, decay, gradient, [parameters, mean, mean_square], stride, rows, units)


@operation
def sgd(
    rate, correction, record, parameters, gradient, first, second, stride, rows, units, squares
):  # fmt: skip
    """For layers with a penalty; without one, update kernels do all there is to do."""
    real, numbers = type(rate), record_at(record, 0)
    total = sgd_pass(rate, real(numbers.decay), parameters, gradient, stride, rows, units)
    put_real(np.float64(total), squares)


@operation
def momentum(
    rate, correction, record, parameters, gradient, first, second, stride, rows, units, squares
):  # fmt: skip
    """SGD with momentum; the first state is the velocity."""
    real, numbers = type(rate), record_at(record, 0)
    total = momentum_pass(
        rate, real(numbers.decay), real(numbers.beta1),
        parameters, gradient, first, stride, rows, units,
    )  # fmt: skip
    put_real(np.float64(total), squares)


@operation
def nesterov(
    rate, correction, record, parameters, gradient, first, second, stride, rows, units, squares
):  # fmt: skip
    """SGD with Nesterov's momentum; the first state is the velocity."""
    real, numbers = type(rate), record_at(record, 0)
    total = nesterov_pass(
        rate, real(numbers.decay), real(numbers.beta1),
        parameters, gradient, first, stride, rows, units,
    )  # fmt: skip
    put_real(np.float64(total), squares)


@operation
def rmsprop(
    rate, correction, record, parameters, gradient, first, second, stride, rows, units, squares
):  # fmt: skip
    """RMSprop; the first state is the mean square of the gradient."""
    real, numbers = type(rate), record_at(record, 0)
    total = rmsprop_pass(
        rate, real(numbers.decay),
        real(numbers.beta1), real(1.0 - numbers.beta1), real(numbers.epsilon),
        parameters, gradient, first, stride, rows, units,
    )  # fmt: skip
    put_real(np.float64(total), squares)


@operation
def adam(
    rate, correction, record, parameters, gradient, first, second, stride, rows, units, squares
):  # fmt: skip
    """Adam; the states are the means of the gradient and of its square."""
    real, numbers = type(rate), record_at(record, 0)
    total = adam_pass(
        rate, correction, real(numbers.decay),
        real(numbers.beta1), real(1.0 - numbers.beta1),
        real(numbers.beta2), real(1.0 - numbers.beta2), real(numbers.epsilon),
        parameters, gradient, first, second, stride, rows, units,
    )  # fmt: skip
    put_real(np.float64(total), squares)


OPERATIONS = {
    "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "rmsprop": rmsprop, "adam": adam,
}  # fmt: skip
"""The operation of each kind of rule."""

STATES = {"sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 1, "adam": 2}
"""How many state vectors each kind of rule has."""


def address(kind: str, dtype: np.dtype[Any]) -> int:
    """Return where the operation of a kind of rule begins, for compiled code to call it."""
    return OPERATIONS[kind].address(dtype, RULE)
