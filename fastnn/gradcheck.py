"""Gradients by finite differences, to check those that were derived by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn import checks
from fastnn.checks import Array


def eval_numerical_gradient(
    f: Callable[[Array], float],
    x: Array,
    verbose: bool = False,
    h: float = 1e-5,
) -> Array:
    """Return the gradient of `f` at `x` by central differences.

    df/dx_i ~ (f(x + h e_i) - f(x - h e_i)) / 2h, with an error of order h^2.

    Parameters
    ----------
    f
        A function of an array that returns a number. It is handed `x` itself,
        with one element moved by `h`.
    x : float64 array of any shape
        Where to differentiate. It is written to, and restored element by
        element, also when `f` raises.
    verbose
        Print each index with its derivative.
    h
        The step. In float32 the difference would drown in rounding, which is
        why `x` must be float64.

    Returns
    -------
    float64 array of the shape of `x`

    Raises
    ------
    TypeError
        If `x` is not a float64 array.
    ValueError
        If `h` is not positive, `x` is read-only, or `f` does not return one number.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float64:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"x: expected a float64 array, got {kind}")
    if not x.flags.writeable:
        raise ValueError("x: expected a writable array, got one that is read-only")
    h = checks.real("h", h, minimum=0.0)
    if h == 0.0:
        raise ValueError("h: expected a positive step, got 0.0")

    def value() -> float:
        result = np.asarray(f(x))
        if result.size != 1:
            raise ValueError(f"f: expected a function to one number, got shape {result.shape}")
        return float(result.reshape(()))

    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        original = x[index]
        try:
            x[index] = original + h
            above = value()
            x[index] = original - h
            below = value()
        finally:
            x[index] = original
        gradient[index] = (above - below) / (2 * h)
        if verbose:
            print(index, gradient[index])  # noqa: T201
    return gradient
