"""The elementwise functions of layers, by vectors: each with its derivative, in one table.

A forward formula takes a vector of inputs x; a backward formula takes a vector of inputs x, or of
outputs y where the derivative is computed from them, and of gradients g by the output. Constants of
a function come last, in every lane of a vector. The layer of a function says which of x and y its
backward formula takes; `numpy_backend.py` has the equations of the same names. A ReLU right behind
a Dense layer is in `relu.py`.

Errors in units in the last place hold for numbers of any size, except where an exponential is below
the smallest normal number: there it is 0. `docs/numbers.md` has those of derivatives, what was
measured, and where.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..language import Kernel, Vector
from .exponential import expm1, exponential
from .special import gaussian, log1p, normal_distribution

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934
"""Of G. Klambauer et al., "Self-normalizing neural networks", NIPS 2017.

They stand in `numpy_backend.py` too: what is compiled is dropped when a file of this backend
changes, and when no other does.
"""

FAR = 1000.0
"""Beyond it, either way, exponentials are 0 or vanish beside 1. Where a product with x would be
infinity times 0, x goes no further."""


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
    power = exponential(k, minus_size(k, x))
    return k.where(x < 0.0, power, k.constant(1.0)) / (power + 1.0)


def sigmoid_backward(k: Kernel, y: Vector, g: Vector) -> Vector:
    """g y (1 - y)."""
    return g * (y * (k.constant(1.0) - y))


def tanh(k: Kernel, x: Vector) -> Vector:
    """tanh(x), lane by lane; NaN for NaN, and the sign of zero is kept.

    With m = exp(-2|x|) - 1, |tanh(x)| = -m / (m + 2).
    Error at most 3 units in the last place in float32, 4 in float64.
    """
    m = expm1(k, k.call("fabs", x) * -2.0)
    return k.call("copysign", m / (m + 2.0), x)


def tanh_backward(k: Kernel, y: Vector, g: Vector) -> Vector:
    """g (1 - y²); fused where the machine can, so that the square is not rounded."""
    return g * k.fma(k.zero() - y, y, k.constant(1.0))


def leaky_relu(k: Kernel, x: Vector, slope: Vector) -> Vector:
    """x where x > 0, slope x elsewhere."""
    return k.where(x > 0.0, x, slope * x)


def leaky_relu_backward(k: Kernel, x: Vector, g: Vector, slope: Vector) -> Vector:
    """g where x > 0, slope g elsewhere."""
    return k.where(x > 0.0, g, slope * g)


def elu(k: Kernel, x: Vector, alpha: Vector) -> Vector:
    """alpha (exp(x) - 1) where x < 0, x elsewhere.

    Error at most 4 units in the last place.
    """
    return k.where(x < 0.0, alpha * expm1(k, minus_size(k, x)), x)


def elu_backward(k: Kernel, x: Vector, g: Vector, alpha: Vector) -> Vector:
    """g where x > 0, g alpha exp(x) elsewhere."""
    return k.where(x > 0.0, g, g * (alpha * exponential(k, minus_size(k, x))))


def selu(k: Kernel, x: Vector) -> Vector:
    """scale alpha (exp(x) - 1) where x < 0, scale x elsewhere.

    Error at most 6 units in the last place.
    """
    return k.where(x < 0.0, expm1(k, minus_size(k, x)) * (SELU_SCALE * SELU_ALPHA), x * SELU_SCALE)


def selu_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g scale where x > 0, g scale alpha exp(x) elsewhere."""
    slope = exponential(k, minus_size(k, x)) * (SELU_SCALE * SELU_ALPHA)
    return g * k.where(x > 0.0, k.constant(SELU_SCALE), slope)


def silu(k: Kernel, x: Vector) -> Vector:
    """x σ(x), with the logistic function σ.

    Error at most 5 units in the last place.
    """
    return not_below(k, x) * sigmoid(k, x)


def silu_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g (σ + x σ (1 - σ)); with e = exp(-|x|), σ (1 - σ) = e / (1 + e)²."""
    power = exponential(k, minus_size(k, x))
    share = k.constant(1.0) / (power + 1.0)
    value = share * k.where(x < 0.0, power, k.constant(1.0))
    return g * k.fma(bounded(k, x), power * share * share, value)


def gelu(k: Kernel, x: Vector) -> Vector:
    """x Φ(x), with the distribution function Φ of the normal distribution.

    Error at most 7 units in the last place.
    """
    limited = bounded(k, x)
    return not_below(k, x) * normal_distribution(k, limited, gaussian(k, limited))


def gelu_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g (Φ(x) + x φ(x)), with the density φ(x) = exp(-x²/2) / √(2π)."""
    x = bounded(k, x)
    density = gaussian(k, x)
    slope = x * density * (1 / math.sqrt(2 * math.pi))
    return g * (normal_distribution(k, x, density) + slope)


def softplus(k: Kernel, x: Vector) -> Vector:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)).

    Error at most 4 units in the last place.
    """
    return k.where(x > 0.0, x, k.zero()) + log1p(k, exponential(k, minus_size(k, x)))


def softplus_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g σ(x)."""
    return g * sigmoid(k, x)


def mish(k: Kernel, x: Vector) -> Vector:
    """x tanh(log(1 + exp(x))) = x n / d; see `mish_parts`.

    Error at most 5 units in the last place.
    """
    numerator, difference, _ = mish_parts(k, x)
    return not_below(k, x) * (numerator / (numerator + difference))


def mish_backward(k: Kernel, x: Vector, g: Vector) -> Vector:
    """g (t + x (1 - t²) σ(x)), with t = tanh(log(1 + exp(x))) = n / d.

    1 - t² = (d - n) (d + n) / d².
    """
    numerator, difference, power = mish_parts(k, x)
    inverse = k.constant(1.0) / (numerator + difference)
    value = k.where(x < 0.0, power, k.constant(1.0)) / (power + 1.0)
    slope = difference * inverse * ((numerator * 2.0 + difference) * inverse)
    return g * k.fma(bounded(k, x) * value, slope, numerator * inverse)


def mish_parts(k: Kernel, x: Vector) -> tuple[Vector, Vector, Vector]:
    """n and d - n of tanh(log(1 + exp(x))) = n / d, and e = exp(-|x|).

    With E = exp(x), n / d = (E² + 2E) / (E² + 2E + 2); where x > 0, both over E² = 1 / e².
    """
    power = exponential(k, minus_size(k, x))
    negative = x < 0.0
    numerator = k.where(negative, power * (power + 2.0), power * 2.0 + 1.0)
    difference = k.where(negative, k.constant(2.0), power * power * 2.0)
    return numerator, difference, power


def bounded(k: Kernel, x: Vector) -> Vector:
    """x, but between -FAR and FAR; NaN stays NaN."""
    x = not_below(k, x)
    return k.where(x > FAR, k.constant(FAR), x)


def not_below(k: Kernel, x: Vector) -> Vector:
    """x, but not below -FAR; NaN stays NaN."""
    return k.where(x < -FAR, k.constant(-FAR), x)


def minus_size(k: Kernel, x: Vector) -> Vector:
    """-|x|, of which no exponential overflows."""
    return k.zero() - k.call("fabs", x)


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
    "leaky_relu": Formula(leaky_relu, leaky_relu_backward, constants=1),
    "elu": Formula(elu, elu_backward, constants=1),
    "selu": Formula(selu, selu_backward),
    "silu": Formula(silu, silu_backward),
    "gelu": Formula(gelu, gelu_backward),
    "softplus": Formula(softplus, softplus_backward),
    "mish": Formula(mish, mish_backward),
}
"""By the name that layers call them by. At most two constants."""
