"""The formula of the Poisson loss, for both wings."""

from __future__ import annotations

from ..language import Kernel, Vector
from .exponential import exponential_of_any


def loss_and_derivative(k: Kernel, z: Vector, t: Vector) -> tuple[Vector, Vector]:
    """exp(z) - t z, and exp(z) - t, for t >= 0.

    Where t is 0 it is not multiplied by z, which may be infinite.
    """
    rate = exponential_of_any(k, z)
    return rate - k.where(t > 0.0, t * z, k.zero()), rate - t
