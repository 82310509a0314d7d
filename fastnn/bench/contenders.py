"""The programs that are compared, each in its fastest form that trains the same network.

All of them take the same initial parameters and walk the same samples in the same order, in
batches that are contiguous slices, so nobody pays for a gather. A contender is made outside the
timed part: a library is imported, data are put where it wants them. Before each round it goes back
to the initial parameters, so that no round depends on how many there were before it.
"""

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from fastnn.bench.cases import ADAM_EPSILON, BETA2, DROPPED, MATMUL_SIZE, MOMENTUM, Case
from fastnn.bench.samples import (
    SEED,
    Array,
    Parameters,
    initial_parameters,
    load_samples,
    reference_classes,
)

#: Rows a call that a prediction of many is tried in, beside all of them at once.
CHUNKS = (1_000, 500, 250)
#: Calls of which the fastest tells how long such a prediction takes.
TRIES = 3

#: Steps after which parameters are compared with the NumPy backend's, and how many of each array.
CHECKED_STEPS = 4
CHECKED_NUMBERS = 1_000


class Contender(Protocol):
    """What a worker calls; each method but `reset` is one round, or a part of one."""

    def reset(self) -> None:
        """Go back to the initial parameters, with nothing in the optimiser's memory."""

    def train(self) -> float:
        """Train one epoch and return the mean loss over its samples."""

    def fit(self) -> float:
        """Train all epochs of the case and return the mean loss of the last one."""

    def first_steps(self, count: int) -> Parameters:
        """Take so many steps from the initial parameters and return what has become of them.

        Weights and biases of each dense layer, then scale and shift of each batch norm.
        """

    def predict(self, rows: int) -> Array:
        """Return the class id of every sample, so many rows a call."""

    def answer(self, row: Array) -> Array:
        """Return the class id of one sample, ``[1, input units]``, that comes from NumPy."""


class Multiplier(Protocol):
    """A contender that also runs a single layer."""

    def dense(self, X: Array) -> Callable[[], Array]:
        """Return a function that gives the first layer's output for a batch."""


class FastNN:
    """This package, on the backend that the case names."""

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        self.case, self.X, self.y, self.parameters = case, X, y, parameters
        self.build()

    def build(self) -> None:
        """Make the network."""
        import fastnn

        case = self.case
        dense = [fastnn.Dense(*units) for units in pairwise(case.shape)]
        layers: list[fastnn.Layer] = [fastnn.Rescaling(1 / 255)] if case.input == "uint8" else []
        for layer in dense[:-1]:
            layers.append(layer)
            if case.variant == "batch norm":
                layers.append(fastnn.BatchNorm(layer.output_units))
            layers.append(fastnn.ReLU())
            if case.variant == "dropout":
                layers.append(fastnn.Dropout(DROPPED))
        rate = case.learning_rate
        optimizer: fastnn.SGD | fastnn.Adam = fastnn.SGD(rate)
        if case.variant == "momentum":
            optimizer = fastnn.SGD(rate, momentum=MOMENTUM)
        elif case.variant == "adam":
            optimizer = fastnn.Adam(rate)
        self.optimizer = optimizer
        rounding: dict[str, Any] = {}
        if case.matmul_precision is not None:  # an older commit may not know it
            rounding["matmul_precision"] = case.matmul_precision
        self.network = fastnn.Network(
            [*layers, dense[-1]],
            backend=case.contender,
            dtype=np.dtype(case.dtype),
            optimizer=optimizer,
            seed=SEED,
            **rounding,
        )
        self.dense_layers = dense
        self.norms = [layer for layer in layers if isinstance(layer, fastnn.BatchNorm)]
        for layer, (weights, biases) in zip(dense, self.parameters, strict=True):
            layer.weights, layer.biases = weights, biases
        self.initial = self.network.get_weights()

    def reset(self) -> None:
        """Dropout's masks go on: they are draws of their own, the same on both backends."""
        if self.case.task == "fit":
            self.build()  # a network's first fit costs what a later one has ready
            return
        self.network.set_weights(self.initial)
        self.network.optimizer = copy.copy(self.optimizer)  # another one has seen no step

    def train(self, epochs: int = 1) -> float:
        history = self.network.fit(
            self.X,
            self.y,
            epochs=epochs,
            batch_size=self.case.batch_size,
            threads=self.case.threads,
            shuffle=False,
        )
        return float(history.loss[-1])

    def fit(self) -> float:
        return self.train(self.case.epochs)

    def first_steps(self, count: int) -> Parameters:
        self.reset()
        rows, case = slice(count * self.case.batch_size), self.case
        self.network.fit(
            self.X[rows],
            self.y[rows],
            batch_size=case.batch_size,
            threads=case.threads,
            shuffle=False,
        )
        return [
            *((layer.weights, layer.biases) for layer in self.dense_layers),
            *((layer.scale, layer.shift) for layer in self.norms),
        ]

    def predict(self, rows: int) -> Array:
        return in_chunks(self.network.predict, self.X, rows)

    def answer(self, row: Array) -> Array:
        return self.network.predict(row)

    def dense(self, X: Array) -> Callable[[], Array]:
        return lambda: self.dense_layers[0].forward(X)


def in_chunks(classes: Callable[[Array], Array], X: Array, rows: int) -> Array:
    """Return the class ids of all samples, found in so many rows a call."""
    if rows >= len(X):
        return classes(X)
    return np.concatenate([classes(X[at : at + rows]) for at in range(0, len(X), rows)])


class ScikitLearn:
    """``MLPClassifier``, one `partial_fit` an epoch, or a `fit` of them all.

    It draws its parameters in its first `partial_fit`, so it is given one batch beforehand and
    then the common parameters, with which `warm_start` has `fit` begin. Its own shuffling is off,
    and its own end of training.
    """

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        from sklearn.neural_network import MLPClassifier

        self.X, self.y, self.parameters = X, y, parameters
        self.model = MLPClassifier(
            case.shape[1:-1],
            solver="adam" if case.variant == "adam" else "sgd",
            alpha=0,
            batch_size=case.batch_size,
            learning_rate_init=case.learning_rate,
            shuffle=False,
            momentum=MOMENTUM if case.variant == "momentum" else 0,
            nesterovs_momentum=False,
            # added to the root before Adam corrects that, so this is what others add at first
            epsilon=ADAM_EPSILON * np.sqrt(1 - BETA2),
            max_iter=case.epochs,
            n_iter_no_change=np.inf,
        )
        batch = slice(case.batch_size)
        self.model.partial_fit(X[batch], y[batch], classes=np.arange(case.shape[-1]))
        self.model.warm_start = case.task == "fit"
        self.reset()
        # `fit` warns of having reached `max_iter`, which is what it is asked for
        warnings.filterwarnings("ignore", module="sklearn")

    def reset(self) -> None:
        for layer, (weights, biases) in enumerate(self.parameters):
            self.model.coefs_[layer][:] = weights
            self.model.intercepts_[layer][:] = biases
        vars(self.model).pop("_optimizer", None)  # the next training makes one

    def train(self) -> float:
        self.model.partial_fit(self.X, self.y)
        return float(self.model.loss_)

    def fit(self) -> float:
        self.model.fit(self.X, self.y)
        return float(self.model.loss_)

    def first_steps(self, count: int) -> Parameters:
        self.reset()
        rows = slice(count * self.model.batch_size)
        self.model.partial_fit(self.X[rows], self.y[rows])
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))

    def predict(self, rows: int) -> Array:
        return in_chunks(self.answer, self.X, rows)

    def answer(self, row: Array) -> Array:
        classes: Array = self.model.predict(row)
        return classes


def _torch_eager(case: Case, X: Array, y: Array, parameters: Parameters) -> Contender:
    from fastnn.bench.in_torch import TorchEager

    return TorchEager(case, X, y, parameters)


def _torch_compiled(case: Case, X: Array, y: Array, parameters: Parameters) -> Contender:
    from fastnn.bench.in_torch import TorchCompiled

    return TorchCompiled(case, X, y, parameters)


def _jax_scan(case: Case, X: Array, y: Array, parameters: Parameters) -> Contender:
    from fastnn.bench.in_jax import JaxScan

    return JaxScan(case, X, y, parameters)


CONTENDERS: dict[str, Callable[[Case, Array, Array, Parameters], Contender]] = {
    "numba": FastNN,
    "numpy": FastNN,
    "torch": _torch_eager,
    "torch.compile": _torch_compiled,
    "jax": _jax_scan,
    "sklearn": ScikitLearn,
}


class Round(NamedTuple):
    """What a worker does in a round: `run` is timed, what is before and after it is not.

    Attributes
    ----------
    reset : callable
        Sets the contender back to where each round begins.
    run : callable
        One round.
    judge : callable
        What `run` returned as the one number that is checked: the mean loss of an epoch, the share
        of wrongly predicted class ids, the largest error of a layer's output, or nothing of
        interest for the matrix product; of steps that are taken to pieces, all that was found.
    moved : callable, optional
        How far the first steps move some numbers of each layer, what is checked beside the loss.
    rows_a_call : callable, optional
        How many samples the prediction of all takes in a call.
    """

    reset: Callable[[], object]
    run: Callable[[], Any]
    judge: Callable[[Any], Any]
    moved: Callable[[], list[list[float]]] | None = None
    rows_a_call: Callable[[], int] | None = None


def prepare(case: Case) -> Round:
    """Make the contender, and return what its rounds are."""
    if case.task == "matmul":
        return _matmul(case)
    (X, y), parameters = load_samples(case), initial_parameters(case)
    contender = CONTENDERS[case.contender](case, X, y, parameters)
    if case.task in ("train", "fit"):
        train = contender.train if case.task == "train" else contender.fit

        def moved() -> list[list[float]]:
            checked = contender
            if case.variant == "dropout":  # masks are everyone's own, so without them
                plain = replace(case, variant="plain")
                checked = CONTENDERS[case.contender](plain, X, y, parameters)
            steps = min(CHECKED_STEPS, case.samples // case.batch_size)
            norms = [(np.ones_like(of), np.zeros_like(of)) for _, of in parameters[:-1]]
            before = [*parameters, *(norms if case.variant == "batch norm" else [])]
            return _differences(checked.first_steps(steps), before)

        return Round(contender.reset, train, float, moved)
    if case.task == "step":
        return _step(cast(FastNN, contender))
    if case.task == "dense":
        return _dense(case, X, parameters, cast(Multiplier, contender))
    expected = reference_classes(X, parameters)

    def share_of_wrong(classes: Any) -> float:
        return float(np.mean(np.ravel(classes) != expected))

    if case.task == "predict":
        prediction = Prediction(contender, case)
        return Round(
            prediction.settle,
            prediction.run,
            share_of_wrong,
            rows_a_call=lambda: prediction.rows,
        )
    rows = np.split(X, len(X))
    return Round(lambda: None, lambda: [contender.answer(row) for row in rows], share_of_wrong)


class Prediction:
    """The prediction of all samples, in as many rows a call as are fastest.

    Small chunks stay in the caches from layer to layer. fastnn's Numba backend cuts its own. The
    first round takes all at once; before the second one, while no clock runs, each size is tried.
    """

    def __init__(self, contender: Contender, case: Case) -> None:
        self.contender, self.rows, self.rounds = contender, case.samples, 0
        self.sizes = [case.samples]
        if case.contender != "numba":
            self.sizes += [rows for rows in CHUNKS if rows < case.samples]

    def settle(self) -> None:
        self.rounds += 1
        if self.rounds == 2 and len(self.sizes) > 1:
            self.rows = min(self.sizes, key=self._seconds)

    def run(self) -> Array:
        return self.contender.predict(self.rows)

    def _seconds(self, rows: int) -> float:
        self.contender.predict(rows)  # which may compile
        times = []
        for _ in range(TRIES):
            start = time.perf_counter()
            self.contender.predict(rows)
            times.append(time.perf_counter() - start)
        return min(times)


def _differences(after: Parameters, before: Parameters) -> list[list[float]]:
    """Return how far numbers of each layer have moved, the same ones for every contender."""
    rng = np.random.default_rng(SEED)
    found = []
    for arrays in zip(after, before, strict=True):
        moved = []
        for new, old in zip(*arrays, strict=True):
            flat = (new.astype(np.float64) - old).ravel()
            few = flat.size <= CHECKED_NUMBERS
            moved.append(flat if few else flat[rng.integers(flat.size, size=CHECKED_NUMBERS)])
        found.append(np.concatenate(moved).tolist())
    return found


def _matmul(case: Case) -> Round:
    rng = np.random.default_rng(SEED)
    a, b = rng.random((2, MATMUL_SIZE, MATMUL_SIZE), np.dtype(case.dtype))
    out = np.empty_like(a)
    return Round(
        lambda: None, lambda: np.matmul(a, b, out=out), lambda product: float(product[0, 0])
    )


def _step(contender: FastNN) -> Round:
    from fastnn.bench.dissection import Dissection  # which needs what compiles

    case = contender.case
    network, X, y = contender.network, contender.X, contender.y
    dissection = Dissection(network, X, y, case.batch_size, case.threads)
    return Round(contender.reset, dissection.round, lambda found: found)


def _dense(case: Case, X: Array, parameters: Parameters, contender: Multiplier) -> Round:
    batch = X[: case.batch_size]
    forward = contender.dense(batch)
    weights, biases = parameters[0]
    exact = batch.astype(np.float64) @ weights + biases

    def run() -> Array:
        for _ in range(case.steps):
            output = forward()
        return output

    def largest_error(output: Any) -> float:
        return float(np.abs(output - exact).max() / np.abs(exact).max())

    return Round(lambda: None, run, largest_error)
