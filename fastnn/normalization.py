"""Batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, habits
from fastnn.backends import description
from fastnn.checks import Array
from fastnn.initializers import Shape, zeros
from fastnn.layers import BUILT_IN, USUAL_RATE, LiveView, ParametricLayer, cast
from fastnn.optimizers import SMALLEST_EPSILON, Optimizer
from fastnn.parameters import NamedVector
from fastnn.schedules import Rate


@BUILT_IN.register
class BatchNorm(ParametricLayer):
    """Normalise each unit over the batch: y = scale (x - mean) / √(variance + epsilon) + shift.

    In training, mean and (biased) variance are those of the batch, and enter running ones:
    running <- momentum running + (1 - momentum) batch. In prediction they are the running ones.
    A batch of one sample is normalised to 0, so it gives `shift`; as it has no variance, the
    running statistics stay.

    Parameters
    ----------
    units
        The width of input and output.
    learning_rate
        Short for `optimizer=SGD(learning_rate)`, as in `Dense`.
    optimizer
        What moves scale and shift; `Network(optimizer=...)` replaces it, and warns.
    momentum
        How much of the running statistics each batch leaves, from 0 to 1.
    epsilon
        Added to the variance, above 0 in float32 as well.

    Attributes
    ----------
    scale, shift : arrays of shape [units]
        The parameters, 1 and 0 to begin with. Live views; assigning copies in.
    running_mean, running_variance : arrays of shape [units]
        0 and 1 to begin with. Live views; assigning copies in.

    Raises
    ------
    ValueError
        If `units` is not positive, `epsilon` below 1.2e-38, `momentum` not from 0 to 1, or
        `learning_rate` negative, infinite or NaN.
    TypeError
        If `units` is not an integer, or another not a number.

    Notes
    -----
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015; formulas in `fastnn/backends/numpy_backend.py`.
    `backward` outside training belongs to the map of prediction, in which mean and variance are
    constants.
    """

    _operations = ("batch_norm_forward", "batch_norm_backward")
    _arguments = ("units", "momentum", "epsilon")
    _statistics = ("running_mean", "running_variance")

    @habits.explained
    def __init__(
        self,
        units: int,
        learning_rate: Rate = USUAL_RATE,
        *,
        optimizer: Optimizer | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ) -> None:
        width = checks.integer("units", units, minimum=1)
        checks.held("units", width)
        initial = {"scale": _ones, "shift": zeros, "running_mean": zeros, "running_variance": _ones}
        self.momentum = momentum
        self.epsilon = epsilon
        super().__init__(dict.fromkeys(initial, (width,)), initial, learning_rate, None, optimizer)
        self._units = width

    @property
    def units(self) -> int:
        """The width of input and output; fixed."""
        return self._units

    @property
    def input_units(self) -> int:  # type: ignore[override]
        """The width of the input; fixed."""
        return self.units

    @property
    def output_units(self) -> int:  # type: ignore[override]
        """The width of the output; fixed."""
        return self.units

    @property
    def momentum(self) -> float:
        """How much of the running statistics each batch leaves."""
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        momentum = checks.real("momentum", value, minimum=0.0)
        if momentum > 1.0:
            raise ValueError(f"momentum: expected a number from 0 to 1, got {momentum}")
        self._momentum = momentum

    @property
    def epsilon(self) -> float:
        """What is added to the variance."""
        return self._epsilon

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        # a unit whose input is one number has no variance: 0 / √0 would be NaN
        self._epsilon = checks.real("epsilon", value, minimum=SMALLEST_EPSILON)

    scale = LiveView("The factor of each unit, [units].")
    shift = LiveView("The addend of each unit, [units].")
    running_mean = LiveView("The mean of each unit that prediction subtracts, [units].")
    running_variance = LiveView("The variance of each unit that prediction divides by, [units].")

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return the normalised input; see `Layer.forward`.

        In training, the running statistics move as well.
        """
        X = checks.matrix("input", input, units=self.units)
        values = self._parameters.promoted("input", X)
        views = values.views
        X, scale, shift = cast(X, values.dtype), views["scale"], views["shift"]
        if not self.training:
            mean, variance = (views[name] for name in self._statistics)
            return self._backend.batch_norm_inference(X, scale, shift, mean, variance, self.epsilon)
        output, *of_batch = self._backend.batch_norm_forward(X, scale, shift, self.epsilon)
        if len(X) == 1:
            return output
        own = self._parameters.drawn().views
        with np.errstate(all="ignore"):  # as of the backends
            for name, batch in zip(self._statistics, of_batch, strict=True):
                own[name][...] = self.momentum * own[name] + (1 - self.momentum) * batch
        return output

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.units}, {self._learning()})"

    def _describe(self, start: int) -> description.BatchNorm:
        slots = self._parameters.layout.slots
        offsets = {f"{name}_offset": start + slot.offset for name, slot in slots.items()}
        return description.BatchNorm(
            self.units,
            **offsets,
            momentum=self.momentum,
            epsilon=self.epsilon,
            rule=self.optimizer._rule(),
        )

    def _backpropagated(
        self,
        input: npt.ArrayLike,
        grad_output: npt.ArrayLike,
        *,
        input_gradient: bool,
        penalty_factor: float = 1.0,
    ) -> tuple[Array | None, NamedVector]:
        X = checks.matrix("input", input, units=self.units)
        G = checks.shaped("grad_output", grad_output, X.shape)
        values = self._parameters.promoted("input and grad_output", X, G)
        gradient = self._parameters.gradient_like(values)
        views, dtype = values.views, values.dtype
        X, G, scale = cast(X, dtype), cast(G, dtype), views["scale"]
        out = gradient.views["scale"], gradient.views["shift"]
        if self.training:
            grad_input = self._backend.batch_norm_backward(X, G, scale, self.epsilon, *out)
        else:
            mean, variance = (views[name] for name in self._statistics)
            grad_input = self._backend.batch_norm_inference_backward(
                X, G, scale, mean, variance, self.epsilon, *out
            )
        return grad_input, gradient

    def _changed_by_forward(self) -> list[Array]:
        return [getattr(self, name).copy() for name in self._statistics]

    def _change_back(self, before: list[Any]) -> None:
        for name, value in zip(self._statistics, before, strict=True):
            getattr(self, name)[...] = value


def _ones(rng: np.random.Generator, shape: Shape) -> Array:
    return np.ones(shape)


def factors_and_addends(layer: BatchNorm) -> tuple[Array, Array]:
    """Return what prediction multiplies and adds, [units], in float64.

    scale (x - mean) / √(variance + epsilon) + shift = factor x + addend.
    """
    names = ("scale", "shift", "running_mean", "running_variance")
    scale, shift, mean, variance = (np.array(getattr(layer, name), np.float64) for name in names)
    factors = scale / np.sqrt(variance + layer.epsilon)
    return factors, shift - factors * mean
