"""Checkpoints: a training in a file, to go on from bit for bit as if it had never stopped.

A checkpoint is a file of `saving.py`, and `fastnn.load` reads the network in it. Beside the network
the header has one more entry, "training": what `fit` was asked for, where it stands, the history,
and what callbacks remember. Arrays that callbacks keep are tensors, `training.0.weights.3`.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastnn import backends, checks, losses, saving
from fastnn.callbacks import Callback
from fastnn.checks import Array
from fastnn.layers import Layer, ParametricLayer
from fastnn.losses import Loss
from fastnn.optimizers import Optimizer
from fastnn.training import History

ENTRY = "training"
"""Of the header."""

CHUNK_BYTES = 2**24
"""Of data that is no contiguous array, so much is copied at once to be summed up."""


class Resumable(saving.Savable, Protocol):
    """What checkpoints hold of a network."""

    @property
    def backend(self) -> str: ...


@dataclass(slots=True)
class Position:
    """Where a training stands.

    Attributes
    ----------
    epoch : int
        The one that runs or comes next, counted from 1.
    step : int
        Steps taken, in all epochs.
    done : int
        Samples trained on in this epoch; 0 if it has not begun.
    loss, correct : float, int
        The epoch's sum of losses, and of right answers.
    seconds : float
        Time spent in the epoch's steps.
    order : dict, optional
        The state of the random generator from which the epoch's order is drawn.
    ended : bool
        Whether a callback has ended the training.
    """

    epoch: int = 1
    step: int = 0
    done: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    order: dict[str, Any] | None = None
    ended: bool = False

    def next_epoch(self, number: int = 1) -> None:
        """Stand before the next epoch, or the one so many further, whose steps are counted."""
        self.epoch += number
        self.done, self.loss, self.correct, self.seconds, self.order = 0, 0.0, 0, 0.0, None

    def check(self, batch_size: int) -> None:
        """Raise unless a file holds what can be."""
        checks.integer("epoch", self.epoch, minimum=1)
        for name in ("step", "done", "correct"):
            checks.integer(name, getattr(self, name), minimum=0)
        checks.flag("ended", self.ended)
        if not isinstance(self.loss, float):  # NaN and infinity are losses as well
            raise TypeError(f"loss: expected a float, got {self.loss!r}")
        checks.real("seconds", self.seconds, minimum=0.0)
        if self.done % batch_size or (self.done and not self.seconds):
            raise ValueError(f"done: expected whole batches, got {self.done} samples")
        if self.order is not None:
            saving.generator(self.order)


@dataclass(frozen=True)
class Terms:
    """What must be the same where a training goes on.

    Attributes
    ----------
    arguments : dict
        Those of `fit`, by name, that decide what is computed.
    network : dict
        What the network was made of when the training began.
    data : dict
        A fingerprint of each array by name; None for one that was not given.
    split : dict, optional
        The state of the random generator from which validation samples were drawn.
    """

    arguments: dict[str, Any]
    network: dict[str, Any]
    data: dict[str, Any]
    split: Mapping[str, Any] | None = None


class Writer:
    """Writes the checkpoints of one training.

    Parameters
    ----------
    path
        Of the file, which each checkpoint replaces in one step.
    every
        Steps from one to the next; None for one after each epoch.
    epochs
        How many were asked for.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        every: int | None,
        epochs: int,
        network: Resumable,
        history: History,
        callbacks: Sequence[Callback],
        terms: Terms,
    ) -> None:
        self._path, self._every, self._epochs = path, every, epochs
        self._network, self._history, self._callbacks = network, history, callbacks
        self._terms = terms
        saving.remove_unfinished(path)

    def steps_left(self, step: int) -> int:
        """Return how many steps may be taken after so many until one is due."""
        return sys.maxsize if self._every is None else self._every - step % self._every

    def is_due_in_epoch(self, step: int) -> bool:
        """Say whether one is due in the midst of an epoch."""
        return self._every is not None and step % self._every == 0

    def is_due_after_epoch(self, position: Position) -> bool:
        """Say whether one is due between epochs; it always is at the end of the training."""
        last = position.ended or position.epoch > self._epochs
        return last or self._every is None or position.step % self._every == 0

    def write(self, position: Position) -> None:
        """Write a checkpoint."""
        tensors: dict[str, Array] = {}
        states = []
        for i, callback in enumerate(self._callbacks):
            state = {}
            for name, value in callback.state_dict().items():
                if isinstance(value, np.ndarray):
                    key = f"{saving.ASIDE}{i}.{name}"
                    tensors[key] = np.ascontiguousarray(checks.numeric(name, value))
                else:
                    state[name] = _as_json(callback, name, value)
            states.append({"type": callback._kind, "state": state})
        entry = {
            **asdict(self._terms),
            "epochs": self._epochs,
            "checkpoint_every": self._every,
            "position": asdict(position),
            "history": asdict(self._history),
            "callbacks": states,
        }
        content = saving.serialized(self._network, {ENTRY: json.dumps(entry)}, tensors)
        saving.replace_file(self._path, content, "checkpoint")


def _as_json(callback: Callback, name: str, value: object) -> object:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{type(callback).__name__}.state_dict: expected arrays and what JSON can hold, "
            f"got {name!r}: {error}"
        ) from None
    return value


@dataclass
class Saved:
    """A checkpoint that has been read, and looks whole.

    Attributes
    ----------
    rng, optimizer, layers, metadata
        As the network had them.
    epochs, every
        How many epochs `fit` was asked for, and the steps between checkpoints.
    callbacks : list of (str, dict)
        The class of each, and its state.
    """

    path: str
    rng: np.random.Generator
    optimizer: Optimizer | None
    layers: list[Layer]
    metadata: dict[str, str]
    terms: Terms
    epochs: int
    every: int | None
    position: Position
    history: History
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def split_generator(self) -> np.random.Generator:
        """Return a generator in the state from which validation samples were drawn."""
        return saving.generator(self.terms.split)

    def check(self, terms: Terms, epochs: int, samples: int, callbacks: Sequence[Callback]) -> None:
        """Raise a ValueError by name unless the same training is asked for.

        More epochs can be asked for, and fewer, but for those that have been.
        """
        began = self.position.epoch - (0 if self.position.done else 1)
        if epochs < began:
            hint = "fastnn.resume takes the arguments of fit from the file"
            raise ValueError(
                f"epochs: expected at least the {began} that the training in {self.path} has "
                f"begun, got {epochs}; {hint}"
            )
        self._check_equal("", self.terms.arguments, terms.arguments)
        self._check_equal("network", self.terms.network, terms.network)
        self._check_equal("", self.terms.data, terms.data)
        if self.position.done > samples or (self.position.done and self._has_no_order(terms)):
            raise ValueError(
                f"{self.path}: expected a checkpoint of fastnn, got a position outside the epoch"
            )
        kinds = [callback._kind for callback in callbacks]
        before = [kind for kind, _ in self.callbacks]
        if kinds != before:
            raise ValueError(
                f"callbacks: expected {_listed(before)}, as the training in {self.path} had, "
                f"got {_listed(kinds)}"
            )

    def _has_no_order(self, terms: Terms) -> bool:
        return bool(terms.arguments["shuffle"]) and self.position.order is None

    def _check_equal(self, name: str, before: Any, now: Any) -> None:
        """Compare two trees, down to the first leaf that differs."""
        if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
            for key in before:
                self._check_equal(f"{name}.{key}" if name else key, before[key], now[key])
        elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            for i, (a, b) in enumerate(zip(before, now, strict=True)):
                self._check_equal(f"{name}[{i}]", a, b)
        elif before != now:
            raise ValueError(
                f"{name}: expected {_shown(before)}, as the training in {self.path} had, "
                f"got {_shown(now)}"
            )


def _listed(kinds: Sequence[str]) -> str:
    return checks.message(", ".join(kinds)) or "none"


def _shown(value: object) -> str:
    text = "None" if value is None else value if isinstance(value, str) else repr(value)
    text = checks.message(text)
    return text if len(text) <= 80 else text[:77] + "..."


def read(path: str | PathLike[str]) -> Saved:
    """Return the checkpoint in a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a checkpoint, or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, found none")
    try:
        return _read(path)
    except MemoryError:
        raise
    except Exception as error:
        # Damage shows in many ways, none of which says which file it is.
        reason = saving.damage(error)
        raise ValueError(f"{path}: expected a checkpoint of fastnn, got {reason}") from error


def _read(path: str | PathLike[str]) -> Saved:
    header, tensors = saving.opened(path)
    metadata = saving.metadata(header)
    if ENTRY not in header:
        raise ValueError("a model without the training; fastnn.load reads it")
    kept = {key: tensors.pop(key) for key in list(tensors) if key.startswith(saving.ASIDE)}
    layers, optimizer, options = saving.built(header, tensors)
    rng, dtype = options["seed"], options["dtype"]
    if json.loads(header["random"]) is None:
        raise ValueError("no state of the random generator")
    entry = json.loads(header[ENTRY])
    terms = Terms(**{item.name: entry[item.name] for item in fields(Terms)})
    _check_arguments(terms)
    for name in saving.LATER_OPTIONS:
        terms.network.setdefault(name, None)
        if terms.network[name] != options[name]:
            raise ValueError(f"{name}: another than that of the beginning")
    checks.clip_norm("clip_norm", options["clip_norm"])
    of_dtype = checks.float_dtype("dtype", dtype)
    checks.matmul_precision("matmul_precision", options["matmul_precision"], of_dtype)
    _check_network(terms.network, dtype, options["loss"], rng, layers)
    position = Position(**entry["position"])
    position.check(terms.arguments["batch_size"])
    every = entry["checkpoint_every"]
    saved = Saved(
        path=str(path),
        rng=rng,
        optimizer=optimizer,
        layers=layers,
        metadata=metadata,
        terms=terms,
        epochs=checks.integer("epochs", entry["epochs"], minimum=1),
        every=None if every is None else checks.integer("checkpoint_every", every, minimum=1),
        position=position,
        history=_history(entry["history"], position.epoch - 1),
    )
    for i, callback in enumerate(entry["callbacks"]):
        prefix = f"{saving.ASIDE}{i}."
        names = [key for key in kept if key.startswith(prefix)]
        arrays = {key.removeprefix(prefix): kept.pop(key) for key in names}
        if not isinstance(callback["type"], str):
            raise TypeError(f"callbacks: expected the name of a class, got {callback['type']!r}")
        saved.callbacks.append((callback["type"], {**callback["state"], **arrays}))
    if kept:
        raise ValueError(f"arrays of no callback: {', '.join(sorted(kept))}")
    return saved


def _check_arguments(terms: Terms) -> None:
    """Raise unless `fit` would take the arguments."""
    arguments = dict(terms.arguments)
    checks.integer("batch_size", arguments.pop("batch_size"), minimum=1)
    split = arguments.pop("validation_split")
    if split is not None:
        checks.real("validation_split", split, minimum=0.0, below=1.0)
    for name in ("shuffle", "drop_last", "train_accuracy"):
        checks.flag(name, arguments.pop(name))
    if arguments or (split is None) != (terms.split is None):
        raise ValueError(f"arguments that fit can't have had: {terms.arguments}")
    saving.generator(terms.split)


def _check_network(
    began: dict[str, Any],
    dtype: str,
    loss: Loss,
    rng: np.random.Generator,
    layers: Sequence[Layer],
) -> None:
    """Raise unless the network of the beginning can have become the one of now."""
    checks.float_dtype("dtype", dtype)
    backends.check_name("backend", began["backend"])
    random = type(rng.bit_generator).__name__
    now = {"dtype": dtype, "loss": losses.described(loss), "random": random}
    _, first = saving.made(began)
    if any(began[name] != value for name, value in now.items()) or len(first) != len(layers):
        raise ValueError("another network than that of the beginning")
    for layer, other in zip(layers, first, strict=True):
        shapes = [of._parameters.shapes for of in (layer, other) if isinstance(of, ParametricLayer)]
        if type(layer) is not type(other) or shapes[:1] != shapes[1:]:
            raise ValueError(f"{layer!r} where there was {other!r} in the beginning")


def _history(columns: dict[str, Any], epochs: int) -> History:
    history = History(**columns)
    checks.integer("samples_seen", history.samples_seen, minimum=0)
    checks.real("compile_seconds", history.compile_seconds, minimum=0.0)
    for item in fields(History):
        values = getattr(history, item.name)
        if item.default_factory is not list:
            continue
        whole = isinstance(values, list) and len(values) in (0, epochs)
        if not whole or not all(isinstance(value, (int, float)) for value in values):
            raise ValueError(f"{item.name}: expected {epochs} numbers, got {values!r:.60}")
    if len(history) != epochs:
        raise ValueError(f"history: expected {epochs} epochs, got {len(history)}")
    return history


def terms_of(
    network: Resumable,
    arguments: dict[str, Any],
    data: Mapping[str, Array | None],
    split: Mapping[str, Any] | None,
) -> Terms:
    """Return the terms of a training that begins, or is to go on, with `network` as it is.

    Raises
    ------
    TypeError
        If the network can't be saved.
    """
    random = type(network._rng.bit_generator).__name__
    if random not in saving.GENERATORS:
        raise TypeError(
            "checkpoint: expected a network whose seed is an integer or a generator of "
            f"{' or '.join(saving.GENERATORS)}, got one of {random}"
        )
    described = {"backend": network.backend, "random": random, **saving.architecture(network)}
    prints = {name: _fingerprint(array) for name, array in data.items()}
    # as they come out of a file, so that the two can be compared
    return Terms(arguments, json.loads(json.dumps(described)), prints, split)


def _fingerprint(array: Array | None) -> str | None:
    """Return what tells an array from others; it takes a third of a second a gigabyte."""
    if array is None:
        return None
    rows = len(array) if array.flags.c_contiguous else max(1, CHUNK_BYTES // array[:1].nbytes)
    checksum = 0
    for start in range(0, len(array), rows):
        checksum = zlib.crc32(np.ascontiguousarray(array[start : start + rows]).data, checksum)
    return f"{array.dtype.name} of shape {list(array.shape)} with CRC-32 {checksum:08x}"
