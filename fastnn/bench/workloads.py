"""The table of workloads: every kernel through the public API, and training on MNIST.

A workload is set up for a backend, checked against NumPy in float64, then timed. The table is all
that the asv and pytest-benchmark suites know.
"""

import contextvars
import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

import fastnn
from fastnn.bench.cases import Case
from fastnn.bench.contenders import FastNN
from fastnn.bench.samples import SEED, initial_parameters, load_samples
from fastnn.checks import Array
from fastnn.layers import BUILT_IN, Elementwise

ELEMENTWISE: dict[str, Any] = {
    kind._function: kind(*[0.25 * (i + 1) for i in range(len(kind._constants))])
    for kind in BUILT_IN
    if issubclass(kind, Elementwise)
}
"""A layer of each elementwise function, with constants in ascending order, as bounds must be."""


#: The call to time, and the function that knows its result.
Problem = tuple[Callable[[], Any], Callable[[], Any]]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes
    ----------
    make_problem : callable
        The operation, one of those below.
    params : dict
        Its arguments: sizes and dtype.
    tolerance : float
        Largest error, relative to the largest expected value.
    """

    make_problem: Callable[..., Problem]
    params: dict[str, Any]
    tolerance: float

    @property
    def operation(self) -> str:
        """What is done, the same for all sizes and dtypes."""
        return self.make_problem.__name__

    @property
    def name(self) -> str:
        """The operation and all parameters, unique in the table."""
        return "-".join([self.operation, *map(str, self.params.values())])

    def setup(self, backend: str) -> Callable[[], Any]:
        """Return the call to time; it runs on `backend`, wherever it is called from."""
        with fastnn.use_backend(backend):
            call, _ = self.make_problem(**self.params)
            context = contextvars.copy_context()
        return functools.partial(context.run, call)

    def check(self, result: Any) -> None:
        """Raise AssertionError unless `result` is what NumPy computes in float64."""
        with fastnn.use_backend("numpy"):
            expected = self.make_problem(**self.params)[1]()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=self.tolerance * scale)


def _normal(dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(SEED)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def _dense(batch: int, input_units: int, output_units: int, dtype: str) -> tuple[Any, ...]:
    """Return input, output gradient, weights, and the weights' network.

    A network, since it fixes backend and dtype. At rate 0 every call sees the same weights; the
    update runs all the same.
    """
    X, G, W = _normal(
        dtype, (batch, input_units), (batch, output_units), (input_units, output_units)
    )
    layer = fastnn.Dense(input_units, output_units, learning_rate=0.0)
    network = fastnn.Network([layer], dtype=np.dtype(dtype))
    layer.weights = W
    return X, G, W.astype(np.float64), network


def dense_forward(batch: int, input_units: int, output_units: int, dtype: str) -> Problem:
    """Y = X W + b."""
    X, _, W, network = _dense(batch, input_units, output_units, dtype)
    return lambda: network[0].forward(X), lambda: X @ W


def dense_backward(batch: int, input_units: int, output_units: int, dtype: str) -> Problem:
    """G W^T, with the parameter gradients X^T G and sum of G, and the update."""
    X, G, W, network = _dense(batch, input_units, output_units, dtype)
    return lambda: network[0].backward(X, G), lambda: G @ W.T


def elementwise_forward(function: str, batch: int, units: int, dtype: str) -> Problem:
    """f(X)."""
    X = _normal(dtype, (batch, units))[0]
    layer, expected = ELEMENTWISE[function], X.astype(np.float64)
    return lambda: layer.forward(X), lambda: layer.forward(expected)


def elementwise_backward(function: str, batch: int, units: int, dtype: str) -> Problem:
    """G f'(X)."""
    X, G = _normal(dtype, (batch, units), (batch, units))
    layer, of_X, of_G = ELEMENTWISE[function], X.astype(np.float64), G.astype(np.float64)
    return lambda: layer.backward(X, G), lambda: layer.backward(of_X, of_G)


def _logits(batch: int, classes: int, dtype: str) -> tuple[Array, Array, Array]:
    """Return logits, labels, and the log-probabilities in float64."""
    (Z,) = _normal(dtype, (batch, classes))
    labels = np.random.default_rng(SEED).integers(classes, size=batch)
    return Z, labels, Z - np.log(np.exp(Z.astype(np.float64)).sum(axis=1, keepdims=True))


def softmax_crossentropy(batch: int, classes: int, dtype: str) -> Problem:
    """-log softmax(Z)[label], sample by sample."""
    Z, labels, log_probabilities = _logits(batch, classes, dtype)
    return (
        lambda: fastnn.softmax_crossentropy_with_logits(Z, labels),
        lambda: -log_probabilities[np.arange(batch), labels],
    )


def grad_softmax_crossentropy(batch: int, classes: int, dtype: str) -> Problem:
    """(softmax(Z) - one_hot(labels)) / batch."""
    Z, labels, log_probabilities = _logits(batch, classes, dtype)
    return (
        lambda: fastnn.grad_softmax_crossentropy_with_logits(Z, labels),
        lambda: (np.exp(log_probabilities) - np.eye(classes)[labels]) / batch,
    )


def minibatch_sgd(batch_size: int, samples: int, dtype: str) -> Problem:
    """Mean loss of an epoch of 784-100-200-10 on MNIST, from the same parameters every time."""

    def epoch(dtype: str) -> float:
        contender = _contender(fastnn.get_backend(), batch_size, samples, dtype)
        contender.reset()
        return contender.train()

    def expected() -> float:
        loss = epoch("float64")
        assert 0.3 < loss < 1.0, f"the NumPy backend does not learn, its loss is {loss}"
        return loss

    return lambda: epoch(dtype), expected


@functools.cache
def _contender(backend: str, batch_size: int, samples: int, dtype: str) -> FastNN:
    case = Case(backend, batch_size=batch_size, samples=samples, dtype=dtype)
    return FastNN(case, *load_samples(case), initial_parameters(case))


DENSE_SHAPES = (
    {"batch": 1, "input_units": 784, "output_units": 100},
    {"batch": 32, "input_units": 784, "output_units": 100},
    {"batch": 128, "input_units": 512, "output_units": 512},
)
EXACT = ("relu", "rescale", "leaky_relu")  # with constants that are powers of 2
EXACT_SHAPES, ELEMENTWISE_SHAPES = (
    tuple(
        {"function": function, "batch": batch, "units": units}
        for function in ELEMENTWISE
        if (function in EXACT) == exact
        for batch, units in ((32, 100), (128, 512))
    )
    for exact in (True, False)
)
LOSS_SHAPES = ({"batch": 32, "classes": 10}, {"batch": 512, "classes": 10})
TRAINING_SHAPES = ({"batch_size": 32, "samples": 6_400}, {"batch_size": 128, "samples": 12_800})

#: Operation, shapes, and the error that rounding explains, in epsilons of the largest result. Sums
#: of n terms err by about sqrt(n). An epoch passes its errors on from step to step, and multiplies
#: them wherever one decides on which side of zero a unit's input is.
OPERATIONS: tuple[tuple[Callable[..., Problem], tuple[dict[str, Any], ...], int], ...] = (
    (dense_forward, DENSE_SHAPES, 32),
    (dense_backward, DENSE_SHAPES, 32),
    (elementwise_forward, EXACT_SHAPES, 0),
    (elementwise_backward, EXACT_SHAPES, 0),
    (elementwise_forward, ELEMENTWISE_SHAPES, 8),
    (elementwise_backward, ELEMENTWISE_SHAPES, 16),
    (softmax_crossentropy, LOSS_SHAPES, 8),
    (grad_softmax_crossentropy, LOSS_SHAPES, 8),
    (minibatch_sgd, TRAINING_SHAPES, 100_000),
)

WORKLOADS = tuple(
    Workload(
        make_problem=make_problem,
        params=shape | {"dtype": dtype},
        tolerance=epsilons * float(np.finfo(dtype).eps),
    )
    for make_problem, shapes, epsilons in OPERATIONS
    for shape, dtype in product(shapes, ("float32", "float64"))
)
