"""Divergence: what is kept of a network while it trains, and the way back to it.

A loss that is NaN or infinite is seen when a call of a path has ended, hundreds of steps too late.
So the network is copied now and then. From the copy the steps are taken once more, one by one, with
the same bits, up to the one that spoils it.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import layers, optimizers, propagation
from fastnn.checks import Array
from fastnn.hints import Watch
from fastnn.interrupts import uncut
from fastnn.layers import ParametricLayer
from fastnn.paths import CompiledPath, Order, Path

if TYPE_CHECKING:
    from fastnn.checkpoints import Position
    from fastnn.network import Network
    from fastnn.training import History

CHOICES = ("raise", "warn", "ignore")

_LISTED = "'raise', 'warn' or 'ignore'"

PAUSE, PAUSE_BEFORE_PIECE = 200, 100
"""From one copy to the next, in times that a copy takes: so they take a hundredth of the time."""

SHORT_BYTES = 1 << 17
"""A copy of so many is made whenever samples come that can't be had again, or callbacks may have
changed the network: it takes less time than what else is done then."""


FEW = 4096
"""Parameters of which it takes longer to change what NumPy says of overflow than to look at all."""


class DivergenceError(ArithmeticError):
    """Training has come to a loss, or to parameters, that are NaN or infinite.

    The network has the last good parameters, with what optimisers and layers remember beside them:
    those before the update that spoiled it. They are finite, and training can go on from them, as a
    rule with a smaller learning rate.

    Attributes
    ----------
    epoch : int
        Of that step, counted from 1.
    step : int
        The first step whose loss is not finite, or whose update leaves parameters that are not;
        counted from 1, over all epochs of the training.
    steps_kept : int
        After how many steps the network had the parameters that it has now.
    layer : int or None
        The place in the network of the first layer, from the input on, that holds or gives what is
        not finite. None where it is the loss alone, or can't be told.
    learning_rate : float or None
        Of that layer in the update that spoiled it; of one that learns nothing, that of the last
        one before it that does. None where there is none.
    """

    def __init__(
        self,
        message: str,
        epoch: int,
        step: int,
        steps_kept: int,
        layer: int | None = None,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(message)
        self.epoch, self.step, self.steps_kept = epoch, step, steps_kept
        self.layer, self.learning_rate = layer, learning_rate

    def __reduce__(self) -> tuple[Any, ...]:
        numbers = self.epoch, self.step, self.steps_kept, self.layer, self.learning_rate
        return DivergenceError, (str(self), *numbers), self.__dict__


def checked(on_divergence: object) -> str:
    """Return what is to be done of a loss that is not finite, or raise by name."""
    if not isinstance(on_divergence, str):
        raise TypeError(f"on_divergence: expected {_LISTED}, got {on_divergence!r}")
    if on_divergence not in CHOICES:
        raise ValueError(f"on_divergence: expected {_LISTED}, got {on_divergence!r}")
    return on_divergence


def first_held(network: Network) -> tuple[int, str] | None:
    """Return the place of the first layer whose parameters are not finite, and their names."""
    for number, layer in enumerate(network):
        if isinstance(layer, ParametricLayer):
            views = layer._parameters.drawn().views
            wrong = [name for name, view in views.items() if not np.isfinite(view).all()]
            if wrong:
                return number, " and ".join(name.replace("_", " ") for name in wrong)
    return None


def named(network: Network, layer: int) -> str:
    """Return what errors call a layer."""
    return f"network[{layer}], {network[layer]!r}"


class _Snapshot:
    """A network in the midst of training."""

    def __init__(self, network: Network, *, compiled: bool) -> None:
        self._network = network
        self._vector = np.empty_like(network._parameters.vector)
        self._states: list[Array] = []
        self._counting = [layer for layer in network if layer._passes is not None]
        # what only Python knows may remember anything
        self._foreign: list[Any] = [] if compiled else _foreign(network)
        self._remembered: list[_Remembered] = []
        self.piece = self.step = self.done = self.correct = self.samples_seen = 0
        self.loss = 0.0

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        own = self._vector.nbytes * (1 + len(self._states))
        return own + sum([remembered.nbytes for remembered in self._remembered])

    def take(self, position: Position, samples_seen: int, piece: int) -> None:
        """Become a copy of the network as it is."""
        parameters = self._network._parameters
        np.copyto(self._vector, parameters.vector)
        states = parameters.states
        if len(states) != len(self._states):
            self._states = [np.empty_like(state) for state in states]
        for kept, state in zip(self._states, states, strict=True):
            np.copyto(kept, state)
        self._steps = [part.steps for part in parameters.parts]
        self._passes = [layer._passes for layer in self._counting]
        self._remembered = [_remembered(of, self._network) for of in self._foreign]
        self.step, self.done, self.piece = position.step, position.done, piece
        self.loss, self.correct, self.samples_seen = position.loss, position.correct, samples_seen

    def restore(self) -> None:
        """Have the network be as it was, all of it."""
        parameters = self._network._parameters
        with uncut:
            np.copyto(parameters.vector, self._vector)
            for number, state in enumerate(parameters.states):
                # the first step makes them, of zeros
                state[...] = self._states[number] if self._states else 0
            for part, steps in zip(parameters.parts, self._steps, strict=True):
                part.steps = steps
            for layer, passes in zip(self._counting, self._passes, strict=True):
                layer._passes = passes
            for of, remembered in zip(self._foreign, self._remembered, strict=True):
                _remind(of, remembered, self._network)


def _foreign(network: Network) -> list[Any]:
    """Return the layers and optimisers of a user's own."""
    found: list[Any] = [layer for layer in network if layer not in layers.BUILT_IN]
    for part in network._parameters.parts:
        known = part.optimizer in optimizers.BUILT_IN
        if not known and not any(part.optimizer is other for other in found):
            found.append(part.optimizer)
    return found


_FASTNNS = {"_network", "_parameters", "_kept", "_passes", "training", "_learning_rate"}
"""Attributes of a layer or an optimiser that are none of what one of a user's own remembers."""


def _memo(network: Network) -> dict[int, Any]:
    """Return what `deepcopy` leaves as it is."""
    return {id(of): of for of in (network, network._rng, *network)}


class _Remembered(NamedTuple):
    """A copy of what a layer or an optimiser of a user's own remembers, and its size."""

    attributes: dict[str, Any]
    nbytes: int


def _remembered(of: Any, network: Network) -> _Remembered:
    """Copy what a layer or an optimiser of a user's own remembers."""
    kept, nbytes = {}, 0
    for name, value in vars(of).items():
        if name in _FASTNNS:
            continue
        memo = _memo(network)
        try:
            kept[name] = copy.deepcopy(value, memo)
        except Exception:  # what can't be copied, such as a file, stays as it is
            continue
        nbytes += sum(map(sys.getsizeof, memo.values()))
    return _Remembered(kept, nbytes)


def _remind(of: Any, remembered: _Remembered, network: Network) -> None:
    """Let it remember that; arrays stay where they are."""
    attributes = vars(of)
    for name, value in remembered.attributes.items():
        now = attributes.get(name)
        arrays = isinstance(now, np.ndarray) and isinstance(value, np.ndarray)
        if arrays and now.shape == value.shape and now.dtype == value.dtype and now.flags.writeable:
            now[...] = value
        else:
            attributes[name] = copy.deepcopy(value, _memo(network))


class _Segment(NamedTuple):
    """Samples in order, [epochs, samples], the first epoch and how many of it come before them."""

    orders: Order
    offset: int
    epoch: int

    def by_epoch(self) -> Iterator[_Segment]:
        """Yield a segment for each epoch."""
        for number in range(len(self.orders)):
            yield _Segment(self.orders[number : number + 1], self.offset, self.epoch + number)


class _Step(NamedTuple):
    """A step that can be taken once more; `begins` says whether it is the first of an epoch."""

    order: Order
    number: int
    epoch: int
    begins: bool


class _Found(NamedTuple):
    """What is not finite, and the steps after which the network was good."""

    why: str
    steps: int
    layer: int | None = None
    is_data: bool = False


class Keeper:
    """Keeps copies of a network that trains, and goes back to the good ones.

    There are two of them, as the update that spoils a network may be the last one before a copy.
    """

    def __init__(
        self,
        network: Network,
        path: Path,
        batch_size: int,
        history: History,
        position: Position,
        watch: Watch,
    ) -> None:
        self._network, self._path, self._batch_size = network, path, batch_size
        self._history, self._position, self._watch = history, position, watch
        # numbers that a user has made infinite on purpose are not for us to judge
        self._was_finite = self._is_finite()
        self._checked_step = position.step
        self._newest: _Snapshot | None = None
        self._older: _Snapshot | None = None
        self._piece, self._segments = 0, list[_Segment]()
        self.due = self._due_before_piece = 0.0

    def begin(self, orders: Order, offset: int, epoch: int, *, apart: bool) -> None:
        """Hear that samples come: after those before, unless nobody can go back to these.

        They are [epochs, samples], from this epoch on, of which `offset` samples come before them.
        """
        if apart:
            self._piece += 1
            self._segments = []
            if time.perf_counter() >= self._due_before_piece:
                self.due = 0.0
        self._segments.append(_Segment(orders, offset, epoch))

    def keep(self) -> None:
        """Make a copy of the network, which has just had a finite loss or begins to train."""
        start = time.perf_counter()
        self.check()
        snapshot, self._older = self._older, self._newest
        if snapshot is None:
            compiled = isinstance(self._path, CompiledPath)
            snapshot = _Snapshot(self._network, compiled=compiled)
        with self._network._lock.reading():
            snapshot.take(self._position, self._history.samples_seen, self._piece)
        self._newest = snapshot
        if len(self._segments) > 1:
            self._segments = self._by_epoch()
            first, _ = self._first_segment(self._base() or snapshot)
            self._segments = self._segments[first:]
        end = time.perf_counter()
        self.due = end + PAUSE * (end - start)
        if snapshot.nbytes > SHORT_BYTES:
            self._due_before_piece = end + PAUSE_BEFORE_PIECE * (end - start)

    def check(self) -> None:
        """Raise if the last step has left parameters that are not finite."""
        # of the epoch's last step it may be known already
        if self._was_finite and self._checked_step != self._position.step:
            if not self._is_finite():
                raise self.error()
            self._checked_step = self._position.step

    def refuse_to_write(self) -> None:
        """Raise if there are such parameters before the first step, and a file to write them to."""
        if not self._was_finite:
            found = self._held()
            assert found is not None
            position = self._position
            raise self._error(found, position.epoch, position.step, "before the training")

    def error(self) -> DivergenceError:
        """Go back to the last good parameters; return an error that says what has happened."""
        network = self._network
        with network._lock.writing(), layers.TrainingMode(network._layers, True):
            return self._gone_back()

    def _gone_back(self) -> DivergenceError:
        self._segments = self._by_epoch()
        base = self._base()
        if base is None:  # from no copy there is a way to the last step
            assert self._newest is not None
            return self._back_to(self._newest, "the training has diverged")
        try:
            bad = self._repeat(base, None)
            if bad is None:
                return self._back_to(
                    base,
                    "the training has diverged, but its last steps did not when they were taken "
                    "once more, as something in it is random",
                )
            step, value = bad
            found = self._diagnosed(base, step.number, value)
            if found.steps < base.step:
                # the update before it, if there was one, has spoiled it
                base = self._older or base
                base.restore()
                found = found._replace(steps=base.step)
            else:
                self._repeat(base, found.steps)
        except BaseException:
            base.restore()
            raise
        self._history.samples_seen = base.samples_seen + self._samples_of(base, found.steps)
        where = f"epoch {step.epoch}, step {step.number}: "
        if math.isfinite(value):
            where += "its update has left parameters that are not finite"
        else:
            where += f"the loss is {value}"
        return self._error(found, step.epoch, step.number, where)

    def _error(self, found: _Found, epoch: int, step: int, where: str) -> DivergenceError:
        rate = self._rate(found.layer)
        after = f"after step {found.steps}" if found.steps else "before the first step"
        message = f"{where}: {found.why}"
        if not found.is_data and rate is not None:
            message += f"; the learning rate was {rate:g}"
        message += f". The network is as it was {after}"
        if not found.is_data:
            message += "; try a smaller learning rate, or clip_norm"
        return DivergenceError(message, epoch, step, found.steps, found.layer, rate)

    def _back_to(self, snapshot: _Snapshot, why: str) -> DivergenceError:
        """Go back to a copy, where it can't be told what came of which step."""
        snapshot.restore()
        self._history.samples_seen = snapshot.samples_seen
        position = self._position
        where = f"epoch {position.epoch}, step {position.step} or one just before it: "
        where += f"the loss is {position.loss}"
        return self._error(_Found(why, snapshot.step), position.epoch, position.step, where)

    def _is_finite(self) -> bool:
        vector = self._network._parameters.vector
        if vector.size > FEW:
            with np.errstate(all="ignore"):
                # the sum of squares tells it of all but huge numbers, in less time
                if math.isfinite(vector.dot(vector)):
                    return True
        # of truth values it is told in a fifth of the time that `all` takes
        return bool(np.count_nonzero(np.isfinite(vector)) == vector.size)

    def _by_epoch(self) -> list[_Segment]:
        return [of_epoch for segment in self._segments for of_epoch in segment.by_epoch()]

    def _base(self) -> _Snapshot | None:
        """Return the older one of the copies from which steps can be taken once more."""
        for snapshot in (self._older, self._newest):
            if snapshot is not None and snapshot.piece == self._piece:
                return snapshot
        return None

    def _steps_from(self, base: _Snapshot) -> Iterator[_Step]:
        """Yield the steps that have been taken since."""
        number, size = base.step, self._batch_size
        total = self._position.step
        # those of the segments before it are over
        first, skipped = self._first_segment(base)
        for segment in self._segments[first:]:
            (order,) = segment.orders
            for start in range(skipped, len(order), size):
                if number == total:
                    return
                number += 1
                begins = segment.offset + start == 0
                yield _Step(order[start : start + size], number, segment.epoch, begins)
            skipped = 0

    def _first_segment(self, base: _Snapshot) -> tuple[int, int]:
        """Return in which segment a copy was made, and after how many of its samples."""
        left = self._position.step - base.step
        for first in range(len(self._segments) - 1, -1, -1):
            segment = self._segments[first]
            done = segment.orders.size
            if first == len(self._segments) - 1:
                done = self._position.done - segment.offset
            steps = -(-done // self._batch_size)
            if steps >= left:
                return first, (steps - left) * self._batch_size
            left -= steps
        raise AssertionError("no segment holds the copy")

    def _samples_of(self, base: _Snapshot, until: int) -> int:
        """Return how many samples the steps since have had, up to number `until`."""
        if until == base.step:
            return 0
        return sum([len(step.order) for step in self._steps_from(base) if step.number <= until])

    def _repeat(self, base: _Snapshot, until: int | None) -> tuple[_Step, float] | None:
        """Take steps once more, up to number `until` or to one that goes wrong; return that one."""
        base.restore()
        path = self._path
        path.start(base.loss, base.correct)
        with np.errstate(all="ignore"):
            for step in self._steps_from(base):
                if step.number - 1 == until:
                    return None
                if step.begins:
                    path.start()
                loss, _ = path.train(step.order)
                if not math.isfinite(loss) or (self._was_finite and not self._is_finite()):
                    return step, loss
        return None

    def _diagnosed(self, base: _Snapshot, step: int, loss: float) -> _Found:
        """Say what step number `step` has spoiled, or what has spoiled its loss."""
        if math.isfinite(loss):
            found = self._held()
            assert found is not None
            return found._replace(steps=step - 1)
        self._repeat(base, step - 1)
        before = self._held()  # since before the training
        if before is not None:
            return before._replace(steps=step - 1)
        (order,) = [of.order for of in self._steps_from(base) if of.number == step]
        X, y = self._path.batch(order)
        dtype = self._network.dtype
        with np.errstate(all="ignore"):
            good = all(
                np.isfinite(layers.cast(values, dtype)).all()
                for values in (X, y)
                if values.dtype.kind == "f"
            )
            if not good and (reason := self._watch.reason_in_data()) is not None:
                return _Found(reason, step - 1, is_data=True)
            layer = propagation.first_not_finite(self._network, X)
        if layer is None:
            return _Found("the outputs are finite, but not their loss", step - 2)
        why = f"{named(self._network, layer)}, is the first to give NaN or infinity"
        return _Found(why, step - 2, layer)

    def _held(self) -> _Found | None:
        """Say which layer is the first that holds what is not finite."""
        held = first_held(self._network)
        if held is None:
            return None
        layer, names = held
        why = f"{named(self._network, layer)}, is the first to hold NaN or infinity, in {names}"
        return _Found(why, self._position.step, layer)

    def _rate(self, layer: int | None) -> float | None:
        """Return the learning rate of the next step, in a layer or the last that learns before it.

        When the network has gone back, the next step is that which spoiled it.
        """
        chosen: ParametricLayer | None = None
        for number, of in enumerate(self._network):
            past = layer is not None and number > layer
            if isinstance(of, ParametricLayer) and not (past and chosen):
                chosen = of
        return None if chosen is None else chosen.optimizer.rate(chosen.steps)
