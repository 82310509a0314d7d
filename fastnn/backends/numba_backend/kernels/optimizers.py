"""How parameters move along a gradient: the formulas, apart from the loops that they stand in.

Each function here returns a formula: of vectors of parameters w, their gradient g and their state,
it writes code for the new parameters and the new state.

State that falls below the smallest normal number becomes zero. It would stay denormal for ever,
since 0.9 times the smallest number of all is rounded to that number again. Where gradients are
zero, as at pixels that are rarely lit, it falls so far within an epoch, and many CPUs compute
with such numbers several times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..language import FLOAT, Kernel, Real, Vector

Formula = Callable[..., Sequence[Vector]]
"""formula(w, g, *state) returns the new (w, *state)."""


def _without_denormals(k: Kernel, state: Vector) -> Vector:
    """Return `state` with numbers below the smallest normal one put to zero."""
    smallest = 2.0**-126 if k.element == FLOAT else 2.0**-1022
    return k.where(k.call("fabs", state) < smallest, k.zero(), state)


def sgd(k: Kernel, rate: Real) -> Formula:
    """w <- w - rate g."""
    backwards = k.broadcast(rate) * -1.0

    def formula(w: Vector, g: Vector) -> list[Vector]:
        return [k.fma(backwards, g, w)]

    return formula


def momentum(k: Kernel, rate: Real, share: Real, nesterov: bool) -> Formula:
    """v <- share v + g; w <- w - rate v, or w - rate (g + share v)."""
    backwards, shares = k.broadcast(rate) * -1.0, k.broadcast(share)

    def formula(w: Vector, g: Vector, v: Vector) -> list[Vector]:
        v = k.fma(shares, v, g)
        w = k.fma(backwards, k.fma(shares, v, g) if nesterov else v, w)
        return [w, _without_denormals(k, v)]

    return formula


def rmsprop(k: Kernel, rate: Real, rho: Real, rest: Real, epsilon: Real) -> Formula:
    """s <- rho s + rest g^2; w <- w - rate g / (sqrt(s) + epsilon); rest is 1 - rho."""
    rates, kept, new, least = (k.broadcast(number) for number in (rate, rho, rest, epsilon))

    def formula(w: Vector, g: Vector, s: Vector) -> list[Vector]:
        s = k.fma(kept, s, new * (g * g))
        w = w - rates * g / (k.call("sqrt", s) + least)
        return [w, _without_denormals(k, s)]

    return formula


def adam(
    k: Kernel,
    rate: Real,
    correction: Real,
    beta1: Real,
    rest1: Real,
    beta2: Real,
    rest2: Real,
    epsilon: Real,
) -> Formula:
    """m <- beta1 m + rest1 g; s <- beta2 s + rest2 g^2; w <- w - rate m / (c sqrt(s) + epsilon).

    The corrections of both means for their start at zero are in two numbers: at step n, counted
    from 1, rate = learning_rate / (1 - beta1^n) and c = correction = 1 / sqrt(1 - beta2^n). rest1
    and rest2 are 1 - beta1 and 1 - beta2.
    """
    rates, corrections, least = (k.broadcast(number) for number in (rate, correction, epsilon))
    kept1, new1, kept2, new2 = (k.broadcast(number) for number in (beta1, rest1, beta2, rest2))

    def formula(w: Vector, g: Vector, m: Vector, s: Vector) -> list[Vector]:
        m = k.fma(kept1, m, new1 * g)
        s = k.fma(kept2, s, new2 * (g * g))
        w = w - rates * m / k.fma(corrections, k.call("sqrt", s), least)
        return [w, _without_denormals(k, m), _without_denormals(k, s)]

    return formula
