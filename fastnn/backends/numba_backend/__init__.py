"""The operations of `numpy_backend`, by compiled kernels.

Kernels want rows of contiguous elements in one dtype. The functions here see
to that, allocate results, and leave the loops to the kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends import Labels
from fastnn.backends.numba_backend import activations, dense, losses, optimizers
from fastnn.checks import Array


def prepare(dtype: np.dtype[Any]) -> None:
    """Make ready to compute in `dtype`: run each kernel once, on one element."""
    one, label = np.ones((1, 1), dtype), np.zeros(1, np.int64)
    for relu in (False, True):
        dense_forward(one, one, one[0], relu=relu)
    dense_backward(one, one, one, np.empty_like(one), np.empty_like(one[0]))
    relu_backward(relu_forward(rescale(one, 1.0)), one)
    softmax(one)
    softmax_cross_entropy(one, label)
    softmax_cross_entropy_gradient(one, label)
    sgd_step(one[0], one[0], 0.0)


def rescale(input: Array, scale: float) -> Array:
    X = np.ascontiguousarray(input)
    output = np.empty_like(X)
    activations.scale(X, X.dtype.type(scale), output)
    return output


def dense_forward(input: Array, weights: Array, biases: Array, *, relu: bool = False) -> Array:
    X, b = np.ascontiguousarray(input), np.ascontiguousarray(biases)
    output = np.empty((len(X), len(b)), X.dtype)
    dense.affine(X, _whole_rows(weights), b, len(b), relu, output)
    return output


def dense_backward(
    input: Array,
    weights: Array,
    grad_output: Array,
    out_grad_weights: Array,
    out_grad_biases: Array,
    *,
    input_gradient: bool = True,
) -> Array | None:
    X, G = np.ascontiguousarray(input), np.ascontiguousarray(grad_output)
    dense.parameter_gradients(X, G, G.shape[1], _whole_rows(out_grad_weights), out_grad_biases)
    if not input_gradient:
        return None
    grad_input = np.empty(X.shape, X.dtype)
    dense.input_gradient(_whole_rows(weights), G, grad_input)
    return grad_input


def relu_forward(input: Array) -> Array:
    X = np.ascontiguousarray(input)
    output = np.empty_like(X)
    activations.relu(X, output)
    return output


def relu_backward(input: Array, grad_output: Array) -> Array:
    X, G = np.ascontiguousarray(input), np.ascontiguousarray(grad_output)
    grad_input = np.empty_like(X)
    activations.relu_gradient(X, G, grad_input)
    return grad_input


def softmax(logits: Array) -> Array:
    Z = np.ascontiguousarray(logits)
    probabilities = np.empty_like(Z)
    losses.softmax(Z, probabilities)
    return probabilities


def softmax_cross_entropy(logits: Array, labels: Labels) -> Array:
    Z = np.ascontiguousarray(logits)
    values = np.empty(len(Z), Z.dtype)
    losses.cross_entropy(Z, labels, values)
    return values


def softmax_cross_entropy_gradient(logits: Array, labels: Labels) -> Array:
    Z = np.ascontiguousarray(logits)
    gradient = np.empty_like(Z)
    losses.cross_entropy_gradient(Z, labels, gradient)
    return gradient


def sgd_step(parameters: Array, gradient: Array, learning_rate: float) -> None:
    optimizers.sgd(parameters, gradient, parameters.dtype.type(learning_rate))


def _whole_rows(matrix: Array) -> Array:
    """Return a view of `matrix` with the padding of its rows, so that it counts as contiguous.

    A kernel vectorises a loop along a row only where it is sure that elements
    are neighbours. It never touches the padding.
    """
    stride, itemsize = matrix.strides[0], matrix.itemsize
    if matrix.strides[1] != itemsize or stride % itemsize or stride < matrix.shape[1] * itemsize:
        raise ValueError(f"matrix: expected rows of neighbouring elements, got {matrix.strides}")
    return np.lib.stride_tricks.as_strided(matrix, (len(matrix), stride // itemsize))
