"""The special functions that activations are made of, beside the exponential."""

from __future__ import annotations

import math

from ..language import FLOAT, Kernel, Vector
from .exponential import exponential, polynomial

# (1 + 2z) exp(z²) erfc(z) as a polynomial of t = (z - 3) / (z + 3), from the highest power down:
# interpolated at Chebyshev nodes in 60 digits, for z up to 10 and 28, to 3e-9 and 3e-17. The form
# is that of M. Shepherd and J. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x
# in 0 <= x < ∞", Mathematics of Computation 36, 1981.
SCALED_ERFC_32 = (
    -2.7826569992e-04, -8.0095178770e-04, 1.9925210188e-03, 2.5799842639e-03, -2.3789117811e-02,
    6.8293667122e-02, -1.1927282742e-01, 1.2964653760e-01, -4.7562272107e-02, -1.3562114190e-01,
    1.2530080578e+00,
)  # fmt: skip
SCALED_ERFC_64 = (
    -4.2101049751191951784e-09, -8.5001195021153060224e-09, 3.2916343967663199253e-08,
    9.1862430261438469867e-08, -1.3111661375364589173e-07, -6.0500486239335033404e-07,
    3.4899197889744292742e-07, 3.4639975323529041442e-06, -7.2758757466671832695e-07,
    -2.0096630875953950824e-05, 4.9481478755765391449e-06, 1.2509815174864322000e-04,
    -1.0515949033775974877e-04, -7.7983203796111151898e-04, 1.8886903120037819119e-03,
    2.5293917882704452030e-03, -2.3770514914233670939e-02, 6.8308027345804586683e-02,
    -1.1927366341552853024e-01, 1.2964515870270551523e-01, -4.7562294353446374351e-02,
    -1.3562110612458069814e-01, 1.2530080582697296077e+00,
)  # fmt: skip
LOG1P_TERMS = {4: 8, 8: 17}
"""Terms of the series of atanh(s), |s| <= 1/3, by the bytes of a number."""


def log1p(k: Kernel, x: Vector) -> Vector:
    """log(1 + x) for 0 <= x <= 1: 2 atanh(s) with s = x / (2 + x), s + s³/3 + s⁵/5 + ..."""
    s = x / (x + 2.0)
    terms = LOG1P_TERMS[k.element_bytes]
    series = polynomial(k, s * s, tuple(1 / (2 * n + 1) for n in reversed(range(1, terms))))
    return (s + s * (s * s) * series) * 2.0


def gaussian(k: Kernel, x: Vector) -> Vector:
    """exp(-x²/2); x² in two parts, as the rounding of a large square would be multiplied by it."""
    square = x * x
    power = exponential(k, square * -0.5)
    return k.fma(power * -0.5, rounding_of_square(k, x, square), power)


def rounding_of_square(k: Kernel, x: Vector, square: Vector) -> Vector:
    """x² - square, exactly: x is split into halves, whose products are not rounded.

    T. J. Dekker, "A floating-point technique for extending the available precision", Numerische
    Mathematik 18, 1971. A fused multiply-add gives the same, but not every machine has one.
    """
    scaled = x * (2.0**12 + 1 if k.element == FLOAT else 2.0**27 + 1)
    high = scaled - (scaled - x)
    low = x - high
    return (high * high - square) + high * low * 2.0 + low * low


def normal_distribution(k: Kernel, x: Vector, density: Vector) -> Vector:
    """Φ(x) = erfc(-x/√2) / 2, with `density` = exp(-x²/2)."""
    z = k.call("fabs", x) * math.sqrt(0.5)
    coefficients = SCALED_ERFC_32 if k.element == FLOAT else SCALED_ERFC_64
    # (z - 3) / (z + 3), of which no more than a last rounding is lost where z is small
    t = k.fma(z / (z + 3.0), k.constant(2.0), k.constant(-1.0))
    scaled = polynomial(k, t, coefficients)
    tail = density * scaled / (z * 4.0 + 2.0)
    return k.where(x > 0.0, k.constant(1.0) - tail, tail)
