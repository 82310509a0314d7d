"""Optimisers: how a gradient moves parameters."""

from __future__ import annotations

from fastnn import checks
from fastnn.backends import Backend
from fastnn.checks import Array


class SGD:
    """Stochastic gradient descent: θ <- θ - learning_rate dL/dθ.

    Parameters
    ----------
    learning_rate
        Not negative; 0 leaves parameters as they are.

    Raises
    ------
    ValueError
        If `learning_rate` is negative, infinite or NaN.
    TypeError
        If it is not a number.
    """

    def __init__(self, learning_rate: float = 0.1) -> None:
        self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> float:
        """The factor on the gradient in each step."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = checks.real("learning_rate", value, minimum=0.0)

    def __repr__(self) -> str:
        return f"SGD(learning_rate={self.learning_rate!r})"

    def step(self, backend: Backend, parameters: Array, gradient: Array) -> None:
        """Move `parameters`, a flat vector, against `gradient` of the same layout, in place."""
        backend.sgd_step(parameters, gradient, self.learning_rate)
