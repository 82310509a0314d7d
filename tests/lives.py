"""Lives of networks: what is done to one, step by step, on several backends side by side.

A `Plan` says what a network is, a `Step` what is done to it; both are plain data, so a life that
went wrong can be printed and lived again. `compare` lets one network live on the NumPy backend, on
the Numba backend, and on some that round at random (`rounding.py`); the Numba backend must not be
further from NumPy's than these are. Where bits have to be equal, because a network went through a
file, a pickle, a checkpoint or another number of threads, bits are compared.
"""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rounding

import fastnn
from fastnn import Network, losses, optimizers, schedules

FACTOR = 4.0
"""How many times as far as rounding at random may carry, the Numba backend may be off."""

UNITS = 8.0
"""What it may be off in any case, in units in the last place of the largest number of an array, and
of the smallest number that is not subnormal, as kernels' exponentials end there."""

KEPT_TRIES, MOST_TRIES = 2, 400
"""How many networks that round at random are kept for the next step, and how many there may be, as
a difference may be a matter of chance: a number beside a kink, or beside another of which the
larger one is the answer.

A division by almost nothing spreads results as 1 / x does: half of the networks end within 7 of the
middle, one in ten beyond 40, one in fifty beyond 400. Of such tails n networks don't know the end.
That another one goes beyond FACTOR times as far as all of them has a chance of about 1 in FACTOR n,
which with 48 was one in 200; a long run has met it twice."""

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files lie that end with the test: to wait for a disk takes longer than most lives."""

Spec = tuple[str, tuple, Mapping[str, Any]]
"""A class of fastnn by its name, and arguments; an optimiser among them is a `Spec` itself."""

Observed = dict[str, Any]


@contextmanager
def unwarned_of_optimizers() -> Iterator[None]:
    """A block in which a network's optimiser may replace that of a layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"layers\[\d+\]: .* is not used", UserWarning)
        yield


@dataclass(frozen=True)
class Plan:
    """What a network is before anything is done to it."""

    layers: tuple[Spec, ...]
    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    optimizer: Spec | None = None
    clip_norm: float | None = None
    dtype: str = "float32"
    seed: int = 0

    def build(self, backend: str) -> Network:
        """Return the network."""
        loss: Any = self.loss
        if self.label_smoothing:
            loss = losses.built({"name": loss, "label_smoothing": self.label_smoothing})
        with unwarned_of_optimizers():
            return Network(
                [made(spec) for spec in self.layers],
                loss=loss,
                optimizer=None if self.optimizer is None else made(self.optimizer),
                clip_norm=self.clip_norm,
                backend=backend,
                dtype=self.dtype,
                seed=self.seed,
            )


def made(spec: Spec) -> Any:
    """Return the layer, optimiser or schedule of a `Spec`."""
    name, arguments, keywords = spec
    if name == "Sine":
        return fastnn.Activation(np.sin, np.cos)
    known = (module for module in (fastnn, optimizers, schedules) if hasattr(module, name))
    kind = getattr(next(known), name)
    keywords = {key: made(value) if _is_spec(value) else value for key, value in keywords.items()}
    if keywords.get("biases") == "some":
        keywords["biases"] = _some
    return kind(*arguments, **keywords)


def _some(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def _is_spec(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], str)


@dataclass(frozen=True)
class Step:
    """What is done to a network: the name of a method of `Life`, and its arguments."""

    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Samples and targets, drawn from a seed."""

    seed: int
    samples: int
    inputs: int
    outputs: int
    kind: str = "normal"
    layout: str = "C"
    targets: str = "ids"
    weights: str | None = None

    def draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return X, y and weights."""
        rng = np.random.default_rng(self.seed)
        shape = self.samples, self.inputs
        X = KINDS[self.kind](rng, shape)
        y = TARGETS[self.targets](rng, self.samples, self.outputs)
        weights = None
        if self.weights is not None:
            weights = rng.integers(0, 3, self.samples) + rng.random(self.samples)
            if self.weights == "zeros":
                weights *= rng.random(self.samples) < 0.5
            weights[rng.integers(self.samples)] = 1.0
        return LAYOUTS[self.layout](X), y, weights


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "float32": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
    "float16": lambda rng, shape: rng.normal(size=shape).astype(np.float16),
    "pixels": lambda rng, shape: rng.integers(0, 256, shape).astype(np.uint8),
    "zeros": lambda rng, shape: rng.random(shape) * (rng.random(shape) < 0.1),
    "integers": lambda rng, shape: rng.integers(-3, 4, shape),
    "booleans": lambda rng, shape: rng.random(shape) < 0.5,
    "far": lambda rng, shape: 1000 + rng.normal(size=shape),
    "columns": lambda rng, shape: np.broadcast_to(rng.normal(size=shape[1]), shape).copy(),
    "scales": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-4, 2, shape[1]),
    "rows": lambda rng, shape: rng.normal(size=shape)[rng.integers(0, shape[0], shape[0])],
}

TARGETS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "ids": lambda rng, n, outputs: rng.integers(0, outputs, n),
    "small ids": lambda rng, n, outputs: rng.integers(0, outputs, n).astype(np.uint8),
    "float ids": lambda rng, n, outputs: rng.integers(0, outputs, n).astype(np.float32),
    "real": lambda rng, n, outputs: rng.normal(size=(n, outputs)),
    "yes or no": lambda rng, n, outputs: rng.integers(0, 2, (n, outputs)),
    "shares": lambda rng, n, outputs: rng.random((n, outputs)),
    "counts": lambda rng, n, outputs: rng.integers(0, 4, (n, outputs)),
}


def _strided(X: np.ndarray) -> np.ndarray:
    wide = np.ones((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def _read_only(X: np.ndarray) -> np.ndarray:
    X.flags.writeable = False
    return X


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda X: X,
    "F": np.asfortranarray,
    "strided": _strided,
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "swapped": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "read only": _read_only,
    "list": lambda X: X.tolist(),
}


class Stop(Exception):  # noqa: N818 - no error
    """Ends a training in its midst."""


class Life:
    """One network on one backend, and what is done to it.

    Each action returns what was observed: arrays, which backends may give up to rounding, and
    other things, which have to be equal. `manner` is how one rounds that rounds otherwise.
    """

    manner: rounding.Manner

    def __init__(self, plan: Plan, backend: str, folder: Path) -> None:
        self.backend, self.folder = backend, folder
        self.network = plan.build(backend)

    def do(self, step: Step) -> Observed:
        """Do something; return what came of it, an exception included, and the network's state."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                found = getattr(self, step.action)(**step.arguments)
            except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
                found = {"raised": f"{type(error).__name__}: {error}"}
        return found | self.state()

    def state(self) -> Observed:
        """Return all that training changes, but for what is remembered of gradients."""
        network = self.network
        found: Observed = {
            "random generator": repr(network._rng.bit_generator.state),
            "layers": repr([type(layer) for layer in network]),
        }
        for i, layer in enumerate(network):
            part = getattr(layer, "_parameters", None)
            if part is not None:
                found |= {f"{i}.{name}": part.view(name).copy() for name in part.shapes}
                found[f"{i}.steps"] = part.steps
                for of, state in zip(part.optimizer.state_names, part.state, strict=False):
                    for name in part.learned:
                        found[f"{i}.{name}.{of}"] = part.layout.view(state, name).copy()
            elif layer._passes is not None:
                found[f"{i}.passes"] = layer._passes
        return found

    # What is done

    def fit(self, data: Data, *, threads: int = 1, class_weight: Any = None, **options) -> Observed:
        X, y, weights = data.draw()
        options |= {"sample_weight": weights, "class_weight": class_weight}
        twin = copy.deepcopy(self.network) if threads > 1 and self.backend == "numba" else None
        history = self.network.fit(X, y, threads=threads, **options)
        if twin is not None:
            twin.fit(X, y, threads=1, **options)
            same_bits(self.network, twin, f"{threads} threads and 1")
        return self._observed(history)

    def fit_blocks(self, data: Data, size: int, **options) -> Observed:
        X, y, _ = data.draw()
        blocks = [(X[i : i + size], y[i : i + size]) for i in range(0, data.samples, size)]
        return self._observed(self.network.fit_blocks(blocks, **options))

    def _observed(self, history: fastnn.History) -> Observed:
        timed = ("seconds", "samples_per_second")
        return {
            f"history.{name}": np.array(values)
            for name, values in history.columns.items()
            if name not in timed
        } | {"samples seen": history.samples_seen}

    def train_step(self, data: Data) -> Observed:
        X, y, weights = data.draw()
        return {"loss": np.array(self.network.train_step(X, y, sample_weight=weights))}

    def gradients(self, data: Data) -> Observed:
        X, y, weights = data.draw()
        loss, gradients = self.network.gradients(X, y, sample_weight=weights)
        found = {"loss": np.array(loss)}
        for i, of_layer in enumerate(gradients):
            found |= {f"gradient of {i}.{name}": array for name, array in of_layer.items()}
        return found

    def evaluate(self, data: Data) -> Observed:
        X, y, weights = data.draw()
        loss, accuracy = self.network.evaluate(X, y, sample_weight=weights)
        return {"loss": np.array(loss), "accuracy": np.array(accuracy, float)}

    def predict(self, data: Data) -> Observed:
        X, _, _ = data.draw()
        found = {"answers": self.network.predict(X), "outputs": self.network(X)}
        found |= {f"activation {i}": a for i, a in enumerate(self.network.forward(X[:7]))}
        if "entropy" in self.network.loss:
            found["probabilities"] = self.network.predict_proba(X)
        return found

    def save(self, other_backend: bool = False) -> Observed:
        """Go through a file, and through the other backend as well if asked to."""
        path = self.folder / "model.safetensors"
        self._through_file(path, {"numba": "numpy", "numpy": "numba"} if other_backend else {})
        return {}

    def _through_file(self, path: Path, others: Mapping[str, str]) -> None:
        before = self.network
        before.save(path)
        if self.backend in others:
            other = fastnn.load(path, backend=others[self.backend])
            same_bits(other, before, "a file on another backend")
            other.save(path)
        self.network = fastnn.load(path, backend=self.backend)
        same_bits(self.network, before, "a file")

    def pickle(self) -> Observed:
        before, self.network = self.network, pickle.loads(pickle.dumps(self.network))
        same_bits(self.network, before, "a pickle")
        return {}

    def copy(self) -> Observed:
        before, self.network = self.network, copy.deepcopy(self.network)
        same_bits(self.network, before, "a copy")
        return {}

    def resume(self, data: Data, *, epochs: int, stop: int, every: int | None, **options):
        """Stop a training after some epochs, and go on from its checkpoint."""
        X, y, weights = data.draw()
        path = self.folder / "training.safetensors"
        whole = copy.deepcopy(self.network)
        whole.fit(X, y, epochs=epochs, sample_weight=weights, **options)

        def stopping(_: Network, history: fastnn.History) -> None:
            if len(history) == stop:
                raise Stop

        def going_on(_: Network, __: fastnn.History) -> None:
            """Take the place of the other one."""

        try:
            self.network.fit(
                X, y, epochs=epochs, sample_weight=weights, callbacks=[stopping],
                checkpoint=path, checkpoint_every=every, **options,
            )  # fmt: skip
        except Stop:
            self.network = fastnn.resume(path, X, y, sample_weight=weights, callbacks=[going_on])
        if self.backend != "rounding":
            same_bits(self.network, whole, "a training that stopped")
        return self._observed(self.network.history)

    def rate(self, factor: float, layer: int | None = None) -> Observed:
        """Change the learning rate of a layer, or of all."""
        for i, learned in enumerate(self.network._learned()):
            if layer in (None, i) and not callable(learned.learning_rate):
                learned.learning_rate = learned.learning_rate * factor
        return {}

    def optimizer(self, spec: Spec) -> Observed:
        self.network.optimizer = made(spec)
        return {}

    def clip_norm(self, value: float | None) -> Observed:
        self.network.clip_norm = value
        return {}

    def add(self, spec: Spec) -> Observed:
        with unwarned_of_optimizers():
            self.network.add(made(spec))
        return {}

    def set_weights(self, factor: float) -> Observed:
        """Multiply all parameters; variances stay positive."""
        self.network.set_weights([factor * array for array in self.network.get_weights()])
        return {}


def same_bits(network: Network, other: Network, through: str) -> None:
    """Raise unless two networks are equal in all that training changes."""
    found, expected = _state(network), _state(other)
    assert found.keys() == expected.keys(), through
    for name, value in expected.items():
        equal = np.array_equal(found[name], value, equal_nan=_is_array(value))
        assert equal, f"{name} differs after {through}"


def _state(network: Network) -> Observed:
    life = Life.__new__(Life)
    life.network = network
    return life.state()


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


@dataclass
class Counts:
    """What was compared."""

    networks: int = 0
    steps: int = 0
    numbers: int = 0
    digits: list[float] = field(default_factory=list)
    """Of each network the decimal digits that rounding leaves, at the end; 15 where backends agree
    so well that nobody has to ask."""
    tried_again: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    actions: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        few = sum(digits < 2 for digits in self.digits)
        return (
            f"{self.networks} networks, {self.steps} steps, {self.numbers} numbers compared; "
            f"{self.tried_again} steps needed more than {KEPT_TRIES} tries, {few} networks ended "
            f"with less than 2 digits; steps by kind: {dict(sorted(self.actions.items()))}; "
            f"refused: {sum(self.refused.values())}"
        )


class Difference(AssertionError):  # noqa: N818 - what it is, is said
    """Two backends part."""


def diverges(observed: Observed) -> bool:
    """Say whether a training ended as its loss was infinite or NaN."""
    return observed.get("raised", "").startswith("DivergenceError")


class Lives:
    """One network on several backends, all of which do the same."""

    def __init__(self, plan: Plan, backend: rounding.Rounding, folder: Path, counts: Counts):
        self.plan, self.rounding, self.folder, self.counts = plan, backend, folder, counts
        self.steps: list[Step] = []
        self.reference = Life(plan, "numpy", folder)
        self.subject = Life(plan, "numba", folder)
        self.tries: list[tuple[Life, int]] = []
        """Networks that round at random, and how many of the steps each has done."""
        self.digits = 15.0
        counts.networks += 1

    def _tried(self, number: int) -> Observed:
        """Let a network that rounds at random live up to now; return what it has seen last.

        None lives before it is needed: most networks agree without.
        """
        if number == len(self.tries):
            life = Life(self.plan, "rounding", self.folder)
            life.manner = rounding.manner(number)
            self.tries.append((life, 0))
        life, lived = self.tries[number]
        self.rounding.manner = life.manner
        for step in self.steps[lived:]:
            found = life.do(step)
        self.tries[number] = life, len(self.steps)
        return found

    def do(self, step: Step) -> bool:
        """Do something on all backends; raise a `Difference` if they part.

        It returns False where there is nothing to compare any more, as all is infinite.
        """
        counts = self.counts
        counts.steps += 1
        counts.actions[step.action] = counts.actions.get(step.action, 0) + 1
        expected, found = self.reference.do(step), self.subject.do(step)
        self.steps.append(step)
        if "raised" in expected:
            key = f"{step.action}: {expected['raised']}"
            counts.refused[key] = counts.refused.get(key, 0) + 1
        seen: list[Observed] = []
        problems = self._problems(expected, found, seen)
        while problems and len(seen) < MOST_TRIES:
            seen.append(self._tried(len(seen)))
            problems = self._problems(expected, found, seen)
        counts.tried_again += len(seen) > KEPT_TRIES
        del self.tries[KEPT_TRIES:]
        if problems:
            raise Difference(f"{'; '.join(problems)}\n{self.plan!r}\nsteps = {self.steps!r}")
        return not diverges(expected) and all(
            np.isfinite(value).all()
            for name, value in expected.items()
            if _is_array(value) and name != "accuracy"
        )

    @np.errstate(all="ignore")
    def _problems(self, expected: Observed, found: Observed, seen: list[Observed]) -> list[str]:
        if diverges(expected) and diverges(found):
            return []  # at which step, and what is kept, is a matter of rounding
        if diverges(expected) != diverges(found) and any(
            diverges(other) != diverges(expected) for other in seen
        ):
            return []
        if expected.keys() != found.keys():
            return [f"{sorted(expected.items())} and {sorted(found.items())} are different things"]
        problems = []
        for name, value in expected.items():
            if not _is_array(value):
                if found[name] != value:
                    problems.append(f"{name}: {found[name]}, not {value}")
                continue
            others = [other[name] for other in seen if name in other]
            problem = self._compared(name, value, found[name], others)
            problems += [] if problem is None else [problem]
        return problems

    def _compared(
        self, name: str, expected: np.ndarray, found: np.ndarray, others: Sequence[np.ndarray]
    ) -> str | None:
        """Return how two arrays differ by more than rounding explains, None if they don't."""
        if expected.shape != found.shape or expected.dtype != found.dtype:
            return f"{name}: {found.shape} {found.dtype}, not {expected.shape} {expected.dtype}"
        self.counts.numbers += expected.size
        if np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
            return None
        if expected.dtype.kind != "f":
            differing = [other != expected for other in others]
            unexplained = (found != expected) & ~np.any(differing, axis=0)
            count = np.count_nonzero(unexplained)
            return f"{name}: {count} of {unexplained.size} differ" if count else None
        if not np.isfinite(expected).all():
            finite = np.isfinite(expected)
            differing = [np.isfinite(other) != finite for other in others]
            unexplained = (np.isfinite(found) != finite) & ~np.any(differing, axis=0)
            return f"{name}: finite elsewhere" if unexplained.any() else None
        allowed = FACTOR * rounding.spread([expected, *others])
        # also of a loss, a float64 to which float32 numbers were added up
        limits = np.finfo(self.plan.dtype)
        size = np.abs(expected).max()
        if size > 0 and allowed < np.inf:
            self.digits = min(15.0, -np.log10(max(allowed / size, 1e-16)))
        allowed += UNITS * float(limits.eps * size + limits.tiny)
        off = np.abs(found - expected).max()
        if off <= allowed:
            return None
        at = np.unravel_index(np.nanargmax(np.abs(found - expected)), expected.shape)
        return (
            f"{name}: {found[at]!r}, not {expected[at]!r}, at {at}: off by {off:.3g}, where "
            f"rounding explains {allowed:.3g}"
        )


def compare(plan: Plan, steps: Sequence[Step], counts: Counts | None = None) -> Counts:
    """Let a network live on all backends; raise a `Difference` if they part."""
    counts = Counts() if counts is None else counts
    with rounding.installed() as backend, tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        lives = Lives(plan, backend, Path(folder), counts)
        for step in steps:
            if not lives.do(step):
                break
        counts.digits.append(lives.digits)
    return counts
