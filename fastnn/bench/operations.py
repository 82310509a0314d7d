"""The operations of the protocol `Backend`, each with arguments to be timed on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastnn import backends
from fastnn.bench.samples import SEED
from fastnn.checks import Array
from fastnn.layers import BUILT_IN, Elementwise

DTYPES = ("float32", "float64")

#: What a size is: the shapes of activations [batch, units], of a dense layer [batch, inputs,
#: outputs], of logits [batch, classes] and of parameters.
Shapes = Mapping[str, tuple[int, ...]]
ACTIVATIONS: Shapes = {
    "tiny": (4, 16),
    "small": (32, 100),
    "medium": (128, 512),
    "large": (512, 1024),
}
PRODUCTS: Shapes = {
    "tiny": (4, 16, 16),
    "small": (32, 784, 100),
    "medium": (128, 512, 512),
    "large": (512, 1024, 1024),
}
LOGITS: Shapes = {"tiny": (4, 10), "small": (32, 10), "medium": (512, 10), "large": (10_000, 10)}
PARAMETERS: Shapes = {
    "tiny": (64,),
    "small": (1_000,),
    "medium": (100_000,),
    "large": (1_000_000,),
}


class Problem(NamedTuple):
    """A call to be timed, and the arguments that it may change."""

    call: Callable[[], Any]
    arguments: tuple[Any, ...] = ()

    def outcome(self) -> list[Array]:
        """Call, and return all numbers that there are then: results, then arguments."""
        return _numbers((self.call(), *self.arguments))


def _numbers(thing: Any) -> list[Array]:
    if isinstance(thing, tuple | list):
        return [array for part in thing for array in _numbers(part)]
    return [np.array(thing)] if isinstance(thing, np.ndarray | float) else []


class Draw:
    """What arguments are made of: arrays of one dtype, the same in each run."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self._rng = np.random.default_rng(SEED)

    def __call__(self, *shape: int) -> Array:
        """Return standard normal numbers."""
        return self._rng.standard_normal(shape).astype(self.dtype)

    def shares(self, *shape: int) -> Array:
        """Return numbers from 0 to 1."""
        return self._rng.random(shape).astype(self.dtype)

    def counts(self, *shape: int) -> Array:
        """Return whole numbers of 0 and more, 1 on average."""
        return self._rng.poisson(1.0, shape).astype(self.dtype)

    def labels(self, batch: int, classes: int) -> Array:
        """Return class ids."""
        return self._rng.integers(classes, size=batch)


@dataclass(frozen=True)
class Operation:
    """One row: an operation, and what it is timed on.

    Attributes
    ----------
    name : str
        As the protocol has it.
    shapes : mapping
        One of those above.
    arguments : callable
        Makes the arguments from a `Draw` and a shape.
    epsilons : int
        The error that rounding explains, relative to the largest number of the result.
    variant : str
        What tells rows of one operation apart.
    dtypes : tuple of str
        Those that it takes.
    """

    name: str
    shapes: Shapes
    arguments: Callable[..., tuple[Any, ...]]
    epsilons: int
    variant: str = ""
    dtypes: tuple[str, ...] = DTYPES

    @property
    def label(self) -> str:
        """The operation and its variant."""
        return f"{self.name} {self.variant}".rstrip()

    def describe(self, size: str) -> str:
        """Return the shapes of a size, and the arguments of the smallest in words."""
        arguments = self.arguments(Draw(DTYPES[0]), *self.shapes["tiny"])
        return f"{self.shapes[size]}, {[_in_words(argument) for argument in arguments]}"

    def problem(self, size: str, backend: str, dtype: str) -> Problem:
        """Return the operation on `backend`, with arguments of its own."""
        return self._of(backend, self.arguments(Draw(dtype), *self.shapes[size]))

    def reference(self, size: str, dtype: str) -> Problem:
        """Return what NumPy makes of the same numbers in float64."""
        arguments = self.arguments(Draw(dtype), *self.shapes[size])
        return self._of("numpy", tuple(map(_in_float64, arguments)))

    def _of(self, backend: str, arguments: tuple[Any, ...]) -> Problem:
        return Problem(partial(getattr(backends.load(backend), self.name), *arguments), arguments)


def _in_words(argument: Any) -> str:
    if isinstance(argument, list):
        return repr([_in_words(part) for part in argument])
    if isinstance(argument, np.ndarray):
        return f"{argument.dtype}{argument.shape}"
    return repr(argument)


def _in_float64(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_in_float64(array) for array in argument]
    if isinstance(argument, np.dtype):
        return np.dtype(np.float64)
    if isinstance(argument, np.ndarray) and argument.dtype.kind == "f":
        return argument.astype(np.float64)
    return argument


ELEMENTWISE = tuple(kind for kind in BUILT_IN if issubclass(kind, Elementwise))
"""The layers of a function of each element."""
EXACT = ("relu", "rescale", "leaky_relu")  # with constants that are powers of 2


def constants(kind: type[Elementwise]) -> tuple[float, ...]:
    """Return constants for a function in ascending order, as bounds must be."""
    return tuple(0.25 * (place + 1) for place in range(len(kind._constants)))


def _of_function(kind: type[Elementwise]) -> tuple[Operation, Operation]:
    function, numbers = kind._function, constants(kind)

    def forward(draw: Draw, *shape: int) -> tuple[Any, ...]:
        return function, draw(*shape), *numbers

    def backward(draw: Draw, *shape: int) -> tuple[Any, ...]:
        value, G = draw(*shape), draw(*shape)
        if kind._from_output:
            value = backends.load("numpy").elementwise_forward(function, value, *numbers)
        return function, value, G, *numbers

    exact = function in EXACT
    return (
        Operation("elementwise_forward", ACTIVATIONS, forward, 0 if exact else 8, function),
        Operation("elementwise_backward", ACTIVATIONS, backward, 0 if exact else 16, function),
    )


RATE = 2.0**-10
EPSILON = 1e-5

#: Steps are taken again and again on the same arrays. Gradients stay, so what they move goes on
#: evenly and meets neither infinity nor numbers so small that processors are slow with them.
#: A norm that is clipped to 1e-6, which is what `clip_by_global_norm` adds to it, is 1e-6 / n after
#: n calls, and above 1e-6 with that added: so every call clips.
OPERATIONS = (
    Operation("dense_forward", PRODUCTS, lambda d, n, i, o: (d(n, i), d(i, o), d(o)), 32),
    Operation(
        "dense_backward",
        PRODUCTS,
        lambda d, n, i, o: (d(n, i), d(i, o), d(n, o), d(i, o), d(o)),
        32,
    ),
    *(row for kind in ELEMENTWISE for row in _of_function(kind)),
    Operation("dropout", ACTIVATIONS, lambda d, n, k: (d(n, k), 0.5, SEED, 0), 0),
    Operation(
        "batch_norm_forward",
        ACTIVATIONS,
        lambda d, n, k: (d(n, k), d(k), d(k), EPSILON),
        256,  # means are small beside what is summed
    ),
    Operation(
        "batch_norm_backward",
        ACTIVATIONS,
        lambda d, n, k: (d(n, k), d(n, k), d(k), EPSILON, d(k), d(k)),
        64,
    ),
    Operation(
        "batch_norm_inference",
        ACTIVATIONS,
        lambda d, n, k: (d(n, k), d(k), d(k), d(k), 1 + d.shares(k), EPSILON),
        8,
    ),
    Operation(
        "batch_norm_inference_backward",
        ACTIVATIONS,
        lambda d, n, k: (d(n, k), d(n, k), d(k), d(k), 1 + d.shares(k), EPSILON, d(k), d(k)),
        32,
    ),
    Operation("softmax", LOGITS, lambda d, n, k: (d(n, k),), 8),
    Operation("softmax_cross_entropy", LOGITS, lambda d, n, k: (d(n, k), d.labels(n, k)), 8),
    Operation(
        "softmax_cross_entropy_gradient", LOGITS, lambda d, n, k: (d(n, k), d.labels(n, k)), 8
    ),
    Operation("smoothed_cross_entropy", LOGITS, lambda d, n, k: (d(n, k), d.labels(n, k), 0.1), 8),
    Operation(
        "smoothed_cross_entropy_gradient", LOGITS, lambda d, n, k: (d(n, k), d.labels(n, k), 0.1), 8
    ),
    Operation("binary_cross_entropy", LOGITS, lambda d, n, k: (d(n, k), d.shares(n, k)), 8),
    Operation(
        "binary_cross_entropy_gradient", LOGITS, lambda d, n, k: (d(n, k), d.shares(n, k)), 8
    ),
    Operation("poisson_loss", LOGITS, lambda d, n, k: (d(n, k), d.counts(n, k)), 8),
    Operation("poisson_loss_gradient", LOGITS, lambda d, n, k: (d(n, k), d.counts(n, k)), 8),
    Operation("mean_squared_error", LOGITS, lambda d, n, k: (d(n, k), d(n, k)), 8),
    Operation("mean_squared_error_gradient", LOGITS, lambda d, n, k: (d(n, k), d(n, k)), 8),
    Operation("sgd_step", PARAMETERS, lambda d, n: (d(n), d(n), RATE), 8),
    Operation("momentum_step", PARAMETERS, lambda d, n: (d(n), d(n), d(n), RATE, 0.9, False), 8),
    Operation(
        "momentum_step", PARAMETERS, lambda d, n: (d(n), d(n), d(n), RATE, 0.9, True), 8, "nesterov"
    ),
    Operation(
        "rmsprop_step", PARAMETERS, lambda d, n: (d(n), d(n), d.shares(n), RATE, 0.9, EPSILON), 8
    ),
    Operation(
        "adam_step",
        PARAMETERS,
        lambda d, n: (d(n), d(n), d(n), d.shares(n), RATE, 0.9, 0.999, EPSILON, 9),
        8,
    ),
    Operation("add_multiple", PARAMETERS, lambda d, n: (d(n), RATE, d(n)), 8),
    Operation("sum_of_squares", PARAMETERS, lambda d, n: (d(n),), 64),
    Operation("clip_by_global_norm", PARAMETERS, lambda d, n: ([d(n)], 1e-6), 64),
    Operation("by_rows", ACTIVATIONS, lambda d, n, k: (np.asfortranarray(d(n, k)), d.dtype), 0),
    Operation(
        "rounded_to_bfloat16", ACTIVATIONS, lambda d, n, k: (d(n, k),), 0, dtypes=("float32",)
    ),
)
