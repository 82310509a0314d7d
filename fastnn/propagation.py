"""A batch forward through the layers one by one, and its gradient back through them.

It is open to any layer, a user's own included. What it computes is the reference for the
compiled epoch. Arguments have been checked; what a layer returns has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard, TypeVar

import numpy as np

from fastnn import backends
from fastnn.checks import Array
from fastnn.layers import (
    Dense,
    Gradients,
    Layer,
    ParametricLayer,
    ReLU,
    TrainingMode,
    cast,
    keeps_width,
)
from fastnn.losses import Loss

K = TypeVar("K", bound=Layer)


class Layered(Protocol):
    """What propagation needs of a network."""

    _layers: list[Layer]
    _loss: Loss

    @property
    def backend(self) -> str: ...

    @property
    def clip_norm(self) -> float | None: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def matmul_precision(self) -> str | None: ...


def activations(network: Layered, X: Array) -> list[Array]:
    """Return the output of every layer, in inference."""
    outputs: list[Array] = []
    activation = cast(X, network.dtype)
    with TrainingMode(network._layers, False):
        for layer in network._layers:
            activation = _output(layer, activation, network.dtype)
            outputs.append(activation)
    return outputs


def infer(network: Layered, X: Array) -> Array:
    """Return the last layer's output; a dense layer and the ReLU behind it are one pass."""
    activation = cast(X, network.dtype)
    layers = iter(zip(network._layers, [*network._layers[1:], None], strict=True))
    with TrainingMode(network._layers, False):
        for layer, following in layers:
            if _forwards_as(layer, Dense) and _forwards_as(following, ReLU):
                activation = layer._forward(activation, relu=True)
                next(layers)
            else:
                activation = _output(layer, activation, network.dtype)
    return activation


def step(
    network: Layered,
    X: Array,
    y: Array,
    weights: Array | None = None,
    *,
    penalty_factor: float = 1.0,
) -> tuple[float, Array]:
    """Take one gradient step; return the sum of the losses and the last layer's output before it.

    Where samples have weights, the loss is the weighted mean, and the sum a weighted one. It has
    the layers' penalties `penalty_factor` times. Layers have been told that they train.
    """
    layers = network._layers
    if network.clip_norm is not None:
        check_clipping(layers)
    inputs, loss, output, gradient = _forward_and_loss(network, X, y, weights, penalty_factor)
    first = _first_that_learns(layers)
    if network.clip_norm is not None:
        _step_clipped(network, network.clip_norm, inputs, gradient, first, penalty_factor)
        return loss, output
    for i in range(len(layers) - 1, first - 1, -1):
        layer, input = layers[i], inputs[i]
        below: Array | None
        if isinstance(layer, ParametricLayer) and layer._steps_by_gradients():
            below = layer._step(
                input, gradient, input_gradient=i != first, penalty_factor=penalty_factor
            )
            if below is None:
                break
        else:
            below = layer.backward(input, gradient)
        gradient = _returned(layer, "backward", below, input.shape, network.dtype)
    return loss, output


def _step_clipped(
    network: Layered,
    clip_norm: float,
    inputs: Sequence[Array],
    gradient: Array,
    first: int,
    penalty_factor: float,
) -> None:
    """Go back through the layers, then move their parameters: the norm is that of all gradients."""
    layers, waiting = network._layers, []
    for i in range(len(layers) - 1, first - 1, -1):
        layer, input = layers[i], inputs[i]
        if isinstance(layer, ParametricLayer):
            below, of_parameters = layer._backpropagated(
                input, gradient, input_gradient=i != first, penalty_factor=penalty_factor
            )
            waiting.append((layer, of_parameters))
            if below is None:
                break
            gradient = below
        else:
            gradient = layer.backward(input, gradient)
        gradient = _returned(layer, "backward", gradient, input.shape, network.dtype)
    backend = backends.load(network.backend)
    backend.clip_by_global_norm([of_parameters.array for _, of_parameters in waiting], clip_norm)
    for layer, of_parameters in waiting:
        layer._parameters.step(backend, of_parameters)


def check_clipping(layers: Sequence[Layer]) -> None:
    """Raise unless all layers that are known to learn wait for their gradients to be clipped."""
    for layer in layers:
        if isinstance(layer, ParametricLayer):
            waits = layer._steps_by_gradients()
        else:
            waits = not layer.parameters
        if not waits:
            raise TypeError(
                f"clip_norm: expected None, as {layer!r} moves its parameters in a backward of its "
                "own, before the norm of all gradients is known"
            )


def gradients(
    network: Layered, X: Array, y: Array, weights: Array | None = None
) -> tuple[float, list[Gradients]]:
    """Return the sum of the losses and the gradients of each layer's parameters, without a step."""
    layers = network._layers
    found: list[Gradients] = []
    before = [layer._changed_by_forward() for layer in layers]
    try:
        with TrainingMode(layers, True):
            inputs, loss, _, gradient = _forward_and_loss(network, X, y, weights)
            for layer, input in zip(reversed(layers), reversed(inputs), strict=True):
                gradient, of_parameters = layer.gradients(input, gradient)
                gradient = _returned(layer, "gradients", gradient, input.shape, network.dtype)
                found.append(of_parameters)
    finally:
        for layer, state in zip(layers, before, strict=True):
            layer._change_back(state)
    return loss, found[::-1]


def first_not_finite(network: Layered, X: Array) -> int | None:
    """Return the place of the first layer that gives NaN or infinity; layers may be training."""
    activation = cast(X, network.dtype)
    for number, layer in enumerate(network._layers):
        activation = _output(layer, activation, network.dtype)
        if not np.isfinite(activation).all():
            return number
    return None


def penalty(layers: Sequence[Layer]) -> float:
    """Return what the layers add to the loss of every batch."""
    return sum([layer.penalty for layer in layers if isinstance(layer, ParametricLayer)])


def _forward_and_loss(
    network: Layered, X: Array, y: Array, weights: Array | None, penalty_factor: float = 1.0
) -> tuple[list[Array], float, Array, Array]:
    """Return every layer's input, the sum of the losses, the output, and dL/doutput."""
    backend = backends.load(network.backend)
    inputs, activation = [], cast(X, network.dtype)
    for layer in network._layers:
        inputs.append(activation)
        activation = _output(layer, activation, network.dtype)
    total = len(y) if weights is None else float(weights.sum())
    loss = network._loss.total(backend, activation, y, weights)
    loss += total * penalty_factor * penalty(network._layers)
    gradient = network._loss.weighted_gradient(backend, activation, y, weights)
    return inputs, loss, activation, gradient


def _forwards_as(layer: Layer | None, kind: type[K]) -> TypeGuard[K]:
    """Say whether a layer's forward pass is that of `kind`, not a user's."""
    return type(layer) is kind and "forward" not in layer.__dict__


def _output(layer: Layer, input: Array, dtype: np.dtype[Any]) -> Array:
    try:
        output = np.asarray(layer.forward(input))
    except ValueError as error:
        if layer.input_units in (None, input.shape[1]):
            raise
        raise ValueError(
            f"{layer!r}: expected {layer.input_units} input units, got {input.shape[1]} from the "
            "layer before"
        ) from error
    width = layer.output_units
    if width is None:
        width = output.shape[1] if output.ndim == 2 and output.shape[1] > 0 else input.shape[1]
    return _returned(layer, "forward", output, (len(input), width), dtype)


def _returned(
    layer: Layer, method: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return what a layer's method gave, checked: it may be a user's own."""
    array = np.asarray(value)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{layer!r}.{method}: expected it to return numbers of shape {shape}, "
            f"got shape {array.shape} and dtype {array.dtype}"
        )
    return cast(array, dtype)


def _first_that_learns(layers: Sequence[Layer]) -> int:
    """Return the index of the first layer with parameters; before it nobody needs gradients.

    A layer that is not fastnn's own may learn, so it counts.
    """
    learning = (i for i, layer in enumerate(layers) if not keeps_width(layer))
    return next(learning, len(layers))
