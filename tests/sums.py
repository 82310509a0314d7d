"""The table of kernels that add up: how far what they give may be from exact sums.

u is the unit roundoff, half the epsilon of the dtype. Sums of any order obey, to first order,
|error| <= n u Σ|terms| (N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2002,
sections 3.1 and 4.2), which is what most bounds are made of. `test_sums.py` holds both backends to
the table, and `docs/numbers.md` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import optimizers

Found = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""What came, what is exact, how far the first may be from the second."""


@dataclass(frozen=True)
class Operands:
    """Operands of a kernel: X, G and T [batch, units], numbers of a size, and what goes with them.

    `longer` gives an array in higher precision. u and tiny are of the dtype.
    """

    rng: np.random.Generator
    dtype: np.dtype
    batch: int
    units: int
    size: float

    @property
    def u(self) -> float:
        return float(np.finfo(self.dtype).eps) / 2

    @property
    def tiny(self) -> float:
        return float(np.finfo(self.dtype).tiny)

    def normal(self, *shape: int) -> np.ndarray:
        return (self.size * self.rng.normal(size=shape)).astype(self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.units


def longer(*arrays: Any) -> Any:
    """Return arrays in higher precision, in which no error counts."""
    found = [np.asarray(array).astype(np.longdouble) for array in arrays]
    return found if len(found) > 1 else found[0]


def dense_forward(module: Any, of: Operands) -> Found:
    X, W, b = of.normal(*of.shape), of.normal(of.units, 37), of.normal(37)
    x, w, c = longer(X, W, b)
    bound = (of.units + 1) * of.u * (abs(x) @ abs(w) + abs(c)) + of.units * of.tiny * of.u
    exact = x @ w + c
    yield module.dense_forward(X, W, b), exact, bound
    yield module.dense_forward(X, W, b, relu=True), np.maximum(exact, 0), bound


def dense_backward(module: Any, of: Operands) -> Found:
    X, W, G = of.normal(*of.shape), of.normal(of.units, 37), of.normal(of.batch, 37)
    x, w, g = longer(X, W, G)
    dW, db = np.empty_like(W), np.empty(37, of.dtype)
    dX = module.dense_backward(X, W, G, dW, db)
    lost = of.tiny * of.u
    yield dW, x.T @ g, of.batch * (of.u * (abs(x).T @ abs(g)) + lost)
    yield db, g.sum(0), of.batch * of.u * abs(g).sum(0)
    yield dX, g @ w.T, 37 * (of.u * (abs(g) @ abs(w).T) + lost)


def _softmax(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Softmax, distances d from the largest logit, logarithms of sums, and mean distances D."""
    d = z.max(1, keepdims=True) - z
    powers = np.exp(-d)
    sums = powers.sum(1, keepdims=True)
    return powers / sums, d, np.log(sums)[:, 0], (powers / sums * d).sum(1)


def softmax(module: Any, of: Operands) -> Found:
    Z = of.normal(*of.shape)
    p, d, _, D = _softmax(longer(Z))
    bound = of.u * p * (d + D[:, None] + of.units + 16) + 2 * of.tiny
    yield module.softmax(Z), p, bound


def cross_entropy(module: Any, of: Operands) -> Found:
    Z, labels = of.normal(*of.shape), of.rng.integers(0, of.units, of.batch)
    rows = np.arange(of.batch)
    p, d, logs, D = _softmax(longer(Z))
    exact = logs + d[rows, labels]
    bound = of.u * (D + of.units + 8 + 5 * exact)
    yield module.softmax_cross_entropy(Z, labels), exact, bound
    right = np.zeros_like(p)
    right[rows, labels] = 1
    bound = of.u * (p * (d + D[:, None] + of.units + 18) + 3 * right) + 2 * of.tiny
    found = module.softmax_cross_entropy_gradient(Z, labels)
    yield found, (p - right) / of.batch, bound / of.batch + of.tiny * of.u


def smoothed_cross_entropy(module: Any, of: Operands) -> Found:
    Z, labels = of.normal(*of.shape), of.rng.integers(0, of.units, of.batch)
    rows, s = np.arange(of.batch), 0.1
    p, d, logs, D = _softmax(longer(Z))
    exact = logs + (1 - s) * d[rows, labels] + s * d.mean(1)
    bound = of.u * (D + of.units + 8 + 6 * exact + (of.units + 3) * s * d.mean(1))
    yield module.smoothed_cross_entropy(Z, labels, s), exact, bound
    wanted = np.full_like(p, np.longdouble(s) / of.units)
    wanted[rows, labels] += 1 - np.longdouble(s)
    bound = of.u * (p * (d + D[:, None] + of.units + 18) + 5 * wanted) + 2 * of.tiny
    found = module.smoothed_cross_entropy_gradient(Z, labels, s)
    yield found, (p - wanted) / of.batch, bound / of.batch + of.tiny * of.u


def binary_cross_entropy(module: Any, of: Operands) -> Found:
    Z = of.normal(*of.shape)
    T = of.rng.choice([0.0, 1.0, 0.3, 1e-6], of.shape).astype(of.dtype)
    z, t = longer(Z, T)
    wrong = np.where(z > 0, 1 - t, t)
    exact = (np.log1p(np.exp(-abs(z))) + wrong * abs(z)).sum(1)
    bound = (of.units + 10) * of.u * exact + 2 * of.units * of.tiny
    yield module.binary_cross_entropy(Z, T), exact, bound
    share = np.exp(-abs(z)) / (1 + np.exp(-abs(z)))
    exact = np.where(z > 0, wrong - share, share - wrong) / of.batch
    bound = (14 * of.u * (share + wrong) + 2 * of.tiny) / of.batch + of.tiny * of.u
    yield module.binary_cross_entropy_gradient(Z, T), exact, bound


def poisson_loss(module: Any, of: Operands) -> Found:
    Z = np.clip(of.normal(*of.shape), -80, 80)
    T = of.rng.integers(0, 4, of.shape).astype(of.dtype)
    z, t = longer(Z, T)
    bound = (of.units + 10) * of.u * (np.exp(z) + abs(t * z)).sum(1) + 2 * of.units * of.tiny
    yield module.poisson_loss(Z, T), (np.exp(z) - t * z).sum(1), bound
    bound = (12 * of.u * (np.exp(z) + t) + 2 * of.tiny) / of.batch + of.tiny * of.u
    yield module.poisson_loss_gradient(Z, T), (np.exp(z) - t) / of.batch, bound


def mean_squared_error(module: Any, of: Operands) -> Found:
    Y, T = of.normal(*of.shape), of.normal(*of.shape)
    y, t = longer(Y, T)
    exact = np.square(y - t).mean(1)
    bound = (of.units + 5) * of.u * exact + of.units * of.tiny * of.u
    yield module.mean_squared_error(Y, T), exact, bound
    exact = 2 * (y - t) / Y.size
    yield module.mean_squared_error_gradient(Y, T), exact, 4 * of.u * abs(exact) + of.tiny * of.u


def _batch_norm(of: Operands) -> tuple[Any, ...]:
    """Operands, exact statistics, and by how much these may be off."""
    X = (of.normal(of.units) * 10 + of.normal(*of.shape)).astype(of.dtype)
    x = longer(X)
    mean, variance = x.mean(0), x.var(0)
    spread = abs(x - x[0]).mean(0)
    of_mean = of.u * (2 * abs(mean) + (of.batch + 3) * spread) + of.batch * of.tiny * of.u
    of_variance = (of.batch + 5) * of.u * (variance + of_mean**2) + of_mean**2 + of.tiny
    return X, x, mean, variance, of_mean, of_variance


def batch_norm_statistics(module: Any, of: Operands) -> Found:
    X, _, mean, variance, of_mean, of_variance = _batch_norm(of)
    one = np.ones(of.units, of.dtype)
    _, found_mean, found_variance = module.batch_norm_forward(X, one, one, 1e-3)
    yield found_mean, mean, of_mean
    yield found_variance, variance, of_variance


def batch_norm_forward(module: Any, of: Operands) -> Found:
    X, x, mean, variance, of_mean, of_variance = _batch_norm(of)
    scale, shift = of.rng.normal(size=(2, of.units)).astype(of.dtype)
    a, b = longer(scale, shift)
    root = np.sqrt(variance + 1e-3)
    exact = a * (x - mean) / root + b
    bound = (
        abs(a) / root * of_mean
        + (7 * of.u + of_variance / (2 * root**2)) * (abs(exact - b) + abs(a) / root * of_mean)
        + of.u * abs(exact)
    )
    found, _, _ = module.batch_norm_forward(X, scale, shift, 1e-3)
    yield found, exact, bound + of.tiny
    M, V = mean.astype(of.dtype), variance.astype(of.dtype)
    m, v = longer(M, V)
    exact = a * (x - m) / np.sqrt(v + 1e-3) + b
    bound = of.u * (7 * abs(exact - b) + abs(exact))
    yield module.batch_norm_inference(X, scale, shift, M, V, 1e-3), exact, bound + of.tiny


def batch_norm_backward(module: Any, of: Operands) -> Found:
    X, x, mean, variance, *_ = _batch_norm(of)
    G, scale = of.normal(*of.shape), of.rng.normal(size=of.units).astype(of.dtype)
    g, a = longer(G, scale)
    n, root = of.batch, np.sqrt(variance + 1e-3)
    normal = (x - mean) / root
    rough = (abs(x) + abs(x).mean(0)) / root
    of_scale, of_shift = (g * normal).sum(0), g.sum(0)
    rough_scale = (abs(g) * rough).sum(0)
    dscale, dshift = np.empty((2, of.units), of.dtype)
    found = module.batch_norm_backward(X, G, scale, 1e-3, dscale, dshift)
    exact = a / root * (g - (of_shift + normal * of_scale) / n)
    magnitude = abs(a) / root * (abs(g) + (abs(g).sum(0) + rough * rough_scale) / n)
    factor = (4 * n + 28) * of.u
    yield found, exact, factor * magnitude + of.tiny
    yield dscale, of_scale, factor * rough_scale + of.tiny
    yield dshift, of_shift, n * of.u * abs(g).sum(0)
    M, V = mean.astype(of.dtype), variance.astype(of.dtype)
    m, v = longer(M, V)
    root = np.sqrt(v + 1e-3)
    of_scale = g * (x - m) / root
    found = module.batch_norm_inference_backward(X, G, scale, M, V, 1e-3, dscale, dshift)
    yield found, a * g / root, 7 * of.u * abs(a * g / root) + of.tiny
    yield dscale, of_scale.sum(0), (n + 8) * of.u * abs(of_scale).sum(0) + of.tiny
    yield dshift, of_shift, n * of.u * abs(g).sum(0)


def _parameters(of: Operands) -> tuple[np.ndarray, np.ndarray]:
    count = of.batch * of.units
    return of.rng.normal(size=count).astype(of.dtype), of.normal(count)


def _step(module: Any, optimizer: Any, P: np.ndarray, G: np.ndarray, S: list[np.ndarray]) -> Any:
    """Take a step of an optimiser on copies, the tenth; return parameters and state."""
    P, S = P.copy(), [s.copy() for s in S]
    optimizer.step(module, P, G.copy(), S, 9)
    return P, S


def sgd(module: Any, of: Operands) -> Found:
    P, G = _parameters(of)
    p, g = longer(P, G)
    exact = p - 0.1 * g
    found, _ = _step(module, optimizers.SGD(0.1), P, G, [])
    yield found, exact, of.u * (abs(exact) + 0.2 * abs(g)) + of.tiny * of.u


def momentum(module: Any, of: Operands) -> Found:
    P, G = _parameters(of)
    V = of.normal(len(P))
    p, g, v = longer(P, G, V)
    for nesterov in (False, True):
        optimizer = optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)
        found, (velocity,) = _step(module, optimizer, P, G, [V])
        exact, size = 0.9 * v + g, 0.9 * abs(v) + abs(g)
        yield velocity, exact, 3 * of.u * size + of.tiny
        along, sizes = (g + 0.9 * exact, abs(g) + 0.9 * size) if nesterov else (exact, size)
        exact = p - 0.1 * along
        yield found, exact, of.u * (abs(exact) + 0.1 * 8 * sizes) + of.tiny


def rmsprop(module: Any, of: Operands) -> Found:
    P, G = _parameters(of)
    S = np.square(of.normal(len(P)))
    p, g, s = longer(P, G, S)
    found, (squares,) = _step(module, optimizers.RMSprop(0.01, 0.9, 1e-7), P, G, [S])
    exact = 0.9 * s + (1 - 0.9) * g * g
    yield squares, exact, 4 * of.u * exact + 2 * of.tiny
    move = 0.01 * g / (np.sqrt(exact) + 1e-7)
    lost = np.sqrt(2 * of.tiny) / 1e-7
    yield found, p - move, of.u * abs(p - move) + (10 * of.u + lost) * abs(move) + of.tiny


def adam(module: Any, of: Operands) -> Found:
    P, G = _parameters(of)
    M, S = of.normal(len(P)), np.square(of.normal(len(P)))
    p, g, m, s = longer(P, G, M, S)
    for optimizer in (optimizers.Adam(0.01), optimizers.AdamW(0.01, weight_decay=0.1)):
        found, (mean, squares) = _step(module, optimizer, P, G, [M, S])
        exact, size = 0.9 * m + (1 - 0.9) * g, 0.9 * abs(m) + (1 - 0.9) * abs(g)
        yield mean, exact, 4 * of.u * size + 2 * of.tiny
        square = 0.999 * s + (1 - 0.999) * g * g
        yield squares, square, 4 * of.u * square + 2 * of.tiny
        root = np.sqrt(square / (1 - np.longdouble(0.999) ** 10)) + 1e-8
        move = 0.01 * exact / (1 - np.longdouble(0.9) ** 10) / root
        sizes = 0.01 * size / (1 - np.longdouble(0.9) ** 10) / root
        # the corrections are computed in float64, where 1 - 0.999 ** 10 cancels
        lost = np.sqrt(2 * of.tiny) / 1e-8 * 20 + 2.0**-53 / (1 - 0.999**10)
        # all of a vector without a place of its own shrinks, once more rounded
        shrunk = p * (1 - 0.01 * getattr(optimizer, "weight_decay", 0))
        bound = 2 * of.u * abs(p) + of.u * abs(shrunk - move) + (14 * of.u + lost) * sizes
        yield found, shrunk - move, bound + of.tiny


def clip_by_global_norm(module: Any, of: Operands) -> Found:
    gradients = [of.normal(of.batch * of.units), of.normal(of.units)]
    exact = longer(*gradients)
    count = sum(map(len, gradients))
    norm = np.sqrt(sum(np.square(g).sum() for g in exact)) + np.longdouble(1e-6)
    clip = 0.25 * float(norm)
    module.clip_by_global_norm(gradients, clip)
    for found, g in zip(gradients, exact, strict=True):
        expected = g * (clip / norm)
        bound = (2 * of.u + (count / 2 + 6) * 2.0**-53) * abs(expected)
        yield found, expected, bound + of.tiny * of.u


def sum_of_squares(module: Any, of: Operands) -> Found:
    x = of.normal(of.batch * of.units)
    exact = np.square(longer(x)).sum()
    yield np.array(module.sum_of_squares(x)), exact, (len(x) + 1) * 2.0**-53 * exact


@dataclass(frozen=True)
class Kernel:
    """A kernel, or two that go together: the bound as the page says it."""

    compute: Callable[[Any, Operands], Found]
    bound: str


KERNELS = (
    Kernel(dense_forward, "(n + 1) u (Σ \\|x\\| \\|w\\| + \\|b\\|), n input units"),
    Kernel(
        dense_backward,
        "weights N u Σ \\|x\\| \\|g\\|, biases N u Σ \\|g\\|, input m u Σ \\|g\\| \\|w\\|, "
        "m output units",
    ),
    Kernel(softmax, "u p (d + D + K + 16), and 2 tiny"),
    Kernel(
        cross_entropy,
        "loss L: u (D + K + 8 + 5 L); gradient: u (p (d + D + K + 18) + 3 [c = label]) / N, "
        "and 2 tiny / N",
    ),
    Kernel(
        smoothed_cross_entropy,
        "loss L: u (D + K + 8 + 6 L + (K + 3) s mean(d)); gradient: "
        "u (p (d + D + K + 18) + 5 t) / N, and 2 tiny / N",
    ),
    Kernel(
        binary_cross_entropy,
        "loss L: (K + 10) u L, and 2 K tiny; gradient: 14 u (σ(-\\|z\\|) + w) / N, and 2 tiny / N, "
        "with w the share of the target that z is wrong about",
    ),
    Kernel(
        poisson_loss,
        "loss: (K + 10) u Σ (exp(z) + \\|t z\\|), and 2 K tiny; gradient: 12 u (exp(z) + t) / N, "
        "and 2 tiny / N",
    ),
    Kernel(mean_squared_error, "loss L: (K + 5) u L; gradient g: 4 u \\|g\\|"),
    Kernel(
        batch_norm_statistics,
        "mean: e = u (2 \\|mean\\| + (N + 3) mean \\|x - x₀\\|), with x₀ the first row; variance: "
        "(N + 5) u (variance + e²) + e²",
    ),
    Kernel(
        batch_norm_forward,
        "with r = \\|scale\\| / σ, e as above and e' that of the variance: "
        "r e + (7 u + e' / 2σ²) (r \\|x - mean\\| + r e) + u \\|y\\|; in inference "
        "u (7 r \\|x - mean\\| + \\|y\\|)",
    ),
    Kernel(
        batch_norm_backward,
        "with q = (\\|x\\| + mean \\|x\\|) / σ: input (4 N + 28) u r (\\|g\\| + (Σ \\|g\\| + "
        "q Σ \\|g\\| q) / N), scale (4 N + 28) u Σ \\|g\\| q, shift N u Σ \\|g\\|; in inference "
        "input 7 u r \\|g\\|, scale (N + 8) u Σ \\|g (x - mean)\\| / σ, shift the same",
    ),
    Kernel(sgd, "u (\\|θ'\\| + 2 rate \\|g\\|)"),
    Kernel(
        momentum,
        "velocity 3 u (β \\|v\\| + \\|g\\|), and tiny; parameters "
        "u (\\|θ'\\| + 8 rate (β \\|v\\| + \\|g\\|)), with Nesterov 8 rate "
        "(\\|g\\| + β (β \\|v\\| + \\|g\\|))",
    ),
    Kernel(
        rmsprop,
        "mean square s: 4 u s, and 2 tiny; parameters u \\|θ'\\| + (10 u + √(2 tiny) / ε) "
        "\\|θ' - θ\\|",
    ),
    Kernel(
        adam,
        "mean 4 u (β₁ \\|m\\| + (1 - β₁) \\|g\\|), mean square 4 u s, and 2 tiny; parameters "
        "u \\|θ'\\| + (14 u + 2⁻⁵³ / (1 - β₂ᵗ) + 20 √(2 tiny) / ε) times the step that sizes "
        "of the mean's summands would make; for AdamW 2 u \\|θ\\| more",
    ),
    Kernel(clip_by_global_norm, "(2 u + (n / 2 + 6) 2⁻⁵³) \\|g'\\|, n numbers in all"),
    Kernel(sum_of_squares, "(n + 1) 2⁻⁵³ Σ x², in either dtype"),
)
