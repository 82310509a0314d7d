"""The table of elementwise layers: what each computes, and how far a backend may be off.

A new one is a row here; `test_elementwise.py` and the tests of layers, gradients, the compiled
epoch and threads read the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

from fastnn import ELU, GELU, SELU, LeakyReLU, Mish, ReLU, Rescaling, Sigmoid, SiLU, Softplus, Tanh
from fastnn.layers import Elementwise

Function = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Row:
    """A function of an elementwise layer.

    `exact` is the function, and `slope` the summands of its derivative, both of numbers of higher
    precision. `ulps` and `slope_ulps` bound the errors, in units in the last place of the value and
    of the sum of the summands' sizes. `torch` is PyTorch's module, as one writes it there. What
    NumPy computes may be off by `condition` times as much, which is how much the rounding of one
    step in its equation is multiplied.
    """

    layer: Elementwise
    exact: Function
    slope: Function
    ulps: float
    slope_ulps: float
    torch: str = ""
    condition: Function = np.ones_like


def sigmoid(x):
    return np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sech_squared(x):
    return 4 * np.exp(-2 * np.abs(x)) / (1 + np.exp(-2 * np.abs(x))) ** 2


def pi(dtype):
    return 4 * np.arctan(dtype.type(1))


def gaussian(x):
    """exp(-x² / 2); the rounding of a square would be multiplied by it, so it is in two parts."""
    x = np.clip(x, -200, 200)
    high = np.rint(x * 2**16) / 2**16
    return np.exp(-high * high / 2) * np.exp((high - x) * (high + x) / 2)


def density(x):
    return gaussian(x) / np.sqrt(2 * pi(x.dtype))


def normal_distribution(x):
    """erfc(-x / √2) / 2: SciPy's in float64, from series and fraction in higher precision.

    M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.2.11 and 26.2.14.
    """
    if x.dtype == np.float64:
        tail = scipy.special.erfc(np.abs(x) / np.sqrt(2)) / 2
    else:
        size = np.abs(x)
        near, far = np.minimum(size, 1.5), np.clip(size, 1.5, 200)
        total = term = near
        for n in range(1, 40):
            term = term * near * near / (2 * n + 1)
            total = total + term
        fraction = far
        for n in range(250, 0, -1):
            fraction = far + n / fraction
        tail = np.where(size < 1.5, 0.5 - density(near) * total, density(far) / fraction)
    return np.where(x > 0, 1 - tail, tail)


def elu(x, alpha):
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def elu_slope(x, alpha):
    return np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


ALPHA, SCALE = np.longdouble("1.6732632423543772848"), np.longdouble("1.0507009873554804934")

ROWS = (
    Row(ReLU(), lambda x: np.maximum(x, 0), lambda x: [x > 0], 0, 0, "ReLU()"),
    Row(Rescaling(0.5), lambda x: x / 2, lambda x: [x * 0 + 0.5], 1, 1),
    Row(Sigmoid(), sigmoid, lambda x: [sigmoid(x), -(sigmoid(x) ** 2)], 4, 5, "Sigmoid()"),
    Row(Tanh(), np.tanh, lambda x: [1, -(np.tanh(x) ** 2)], 4, 4, "Tanh()"),
    Row(
        LeakyReLU(0.1),
        lambda x: np.where(x > 0, x, 0.1 * x),
        lambda x: [np.where(x > 0, 1, 0.1)],
        2, 2, "LeakyReLU(0.1)",
    ),
    Row(ELU(1.25), lambda x: elu(x, 1.25), lambda x: [elu_slope(x, 1.25)], 4, 5, "ELU(1.25)"),
    Row(
        SELU(),
        lambda x: x.dtype.type(SCALE) * elu(x, x.dtype.type(ALPHA)),
        lambda x: [x.dtype.type(SCALE) * elu_slope(x, x.dtype.type(ALPHA))],
        6, 5, "SELU()",
    ),
    Row(
        SiLU(),
        lambda x: x * sigmoid(x),
        lambda x: [sigmoid(x), x * sigmoid(x) * sigmoid(-x)],
        5, 6, "SiLU()",
    ),
    Row(
        GELU(),
        lambda x: x * normal_distribution(x),
        lambda x: [normal_distribution(x), x * density(x)],
        7, 8, "GELU()", lambda x: 1 + x * x,
    ),
    Row(Softplus(), softplus, lambda x: [sigmoid(x)], 4, 5, "Softplus()"),
    Row(
        Mish(),
        lambda x: x * np.tanh(softplus(x)),
        lambda x: [np.tanh(softplus(x)), x * sech_squared(softplus(x)) * sigmoid(x)],
        5, 8, "Mish()",
    ),
)  # fmt: skip

BY_NAME = {row.layer._function: row for row in ROWS}

each_row = {"argvalues": ROWS, "ids": [repr(row.layer) for row in ROWS]}
"""For `pytest.mark.parametrize`."""
