"""What each operation means, in the plainest NumPy. This file is read, not tuned.

Notation: X [batch, input_units] is a layer's input, Y [batch, output_units]
its output, G = dL/dY the gradient of the loss L with respect to the output.
The loss is a mean over the batch, so G is already divided by the batch size
and sums over the batch give gradients of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn.backends import Labels
from fastnn.checks import Array


def prepare(dtype: np.dtype[Any], operations: Iterable[str]) -> None:
    """Make `operations` ready to compute in `dtype`: here nothing needs compiling."""


def by_rows(X: Array, dtype: np.dtype[Any]) -> Array:
    """Return X in `dtype` with the numbers of each row side by side, X itself if they are."""
    return np.ascontiguousarray(X, dtype)


def rounded_to_bfloat16(x: Array) -> Array:
    """Return float32 numbers rounded to bfloat16, as float32.

    bfloat16 is the upper half of a float32: its sign, its exponent and 7 bits of its mantissa.
    It is rounded to the nearest, to the even one of two that are equally near. What is below the
    smallest normal number, 2⁻¹²⁶, becomes a zero of its sign, as processors have it; what is
    nearer to 2¹²⁸ than to the largest bfloat16 becomes infinite, and NaN stays NaN.

    Intel, "BFLOAT16 hardware numerics definition", 2018.
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    half_to_even = 0x7FFF + (bits >> 16 & 1)
    rounded = np.where(np.isnan(x), bits | 0x400000, bits + half_to_even)
    denormal = bits & 0x7F800000 == 0
    kept = np.where(denormal, 0x80000000, 0xFFFF0000).astype(np.uint32)
    return (np.where(denormal, bits, rounded) & kept).view(np.float32)


def dense_forward(
    input: Array, weights: Array, biases: Array, *, relu: bool = False, bfloat16: bool = False
) -> Array:
    """Y = X W + b; where `relu` is set, max(0, X W + b).

    Where `bfloat16` is set, X and W are rounded first. The product of two bfloat16 numbers is exact
    in float32, and sums are float32 as ever.
    """
    if bfloat16:
        input, weights = rounded_to_bfloat16(input), rounded_to_bfloat16(weights)
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
    bfloat16: bool = False,
) -> Array | None:
    """dL/dW = Xᵀ G and dL/db = Σ_n G_n, into the `out_` arrays; returns dL/dX = G Wᵀ or None.

    Where `bfloat16` is set, X, G and W are rounded for the products; dL/db is the sum of G as it
    is.
    """
    of_biases = grad_output.sum(axis=0)
    if bfloat16:
        input, weights = rounded_to_bfloat16(input), rounded_to_bfloat16(weights)
        grad_output = rounded_to_bfloat16(grad_output)
    out_grad_weights[...] = input.T @ grad_output
    out_grad_biases[...] = of_biases
    return grad_output @ weights.T if input_gradient else None


def rescale_forward(input: Array, scale: float) -> Array:
    """Y = scale X."""
    output: Array = input * input.dtype.type(scale)
    return output


def rescale_backward(input: Array, grad_output: Array, scale: float) -> Array:
    """dL/dX = scale G."""
    grad_input: Array = grad_output * grad_output.dtype.type(scale)
    return grad_input


def relu_forward(input: Array) -> Array:
    """Y = max(0, X); NaN stays NaN."""
    return np.maximum(input, 0)


def relu_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G where X > 0, else 0."""
    return np.where(input > 0, grad_output, 0)


def sigmoid_forward(input: Array) -> Array:
    """Y = 1 / (1 + exp(-X)); where X < 0, exp(X) / (1 + exp(X)), as exp(-X) could overflow."""
    power = np.exp(-np.abs(input))
    output: Array = np.where(input < 0, power, 1) / (1 + power)
    return output


def sigmoid_backward(output: Array, grad_output: Array) -> Array:
    """dL/dX = G Y (1 - Y)."""
    grad_input: Array = grad_output * output * (1 - output)
    return grad_input


def tanh_forward(input: Array) -> Array:
    """Y = tanh(X)."""
    output: Array = np.tanh(input)
    return output


def tanh_backward(output: Array, grad_output: Array) -> Array:
    """dL/dX = G (1 - Y²)."""
    grad_input: Array = grad_output * (1 - output * output)
    return grad_input


def leaky_relu_forward(input: Array, slope: float) -> Array:
    """Y = X where X > 0, else slope X."""
    return np.where(input > 0, input, slope * input)


def leaky_relu_backward(input: Array, grad_output: Array, slope: float) -> Array:
    """dL/dX = G where X > 0, else slope G."""
    return np.where(input > 0, grad_output, slope * grad_output)


def elu_forward(input: Array, alpha: float) -> Array:
    """Y = α (exp(X) - 1) where X < 0, else X.

    D.-A. Clevert et al., "Fast and accurate deep network learning by exponential linear units
    (ELUs)", ICLR 2016.
    """
    return np.where(input < 0, alpha * np.expm1(np.minimum(input, 0)), input)


def elu_backward(input: Array, grad_output: Array, alpha: float) -> Array:
    """dL/dX = G where X > 0, else G α exp(X)."""
    return grad_output * np.where(input > 0, 1, alpha * np.exp(np.minimum(input, 0)))


def selu_forward(input: Array) -> Array:
    """Y = λ ELU(X), with the λ and α at which activations keep mean 0 and variance 1.

    G. Klambauer et al., "Self-normalizing neural networks", NIPS 2017.
    """
    return SELU_SCALE * elu_forward(input, SELU_ALPHA)


def selu_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = λ times that of ELU."""
    return SELU_SCALE * elu_backward(input, grad_output, SELU_ALPHA)


def silu_forward(input: Array) -> Array:
    """Y = X σ(X), with the sigmoid σ."""
    return np.maximum(input, -FAR) * sigmoid_forward(input)


def silu_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G (σ(X) + X σ(X) σ(-X))."""
    X = np.clip(input, -FAR, FAR)
    grad_input: Array = grad_output * sigmoid_forward(X) * (1 + X * sigmoid_forward(-X))
    return grad_input


def gelu_forward(input: Array) -> Array:
    """Y = X Φ(X), with the distribution function Φ of the normal distribution.

    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.
    """
    output: Array = np.maximum(input, -FAR) * normal_distribution(input).astype(input.dtype)
    return output


def gelu_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G (Φ(X) + X φ(X)), with the density φ(X) = exp(-X²/2) / √(2π)."""
    X = np.clip(input, -FAR, FAR)
    density = np.exp(-X * X / 2) / math.sqrt(2 * math.pi)
    grad_input: Array = grad_output * (normal_distribution(X).astype(X.dtype) + X * density)
    return grad_input


def softplus_forward(input: Array) -> Array:
    """Y = log(1 + exp(X)) = max(0, X) + log(1 + exp(-|X|)), in which nothing overflows."""
    output: Array = np.maximum(0, input) + np.log1p(np.exp(-np.abs(input)))
    return output


def softplus_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G σ(X)."""
    return grad_output * sigmoid_forward(input)


def mish_forward(input: Array) -> Array:
    """Y = X tanh(log(1 + exp(X))).

    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.
    """
    return np.maximum(input, -FAR) * np.tanh(softplus_forward(input))


def mish_backward(input: Array, grad_output: Array) -> Array:
    """dL/dX = G (T + X (1 - T²) σ(X)), with T = tanh(S) and S = log(1 + exp(X)).

    1 - T² = 4 q / (1 + q)², q = exp(-2S), where nothing cancels.
    """
    X = np.clip(input, -FAR, FAR)
    S = softplus_forward(X)
    q = np.exp(-2 * S)
    grad_input: Array = grad_output * (np.tanh(S) + X * sigmoid_forward(X) * 4 * q / (1 + q) ** 2)
    return grad_input


normal_distribution = np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2, otypes=[float])

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934

FAR = 1000.0
"""Where X would be infinite times 0, it goes no further; the exponential of this is 0 as well."""

ELEMENTWISE: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "rescale": (rescale_forward, rescale_backward),
    "relu": (relu_forward, relu_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "tanh": (tanh_forward, tanh_backward),
    "leaky_relu": (leaky_relu_forward, leaky_relu_backward),
    "elu": (elu_forward, elu_backward),
    "selu": (selu_forward, selu_backward),
    "silu": (silu_forward, silu_backward),
    "gelu": (gelu_forward, gelu_backward),
    "softplus": (softplus_forward, softplus_backward),
    "mish": (mish_forward, mish_backward),
}
"""The functions that work on each element alone, forward and backward."""


def elementwise_forward(function: str, input: Array, *constants: float) -> Array:
    """Y = f(X), with the constants of f."""
    forward, _ = ELEMENTWISE[function]
    return forward(input, *constants)


def elementwise_backward(
    function: str, value: Array, grad_output: Array, *constants: float
) -> Array:
    """dL/dX = G f'(X); `value` is X, or Y for functions whose derivative is computed from it."""
    _, backward = ELEMENTWISE[function]
    return backward(value, grad_output, *constants)


def dropout(input: Array, p: float, key: int, step: int) -> Array:
    """Y = X / (1 - p) with probability 1 - p, else 0; backward does the same to G.

    Every element has a 32-bit word of its own, from a generator that is nothing but a function of
    key and step: so it is kept with the same probability, and by the same mask, whoever computes.
    """
    generator = np.random.Philox(key=key, counter=[0, step, 0, 0])
    words = generator.random_raw(-(-input.size // 2)).astype("<u8").view("<u4")[: input.size]
    kept = words.reshape(input.shape).astype(np.uint64) >= round(p * 2**32)
    output: Array = np.where(kept, input * input.dtype.type(1 / (1 - p)), input.dtype.type(0))
    return output


def batch_norm_forward(
    input: Array, scale: Array, shift: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Y = scale (X - μ) / √(σ² + ε) + shift, with μ and σ² from `_column_statistics`.

    Returns Y, μ and σ².
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015, algorithm 1.
    """
    mean, variance = _column_statistics(input)
    return batch_norm_inference(input, scale, shift, mean, variance, epsilon), mean, variance


def _column_statistics(input: Array) -> tuple[Array, Array]:
    """μ = X_0 + Σ_n (X_n - X_0) / N and σ² = Σ_n (X_n - μ)² / N.

    That is Σ_n X_n / N, but exact for a column of one number, whose sum is rounded, and close where
    numbers are large beside their differences.
    """
    mean = input[0] + (input - input[0]).mean(axis=0)
    return mean, np.square(input - mean).mean(axis=0)


def batch_norm_inference(
    input: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """Y = scale (X - μ) / √(σ² + ε) + shift."""
    output: Array = scale * _normalized(input, mean, variance, epsilon) + shift
    return output


def batch_norm_backward(
    input: Array,
    grad_output: Array,
    scale: Array,
    epsilon: float,
    out_grad_scale: Array,
    out_grad_shift: Array,
) -> Array:
    """The gradients of `batch_norm_forward`; returns dL/dX.

    With X̂ = (X - μ) / √(σ² + ε): dL/dscale = Σ_n G_n X̂_n, dL/dshift = Σ_n G_n, and, as μ and σ²
    depend on X, dL/dX = scale (G - dL/dshift / N - X̂ dL/dscale / N) / √(σ² + ε).
    """
    mean, variance = _column_statistics(input)
    direct = batch_norm_inference_backward(
        input, grad_output, scale, mean, variance, epsilon, out_grad_scale, out_grad_shift
    )
    normalized = _normalized(input, mean, variance, epsilon)
    through_statistics = (out_grad_shift + normalized * out_grad_scale) / len(input)
    grad_input: Array = direct - scale * through_statistics / np.sqrt(variance + epsilon)
    return grad_input


def batch_norm_inference_backward(
    input: Array,
    grad_output: Array,
    scale: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    out_grad_scale: Array,
    out_grad_shift: Array,
) -> Array:
    """The gradients of `batch_norm_inference`; returns dL/dX = scale G / √(σ² + ε)."""
    grad_input: Array = scale * grad_output / np.sqrt(variance + epsilon)
    out_grad_scale[...] = (grad_output * _normalized(input, mean, variance, epsilon)).sum(axis=0)
    out_grad_shift[...] = grad_output.sum(axis=0)
    return grad_input


def _normalized(input: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """X̂ = (X - μ) / √(σ² + ε)."""
    normalized: Array = (input - mean) / np.sqrt(variance + epsilon)
    return normalized


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


def smoothed_cross_entropy(logits: Array, labels: Labels, smoothing: float) -> Array:
    """L_n = -Σ_k t_nk log p_nk, with t = s / K + (1 - s) [k = label_n] of K classes, s = smoothing.

    That is log Σ_k exp(z_nk - m_n) + (1 - s) (m_n - z_n,label) + s Σ_k (m_n - z_nk) / K.
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
    section 7.
    """
    margins = logits.max(axis=1, keepdims=True) - logits
    of_labels = margins[np.arange(len(logits)), labels]
    smoothed = (1 - smoothing) * of_labels + smoothing * margins.mean(axis=1)
    losses: Array = np.log(np.exp(-margins).sum(axis=1)) + smoothed
    return losses


def smoothed_cross_entropy_gradient(logits: Array, labels: Labels, smoothing: float) -> Array:
    """d(mean L)/dz_nk = (p_nk - t_nk) / batch, with t as above."""
    gradient: Array = softmax(logits) - smoothing / logits.shape[1]
    gradient[np.arange(len(logits)), labels] -= 1 - smoothing
    return gradient / len(logits)


def binary_cross_entropy(logits: Array, target: Array) -> Array:
    """L_n = -Σ_k (t_nk log σ(z_nk) + (1 - t_nk) log σ(-z_nk)), with the sigmoid σ, for each sample.

    With w = 1 - t where z > 0 and w = t elsewhere, the share of the target that z is wrong about,
    a summand is log(1 + exp(-|z|)) + w |z|: nothing overflows and nothing cancels.
    """
    size, wrong = np.abs(logits), _wrong_share(logits, target)
    margins = np.multiply(wrong, size, out=np.zeros_like(size), where=wrong > 0)  # not 0 times ∞
    losses: Array = (np.log1p(np.exp(-size)) + margins).sum(axis=1)
    return losses


def binary_cross_entropy_gradient(logits: Array, target: Array) -> Array:
    """d(mean L)/dz_nk = (σ(z_nk) - t_nk) / batch.

    With w as above, σ(z) - t = σ(-|z|) - w where z <= 0, and the opposite elsewhere.
    """
    difference = sigmoid_forward(-np.abs(logits)) - _wrong_share(logits, target)
    gradient: Array = np.where(logits > 0, -difference, difference) / len(logits)
    return gradient


def _wrong_share(logits: Array, target: Array) -> Array:
    """w = 1 - t where z > 0, else t."""
    return np.where(logits > 0, 1 - target, target)


def poisson_loss(logits: Array, target: Array) -> Array:
    """L_n = Σ_k (exp(z_nk) - t_nk z_nk), for each sample.

    -log of the probability of t under Poisson's distribution of rate exp(z), without the term
    log t! that no z changes.
    """
    expected = np.multiply(target, logits, out=np.zeros_like(logits), where=target > 0)  # not 0 ∞
    losses: Array = (np.exp(logits) - expected).sum(axis=1)
    return losses


def poisson_loss_gradient(logits: Array, target: Array) -> Array:
    """d(mean L)/dz_nk = (exp(z_nk) - t_nk) / batch."""
    gradient: Array = (np.exp(logits) - target) / len(logits)
    return gradient


def mean_squared_error(output: Array, target: Array) -> Array:
    """L_n = Σ_k (y_nk - t_nk)² / K, for each sample."""
    losses: Array = np.square(output - target).mean(axis=1)
    return losses


def mean_squared_error_gradient(output: Array, target: Array) -> Array:
    """d(mean L)/dy_nk = 2 (y_nk - t_nk) / (N K)."""
    gradient: Array = (output - target) * output.dtype.type(2 / output.size)
    return gradient


def add_multiple(target: Array, factor: float, source: Array) -> None:
    """t <- t + factor s, in place."""
    target += target.dtype.type(factor) * source


def sum_of_squares(x: Array) -> float:
    """Σ_i x_i², summed in float64."""
    return float(np.square(x, dtype=np.float64).sum())


def clip_by_global_norm(gradients: Sequence[Array], clip_norm: float) -> None:
    """g <- g min(1, c / (‖g‖ + 1e-6)), in place, with c = clip_norm and ‖g‖ = √Σ g² over all g.

    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, algorithm 1; with the 1e-6 of PyTorch.
    """
    norm = math.sqrt(sum(map(sum_of_squares, gradients))) + 1e-6
    if not norm <= clip_norm:
        for gradient in gradients:
            gradient *= gradient.dtype.type(clip_norm / norm)


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
