"""The elementwise functions of layers, by vectors: each with its derivative, in one table.

A forward formula takes a vector of inputs x; a backward formula takes a vector of inputs x, or of
outputs y where the derivative is computed from them, and of gradients g by the output. Constants of
a function come last, in every lane of a vector. The layer of a function says which of x and y its
backward formula takes; `numpy_backend.py` has the equations of the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..language import Kernel, Vector
from .exponential import exponential, reduced


def relu(k: Kernel, x: Vector) -> Vector:
    """max(x, 0); NaN stays NaN, as the comparison with it is false."""
    return k.where(x < 0.0, k.zero(), x)


def relu_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g where x > 0, else 0."""
    return k.where(x > 0.0, g, k.zero())


def rescale(k: Kernel, x: Vector, scale: Vector) -> Vector:
    """scale x."""
    return scale * x


def rescale_backward(k: Kernel, x: Vector, g: Vector, scale: Vector) -> Vector:
    """scale g."""
    return scale * g


def sigmoid(k: Kernel, x: Vector) -> Vector:
    """1 / (1 + exp(-x)), lane by lane, for x of any size; NaN for NaN.

    With e = exp(-|x|), which can't overflow: 1 / (1 + e) for x >= 0, and e / (1 + e) for x < 0.
    Error at most 3 units in the last place; 0 where exp(x) is below the smallest normal number.
    """
    power = exponential(k, k.zero() - k.call("fabs", x))
    return k.where(x < 0.0, power, k.constant(1.0)) / (power + 1.0)


def sigmoid_backward(k: Kernel, y: Vector, g: Vector) -> Vector:
    """g y (1 - y)."""
    return g * (y * (k.constant(1.0) - y))


def tanh(k: Kernel, x: Vector) -> Vector:
    """tanh(x), lane by lane; NaN for NaN, and the sign of zero is kept.

    With m = exp(-2|x|) - 1, |tanh(x)| = -m / (m + 2). From exp(-2|x|) = 2^n exp(r) follows
    m = 2^n (exp(r) - 1) + (2^n - 1): near 0, where n = 0, nothing cancels.
    Error at most 3 units in the last place in float32, 5 in float64.
    """
    a, b, c, power, _ = reduced(k, k.call("fabs", x) * -2.0)
    m = k.fma(power, k.fma(a, b, c), power - 1.0)
    return k.call("copysign", m / (m + 2.0), x)


def tanh_backward(k: Kernel, y: Vector, g: Vector) -> Vector:
    """g (1 - y²); fused, so that the square is not rounded."""
    return g * k.fma(k.zero() - y, y, k.constant(1.0))


class Formula(NamedTuple):
    """An elementwise function: forward, backward, and NumPy's own where that is fast as well."""

    forward: Callable[..., Vector]
    backward: Callable[..., Vector]
    constants: int = 0
    ufunc: Callable[[Any], Any] | None = None


FORMULAS = {
    "relu": Formula(relu, relu_backward),
    "rescale": Formula(rescale, rescale_backward, constants=1),
    "sigmoid": Formula(sigmoid, sigmoid_backward),
    "tanh": Formula(tanh, tanh_backward, ufunc=np.tanh),
}
"""By the name that layers call them by. At most two constants."""
