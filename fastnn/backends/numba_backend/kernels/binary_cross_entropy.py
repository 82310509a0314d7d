"""The formula of binary cross-entropy, for both wings."""

from __future__ import annotations

from ..language import Kernel, Vector
from .exponential import exponential
from .special import log1p


def loss_and_derivative(k: Kernel, z: Vector, t: Vector) -> tuple[Vector, Vector]:
    """-t log σ(z) - (1 - t) log σ(-z), and σ(z) - t, with the sigmoid σ, for 0 <= t <= 1.

    The loss is log(1 + exp(-|z|)) + w |z|, with w = 1 - t where z > 0, else t. Nothing overflows,
    nothing cancels, and where w is 0 it is not multiplied by |z|, which may be infinite. Of what a
    kernel doesn't use, nothing is compiled.
    """
    positive = z > 0.0
    size = k.call("fabs", z)
    wrong = k.where(positive, k.constant(1.0) - t, t)
    power = exponential(k, size * -1.0)
    loss = log1p(k, power) + k.where(wrong > 0.0, wrong * size, k.zero())
    probability = power / (power + 1.0)
    return loss, k.where(positive, wrong - probability, probability - wrong)
