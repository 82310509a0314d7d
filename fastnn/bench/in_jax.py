"""JAX as a contender: an epoch, or all of them, in one compiled ``lax.scan``.

Only what has JAX imports this.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastnn.bench.cases import ADAM_EPSILON, BETA1, BETA2, DROPPED, MOMENTUM, Case
from fastnn.bench.samples import SEED, Array, Parameters

#: Of batch norm, as every library here has them unless told.
KEPT, EPSILON = 0.9, 1e-5

#: A mask of dropout is drawn as numbers of 16 bits: a unit stays where its number is below this.
BELOW = round((1 - DROPPED) * 2**16)


class State(NamedTuple):
    """What a step takes and leaves; XLA overwrites it in place.

    Attributes
    ----------
    layers
        Weights and biases of each dense layer; with batch norm its scale and shift besides.
        In training weights are ``[out, in]``, which XLA multiplies batches by faster than by
        ``[in, out]``; of one row it is the other way round.
    memory
        What the optimiser remembers.
    running
        Mean and variance of each batch norm.
    key
        Where masks of dropout come from; None where there are none.
    """

    layers: Any
    memory: Any
    running: Any
    key: Any


class JaxScan:
    """The whole epoch as one ``lax.scan``: data on the device, parameters donated."""

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        self.parameters = parameters
        self.case = case
        multiply: Callable[[Any, Any], Any] = jnp.matmul
        if case.matmul_precision is not None:
            multiply = _rounding_product(jnp.dtype(case.matmul_precision))
        self.product = multiply
        if case.trains:
            self.product = lambda x, weights: multiply(x, weights.T)
        self.begin, self.move = _rule(case)
        self.reset()
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.epochs = jax.jit(self._epochs, donate_argnums=0)
        self.classes = jax.jit(self._classes)
        self.chunks = jax.jit(self._chunks, static_argnums=2)
        self.X, self.y = jnp.asarray(X), jnp.asarray(y.astype(np.int32))
        if case.trains:
            self.X = self.X.reshape(-1, case.batch_size, case.shape[0])
            self.y = self.y.reshape(-1, case.batch_size)

    def initial(self) -> State:
        """Return the state before the first step, in arrays of its own: donated ones are gone."""
        layers = [
            [jnp.array(weights.T if self.case.trains else weights), jnp.array(biases)]
            for weights, biases in self.parameters
        ]
        running = []
        if self.case.variant == "batch norm":
            for layer in layers[:-1]:
                zeros, ones = jnp.zeros_like(layer[1]), jnp.ones_like(layer[1])
                layer += [ones, zeros]  # scale and shift
                running.append((jnp.copy(zeros), jnp.copy(ones)))
        # on a processor JAX's own generator is faster than XLA's ("rbg")
        key = jax.random.key(SEED) if self.case.variant == "dropout" else None
        return State(layers, self.begin(layers), running, key)

    def reset(self) -> None:
        self.state = jax.block_until_ready(self.initial())

    def train(self) -> float:
        self.state, loss = self.epoch(self.state, self.X, self.y)
        return float(loss)

    def fit(self) -> float:
        self.state, loss = self.epochs(self.state, self.X, self.y)
        return float(loss)

    def first_steps(self, count: int) -> Parameters:
        state, _ = self.epoch(self.initial(), self.X[:count], self.y[:count])
        pairs = [layer[:2] for layer in state.layers]
        pairs += [layer[2:] for layer in state.layers if len(layer) > 2]
        return [(np.asarray(first).T, np.asarray(second)) for first, second in pairs]

    def predict(self, rows: int) -> Array:
        return np.asarray(self.chunks(self.state.layers, self.X, rows))

    def answer(self, row: Array) -> Array:
        return np.asarray(self.classes(self.state.layers, row))

    def dense(self, X: Array) -> Callable[[], Array]:
        x, (weights, biases) = jnp.asarray(X), self.state.layers[0]
        forward = jax.jit(lambda x, weights, biases: self.product(x, weights) + biases)
        return lambda: np.asarray(forward(x, weights, biases))

    def _logits(self, layers: Any, x: Any, key: Any = None) -> tuple[Any, list[Any]]:
        """Return the network's output, and mean and variance of all that was normalised."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.case.dtype) * (1 / 255)
        seen = []
        masks = None if key is None else self._masks(key, len(x))
        *hidden, (weights, biases) = layers
        for number, (inner_weights, inner_biases, *affine) in enumerate(hidden):
            x = self.product(x, inner_weights) + inner_biases
            if affine:
                x, mean, variance = _normalised(x, *affine)
                seen.append((mean, variance))
            x = jax.nn.relu(x)
            if masks is not None:
                x = jnp.where(masks[number], x * (1 / (1 - DROPPED)), 0)
        return self.product(x, weights) + biases, seen

    def _masks(self, key: Any, rows: int) -> list[Any]:
        """Return what stays of each hidden layer, drawn for all of them at once."""
        widths = self.case.shape[1:-1]
        stays = jax.random.bits(key, (rows, sum(widths)), jnp.uint16) < BELOW
        masks: list[Any] = jnp.split(stays, np.cumsum(widths)[:-1], axis=1)
        return masks

    def _step(self, state: State, batch: Any) -> tuple[State, Any]:
        x, y = batch
        key, masks_key = (None, None) if state.key is None else jax.random.split(state.key)

        def mean_loss(layers: Any) -> Any:
            logits, seen = self._logits(layers, x, masks_key)
            return cross_entropy(logits, y), seen

        (loss, seen), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.layers)
        layers, memory = self.move(state.layers, gradients, state.memory)
        running = jax.tree.map(lambda r, s: KEPT * r + (1 - KEPT) * s, state.running, seen)
        return State(layers, memory, running, key), loss

    def _epoch(self, state: State, X: Any, y: Any) -> tuple[State, Any]:
        state, losses = jax.lax.scan(self._step, state, (X, y))
        return state, losses.mean()

    def _epochs(self, state: State, X: Any, y: Any) -> tuple[State, Any]:
        state, losses = jax.lax.scan(
            lambda state, _: self._epoch(state, X, y), state, length=self.case.epochs
        )
        return state, losses[-1]

    def _classes(self, layers: Any, X: Any) -> Any:
        return self._logits(layers, X)[0].argmax(1)

    def _chunks(self, layers: Any, X: Any, rows: int) -> Any:
        if rows >= len(X):
            return self._classes(layers, X)
        whole = len(X) // rows * rows
        of_chunks = X[:whole].reshape(-1, rows, X.shape[1])
        found = jax.lax.map(lambda x: self._classes(layers, x), of_chunks).reshape(-1)
        return jnp.concatenate([found, self._classes(layers, X[whole:])])


def cross_entropy(logits: Any, y: Any) -> Any:
    """Return the mean over a batch. A label is found by comparison, which no scatter comes of."""
    log_probabilities = jax.nn.log_softmax(logits)
    is_label = jnp.arange(logits.shape[1]) == y[:, None]
    return -jnp.where(is_label, log_probabilities, 0).sum() / len(y)


def _normalising(x: Any, scale: Any, shift: Any) -> tuple[tuple[Any, Any, Any], tuple[Any, ...]]:
    mean = _batch_sum(x) / len(x)
    centred = x - mean
    variance = _batch_sum(centred * centred) / len(x)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    normal = centred * inverse
    return (scale * normal + shift, mean, variance), (normal, inverse, scale)


def _normalising_backward(kept: tuple[Any, ...], gradients: tuple[Any, ...]) -> tuple[Any, ...]:
    (normal, inverse, scale), gradient = kept, gradients[0]
    of_scale, of_shift = _batch_sum(gradient * normal), _batch_sum(gradient)
    rest = (of_shift + normal * of_scale) / len(normal)
    return scale * inverse * (gradient - rest), of_scale, of_shift


def _batch_sum(x: Any) -> Any:
    return (jnp.ones((1, len(x)), x.dtype) @ x)[0]


#: A batch normalised, its mean and its variance, which no gradient goes through. The gradient is
#: written by hand, and sums over a batch are products: XLA takes longer for its own.
_normalised = jax.custom_vjp(lambda x, scale, shift: _normalising(x, scale, shift)[0])
_normalised.defvjp(_normalising, _normalising_backward)


def _rule(case: Case) -> tuple[Callable[[Any], Any], Callable[[Any, Any, Any], tuple[Any, Any]]]:
    """Return what an optimiser begins to remember, and its step."""
    rate, each = case.learning_rate, jax.tree.map

    def zeros(layers: Any) -> Any:
        return each(jnp.zeros_like, layers)

    def plain(layers: Any, gradients: Any, memory: Any) -> tuple[Any, Any]:
        return each(lambda p, g: p - rate * g, layers, gradients), memory

    def momentum(layers: Any, gradients: Any, velocities: Any) -> tuple[Any, Any]:
        velocities = each(lambda v, g: MOMENTUM * v + g, velocities, gradients)
        return each(lambda p, v: p - rate * v, layers, velocities), velocities

    def adam(layers: Any, gradients: Any, memory: Any) -> tuple[Any, Any]:
        means, squares, taken = memory
        taken += 1
        means = each(lambda m, g: BETA1 * m + (1 - BETA1) * g, means, gradients)
        squares = each(lambda s, g: BETA2 * s + (1 - BETA2) * g * g, squares, gradients)
        corrected = rate / (1 - BETA1**taken)
        root = jax.lax.rsqrt(1 - BETA2**taken)

        def moved(p: Any, m: Any, s: Any) -> Any:
            return p - corrected * m / (jnp.sqrt(s) * root + ADAM_EPSILON)

        return each(moved, layers, means, squares), (means, squares, taken)

    if case.variant == "momentum":
        return zeros, momentum
    if case.variant == "adam":
        return lambda layers: (zeros(layers), zeros(layers), jnp.zeros((), case.dtype)), adam
    return lambda layers: None, plain


def _rounding_product(rounded: Any) -> Callable[[Any, Any], Any]:
    """Return X W, and its two gradients, as float32 sums of operands in a shorter dtype.

    JAX by itself would round what comes back to float32 alone.
    """

    def product(x: Any, w: Any) -> Any:
        x, w = x.astype(rounded), w.astype(rounded)
        return jnp.matmul(x, w, preferred_element_type=np.float32)

    rounding = jax.custom_vjp(product)
    rounding.defvjp(
        lambda x, w: (product(x, w), (x, w)),
        lambda kept, g: (product(g, kept[1].T), product(kept[0].T, g)),
    )
    multiply: Callable[[Any, Any], Any] = rounding
    return multiply
