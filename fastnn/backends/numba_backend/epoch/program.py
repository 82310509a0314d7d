"""A network, ready to train and to predict in compiled calls: what the rest of fastnn sees of them.

The layers come as the descriptions of `description.py`; `table.py` makes the table of them that
`step.run_batches` walks, and `team.py` shares it among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from fastnn import guards, memory
from fastnn.backends.description import RATES, Dense, Layer, Learned
from fastnn.checks import FLOAT_DTYPES
from fastnn.locks import cached_attribute
from fastnn.memory import SparseRows
from fastnn.processors import usable_cores

from ..checked import Range, watched
from ..kernels.optimizers import RULES
from ..machine import HAS_BFLOAT16
from . import losses
from .blocks import FEW_SAMPLES, Structure, chunks_of, density_after
from .laps import Laps
from .meetings import MOST_MEMBERS, Signals
from .records import TOTALS
from .step import entry_for
from .table import INPUT_CODES, WAITING_FROM, Table, sparse_below
from .team import Team, note_end

__all__ = [
    "INPUT_CODES",
    "TOTALS",
    "Program",
    "how_bfloat16",
    "most_threads",
    "sparse_below",
    "why_not",
]

PREDICTION_BATCH = 64
"""Samples that go through the network together in prediction: one group of the first layer."""
WORK_FOR_TWO = 4e6
"""Multiplications in a step, zeros left out, from which two threads share them."""


def why_not(
    layers: Sequence[object],
    loss: str = "softmax_cross_entropy",
    dtype: np.dtype | type = np.float32,
    input_dtype: np.dtype | type = np.float32,
) -> str | None:
    """Return why the compiled epoch can't run this network, or None if it can."""
    if loss not in losses.LOSSES:
        return f"the loss {loss!r} is not compiled"
    if np.dtype(dtype) not in FLOAT_DTYPES:
        return f"parameters of type {np.dtype(dtype)} are not compiled"
    if np.dtype(input_dtype) not in INPUT_CODES:
        return f"input of type {np.dtype(input_dtype)} is not compiled"
    units, dense = None, False
    for layer in layers:
        if not isinstance(layer, Layer):
            return f"the layer {type(layer).__name__} is not compiled"
        if isinstance(layer, Learned):
            dense = dense or isinstance(layer, Dense)
            if layer.rule.kind not in RULES:
                return f"the rule {layer.rule.kind!r} is not compiled"
            if units not in (None, layer.input_units):
                name, inputs = type(layer).__name__, layer.input_units
                return f"a {name} layer of {inputs} inputs follows one of {units} outputs"
            units = layer.output_units
    return None if dense else "there is no Dense layer"


def how_bfloat16() -> str:
    """Return by what products in bfloat16 are computed."""
    how = "in float32, as this processor has no instruction for it"
    if HAS_BFLOAT16:
        how = "by the processor's instruction for it"
    return (
        f"{how}, zeros and all; where less than {sparse_below(True):.0%} of the input is not zero, "
        "a first layer that takes the input itself multiplies that alone, rounded, in float32, in "
        f"batches of more than {FEW_SAMPLES} samples"
    )


def most_threads(layers: Sequence[Layer]) -> int:
    """Return how many threads can share a training step."""
    return min(chunks_of([layer for layer in layers if isinstance(layer, Dense)]), MOST_MEMBERS)


class Program:
    """A network, its batch size and its types, ready to run; owns the workspace.

    `density` is the share of non-zeros in the training set, `weighted` says whether its samples
    have weights, `sparse` whether they are CSR, `label_smoothing` is the share of a target that is
    spread over all classes, and `clip_norm`, where it is not 0, what the norm of the gradient is
    clipped at. `bfloat16` says whether operands of products are rounded to bfloat16, in float32.

    Attributes
    ----------
    ended : list
        Holds something from the moment on at which the compiled code of a call has ended. Who makes
        the call clears the list before; so steps can be counted, whatever a signal raises.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: str = "softmax_cross_entropy",
        batch_size: int = 32,
        dtype: np.dtype | type = np.float32,
        input_dtype: np.dtype | type = np.float32,
        density: float = 1.0,
        weighted: bool = False,
        sparse: bool = False,
        label_smoothing: float = 0.0,
        clip_norm: float = 0.0,
        bfloat16: bool = False,
    ):
        self.batch_size = batch_size
        self.dtype = np.dtype(dtype)
        self.input_dtype = np.dtype(input_dtype)
        self.density = density
        self.weighted = weighted
        self.sparse = sparse
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.bfloat16 = bfloat16
        self.loss = loss
        self._totals = np.zeros(1, TOTALS)
        self.ended: list[int] = []
        self._signals = Signals()
        self._laps: list[Laps] | None = None
        self._take(layers)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as they were described last."""
        return self._structure.layers

    def describe(self, layers: Sequence[Layer]) -> None:
        """Take the layers as they are now: a user may change their numbers between two calls."""
        if tuple(layers) != self.layers:
            self._take(layers)

    def _take(self, layers: Sequence[Layer]) -> None:
        reason = why_not(layers, self.loss, self.dtype, self.input_dtype)
        if reason is not None:
            raise ValueError(reason)
        self._structure = structure = Structure(
            layers, self.loss, self.batch_size, self.dtype, self.input_dtype, self.density,
            self.weighted, self.sparse, self.label_smoothing, self.clip_norm, self.bfloat16,
        )  # fmt: skip
        self.dense = structure.dense
        self.states = max(RULES[layer.rule.kind].states for layer in structure.learned)
        self._teams: dict[int, Team] = {}
        for table in ("training", "prediction"):
            vars(self).pop(table, None)

    def has_kernels_for(self, density: float) -> bool:
        """Say whether samples with another share of non-zeros would have the same kernels.

        Of what comes before the first Dense layer nothing is known, unless it is nothing.
        """
        if density == self.density:
            return True
        bounds = (sparse_below(self.bfloat16), WAITING_FROM)
        return self._structure.blocks[0].dense is not None and all(
            (density < bound) == (self.density < bound) for bound in bounds
        )

    @property
    def default_threads(self) -> int:
        """How many threads share the work unless the user says so, by the work of a step.

        Two where they gain much: what members tell each other costs the same in a small step as
        in a large one, and several times as much between cores that share no cache. Never four:
        where one of four cores is busy with something else, all wait for it.
        """
        work, density = 0.0, min(self.density, 1.0)
        for block in self._structure.blocks:
            if block.dense is not None:
                products = 2 if block.dense is self.dense[0] else 3
                work += products * density * block.dense.input_units * block.dense.output_units
            density = density_after(block, density)
        if work * self.batch_size < WORK_FOR_TWO:
            return 1  # to look for cores would take as long as a tiny fit
        return self.members(min(2, usable_cores()))

    def members(self, threads: int) -> int:
        """Return how many threads form a team: a power of two, at most one for each chunk."""
        most = min(threads, self._structure.chunks, MOST_MEMBERS)
        return 4 if most >= 4 else 2 if most >= 2 else 1

    @cached_attribute
    def training(self) -> Table:
        """The table of a training step."""
        return Table(self._structure, self.batch_size, training=True)

    @cached_attribute
    def prediction(self) -> Table:
        """The table of a prediction."""
        return Table(self._structure, PREDICTION_BATCH, training=False)

    @property
    def workspace_bytes(self) -> int:
        """Memory that training takes, but for what Python objects take."""
        tables = [self.training, *(t for team in self._teams.values() for t in team.tables[1:])]
        collected = self._structure.collected
        shared = 0 if collected is None else collected.nbytes
        return shared + sum(table.workspace.nbytes for table in tables)

    @contextmanager
    def counting_laps(self) -> Iterator[list[Laps]]:
        """Count the cycles of each thread in calls that are prepared meanwhile.

        Yields those of as many threads as there can be, the caller first.
        """
        self._laps = [Laps(len(self.training.layers)) for _ in range(MOST_MEMBERS)]
        try:
            yield self._laps
        finally:
            self._laps = None

    def prepare(
        self,
        samples: np.ndarray | SparseRows,
        targets: np.ndarray,
        order: np.ndarray,
        parameters: np.ndarray,
        rates: np.ndarray,
        states: Sequence[np.ndarray] = (),
        dropout_steps: np.ndarray | None = None,
        sample_weights: np.ndarray | None = None,
        threads: int = 1,
        totals: np.ndarray | None = None,
    ) -> Callable[[], tuple[float, int]]:
        """Check all arguments of a call that trains on samples[order]; return the call.

        Nothing has changed before it, and nothing is refused by it. It returns the sums of losses
        and right answers.

        They are sums since `start`, over all calls, so that their order of addition does not
        depend on how many calls there were. Given `totals`, TOTALS [epochs], `order` is that of as
        many epochs of equal length, whose last batches may be smaller; to each is added what its
        samples come to, and the last ones are returned. Up to `threads` threads share each step; no
        bit depends on their number.

        `targets` are class ids, int64 [n], or for some losses numbers of the network's dtype
        [n, outputs]; there are no right answers then. `parameters` changes in place, and so do
        `states`, as many vectors parallel to it as the rules ask for. `rates` [steps, learned
        layers, RATES] holds, in float64, the numbers of each step of each layer; what stays for
        all steps may come as those of one.
        `dropout_steps`, int64, says for each Dropout layer how many batches went through it before;
        0 if left out.
        `sample_weights` are float64 [n], given if and only if the program is `weighted`; the
        loss of a batch is the weighted mean then, and the sum of losses a weighted sum.
        Class ids and order are trusted to be in range; see `check_class_ids`.
        """
        self._check_samples(samples)
        outputs = self.dense[-1].output_units
        loss = losses.LOSSES[self.loss]
        if loss.numeric_targets and (targets.ndim == 2 or not loss.class_ids):
            target_code = INPUT_CODES[self.dtype]
            _check("targets", targets, self.dtype, (len(samples), outputs))
        else:
            target_code = losses.CLASS_IDS
            _check("targets", targets, np.dtype(np.int64), (len(samples),))
        _check("order", order, np.dtype(np.int64), (None,))
        self._check_parameters("parameters", parameters)
        if len(states) < self.states:
            raise ValueError(f"states must be {self.states} vectors, not {len(states)}")
        for state in states:
            self._check_parameters("states", state)
        if totals is None:
            totals = self._totals
        _check("totals", totals, TOTALS, (None,))
        if not len(totals) or len(order) % len(totals):
            raise ValueError(f"order must be of {len(totals)} equal epochs, not of {len(order)}")
        epoch = len(order) // len(totals)
        count = len(totals) * -(-epoch // self.batch_size)
        _check_rates(rates, count, len(self._structure.learned))
        if dropout_steps is None:
            dropout_steps = np.zeros(self._structure.dropouts, np.int64)
        _check("dropout_steps", dropout_steps, np.dtype(np.int64), (self._structure.dropouts,))
        if (sample_weights is not None) != self.weighted:
            raise ValueError("sample_weights must be given where the program is weighted")
        if sample_weights is not None:
            _check("sample_weights", sample_weights, np.dtype(np.float64), (len(samples),))
        places = [*[state.ctypes.data for state in states], 0, 0][:2]
        arguments = (
            0 if isinstance(samples, SparseRows) else samples.ctypes.data,
            targets.ctypes.data, order.ctypes.data, len(order), epoch,
            parameters.ctypes.data, *places,
            rates.ctypes.data, rates.strides[0] if len(rates) > 1 else 0, 0,
        )  # fmt: skip
        scale = self.dtype.type(self._structure.scale)
        members = self.members(threads)
        team = self._team(members) if members > 1 else None
        tables = team.tables if team else [self.training]
        for table in tables:
            table.shared["target_code"] = target_code
            table.shared["sample_weights"] = (
                0 if sample_weights is None else sample_weights.ctypes.data
            )
            if table.dropouts:
                table.stages["first_step"][table.dropouts] = dropout_steps
            if isinstance(samples, SparseRows):
                table.shared["row_starts"] = samples.starts.ctypes.data
                table.shared["columns"] = samples.columns.ctypes.data
                table.shared["values"] = samples.values.ctypes.data
        ranges: list[Range] = []
        if guards.CHECKED:
            given = {"targets": targets, "order": order, "rates": rates, "weights": sample_weights}
            ranges = [
                *self._ranges(samples, parameters, *states),
                *(Range.of(a, name, False) for name, a in given.items() if a is not None),
                *(laps.range for laps in self._laps or ()),
            ]
        if team is None:
            table = self.training
            run: Callable[[], Any] = partial(
                entry_for(self.dtype, team=False, laps=self._laps is not None), scale,
                table.shared.ctypes.data, table.layers.ctypes.data, len(table.layers),
                *arguments, totals.ctypes.data, *self._laps_of(1),
            )  # fmt: skip
            if guards.CHECKED:
                ranges.append(Range.of(totals, "totals"))
                run = partial(self._watched, run, table, ranges)
            run = partial(note_end, run, self.ended)
        else:
            run = partial(
                team.run_batches, self._signals, scale, arguments, count, totals, self.ended,
                self._laps_of(members), ranges,
            )  # fmt: skip
        read = samples, targets, order, parameters, rates, states, sample_weights, self._laps
        before = totals.copy()  # of each time that the call is made
        return partial(self._run, run, totals, before, read)

    def _run(
        self,
        run: Callable[[], object],
        totals: np.ndarray,
        before: np.ndarray,
        arrays: tuple[object, ...],
    ) -> tuple[float, int]:
        """Run a call, which knows by their addresses what is held here and stays in memory."""
        totals[:] = before
        run()
        loss, correct = totals[-1].item()
        return loss, correct

    def _laps_of(self, members: int) -> list[int]:
        """Return where the cycles of each thread are counted, of none if they are not."""
        return [laps.address for laps in (self._laps or ())[:members]]

    def _ranges(self, samples: np.ndarray | SparseRows, *vectors: np.ndarray) -> list[Range]:
        """Return what kernels may touch of samples, parameters and what lies parallel to these."""
        if isinstance(samples, SparseRows):
            arrays = {name: getattr(samples, name) for name in ("starts", "columns", "values")}
        else:
            arrays = {"samples": samples}
        ranges = [Range.of(array, name, writeable=False) for name, array in arrays.items()]
        collected = self._structure.collected
        for vector in vectors if collected is None else (*vectors, collected):
            for name, first, stop in self._structure.places():
                ranges.append(Range.of(vector[first:stop], name))
        return ranges

    @staticmethod
    def _watched(run: Callable[[], int], table: Table, ranges: list[Range]) -> int:
        """Run a call on one thread, in the checked build."""
        with watched([*ranges, *table.ranges()]):
            result = run()
        table.check_canaries()
        return result

    def get_ready(self, threads: int = 1) -> None:
        """Make the tables, and compile what so many threads train by, or read it from the disk."""
        members = self.members(threads)
        if members > 1:
            self._team(members)
        _ = self.training
        entry_for(self.dtype, team=members > 1)

    def layers_of(self, members: int) -> np.ndarray:
        """Return the records of the layers, as a team shares them out to its first member."""
        return self._team(members).layers if members > 1 else self.training.layers

    def _team(self, members: int) -> Team:
        """Return the tables of a team, made when first asked for."""
        if members not in self._teams:
            self._teams[members] = Team(self._structure, self.training, members)
        return self._teams[members]

    def start(self, loss: float = 0.0, correct: int = 0) -> None:
        """Begin an epoch: what `train` returns is added up from here, or to these sums."""
        self._totals[0] = loss, correct

    def _check_samples(self, samples: np.ndarray | SparseRows) -> None:
        """Raise unless samples are what the program has been made for."""
        if isinstance(samples, SparseRows) != self.sparse:
            raise TypeError("samples must be CSR where the program is sparse, and only there")
        if not isinstance(samples, SparseRows):
            _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        elif samples.dtype != self.dtype or samples.shape[1] != self.dense[0].input_units:
            raise ValueError(
                f"samples must be {self.dtype} of {self.dense[0].input_units} columns, not "
                f"{samples.dtype} of {samples.shape[1]}"
            )

    def check_class_ids(self, targets: np.ndarray) -> None:
        """Raise unless targets, where they are class ids, are those of outputs that there are.

        By itself, as this looks at each of them: once for all calls of a training.
        """
        outputs = self.dense[-1].output_units
        if targets.ndim == 1 and len(targets) and not 0 <= targets.min() <= targets.max() < outputs:
            raise ValueError(
                f"y: expected class ids from 0 to {outputs - 1}, got {targets.min()} to "
                f"{targets.max()}"
            )

    def _check_parameters(self, name: str, vector: np.ndarray) -> None:
        """Raise unless a vector holds what the table points to, where vectors expect it."""
        _check(name, vector, self.dtype, (None,))
        end = self._structure.parameters_end
        if len(vector) < end:
            raise ValueError(f"{name} must hold {end} numbers, not {len(vector)}")
        if vector.ctypes.data % memory.LINE_BYTES:
            raise ValueError(f"{name} must lie at a multiple of {memory.LINE_BYTES} bytes")

    def predict(self, samples: np.ndarray, parameters: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Write the result of all samples, in their order, to `out`, and return it."""
        _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        self._check_parameters("parameters", parameters)
        _check("out", out, self.dtype, (len(samples), self.dense[-1].output_units))
        table = self.prediction
        run = partial(
            entry_for(self.dtype, team=False),
            self.dtype.type(self._structure.scale), table.shared.ctypes.data,
            table.layers.ctypes.data, len(table.layers),
            samples.ctypes.data, 0, 0, len(samples), len(samples),
            parameters.ctypes.data, 0, 0, 0, 0, out.ctypes.data, 0,
        )  # fmt: skip
        if guards.CHECKED:
            ranges = self._ranges(samples, parameters)
            self._watched(run, table, [*ranges, Range.of(out, "outputs")])
        else:
            run()
        return out


def _check(name: str, array: np.ndarray, dtype: np.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise unless an array is what the kernels, which check nothing, take it for."""
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, not {array.dtype}")
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits or not array.flags.c_contiguous:
        wanted = " x ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} must be a C-contiguous array of {wanted}, not one of shape {array.shape}"
            f" and strides {array.strides}"
        )


def _check_rates(rates: np.ndarray, steps: int, learned: int) -> None:
    """Raise unless there are rates for each step; those of one step must lie side by side."""
    if rates.dtype != np.float64:
        raise TypeError(f"rates must be float64, not {rates.dtype}")
    too_few = len(rates) < steps and len(rates) != 1
    if rates.ndim != 3 or too_few or rates.shape[1:] != (learned, RATES):
        raise ValueError(f"rates must be {steps} x {learned} x {RATES}, not of shape {rates.shape}")
    if not rates[:1].flags.c_contiguous:
        raise ValueError(f"rates must be C-contiguous in each step, not of strides {rates.strides}")
