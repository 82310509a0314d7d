"""Activations beside ReLU, and a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

import numpy.typing as npt

from fastnn import checks, habits
from fastnn.backends.numpy_backend import SELU_ALPHA, SELU_SCALE
from fastnn.checks import Array
from fastnn.layers import (
    BUILT_IN,
    Elementwise,
    ElementwiseConstant,
    Elsewhere,
    Layer,
    Rescaling,
    floating_pair,
)

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "LeakyReLU",
    "Mish",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
]

EXPM1 = "Tanh(Min(x, 0) / 2) * (1 + Exp(Min(x, 0)))"
"""exp(x) - 1 for x < 0, else 0, in ONNX, which has no operator for it; nothing cancels near 0."""


@BUILT_IN.register
class Sigmoid(Elementwise):
    """The logistic function, y = 1 / (1 + exp(-x)); its derivative is y (1 - y).

    No exponential overflows, whatever the size of x. NaN stays NaN.
    """

    _function = "sigmoid"
    _from_output = True
    _elsewhere = Elsewhere(
        torch="Sigmoid()",
        onnx="Sigmoid(x)",
        sklearn="logistic",
        javascript="x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x))",
    )


@BUILT_IN.register
class Tanh(Elementwise):
    """The hyperbolic tangent, y = tanh(x); its derivative is 1 - y². NaN stays NaN."""

    _function = "tanh"
    _from_output = True
    _elsewhere = Elsewhere(
        torch="Tanh()", onnx="Tanh(x)", sklearn="tanh", javascript="Math.tanh(x)"
    )


@BUILT_IN.register
class LeakyReLU(Elementwise):
    """x where x > 0, else slope x; its derivative is 1 where x > 0, else slope.

    Parameters
    ----------
    slope
        Of the line below 0, finite.

    Raises
    ------
    ValueError
        If `slope` is infinite or NaN.
    TypeError
        If it is not a number.
    """

    _function = "leaky_relu"
    _elsewhere = Elsewhere(
        torch="LeakyReLU(negative_slope=slope)",
        onnx="LeakyRelu(x, alpha=slope)",
        onnx_in_float64="Relu(x) + slope * Min(x, 0)",
        javascript="x > 0 ? x : slope * x",
    )
    slope = ElementwiseConstant("Of the line below 0.")

    @habits.explained
    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope


@BUILT_IN.register
class ELU(Elementwise):
    """The exponential linear unit, x where x > 0, else alpha (exp(x) - 1).

    Its derivative is 1 where x > 0, else alpha exp(x).

    Parameters
    ----------
    alpha
        Minus the limit for small x, finite.

    Raises
    ------
    ValueError
        If `alpha` is infinite or NaN.
    TypeError
        If it is not a number.
    """

    _function = "elu"
    _elsewhere = Elsewhere(
        torch="ELU(alpha=alpha)",
        onnx="Elu(x, alpha=alpha)",
        onnx_in_float64=f"Relu(x) + alpha * {EXPM1}",
        javascript="x < 0 ? alpha * Math.expm1(x) : x",
    )
    alpha = ElementwiseConstant("Minus the limit for small x.")

    @habits.explained
    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha


@BUILT_IN.register
class SELU(Elementwise):
    """The self-normalising ELU, 1.0507 ELU(x) with alpha = 1.6733.

    Where weights begin with variance 1 / input_units, mean and variance of the units stay near 0
    and 1 from layer to layer.
    """

    _function = "selu"
    _elsewhere = Elsewhere(
        torch="SELU()",
        onnx="Selu(x)",
        onnx_in_float64=f"{SELU_SCALE} * (Relu(x) + {SELU_ALPHA} * {EXPM1})",
        javascript=f"{SELU_SCALE} * FUNCTIONS.elu(x, {SELU_ALPHA})",
    )


@BUILT_IN.register
class SiLU(Elementwise):
    """The sigmoid linear unit, or swish: x / (1 + exp(-x))."""

    _function = "silu"
    _elsewhere = Elsewhere(
        torch="SiLU()",
        onnx="x * Sigmoid(x)",
        # versions of onnxruntime make a product with a sigmoid one of float32
        onnx_in_float64="x / (1 + Exp(-x))",
        javascript="x * FUNCTIONS.sigmoid(x)",
    )


@BUILT_IN.register
class GELU(Elementwise):
    """The Gaussian error linear unit, x Φ(x), by the error function, not its approximations."""

    _function = "gelu"
    _elsewhere = Elsewhere(
        torch="GELU(approximate='none')",
        # for float64 as well: onnxruntime lacks Erf there, and nothing else makes up for that
        onnx=f"x * (1 + Erf(x * {math.sqrt(0.5)})) * 0.5",
        javascript="(x / 2) * (1 + erf(x / Math.SQRT2))",
    )


@BUILT_IN.register
class Softplus(Elementwise):
    """log(1 + exp(x)), a smooth ReLU; its derivative is the sigmoid."""

    _function = "softplus"
    _elsewhere = Elsewhere(
        # from its threshold on it is the identity: at 20, its default, that is 2e-9 too little
        torch="Softplus(beta=1, threshold=40)",
        onnx="Softplus(x)",
        onnx_in_float64="Relu(x) + Log(1 + Exp(-Abs(x)))",
        javascript="Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)))",
    )


@BUILT_IN.register
class Mish(Elementwise):
    """x tanh(log(1 + exp(x)))."""

    _function = "mish"
    _elsewhere = Elsewhere(
        torch="Mish()",
        # With e = exp(x) and n = e (e + 2), tanh(log(1 + e)) = n / (n + 2). From x = 20 on that is
        # 1 in float64 as well, so e need not grow any more.
        onnx="e = Exp(Min(x, 20)); n = e * (e + 2); x * (n / (n + 2))",
        javascript="x * Math.tanh(FUNCTIONS.softplus(x))",
    )


@BUILT_IN.register
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

    _only_python = True
    function = checks.Checked(checks.function)
    derivative = checks.Checked(checks.function)

    def __init__(
        self, function: Callable[[Array], Array], derivative: Callable[[Array], Array]
    ) -> None:
        self.function = function
        self.derivative = derivative

    def _describe(self, start: int) -> NoReturn:
        raise TypeError(f"{self!r} is known to Python alone")

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return function(input); see `Layer.forward`.

        Raises
        ------
        ValueError
            Also if the function returns another shape.
        TypeError
            Also if what it returns does not hold real numbers.
        """
        return self._values("function", checks.floating_matrix("input", input))

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return grad_output * derivative(input); see `Layer.backward`.

        Raises
        ------
        ValueError, TypeError
            Also because of what the derivative returns, as in `forward`.
        """
        X, G = floating_pair(input, grad_output)
        grad_input: Array = G * self._values("derivative", X)
        return grad_input

    def __repr__(self) -> str:
        names = (getattr(f, "__name__", repr(f)) for f in (self.function, self.derivative))
        return f"{type(self).__name__}({', '.join(names)})"

    def _values(self, name: str, input: Array) -> Array:
        # read-only: a function that writes into its input would change what backward is given
        values = getattr(self, name)(checks.read_only(input))
        return checks.shaped(f"{name}(input)", values, input.shape).astype(input.dtype, copy=False)


BY_NAME: dict[str, Callable[[], Elementwise]] = {
    kind._function: kind
    for kind in BUILT_IN
    if issubclass(kind, Elementwise) and kind is not Rescaling
}
"""The activations by short names, such as "leaky_relu"; each can be made without an argument."""
