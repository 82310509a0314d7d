"""Activations beside ReLU: the logistic function, the hyperbolic tangent, and a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from fastnn import checks
from fastnn.checks import Array
from fastnn.layers import Layer, floating_pair


class _Curve(Layer):
    """An activation whose derivative is computed from its output.

    In training the output is kept for `backward`, which needs it once, and is read-only: a layer
    of a user's own that changed its input in place would change the derivative. Outside, where an
    array might be changed between the two calls, it is computed again.
    """

    _kept: tuple[Array, Array] | None = None

    def forward(self, input: npt.ArrayLike) -> Array:
        X = checks.floating_matrix("input", input)
        output: Array = getattr(self._backend, self._operations[0])(X)
        self._kept = None
        if self.training:
            output.flags.writeable = False
            self._kept = X, output
        return output

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        X, G = floating_pair(input, grad_output)
        kept, self._kept = self._kept, None
        if self.training and kept is not None and kept[0] is X:
            output = kept[1]
        else:
            output = getattr(self._backend, self._operations[0])(X)
        grad_input: Array = getattr(self._backend, self._operations[1])(output, G)
        return grad_input

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_kept", None)
        return state


class Sigmoid(_Curve):
    """The logistic function, 1 / (1 + exp(-x)), on each element. NaN stays NaN.

    No exponential overflows, whatever the size of x.
    """

    _operations = ("sigmoid_forward", "sigmoid_backward")

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return 1 / (1 + exp(-input)).

        Parameters
        ----------
        input : array of shape [batch, units]

        Raises
        ------
        ValueError
            If `input` is not a matrix or is empty.
        TypeError
            If it does not hold real numbers.
        """
        return super().forward(input)

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return grad_output * y * (1 - y), with y the output.

        Parameters
        ----------
        input, grad_output : arrays of one shape, [batch, units]

        Raises
        ------
        ValueError
            If a shape is wrong.
        TypeError
            If either does not hold real numbers.
        """
        return super().backward(input, grad_output)


class Tanh(_Curve):
    """The hyperbolic tangent on each element. NaN stays NaN."""

    _operations = ("tanh_forward", "tanh_backward")

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return tanh(input).

        Parameters
        ----------
        input : array of shape [batch, units]

        Raises
        ------
        ValueError
            If `input` is not a matrix or is empty.
        TypeError
            If it does not hold real numbers.
        """
        return super().forward(input)

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return grad_output * (1 - y²), with y the output.

        Parameters
        ----------
        input, grad_output : arrays of one shape, [batch, units]

        Raises
        ------
        ValueError
            If a shape is wrong.
        TypeError
            If either does not hold real numbers.
        """
        return super().backward(input, grad_output)


class Activation(Layer):
    """An activation of your own, from a function of arrays and its derivative.

    `Activation(np.sin, np.cos)`. Only Python knows such a layer, so networks that hold one take
    the layer path, and can't be saved.

    Parameters
    ----------
    function
        Called with the input, an array of shape [batch, units] that is read-only; returns an array
        of that shape.
    derivative
        Likewise; returns the derivative of `function` at each element of the input.

    Raises
    ------
    TypeError
        If either is not a function.
    """

    def __init__(
        self, function: Callable[[Array], Array], derivative: Callable[[Array], Array]
    ) -> None:
        self.function = checks.function("function", function)
        self.derivative = checks.function("derivative", derivative)

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return function(input).

        Parameters
        ----------
        input : array of shape [batch, units]

        Raises
        ------
        ValueError
            If `input` is not a matrix or is empty, or the function returns another shape.
        TypeError
            If either does not hold real numbers.
        """
        return self._values("function", checks.floating_matrix("input", input))

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return grad_output * derivative(input).

        Parameters
        ----------
        input, grad_output : arrays of one shape, [batch, units]

        Raises
        ------
        ValueError
            If a shape is wrong, that of what the derivative returns included.
        TypeError
            If something does not hold real numbers.
        """
        X, G = floating_pair(input, grad_output)
        grad_input: Array = G * self._values("derivative", X)
        return grad_input

    def __repr__(self) -> str:
        names = (getattr(f, "__name__", repr(f)) for f in (self.function, self.derivative))
        return f"Activation({', '.join(names)})"

    def _values(self, name: str, input: Array) -> Array:
        # read-only: a function that writes into its input would change what backward is given
        values = getattr(self, name)(checks.read_only(input))
        return checks.shaped(f"{name}(input)", values, input.shape).astype(input.dtype, copy=False)
