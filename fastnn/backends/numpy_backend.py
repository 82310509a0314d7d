"""What each operation means, in the plainest NumPy. This file is read, not tuned.

Notation: X [batch, input_units] is a layer's input, Y [batch, output_units]
its output, G = dL/dY the gradient of the loss L with respect to the output.
The loss is a mean over the batch, so G is already divided by the batch size
and sums over the batch give gradients of parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends import Labels
from fastnn.checks import Array


def prepare(dtype: np.dtype[Any]) -> None:
    """Make ready to compute in `dtype`: here nothing needs compiling."""


def rescale(input: Array, scale: float) -> Array:
    """Y = scale X."""
    output: Array = input * input.dtype.type(scale)
    return output


def dense_forward(input: Array, weights: Array, biases: Array, *, relu: bool = False) -> Array:
    """Y = X W + b; where `relu` is set, max(0, X W + b)."""
    output = input @ weights + biases
    return relu_forward(output) if relu else output


def dense_backward(
    input: Array,
    weights: Array,
    grad_output: Array,
    out_grad_weights: Array,
    out_grad_biases: Array,
    *,
    input_gradient: bool = True,
) -> Array | None:
    """dL/dW = Xᵀ G and dL/db = Σ_n G_n, into the `out_` arrays; returns dL/dX = G Wᵀ or None."""
    out_grad_weights[...] = input.T @ grad_output
    out_grad_biases[...] = grad_output.sum(axis=0)
    return grad_output @ weights.T if input_gradient else None


def relu_forward(input: Array) -> Array:
    """Y = max(0, X); NaN stays NaN."""
    return np.maximum(input, 0)


def relu_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G where X > 0, else 0."""
    return np.where(input > 0, grad_output, 0)


def softmax(logits: Array) -> Array:
    """p_nc = exp(z_nc - m_n) / Σ_k exp(z_nk - m_n), with m_n = max_k z_nk.

    Softmax does not change when all logits of a row move together. With the
    largest of them at 0 no exponential overflows and the sum is at least 1.
    """
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def softmax_cross_entropy(logits: Array, labels: Labels) -> Array:
    """L_n = -log p_n,label = m_n + log Σ_k exp(z_nk - m_n) - z_n,label, for each sample."""
    largest = logits.max(axis=1)
    sums = np.exp(logits - largest[:, np.newaxis]).sum(axis=1)
    # The difference first: at logits of 1e4 it is exact, and the logarithm is not lost beside 1e4.
    losses: Array = np.log(sums) + (largest - logits[np.arange(len(logits)), labels])
    return losses


def softmax_cross_entropy_gradient(logits: Array, labels: Labels) -> Array:
    """d(mean L)/dz_nc = (p_nc - [c = label_n]) / batch."""
    gradient = softmax(logits)
    gradient[np.arange(len(logits)), labels] -= 1
    return gradient / len(logits)


def add_multiple(target: Array, factor: float, source: Array) -> None:
    """t <- t + factor s, in place."""
    target += target.dtype.type(factor) * source


def sum_of_squares(x: Array) -> float:
    """Σ_i x_i², summed in float64."""
    return float(np.square(x, dtype=np.float64).sum())


def sgd_step(parameters: Array, gradient: Array, learning_rate: float) -> None:
    """θ <- θ - learning_rate g, in place, with g = dL/dθ here and below."""
    parameters -= parameters.dtype.type(learning_rate) * gradient


def momentum_step(
    parameters: Array,
    gradient: Array,
    velocity: Array,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """v <- momentum v + g; θ <- θ - learning_rate v.

    With `nesterov`, θ <- θ - learning_rate (g + momentum v).
    """
    velocity[...] = momentum * velocity + gradient
    direction = gradient + momentum * velocity if nesterov else velocity
    parameters -= learning_rate * direction


def rmsprop_step(
    parameters: Array,
    gradient: Array,
    mean_square: Array,
    learning_rate: float,
    rho: float,
    epsilon: float,
) -> None:
    """s <- rho s + (1 - rho) g²; θ <- θ - learning_rate g / (sqrt(s) + epsilon)."""
    mean_square[...] = rho * mean_square + (1 - rho) * gradient**2
    parameters -= learning_rate * gradient / (np.sqrt(mean_square) + epsilon)


def adam_step(
    parameters: Array,
    gradient: Array,
    mean: Array,
    mean_square: Array,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
) -> None:
    """m <- beta1 m + (1 - beta1) g; s <- beta2 s + (1 - beta2) g²; then with t = step + 1

    m̂ = m / (1 - beta1^t), ŝ = s / (1 - beta2^t) and θ <- θ - learning_rate m̂ / (sqrt(ŝ) + epsilon).
    """
    mean[...] = beta1 * mean + (1 - beta1) * gradient
    mean_square[...] = beta2 * mean_square + (1 - beta2) * gradient**2
    corrected_mean = mean / (1 - beta1 ** (step + 1))
    corrected_square = mean_square / (1 - beta2 ** (step + 1))
    parameters -= learning_rate * corrected_mean / (np.sqrt(corrected_square) + epsilon)
