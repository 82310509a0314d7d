"""The two ways through a network: layer by layer in Python, or many batches in one compiled call.

`training.py` draws the order of the samples and hands it to either, so both
see the same batches, and their results are equal up to rounding.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks, losses, optimizers, schedules
from fastnn.backends import description
from fastnn.backends.description import PENALTY_FACTOR, RATES
from fastnn.checks import Array
from fastnn.interrupts import uncut
from fastnn.layers import BUILT_IN, Layer, ParametricLayer
from fastnn.memory import SparseRows
from fastnn.parameters import LayerParameters, NetworkParameters
from fastnn.processors import usable_bytes
from fastnn.propagation import Layered, step
from fastnn.scores import Evaluation

THREADS_VARIABLE = "FASTNN_NUM_THREADS"

Order = npt.NDArray[np.int64]
Factors = float | npt.NDArray[np.float64]
"""On penalties: of all batches, or [batches]."""
Repeated = Callable[[Factors], tuple[float, int]]

CAST_ROWS = 4096
"""Samples that are cast at once where compiled code can't read them as they lie."""

TRAINING_DENSITY_ROWS, PREDICTION_DENSITY_ROWS = 128, 64
"""Rows, evenly spaced, whose share of non-zeros stands for that of all: to count 50,000 images of
floats takes a sixth of an epoch, and 2,048 of them as long as some hundred steps."""

KEPT_SHARE, LEAST_KEPT_BYTES, MOST_KEPT_BYTES = 64, 1 << 24, 1 << 28
KEPT_BYTES = min(max(usable_bytes() // KEPT_SHARE, LEAST_KEPT_BYTES), MOST_KEPT_BYTES)
"""What programs of all networks may take of memory between two fits: a small part of what there is.
To set one up again costs a page fault for every 4 kB of it."""

IDLE_PROGRAMS, IDLE_BYTES = 16, 1 << 18
"""How many programs any network of their kind may take over, and how large one may be."""

STEPS_AHEAD = 256
"""Steps whose rates are made at once where they can't change in between."""

FEW_ROWS = 128
"""Up to so many rows the layers one by one predict sooner than a program is set to work."""


class Trainable(Layered, Protocol):
    """What the paths need of a network."""

    _parameters: NetworkParameters
    _programs: Programs

    def __iter__(self) -> Iterator[Layer]: ...

    def _prepare(self) -> None: ...

    def evaluate(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
    ) -> Evaluation: ...


class Path(Protocol):
    """A way through the samples of an epoch.

    Losses are added batch after batch from the start of the epoch, so that no sum depends on
    where the epoch is cut into calls.
    """

    def start(self, loss: float = 0.0, correct: int = 0) -> None:
        """Begin an epoch, or go on in the midst of one with its sums so far."""

    def train(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the epoch's sum of losses and right answers."""

    def repeated(self, order: Order) -> Repeated:
        """Return a call that trains on the samples that `order` holds whenever it is called.

        For who trains epoch after epoch and puts each one's order, and its weights, in the same
        arrays: what can be got ready once is. What is called in between may change rates, but no
        layer and no optimiser. It takes a factor on the layers' penalties, one for all batches or
        one for each of them, and returns the sum of losses and right answers of these samples
        alone.
        """

    @property
    def takes_epochs(self) -> bool:
        """Whether several epochs can be one call, in which nothing of the user's own is called.

        It may draw from the generator of the orders, raise, or take any time.
        """

    def train_epochs(self, orders: Order) -> tuple[list[float], list[int]]:
        """Train on epochs, [epochs, samples]; return the sum of losses and right answers of each.

        Of more than one only where the path `takes_epochs`; and of as many samples in each call, as
        what `repeated` returns may be kept.
        """

    def go_over_to(self, X: Array | SparseRows, y: Array) -> None:
        """Take samples without weights from other arrays, which may come in another dtype.

        A path that was made for uint8 takes uint8 alone.
        """

    def batch(self, order: Order) -> tuple[Array, Array]:
        """Return these samples and their targets."""


@contextmanager
def training_path(
    network: Trainable,
    X: Array | SparseRows,
    y: Array,
    batch_size: int,
    threads: int | None = None,
    weights: Array | None = None,
) -> Iterator[Path]:
    """Lend the fastest path that `network` can take, with its kernels compiled.

    `X` may be CSR in the network's dtype. `weights` are those of the samples, float64.
    `threads` is the number that share the work on the compiled path, None for a choice by the work.
    """
    X = _by_rows(network, X)
    if reason_for_layers(network) is None:
        weighted = weights is not None
        with network._programs.for_training(network, X, batch_size, weighted) as program:
            yield CompiledPath(network, X, y, program, threads, weights)
    else:
        yield LayerPath(network, X, y, batch_size, weights)


class _OfSamples(ABC):
    """What both paths hold."""

    _X: Array | SparseRows
    _y: Array
    _one_epoch: tuple[Order, Repeated] | None = None

    def batch(self, order: Order) -> tuple[Array, Array]:
        """Return these samples and their targets."""
        return self._X[order], self._y[order]

    def train_epochs(self, orders: Order) -> tuple[list[float], list[int]]:
        """Train on an epoch; return its sum of losses and right answers."""
        if self._one_epoch is None:
            order = np.empty(orders.shape[1], np.int64)
            self._one_epoch = order, self.repeated(order)
        order, train = self._one_epoch
        (order[...],) = orders
        loss, correct = train(1.0)
        return [loss], [correct]

    @abstractmethod
    def repeated(self, order: Order) -> Repeated:
        """Return a call that trains on what `order` holds then; see `Path.repeated`."""


class LayerPath(_OfSamples):
    """Batch by batch through the layers' own methods: the reference, open to any layer."""

    def __init__(
        self,
        network: Trainable,
        X: Array | SparseRows,
        y: Array,
        batch_size: int,
        weights: Array | None = None,
    ) -> None:
        self._network, self._batch_size, self._weights = network, batch_size, weights
        self.go_over_to(X, y)
        network._prepare()
        self.start()

    def start(self, loss: float = 0.0, correct: int = 0) -> None:
        """Begin an epoch, or go on in the midst of one with its sums so far."""
        self._loss, self._correct = loss, correct

    def train(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the epoch's sum of losses and right answers."""
        return self._train(order, 1.0)

    def _train(self, order: Order, factors: Factors) -> tuple[float, int]:
        starts = range(0, len(order), self._batch_size)
        for start, factor in zip(starts, np.broadcast_to(factors, len(starts)), strict=True):
            with uncut:
                self._step(order[start : start + self._batch_size], float(factor))
        return self._loss, self._correct

    def _step(self, excerpt: Order, factor: float) -> None:
        """Take a step on these samples."""
        weights = None if self._weights is None else self._weights[excerpt]
        y = self._y[excerpt]
        loss, output = step(self._network, self._X[excerpt], y, weights, penalty_factor=factor)
        self._loss += loss
        # targets that are no classes may look like class ids in one batch
        if self._network._loss.has_classes(y, output.shape[1]):
            self._correct += self._network._loss.right_answers(output, y)

    def repeated(self, order: Order) -> Repeated:
        """Return a call that trains on what `order` holds then; see `Path.repeated`."""

        def call(factors: Factors) -> tuple[float, int]:
            self.start()
            return self._train(order, factors)

        return call

    @property
    def takes_epochs(self) -> bool:
        """Whether several epochs can be one call: layers of the user's own may be called."""
        return False

    def go_over_to(self, X: Array | SparseRows, y: Array) -> None:
        """Take samples without weights from other arrays."""
        self._X, self._y = _by_rows(self._network, X), y


class _Call(NamedTuple):
    """A call of a compiled function, the rates that it reads, and how many steps it takes."""

    run: Callable[[], tuple[float, int]]
    rates: npt.NDArray[np.float64]
    steps: int


class CompiledPath(_OfSamples):
    """Many batches in one call of a compiled function that reads the network from a table."""

    def __init__(
        self,
        network: Trainable,
        X: Array | SparseRows,
        y: Array,
        program: Any,
        threads: int | None = None,
        weights: Array | None = None,
    ) -> None:
        self._network, self._program = network, program
        self.go_over_to(X, y)
        self._weights = weights
        self._batch_size = program.batch_size
        self._learned = network._parameters.parts
        self._counting = [layer for layer in network if layer._passes is not None]
        self._padding = [padding for part in self._learned for padding in part.drawn().padding]
        self._threads = self._program.default_threads if threads is None else threads
        self._ahead: tuple[Any, int, npt.NDArray[np.float64]] = None, 0, np.empty((0, RATES))
        program.get_ready(self._threads)

    def start(self, loss: float = 0.0, correct: int = 0) -> None:
        """Begin an epoch, or go on in the midst of one with its sums so far.

        Layers may have changed since the one before.
        """
        self._program.describe(_described(self._network))
        self._program.start(loss, correct)

    def train(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the epoch's sum of losses and right answers."""
        return self._train_all(order, 1.0)

    def _train_all(self, order: Order, factors: Factors) -> tuple[float, int]:
        """Train on samples that compiled code may not be able to read as they lie."""
        if self._direct:
            return self._train(order, factors=factors)
        totals = 0.0, 0
        batches = max(1, CAST_ROWS // self._batch_size)
        rows = batches * self._batch_size
        for number, start in enumerate(range(0, len(order), rows)):
            excerpt, of_these = order[start : start + rows], factors
            if not isinstance(factors, float):
                of_these = factors[number * batches : (number + 1) * batches]
            totals = self._train(np.arange(len(excerpt)), excerpt, of_these)
        return totals

    def go_over_to(self, X: Array | SparseRows, y: Array) -> None:
        """Take samples without weights from other arrays."""
        self._program.check_class_ids(y)
        self._X, self._y = X, y = _by_rows(self._network, X), y
        self._direct = _readable(self._network, X) and X.dtype == self._program.input_dtype

    def repeated(self, order: Order) -> Repeated:
        """Return a call that trains on what `order` holds then; see `Path.repeated`."""
        ready: _Call | None = None

        def call(factors: Factors) -> tuple[float, int]:
            nonlocal ready
            if not self._direct or self._counting:
                self.start()
                return self._train_all(order, factors)
            if ready is None:
                self.start()
                steps = -(-len(order) // self._batch_size)
                ready = self._prepared(order, rates=np.empty((steps, len(self._learned), RATES)))
            self._take_rates(ready.rates)
            ready.rates[..., PENALTY_FACTOR] = _of_layers(factors)
            return self._run(ready)

        return call

    @property
    def takes_epochs(self) -> bool:
        """Whether several epochs can be one call; schedules are called before all of it."""
        rates = [part.optimizer.learning_rate for part in self._learned]
        return self._direct and all(map(schedules.is_known, rates))

    def train_epochs(self, orders: Order) -> tuple[list[float], list[int]]:
        """Train on epochs; return the sum of losses and right answers of each."""
        if not self.takes_epochs:
            return super().train_epochs(orders)
        self.start()
        epochs, samples = orders.shape
        rates = _rates(self._learned, epochs * -(-samples // self._batch_size))
        totals = np.zeros(epochs, _epoch_module(self._network).TOTALS)
        self._run(self._prepared(orders.reshape(-1), rates=rates, totals=totals))
        return totals["loss"].tolist(), totals["correct"].tolist()

    def _take_rates(self, rates: npt.NDArray[np.float64]) -> None:
        """Fill in the rates of the next steps.

        As a rule one optimiser serves all layers, and its rate stays: then those of many steps are
        made at once, as a few take longer than a batch of a tiny network.
        """
        first = self._learned[0]
        optimizer, rate, step = first.optimizer, first.optimizer.learning_rate, first.steps
        alike = all(p.optimizer is optimizer and p.steps == step for p in self._learned)
        if not alike or callable(rate):
            rates[...] = _rates(self._learned, len(rates))
            return
        known, start, ahead = self._ahead
        if known != (optimizer, rate) or not start <= step <= start + len(ahead) - len(rates):
            start, ahead = step, np.empty((max(len(rates), STEPS_AHEAD), RATES))
            ahead[...] = _rates([first], len(ahead))[:, 0]
            self._ahead = (optimizer, rate), start, ahead
        rates[...] = ahead[step - start : step - start + len(rates), np.newaxis]

    def _train(
        self, order: Order, excerpt: Order | None = None, factors: Factors = 1.0
    ) -> tuple[float, int]:
        """Train on the samples of `order`, which counts those of an excerpt."""
        steps = -(-len(order) // self._batch_size)
        return self._run(
            self._prepared(order, excerpt, rates=_rates(self._learned, steps, factors))
        )

    def _prepared(
        self,
        order: Order,
        excerpt: Order | None = None,
        *,
        rates: npt.NDArray[np.float64],
        totals: npt.NDArray[np.void] | None = None,
    ) -> _Call:
        """Return the call that trains on samples of `order`, with what stands in `rates` then.

        It adds to `totals` of each epoch, where they are given; see `Program.prepare`.
        """
        network, X, y, weights = self._network, self._X, self._y, self._weights
        if excerpt is not None:
            X, y = np.ascontiguousarray(X[excerpt], self._program.input_dtype), y[excerpt]
            weights = None if weights is None else weights[excerpt]
        for part in self._learned:
            part.needed_state()
        epochs = 1 if totals is None else len(totals)
        steps = epochs * -(-len(order) // (epochs * self._batch_size))
        passes = np.array([layer._passes for layer in self._counting], np.int64)
        run = self._program.prepare(
            X,
            y,
            order,
            network._parameters.vector,
            rates,
            network._parameters.states,
            passes,
            weights,
            threads=self._threads,
            totals=totals,
        )
        return _Call(run, rates, steps)

    def _run(self, call: _Call) -> tuple[float, int]:
        ended = self._program.ended
        ended.clear()
        with uncut:
            try:
                totals: tuple[float, int] = call.run()
            finally:
                # What a signal has raised is heard as soon as the compiled call has returned.
                if ended:
                    self._count(call.steps)
        return totals

    def _count(self, steps: int) -> None:
        """Note that steps have been taken."""
        for layer in self._counting:
            layer._passes = (layer._passes or 0) + steps
        for part in self._learned:
            part.steps += steps
        # An update writes whole vectors: of an infinite gradient, NaN into the padding, where it
        # would outlive weights that a user restores.
        for padding in self._padding:
            padding[...] = 0


class _IdlePrograms:
    """Small programs for training that are left by networks that are gone, the last ones.

    Who trains many small networks of one kind, a new one each time, has them made once: else that
    takes a third of the time up to the first step. A program knows nothing of a network but its
    description. With Dropout, that has a key of its own, and nobody else has use for it.
    """

    def __init__(self) -> None:
        self._programs: list[tuple[Hashable, Any]] = []

    def take(self, kind: Hashable, density: float) -> Any | None:
        """Return a program of this kind that has kernels for so many non-zeros, if there is one."""
        for entry in reversed(self._programs):
            if entry[0] == kind and entry[1].has_kernels_for(density):
                try:
                    self._programs.remove(entry)
                except ValueError:  # another thread has it
                    continue
                return entry[1]
        return None

    def put(self, kind: Hashable, program: Any) -> None:
        """Keep a program in place of the one that has been here longest."""
        if program.workspace_bytes > IDLE_BYTES or any(
            of.kind == "dropout" for of in program.layers
        ):
            return
        self._programs.append((kind, program))
        del self._programs[: max(0, len(self._programs) - IDLE_PROGRAMS)]


_idle = _IdlePrograms()


class _Kept(NamedTuple):
    """A network's programs, if it is still there, and what the one for training takes."""

    programs: weakref.ref[Programs]
    nbytes: int


_kept: list[_Kept] = []
"""Networks that keep a program for training, those that were trained last at the end."""


def _make_room_for(programs: Programs, nbytes: int) -> None:
    """Have networks that were trained longest ago forget programs, until there is room."""
    global _kept
    keeping, room = [_Kept(weakref.ref(programs), nbytes)], KEPT_BYTES - nbytes
    for kept in reversed(_kept):
        other = kept.programs()
        if other is None or other is programs or other.keeps_none:
            continue
        room -= kept.nbytes
        if room < 0:
            other.forget_training()
        else:
            keeping.append(kept)
    _kept = keeping[::-1]


class Programs:
    """Compiled programs of one network as it is now, kept for the next call.

    To set one up takes as long as many steps of a small network, or the prediction of
    some hundred rows. One in use is taken out, so that no two calls share a workspace.
    """

    def __init__(self) -> None:
        self._predicting: dict[Hashable, list[Any]] = {}
        self._training: tuple[Hashable, Any] | None = None

    @contextmanager
    def for_training(
        self, network: Trainable, X: Array | SparseRows, batch_size: int, weighted: bool
    ) -> Iterator[Any]:
        """Lend a program that trains on `X`: that of the last fit, if all it depends on is equal.

        Or an idle one of another network like this. The share of non-zeros may be another, if it
        would have the same kernels chosen.
        """
        # Of the whole training set, whatever comes first, so the choice of kernels never changes.
        density = _density(X, TRAINING_DENSITY_ROWS)
        readable = X if _readable(network, X) else None
        dtype = None if readable is None else X.dtype
        sparse, loss = isinstance(X, SparseRows), network._loss
        clip_norm = network.clip_norm or 0.0
        kind = batch_size, dtype, loss.name, loss.label_smoothing, weighted, sparse, clip_norm
        of_any = *kind, network.dtype, network.matmul_precision
        layers = _described(network)
        before, self._training = self._training, None
        if before is not None and before[0] == of_any and before[1].has_kernels_for(density):
            program = before[1]
        else:
            program = _idle.take((of_any, tuple(layers)), density)
        if program is not None:
            program.density = density
            program.describe(layers)
        else:
            program = _program(
                network,
                layers,
                readable,
                density,
                batch_size=batch_size,
                loss=loss,
                weighted=weighted,
                sparse=sparse,
                clip_norm=clip_norm,
            )
        yield program
        # Not after an exception: Ctrl-C may leave threads behind that still look at it.
        if program.workspace_bytes > IDLE_BYTES:
            if program.workspace_bytes > KEPT_BYTES:
                return
            _make_room_for(self, program.workspace_bytes)
        self._training = of_any, program

    def __del__(self) -> None:
        if self._training is not None and _idle is not None:  # it is, where Python ends
            of_any, program = self._training
            _idle.put((of_any, program.layers), program)

    @property
    def keeps_none(self) -> bool:
        """Whether there is no program for the next fit."""
        return self._training is None

    def forget_training(self) -> None:
        """Keep no program for the next fit, where none is expected."""
        self._training = None

    @contextmanager
    def for_prediction(
        self, network: Trainable, X: Array
    ) -> Iterator[Callable[[Array], Array] | None]:
        """Lend a function from rows of `X` to their logits, None where layers do it better."""
        if len(X) <= FEW_ROWS or _reason_for_python(network) is not None:
            yield None
            return
        layers = _described(network)
        epoch = _epoch_module(network)
        if epoch.why_not(layers) is not None:
            yield None
            return
        direct = _readable(network, X)
        # Two kinds of kernel stand behind this; a finer density would only keep more programs.
        bound = epoch.sparse_below(network.matmul_precision is not None)
        sparse = _density(X, PREDICTION_DENSITY_ROWS) < bound
        idle = self._predicting.setdefault((X.dtype if direct else None, sparse), [])
        try:
            program = idle.pop()
        except IndexError:
            program = _program(network, layers, X if direct else None, float(not sparse))
        program.describe(layers)

        def logits(rows: Array) -> Array:
            if not direct:
                rows = backends.load(network.backend).by_rows(rows, network.dtype)
            output = np.empty((len(rows), program.dense[-1].output_units), network.dtype)
            program.predict(rows, network._parameters.vector, output)
            return output

        try:
            yield logits
        finally:
            idle.append(program)


def reason_for_layers(network: Trainable) -> str | None:
    """Return why a network can't take the compiled path, None if it can."""
    epoch = backends.epoch_module(network.backend)
    if epoch is None:
        return _no_epoch(network)
    reason = _reason_for_python(network)
    if reason is None and network._loss not in losses.BUILT_IN:
        reason = f"the loss {network._loss!r} is known to Python alone"
    for layer in network:
        own = not isinstance(layer, ParametricLayer) or layer.optimizer in optimizers.BUILT_IN
        if reason is None and not own:
            reason = f"{layer!r} has an optimiser that is known to Python alone"
    if reason is None:
        reason = epoch.why_not(_described(network), network._loss.name, network.dtype)
    return reason


def _reason_for_python(network: Trainable) -> str | None:
    """Return which layer only Python knows, None if compiled code knows all of them."""
    if backends.epoch_module(network.backend) is None:
        return _no_epoch(network)
    for layer in network:
        if layer not in BUILT_IN or layer._only_python:
            return f"{layer!r} is known to Python alone"
    return None


def _no_epoch(network: Trainable) -> str:
    if network.backend == "numba":
        return f"{backends.why_not_numba()}"
    return f"the {network.backend} backend has no compiled epoch"


def threads_asked(threads: object) -> int | None:
    """Return how many threads the caller, or else the environment, wants; None for no wish."""
    if threads is not None:
        return checks.integer("threads", threads, minimum=1)
    asked = os.environ.get(THREADS_VARIABLE, "").strip()
    if not asked:
        return None
    if not asked.isascii() or not asked.isdigit():
        raise ValueError(f"{THREADS_VARIABLE}: expected an integer of at least 1, got {asked!r}")
    return checks.integer(THREADS_VARIABLE, int(asked), minimum=1)


def how_bfloat16(network: Trainable) -> str:
    """Return by what the compiled epoch multiplies bfloat16."""
    return str(_epoch_module(network).how_bfloat16())


def most_threads(network: Trainable) -> int:
    """Return how many threads can share the compiled epoch of a network that has one."""
    return int(_epoch_module(network).most_threads(_described(network)))


def _epoch_module(network: Trainable) -> Any:
    epoch = backends.epoch_module(network.backend)
    assert epoch is not None
    return epoch


def _readable(network: Trainable, X: Array | SparseRows) -> bool:
    """Say whether compiled code can read `X` as it lies."""
    if isinstance(X, SparseRows):
        return True
    return bool(X.flags.c_contiguous and X.dtype in _epoch_module(network).INPUT_CODES)


def _by_rows(network: Trainable, X: Array | SparseRows) -> Array | SparseRows:
    """Return samples whose numbers lie side by side, a copy of what lies by columns.

    As tables of pandas do: to gather the rows of each batch takes four times as long as the rest of
    its step, to copy all once a tenth to a third of an epoch, most of it for memory that is new to
    the process. The copy is in the network's dtype unless
    the samples' own is narrower: half of what float64 takes, which each epoch would have to read
    and to convert. What lies in a file may be larger than memory, and stays there.
    """
    if isinstance(X, SparseRows) or X.shape[1] == 1 or X.strides[1] == X.itemsize:
        return X
    base: Any = X
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    if isinstance(base, np.memmap):
        return X
    narrower = X.dtype.itemsize < network.dtype.itemsize
    backend = backends.load(network.backend)
    with np.errstate(all="ignore"):  # as where batches are converted
        return backend.by_rows(X, X.dtype if narrower else network.dtype)


def _density(X: Array | SparseRows, rows: int) -> float:
    """Return the share of non-zeros in about `rows` rows of `X`, evenly spaced."""
    if isinstance(X, SparseRows):
        return X.density
    excerpt = X[:: -(-len(X) // rows)]
    # of numbers, NumPy counts those that are not zero one by one; of truth values it does not
    return np.count_nonzero(excerpt != 0) / excerpt.size


def _program(
    network: Trainable,
    layers: Sequence[Any],
    X: Array | SparseRows | None,
    density: float,
    batch_size: int = 1,
    loss: losses.Loss | None = None,
    weighted: bool = False,
    sparse: bool = False,
    clip_norm: float = 0.0,
) -> Any:
    """Return a program that reads arrays of the dtype of `X`, or of the network's for None.

    Prediction has no use for a loss, nor for what comes after it.
    """
    loss = loss or losses.SoftmaxCrossEntropy()
    return _epoch_module(network).Program(
        layers,
        loss.name,
        batch_size,
        dtype=network.dtype,
        input_dtype=network.dtype if X is None else X.dtype,
        density=density,
        weighted=weighted,
        sparse=sparse,
        label_smoothing=loss.label_smoothing,
        clip_norm=clip_norm,
        bfloat16=network.matmul_precision is not None,
    )


def _described(network: Trainable) -> list[description.Layer]:
    """Return what compiled code has to know of each layer."""
    layers: list[description.Layer] = []
    start = 0
    for layer in network:
        described = layer._describe(start)
        if described is not None:
            layers.append(described)
        if isinstance(layer, ParametricLayer):
            start += layer._parameters.layout.size
    return layers


def _rates(
    layers: Sequence[LayerParameters], steps: int, factors: Factors = 1.0
) -> npt.NDArray[np.float64]:
    """Return the numbers of the next steps of each layer, [steps, layers, RATES].

    `factors` are those on penalties, of all steps or of each of them.

    Where all stay as they are, there is one row for all steps: of a batch of one sample, a table
    would take as long to write and to read as a hundredth of the step.
    """
    numbers = [layer.optimizer._rates(layer.steps, steps) for layer in layers]
    stays = all(isinstance(number, float) for of_layer in numbers for number in of_layer)
    stays = stays and isinstance(factors, float)
    rates = np.empty((1 if stays else steps, len(layers), RATES))
    rates[..., PENALTY_FACTOR] = _of_layers(factors)
    for number, of_layer in enumerate(numbers):
        for place, of_steps in enumerate(of_layer):
            rates[:, number, place] = of_steps
    return rates


def _of_layers(factors: Factors) -> Factors:
    """Return factors as they are put beside the numbers of each step, the same for all layers."""
    return factors if isinstance(factors, float) else factors[:, np.newaxis]
