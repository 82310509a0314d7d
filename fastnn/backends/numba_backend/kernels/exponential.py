"""The vectorised exponential, of numbers up to 0 and of any, and the same less 1."""

from __future__ import annotations

import math

from llvmlite import ir

from ..language import FLOAT, Condition, Kernel, Vector

# exp(r) for |r| <= ln(2) / 2: in float32 a polynomial 1 + r + r^2 p(r), in float64 a rational
# function 1 + 2 r p(r^2) / (q(r^2) - r p(r^2)); coefficients from the highest power down.
POLYNOMIAL_32 = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                 1.6666665459e-1, 5.0000001201e-1)  # fmt: skip
NUMERATOR_64 = (1.26177193074810590878e-4, 3.02994407707441961300e-2)
DENOMINATOR_64 = (3.00198505138664455042e-6, 2.52448340349684104192e-3,
                  2.27265548208155028766e-1, 2.00000000000000000009e0)  # fmt: skip
# ln(2) in two parts: multiples of the first are exact
LN2_32 = (0.693359375, -2.12194440e-4)
LN2_64 = (6.93145751953125e-1, 1.42860682030941723212e-6)
# the lowest numbers whose exponential is not below the smallest normal number
LOWEST_32, LOWEST_64 = -87.33654022216796875, -708.396418532264078749
# the highest whose exponential is finite
HIGHEST_32, HIGHEST_64 = 88.72283172607421875, 709.782712893383973096


def exponential(k: Kernel, x: Vector) -> Vector:
    """exp(x) for x <= 0, lane by lane; 0 below the smallest normal number, NaN for NaN.

    Relative error about 1e-7 in float32, 3e-16 in float64.
    """
    a, b, c, power, below = reduced(k, x)
    return k.where(below, k.zero(), k.fma(a, b, c + 1.0) * power)


def exponential_of_any(k: Kernel, x: Vector) -> Vector:
    """exp(x) for x of either sign, lane by lane; as `exponential`, and infinity above the largest.

    Where x > 0, it is twice 2^(n - 1) exp(r), as n is 128 (1024 in float64) for the highest ones,
    and no number is 2^128. Tried and lost: 1 / exp(-x), which is infinite from x = 87.34 on.
    """
    highest = k.constant(HIGHEST_32 if k.element == FLOAT else HIGHEST_64)
    above, positive = x > highest, x > 0.0
    a, b, c, power, below = reduced(k, k.where(above, highest, x), halved=positive)
    value = k.fma(a, b, c + 1.0) * power * k.where(positive, k.constant(2.0), k.constant(1.0))
    return k.where(above, k.constant(float("inf")), k.where(below, k.zero(), value))


def expm1(k: Kernel, x: Vector) -> Vector:
    """exp(x) - 1 for x <= 0, lane by lane; NaN for NaN.

    From exp(x) = 2^n exp(r) follows 2^n (exp(r) - 1) + (2^n - 1): near 0, where n = 0, nothing
    cancels.
    """
    a, b, c, power, _ = reduced(k, x)
    return k.fma(power, k.fma(a, b, c), power - 1.0)


def reduced(
    k: Kernel, x: Vector, halved: Condition | None = None
) -> tuple[Vector, Vector, Vector, Vector, Condition]:
    """Write the reduction exp(x) = 2^n exp(r), |r| <= ln(2) / 2, for x whose exponential is finite.

    Returns a, b, c with exp(r) - 1 = a b + c, then 2^n, then the lanes where exp(x) is below the
    smallest normal number, which are computed for a larger x. In lanes that are `halved` it is
    2^(n - 1).

    x = n ln(2) + r. Adding 1.5 * 2^23 (2^52 in float64) rounds to the integer n and leaves it in
    the lowest bits of the sum, from where a shift makes it the exponent.
    """
    single = k.element == FLOAT
    mantissa_bits, bias, lowest = (23, 127, LOWEST_32) if single else (52, 1023, LOWEST_64)
    magic = 1.5 * 2.0**mantissa_bits
    ln2_high, ln2_low = LN2_32 if single else LN2_64

    below = x < lowest
    x = k.where(below, k.constant(lowest), x)
    shifted = k.fma(x, k.constant(1 / math.log(2)), k.constant(magic))
    n = shifted - magic
    r = k.fma(n, k.constant(-ln2_low), k.fma(n, k.constant(-ln2_high), x))
    if single:
        a, b, c = polynomial(k, r, POLYNOMIAL_32) * r, r, r
    else:
        square = r * r
        upper = k.fma(r * square, polynomial(k, square, NUMERATOR_64), r)
        lower = polynomial(k, square, DENOMINATOR_64) - upper
        a, b, c = upper / lower, k.constant(2.0), k.zero()

    integer = ir.VectorType(ir.IntType(8 * k.element_bytes), k.lanes)
    biases = ir.Constant(integer, [bias] * k.lanes)
    if halved is not None:
        lower = ir.Constant(integer, [bias - 1] * k.lanes)
        biases = k.builder.select(halved.code, lower, biases)
    biased = k.builder.add(k.builder.bitcast(shifted.code, integer), biases)
    exponent = k.builder.shl(biased, ir.Constant(integer, [mantissa_bits] * k.lanes))
    power = Vector(k, k.builder.bitcast(exponent, k.vector_type))
    return a, b, c, power, below


def polynomial(k: Kernel, x: Vector, coefficients: tuple[float, ...]) -> Vector:
    """Horner's rule; coefficients from the highest power down."""
    value = k.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = k.fma(value, x, k.constant(coefficient))
    return value
