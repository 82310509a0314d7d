"""How parameters begin.

An initialiser is a function of a generator and a shape that returns an array
of that shape. A layer takes one by its name here or as a function, its
user's own included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from fastnn import checks
from fastnn.checks import Array

Shape = tuple[int, ...]
# In quotes, as NumPy loads its random numbers, 10 ms of an import, when they are first asked for.
Initializer = Callable[["np.random.Generator", Shape], Array]


def zeros(rng: np.random.Generator, shape: Shape) -> Array:
    """Return zeros, and draw nothing.

    Parameters
    ----------
    rng
        Left as it is.
    shape
        Any.

    Returns
    -------
    float64 array of `shape`
    """
    return np.zeros(shape)


def xavier_normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Return weights from a normal distribution of variance 2 / (fan_in + fan_out).

    So the variances of activations and of gradients both stay near those of
    the layer before, as long as the activation is close to linear.

    Parameters
    ----------
    rng
        The source of randomness.
    shape
        (fan_in, fan_out): input units and output units of the layer.

    Returns
    -------
    float64 array of `shape`

    References
    ----------
    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", AISTATS 2010, equation 12.
    """
    fan_in, fan_out = shape
    return rng.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), shape)


def xavier_uniform(rng: np.random.Generator, shape: Shape) -> Array:
    """Return weights evenly spread over ±sqrt(6 / (fan_in + fan_out)).

    Their variance is that of `xavier_normal`.

    Parameters
    ----------
    rng
        The source of randomness.
    shape
        (fan_in, fan_out): input units and output units of the layer.

    Returns
    -------
    float64 array of `shape`

    References
    ----------
    Glorot and Bengio, as for `xavier_normal`, equation 16.
    """
    fan_in, fan_out = shape
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def he_normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Return weights from a normal distribution of variance 2 / fan_in, made for ReLU.

    A rectified unit passes on half of the variance, for which the factor 2
    makes up.

    Parameters
    ----------
    rng
        The source of randomness.
    shape
        (fan_in, fan_out): input units and output units of the layer.

    Returns
    -------
    float64 array of `shape`

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV
    2015, equation 10.
    """
    fan_in, _ = shape
    return rng.normal(0.0, math.sqrt(2.0 / fan_in), shape)


def he_uniform(rng: np.random.Generator, shape: Shape) -> Array:
    """Return weights evenly spread over ±sqrt(6 / fan_in).

    Their variance is that of `he_normal`.

    Parameters
    ----------
    rng
        The source of randomness.
    shape
        (fan_in, fan_out): input units and output units of the layer.

    Returns
    -------
    float64 array of `shape`
    """
    fan_in, _ = shape
    limit = math.sqrt(6.0 / fan_in)
    return rng.uniform(-limit, limit, shape)


def normal(deviation: float) -> Initializer:
    """Return an initialiser that draws from a normal distribution around 0.

    Parameters
    ----------
    deviation
        Its standard deviation, finite and not negative.

    Raises
    ------
    ValueError
        If `deviation` is negative, infinite or NaN.
    TypeError
        If it is not a number.
    """
    return partial(_normal, checks.real("deviation", deviation, minimum=0.0))


def uniform(low: float, high: float) -> Initializer:
    """Return an initialiser that draws evenly from `low` up to, but not including, `high`.

    Parameters
    ----------
    low, high
        Finite, `low` not above `high`.

    Raises
    ------
    ValueError
        If a bound is infinite or NaN, or `low` is above `high`.
    TypeError
        If either is not a number.
    """
    low = checks.real("low", low)
    return partial(_uniform, low, checks.real("high", high, minimum=low))


# Functions of the module with arguments bound, as networks are pickled and closures can't be.


def _normal(deviation: float, rng: np.random.Generator, shape: Shape) -> Array:
    return rng.normal(0.0, deviation, shape)


def _uniform(low: float, high: float, rng: np.random.Generator, shape: Shape) -> Array:
    return rng.uniform(low, high, shape)


_OF_FANS = (xavier_normal, xavier_uniform, he_normal, he_uniform)
_BY_NAME: dict[str, Initializer] = {function.__name__: function for function in (*_OF_FANS, zeros)}


def checked(argument: str, value: object, *, dimensions: int) -> Initializer:
    """Return the initialiser that `value`, a name or a function, stands for.

    `dimensions` are those of the parameter: a vector has no fan-in and no fan-out.
    """
    if isinstance(value, str):
        if value not in _BY_NAME:
            names = ", ".join(map(repr, _BY_NAME))
            raise ValueError(f"{argument}: expected one of {names} or a function, got {value!r}")
        function = _BY_NAME[value]
    elif callable(value):
        function = value
    else:
        raise TypeError(
            f"{argument}: expected an initialiser's name or a function of a generator and a "
            f"shape, got {value!r}"
        )
    if dimensions != 2 and function in _OF_FANS:
        raise ValueError(
            f"{argument}: expected an initialiser that needs no fan-in and fan-out, as 'zeros', "
            f"normal(...) or uniform(...), got {function.__name__!r}"
        )
    return function
