"""The formula of the Poisson loss, for both wings."""

from __future__ import annotations

from ..language import Kernel, Vector
from .exponential import exponential


def loss_and_derivative(k: Kernel, z: Vector, t: Vector) -> tuple[Vector, Vector]:
    """exp(z) - t z, and exp(z) - t, for t >= 0.

    Where t is 0 it is not multiplied by z, which may be infinite. exp(z) of a positive z is
    1 / exp(-z): one rounding more, and infinity where exp(-z) is below the smallest normal number.
    """
    power = exponential(k, k.call("fabs", z) * -1.0)
    rate = k.where(z > 0.0, k.constant(1.0) / power, power)
    return rate - k.where(t > 0.0, t * z, k.zero()), rate - t
