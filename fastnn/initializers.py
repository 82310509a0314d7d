"""How parameters begin."""

from __future__ import annotations

import math

import numpy as np

from fastnn.checks import Array


def xavier_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return float64 weights from a normal distribution of variance 2 / (fan_in + fan_out).

    So the variances of activations and of gradients both stay near those of
    the layer before, as long as the activation is close to linear.

    Parameters
    ----------
    rng
        The source of randomness.
    shape
        (fan_in, fan_out): input units and output units of the layer.

    References
    ----------
    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", AISTATS 2010, equation 12.
    """
    fan_in, fan_out = shape
    return rng.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), shape)
