"""Samples: what a user hands to a network, as arrays that its kernels can trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy.typing as npt

from fastnn import checks
from fastnn.activations import Sigmoid
from fastnn.checks import Array
from fastnn.layers import keeps_width
from fastnn.losses import BinaryCrossEntropy

if TYPE_CHECKING:
    from fastnn.network import Network


def inputs(network: Network, X: npt.ArrayLike, name: str = "X") -> Array:
    """Return `X` as an array [n, input_units], or raise by name."""
    if not network._layers:
        raise ValueError("the network has no layer yet: add one first")
    first = next((layer for layer in network._layers if not keeps_width(layer)), None)
    return checks.matrix(name, X, units=None if first is None else first.input_units)


def checked(
    network: Network, X: npt.ArrayLike, y: npt.ArrayLike, names: tuple[str, str] = ("X", "y")
) -> tuple[Array, Array]:
    """Return inputs, and targets as the network's loss takes them, or raise by name."""
    X = inputs(network, X, names[0])
    if isinstance(network._loss, BinaryCrossEntropy) and isinstance(network[-1], Sigmoid):
        raise ValueError(
            "loss: 'binary_cross_entropy' has a sigmoid of its own, so the last layer gives "
            f"logits; leave out {network[-1]!r}"
        )
    outputs = output_units(network, X)
    targets = network._loss.targets(names[1], y, batch=len(X), outputs=outputs, dtype=network.dtype)
    return X, targets


def weights(network: Network, sample_weight: npt.ArrayLike | None, count: int) -> Array | None:
    """Return the weights of so many samples, float64, or None where there are none."""
    if sample_weight is None:
        return None
    network._loss.check_weights("sample_weight")
    return checks.weights("sample_weight", sample_weight, count)


def output_units(network: Network, X: Array) -> int:
    """Return the number of outputs, for which a row of `X` may have to be tried."""
    return network._width() or network.forward(X[:1])[-1].shape[1]


def has_classes(network: Network, X: Array, targets: Array) -> bool:
    """Say whether an answer to these targets is right or wrong."""
    return network._loss.has_classes(targets, output_units(network, X))


def has_quantities(network: Network, X: Array, targets: Array) -> bool:
    """Say whether targets are real numbers, one for each output."""
    return network._loss.has_quantities(targets, output_units(network, X))
