"""From an estimator's parameters to a network and its optimiser."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastnn import activations, checks, optimizers
from fastnn.activations import Sigmoid
from fastnn.checks import Array
from fastnn.dropout import Dropout
from fastnn.layers import BUILT_IN, Dense, Layer
from fastnn.network import Network
from fastnn.normalization import BatchNorm
from fastnn.optimizers import SGD, EpsilonHatAdam, Optimizer

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    **activations.BY_NAME,
    "logistic": Sigmoid,
    "identity": Layer,
}
"""What makes each activation that has a name here: scikit-learn's and fastnn's."""

NUMBERS = (
    "alpha", "learning_rate_init", "power_t", "tol", "momentum", "validation_fraction",
    "beta_1", "beta_2", "epsilon",
)  # fmt: skip
"""Parameters that are floats."""


def hidden_units(sizes: Any) -> list[int]:
    """Return the widths of the hidden layers.

    Raises
    ------
    ValueError
        If one is not positive.
    TypeError
        If one is no integer.
    """
    widths = list(sizes) if np.iterable(sizes) else [sizes]
    try:
        positive = all(width > 0 for width in widths)
    except (TypeError, ValueError):  # what is no number at all is refused below
        positive = True
    if not positive:
        raise ValueError(f"hidden_layer_sizes must be > 0, got {widths}.")
    return [checks.integer("hidden_layer_sizes", width, minimum=1) for width in widths]


def check_numbers(parameters: Any) -> None:
    """Raise where a float can't hold an integer in the place of one: scikit-learn takes any."""
    for name in NUMBERS:
        try:
            float(getattr(parameters, name))
        except OverflowError:
            raise ValueError(f"{name}: expected a finite number, got a larger integer") from None


def check_plain(name: str, value: Any) -> None:
    """Refuse what scikit-learn would take for other numbers: those behind a mask, and times."""
    if np.ma.is_masked(value):
        raise TypeError(f"{name}: expected an array without masked elements")
    wrong = [
        dtype
        for dtype in _dtypes(value)
        if getattr(dtype, "kind", "") in ("m", "M", "V")
        or getattr(dtype, "is_temporal", bool)()  # of polars, whose dtypes are of no kind
    ]
    if wrong:
        raise TypeError(f"{name}: expected real numbers, got dtype {wrong[0]}")


def _dtypes(value: Any) -> Iterable[Any]:
    """Return the dtypes of an array, of the columns of a table, or of objects one by one."""
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError:  # ragged, which scikit-learn refuses
            return []
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [getattr(number, "dtype", None) for number in value.flat]
    return np.atleast_1d(np.asarray(getattr(value, "dtypes", getattr(value, "dtype", None)), "O"))


def of_each_layer(name: str, value: Any, layers: int) -> list[Any]:
    """Return one value for each hidden layer: those of a list, or the same for all."""
    if not isinstance(value, (list, tuple)):
        return [value] * layers
    if len(value) != layers:
        raise ValueError(
            f"{name}: expected one for each of {layers} hidden layers, got {len(value)}"
        )
    return list(value)


def alike(value: Any, other: Any) -> bool:
    """Say whether two values of a parameter make the same layers.

    Of a layer that only a user knows nothing but itself is known to be the same.
    """
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(alike, value, other))
    if isinstance(value, Layer) and isinstance(other, Layer):
        own = value in BUILT_IN and other in BUILT_IN
        return value is other or (own and repr(value) == repr(other))
    return bool(value == other)


def draw(
    units: Sequence[int], activation: Sequence[Any], dtype: Any, random_state: Any
) -> tuple[list[Array], list[Array]]:
    """Return initial weights and biases of each layer, those of scikit-learn bit for bit.

    Both are uniform over ±sqrt(6 / (fan_in + fan_out)), or with 2 in place of 6 where the layer's
    activation is the logistic function. The output layer goes by the last hidden one.
    """
    coefs, intercepts = [], []
    kinds = [*activation, activation[-1] if activation else None]
    for (inputs, outputs), kind in zip(pairwise(units), kinds, strict=True):
        logistic = isinstance(kind, Sigmoid) or kind in ("logistic", "sigmoid")
        bound = np.sqrt((2.0 if logistic else 6.0) / (inputs + outputs))
        weights = random_state.uniform(-bound, bound, (inputs, outputs))
        biases = random_state.uniform(-bound, bound, outputs)
        coefs.append(weights.astype(dtype, copy=False))
        intercepts.append(biases.astype(dtype, copy=False))
    return coefs, intercepts


def build(
    coefs: Sequence[Array],
    intercepts: Sequence[Array],
    *,
    activation: Sequence[Any],
    dropout: Sequence[float],
    batch_norm: bool,
    loss: str,
    seed: int | None,
) -> Network:
    """Return a network of these weights, whose hidden layers are as the parameters say."""
    layers: list[Layer] = []
    for number, (weights, biases) in enumerate(zip(coefs, intercepts, strict=True)):
        inputs, outputs = np.shape(weights)
        layers.append(
            Dense(inputs, outputs, weights=partial(_given, weights), biases=partial(_given, biases))
        )
        if number == len(activation):
            break
        if batch_norm:
            layers.append(BatchNorm(outputs))
        layers.extend(_activation(activation[number]))
        if checks.real("dropout", dropout[number], minimum=0.0, below=1.0) > 0:
            layers.append(Dropout(dropout[number]))
    return Network(layers, loss=loss, dtype=np.asarray(coefs[0]).dtype, seed=seed)


def _given(value: Array, rng: object, shape: object) -> Array:
    """Return what an initialiser returns that has nothing to draw."""
    return value


def _activation(kind: Any) -> list[Layer]:
    if isinstance(kind, Dense):
        raise ValueError(
            "activation: expected a layer that keeps each unit to itself, got "
            f"{kind!r}; hidden_layer_sizes makes the dense layers"
        )
    if isinstance(kind, Layer):
        return [copy.deepcopy(kind)]  # the parameter stays as it is, and can serve other layers
    if not isinstance(kind, str) or kind not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(map(repr, sorted(ACTIVATIONS)))}, or a layer "
            f"of fastnn, got {kind!r}"
        )
    return [] if kind == "identity" else [ACTIVATIONS[kind]()]


def make_optimizer(parameters: Any) -> Optimizer:
    """Return a new optimiser, as an estimator's parameters say."""
    chosen = parameters.optimizer
    rate = float(parameters.learning_rate_init)
    made: Optimizer
    if isinstance(chosen, Optimizer):
        made = copy.deepcopy(chosen)
    elif chosen is not None:
        made = optimizers.checked("optimizer", chosen)
        made.learning_rate = rate
    elif parameters.solver == "sgd":
        momentum = min(parameters.momentum, np.nextafter(1.0, 0.0))  # scikit-learn takes 1, too
        nesterov = bool(parameters.nesterovs_momentum and momentum > 0)
        made = SGD(rate, momentum=momentum, nesterov=nesterov)
    else:
        epsilon = max(parameters.epsilon, optimizers.SMALLEST_EPSILON)
        made = EpsilonHatAdam(rate, float(parameters.beta_1), float(parameters.beta_2), epsilon)
    if parameters.schedule is not None:
        made.learning_rate = parameters.schedule
    return made
