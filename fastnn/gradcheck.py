"""Gradients by finite differences, to check those that were derived by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks, samples
from fastnn.checks import Array
from fastnn.layers import Gradients, Layer, ParametricLayer, TrainingMode
from fastnn.network import Network

STEP = 1e-6
"""Of finite differences: a compromise between their error, of order h, and rounding, eps / h."""


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
    if np.ma.is_masked(x):
        raise TypeError("x: expected an array without masked elements")
    checks.function("f", f)
    checks.flag("verbose", verbose)
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


def check_gradients(
    network: Network,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    tolerance: float = 1e-4,
    numbers: int = 50,
    seed: int | np.random.Generator | None = 0,
) -> None:
    """Compare the derivatives of each layer and of the loss with finite differences.

    For layers and losses of your own. It works in float64 on a copy, layer by layer: the gradients
    of Σ G forward(x), with random numbers G, by the input and by each parameter that the layer
    reports, in training, so with the masks of dropout and the statistics of the batch. Where a
    function has a kink, as ReLU at 0, any number between the differences on both sides is right.

    Parameters
    ----------
    network
        It stays as it is.
    X : array of shape [batch, input_units]
        A small batch, two samples or more if there is batch norm.
    y : targets, one a sample; see `Network.use`
    tolerance
        The largest error, as a share of the largest derivative of the same array.
    numbers
        How many numbers of an array are moved at the most, drawn at random.
    seed
        What they and G are drawn from.

    Raises
    ------
    AssertionError
        If a derivative is wrong; it names the layer, the array, the place, and both numbers.
    ValueError, TypeError
        As `Network.gradients`; and if a layer's output is another each time.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network: expected a fastnn.Network, got {network!r}")
    tolerance = checks.real("tolerance", tolerance, minimum=0.0)
    numbers = checks.integer("numbers", numbers, minimum=1)
    rng = checks.generator("seed", seed)
    X, y = samples.checked(network, X, y)
    layers = copy.deepcopy(network.layers)
    twin, loss = Network(layers, backend=network.backend, dtype=np.float64), network._loss
    backend = backends.load(twin.backend)
    with TrainingMode(layers, True):
        input = np.array(X, np.float64)
        for layer in layers:
            weighted = _WeightedSum(layer, input, rng)
            gradient, of_parameters = weighted.gradients()
            derivatives = [("input", input, gradient)]
            derivatives += [
                (name, layer.parameters[name], of_parameters[name]) for name in of_parameters
            ]
            for name, x, found in derivatives:
                place = f"{layer!r}: the derivative by {name}"
                _compare(place, weighted.terms, x, found, tolerance, numbers, rng)
            input = np.array(weighted.output, np.float64)

    def mean_loss() -> Array:
        return np.array([loss.total(backend, input, y) / len(y)])

    mean_loss()  # as in training: a loss may keep something for its derivative
    found = loss.gradient(backend, input, y)
    place = f"{loss!r}: the derivative by the output"
    _compare(place, mean_loss, input, found, tolerance, numbers, rng)


class _WeightedSum:
    """Σ G forward(input), with random numbers G, and the penalty, of one layer."""

    def __init__(self, layer: Layer, input: Array, rng: np.random.Generator) -> None:
        self._layer, self._input = layer, input
        self.output = self._forward()
        if not np.array_equal(self.output, self._forward(), equal_nan=True):
            raise ValueError(
                f"network: expected layers that do the same each time, got {layer!r}, whose output "
                "is another each time"
            )
        self._G = rng.normal(size=self.output.shape)

    def terms(self) -> Array:
        """What is added up."""
        penalty = self._layer.penalty if isinstance(self._layer, ParametricLayer) else 0.0
        return np.append(self._G * self._forward(), penalty)

    def gradients(self) -> tuple[Array, Gradients]:
        """What the layer says of the derivatives."""
        before = self._layer._changed_by_forward()
        try:
            self._layer.forward(self._input)
            return self._layer.gradients(self._input, self._G)
        finally:
            self._layer._change_back(before)

    def _forward(self) -> Array:
        before = self._layer._changed_by_forward()
        try:
            return np.array(self._layer.forward(self._input), np.float64)
        finally:
            self._layer._change_back(before)


def _compare(
    place: str,
    terms: Callable[[], Array],
    x: Array,
    gradient: Array,
    tolerance: float,
    numbers: int,
    rng: np.random.Generator,
) -> None:
    """Raise unless some numbers of the gradient of a sum of terms by `x` are right."""
    if np.shape(gradient) != x.shape:
        raise AssertionError(f"{place} has shape {np.shape(gradient)}, and not {x.shape}")
    chosen = rng.permutation(x.size)[:numbers]
    places = [np.unravel_index(number, x.shape) for number in chosen]
    here = terms()
    rounding = 8 * np.finfo(np.float64).eps * np.abs(here).sum() / STEP
    sides = np.empty((len(places), 2))
    for number, index in enumerate(places):
        original = x[index]
        try:
            x[index] = original + STEP
            sides[number, 1] = (terms() - here).sum() / (x[index] - original)
            x[index] = original - STEP
            sides[number, 0] = (here - terms()).sum() / (original - x[index])
        finally:
            x[index] = original
    found = np.array([gradient[index] for index in places])
    outside = np.maximum(sides.min(axis=1) - found, found - sides.max(axis=1)).clip(min=0)
    allowed = tolerance * max(np.abs(found).max(), np.abs(sides).max()) + rounding
    worst = int(np.argmax(np.where(np.isfinite(outside), outside, np.inf)))
    if not outside[worst] <= allowed:
        index = tuple(int(i) for i in places[worst])
        raise AssertionError(
            f"{place} is {found[worst]:.6g} at {list(index)}, where finite differences give "
            f"{sides[worst].mean():.6g}"
        )
