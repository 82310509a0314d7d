"""From a list of layers to the table and the workspace of the compiled epoch.

Everything that depends on a shape is decided here, once, in Python: which kernels a
layer uses, how wide their tiles are, where each buffer lies. The choice depends on shapes, types,
the share of non-zeros in the training set and the machine, never on timing, so that the same
training gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastnn import memory

from . import squared_error, stages, steps
from .epoch import (
    BY_SAMPLE,
    BY_UNIT,
    DENSE,
    GROUP_SAMPLES,
    LAYER,
    NONE,
    SHARED,
    SMALL,
    TURNED,
    add_penalties,
    run,
)
from .rows import FLOAT32, FLOAT64, IDENTITY, RELU, UINT8, sample_group
from .sharing import TEAM, Messages, chunk_starts, share_out
from .simd import MACHINE, lanes
from .threads import MOST_MEMBERS, Words, cores, run_together


@dataclass(frozen=True)
class Rescaling:
    """Multiplies its input by a number."""

    scale: float


@dataclass(frozen=True)
class Rule:
    """How a gradient moves the parameters of a layer; `steps.py` has the formulas.

    `beta1` is the momentum of "momentum" and "nesterov" and the rho of "rmsprop". `epsilon` is more
    than 0 in the network's dtype where a rule divides by it.
    """

    kind: str = "sgd"
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Dense:
    """Output = input @ weights + biases; offsets and stride count elements of the flat vector.

    The loss has l2 * sum(weights^2) added to it.
    """

    input_units: int
    output_units: int
    weights_offset: int
    row_stride: int
    biases_offset: int
    l2: float = 0.0
    rule: Rule = Rule()


@dataclass(frozen=True)
class ReLU:
    """Output = max(input, 0)."""


@dataclass(frozen=True)
class Sigmoid:
    """Output = 1 / (1 + exp(-input))."""


@dataclass(frozen=True)
class Tanh:
    """Output = tanh(input)."""


@dataclass(frozen=True)
class Dropout:
    """Output = input / (1 - p) where a random word is not below p, 0 elsewhere; by `key`."""

    p: float
    key: int


@dataclass(frozen=True)
class BatchNorm:
    """Output = scale * (input - mean) / sqrt(variance + epsilon) + shift, of each unit.

    Offsets count elements of the flat vector, in which the running statistics lie as well.
    """

    units: int
    scale_offset: int
    shift_offset: int
    running_mean_offset: int
    running_variance_offset: int
    momentum: float
    epsilon: float
    rule: Rule = Rule()


Layer = Rescaling | Dense | ReLU | Sigmoid | Tanh | Dropout | BatchNorm
Learned = Dense | BatchNorm

OPERATIONS = {
    Rescaling: (stages.rescaling_forward, stages.rescaling_backward),
    ReLU: (stages.relu_forward, stages.relu_backward),
    Sigmoid: (stages.sigmoid_forward, stages.sigmoid_backward),
    Tanh: (stages.tanh_forward, stages.tanh_backward),
    Dropout: (stages.dropout_forward, stages.dropout_backward),
    BatchNorm: (stages.batch_norm_forward, stages.batch_norm_backward),
}
"""What a stage does in training, forward and backward."""

LOSSES = ("softmax_cross_entropy", "mse")

INPUT_CODES = {"uint8": UINT8, "float32": FLOAT32, "float64": FLOAT64}

PREDICTION_BATCH = 64
"""Samples that go through the network together in prediction: one group of the first layer."""
SPARSE_BELOW = 0.55
"""Share of non-zeros below which kernels that skip zeros are faster than dense ones."""
HIDDEN_DENSITY = 0.5
"""Share of non-zeros expected after ReLU."""
FEW_SAMPLES = 2
"""Batches up to this size are handled sample by sample."""
WORK_FOR_TWO = 4e6
"""Multiplications in a step, zeros left out, from which two threads share them."""
NARROW_VECTORS = 4
"""Hidden layers with fewer output vectors multiply densely: too few sums to hide a latency."""


def why_not(
    layers: Sequence[object],
    loss: str = "softmax_cross_entropy",
    dtype: np.dtype | type = np.float32,
    input_dtype: np.dtype | type = np.float32,
) -> str | None:
    """Return why the compiled epoch can't run this network, or None if it can."""
    if loss not in LOSSES:
        return f"the loss {loss!r} is not compiled"
    if np.dtype(dtype).name not in ("float32", "float64"):
        return f"parameters of type {np.dtype(dtype)} are not compiled"
    if np.dtype(input_dtype).name not in INPUT_CODES:
        return f"input of type {np.dtype(input_dtype)} is not compiled"
    units, dense = None, False
    for layer in layers:
        if not isinstance(layer, Layer):
            return f"the layer {type(layer).__name__} is not compiled"
        if isinstance(layer, Learned):
            dense = dense or isinstance(layer, Dense)
            if layer.rule.kind not in steps.OPERATIONS:
                return f"the rule {layer.rule.kind!r} is not compiled"
            inputs = layer.input_units if isinstance(layer, Dense) else layer.units
            if units not in (None, inputs):
                name = type(layer).__name__
                return f"a {name} layer of {inputs} inputs follows one of {units} outputs"
            units = layer.output_units if isinstance(layer, Dense) else inputs
    return None if dense else "there is no Dense layer"


def most_threads(layers: Sequence[Layer]) -> int:
    """Return how many threads can share a training step."""
    return min(chunks_of([layer for layer in layers if isinstance(layer, Dense)]), MOST_MEMBERS)


@dataclass
class Block:
    """A Dense layer, or the input itself, a ReLU right after it, and the stages after that."""

    dense: Dense | None
    units: int
    relu: bool = False
    stages: list[Layer] = field(default_factory=list)


def split(layers: Sequence[Layer]) -> tuple[float, list[Block]]:
    """Return the scale of the input and the blocks.

    There is a block for the input where more than rescaling comes before the first Dense layer.
    """
    scale = 1.0
    blocks: list[Block] = []
    for layer in layers:
        if isinstance(layer, Dense):
            blocks.append(Block(layer, layer.output_units))
        elif not blocks and isinstance(layer, Rescaling):
            scale *= layer.scale
        else:
            if not blocks:
                units = next(la.input_units for la in layers if isinstance(la, Dense))
                blocks.append(Block(None, units))
            block = blocks[-1]
            if isinstance(layer, ReLU) and block.dense and not (block.relu or block.stages):
                block.relu = True
            else:
                block.stages.append(layer)
    return scale, blocks


def density_after(block: Block, density: float) -> float:
    """Return the share of non-zeros expected behind a block, from that of the data."""
    if block.dense is not None:
        density = HIDDEN_DENSITY if block.relu else 1.0
    positive = block.relu
    for stage in block.stages:
        if isinstance(stage, ReLU):
            density *= 1.0 if positive else HIDDEN_DENSITY
            positive = True
        elif isinstance(stage, Dropout):
            density *= 1 - stage.p
        elif isinstance(stage, Sigmoid | BatchNorm):
            density, positive = 1.0, isinstance(stage, Sigmoid)
    return density


class Program:
    """A network, its batch size and its types, ready to run; owns the workspace.

    `density` is the share of non-zeros in the training set.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: str = "softmax_cross_entropy",
        batch_size: int = 32,
        dtype: np.dtype | type = np.float32,
        input_dtype: np.dtype | type = np.float32,
        density: float = 1.0,
    ):
        self.batch_size = batch_size
        self.dtype = np.dtype(dtype)
        self.input_dtype = np.dtype(input_dtype)
        self.density = density
        self.loss = loss
        self._totals = 0.0, 0
        self._words = Words()
        self._layers: tuple[Layer, ...] | None = None
        self.describe(layers)

    def describe(self, layers: Sequence[Layer]) -> None:
        """Take the layers as they are now: a user may change their numbers between two calls."""
        if tuple(layers) == self._layers:
            return
        reason = why_not(layers, self.loss, self.dtype, self.input_dtype)
        if reason is not None:
            raise ValueError(reason)
        self._layers = tuple(layers)
        self.dense = [layer for layer in layers if isinstance(layer, Dense)]
        self.learned = [layer for layer in layers if isinstance(layer, Learned)]
        self.dropouts = sum(isinstance(layer, Dropout) for layer in layers)
        self.scale, self.blocks = split(layers)
        self._parameters_end = max(_end(layer, self.dtype) for layer in self.learned)
        self.states = max(steps.STATES[layer.rule.kind] for layer in self.learned)
        # a step of few samples is not worth sharing, and one chunk saves it the adding of slots
        self.chunks = 1 if self.batch_size <= FEW_SAMPLES else chunks_of(self.dense)
        self._teams: dict[int, Team] = {}
        for table in ("training", "prediction"):
            vars(self).pop(table, None)

    @property
    def default_threads(self) -> int:
        """How many threads share the work unless the user says so, by the work of a step.

        Two where they gain much: what members tell each other costs the same in a small step as
        in a large one, and several times as much between cores that share no cache. Never four:
        where one of four cores is busy with something else, all wait for it.
        """
        work = 0.0
        for number, layer in enumerate(self.dense):
            density = min(self.density, 1.0) if number == 0 else HIDDEN_DENSITY
            products = 2 if number == 0 else 3
            work += products * density * layer.input_units * layer.output_units
        if work * self.batch_size < WORK_FOR_TWO:
            return 1  # to look for cores would take as long as a tiny fit
        return self.members(min(2, len(cores())))

    def members(self, threads: int) -> int:
        """Return how many threads form a team: a power of two, at most one for each chunk."""
        most = min(threads, self.chunks, MOST_MEMBERS)
        return 4 if most >= 4 else 2 if most >= 2 else 1

    @cached_property
    def training(self) -> Table:
        """The table of a training step."""
        return Table(self, self.batch_size, training=True)

    @cached_property
    def prediction(self) -> Table:
        """The table of a prediction."""
        return Table(self, PREDICTION_BATCH, training=False)

    def run(
        self,
        samples: np.ndarray,
        targets: np.ndarray,
        order: np.ndarray,
        parameters: np.ndarray,
        rates: np.ndarray,
        states: Sequence[np.ndarray] = (),
        dropout_steps: np.ndarray | None = None,
        threads: int = 1,
    ) -> tuple[float, int]:
        """Train on samples[order], batch by batch; return sums of losses and right answers.

        They are sums since `start`, over all calls, so that their order of addition does not
        depend on how many calls there were. Up to `threads` threads share each step; no bit depends
        on their number.

        `targets` are class ids, int64 [n], or under "mse" numbers of the network's dtype
        [n, outputs]; there are no right answers then. `parameters` changes in place, and so do
        `states`, as many vectors parallel to it as the rules ask for. `rates` [steps, learned
        layers, 2] holds, in float64, what each step of each layer has for `rate` and `correction`,
        see `steps.py`; a rate that stays may be broadcast over the steps. `dropout_steps`, int64,
        says for each Dropout layer how many batches went through it before; 0 if it is left out.
        Class ids and order are trusted to be in range.
        """
        _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        outputs = self.dense[-1].output_units
        if self.loss == "mse" and targets.ndim == 2:
            target_code = INPUT_CODES[self.dtype.name]
            _check("targets", targets, self.dtype, (len(samples), outputs))
        else:
            target_code = squared_error.CLASS_IDS
            _check("targets", targets, np.dtype(np.int64), (len(samples),))
        _check("order", order, np.dtype(np.int64), (None,))
        self._check_parameters("parameters", parameters)
        if len(states) < self.states:
            raise ValueError(f"states must be {self.states} vectors, not {len(states)}")
        for state in states:
            self._check_parameters("states", state)
        count = -(-len(order) // self.batch_size)
        _check_rates(rates, count, len(self.learned))
        if dropout_steps is None:
            dropout_steps = np.zeros(self.dropouts, np.int64)
        _check("dropout_steps", dropout_steps, np.dtype(np.int64), (self.dropouts,))
        places = [*[state.ctypes.data for state in states], 0, 0][:2]
        arguments = (
            samples.ctypes.data, targets.ctypes.data, order.ctypes.data, len(order),
            parameters.ctypes.data, *places, rates.ctypes.data, rates.strides[0],
            0, *self._totals,
        )  # fmt: skip
        scale = self.dtype.type(self.scale)
        members = self.members(threads)
        team = self._team(members) if members > 1 else None
        for table in team.tables if team else [self.training]:
            table.shared["target_code"] = target_code
            table.stages["first_step"][table.dropouts] = dropout_steps
        if team is None:
            table = self.training
            loss, correct = run(scale, table.shared, table.layers[None], *arguments, None)
        else:
            loss, correct = team.run(self._words, scale, arguments, count)
        self._totals = float(loss), int(correct)
        return self._totals

    def _team(self, members: int) -> Team:
        """Return the tables of a team, made when first asked for."""
        if members not in self._teams:
            self._teams[members] = Team(self, members)
        return self._teams[members]

    def start(self) -> None:
        """Begin an epoch: what `run` returns is added up from here."""
        self._totals = 0.0, 0

    def _check_parameters(self, name: str, vector: np.ndarray) -> None:
        """Raise unless a vector holds what the table points to, where vectors expect it."""
        _check(name, vector, self.dtype, (None,))
        if len(vector) < self._parameters_end:
            raise ValueError(f"{name} must hold {self._parameters_end} numbers, not {len(vector)}")
        if vector.ctypes.data % memory.LINE_BYTES:
            raise ValueError(f"{name} must lie at a multiple of {memory.LINE_BYTES} bytes")

    def predict(self, samples: np.ndarray, parameters: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Write the result of all samples, in their order, to `out`, and return it."""
        _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        self._check_parameters("parameters", parameters)
        _check("out", out, self.dtype, (len(samples), self.dense[-1].output_units))
        table = self.prediction
        run(
            self.dtype.type(self.scale), table.shared, table.layers[None],
            samples.ctypes.data, 0, 0, len(samples),
            parameters.ctypes.data, 0, 0, 0, 0, out.ctypes.data, 0.0, 0, None,
        )  # fmt: skip
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
    if rates.ndim != 3 or len(rates) < steps or rates.shape[1:] != (learned, 2):
        raise ValueError(f"rates must be {steps} x {learned} x 2, not of shape {rates.shape}")
    if not rates[:1].flags.c_contiguous:
        raise ValueError(f"rates must be C-contiguous in each step, not of strides {rates.strides}")


class Table:
    """The records of one way to run a network, and the workspace to which they point."""

    def __init__(self, program: Program, batch_size: int, training: bool):
        self.dtype = program.dtype
        self.lanes = lanes(self.dtype.itemsize)
        self.padded = memory.round_up(batch_size, sample_group(self.lanes))
        self.batch_size = batch_size
        self.training = training
        blocks = program.blocks
        if not training:  # dropout does nothing
            blocks = [
                replace(b, stages=[la for la in b.stages if not isinstance(la, Dropout)])
                for b in blocks
            ]
        self.shared = np.zeros(1, SHARED)
        self.layers = np.zeros(len(blocks), LAYER)
        self.stages = np.zeros(sum(len(block.stages) for block in blocks), stages.STAGE)
        self.dropouts: list[int] = []
        """Numbers of the stages that are dropout."""
        self.regions = np.zeros((len(program.learned), 2), steps.REGION)
        self.starts = np.zeros((len(blocks), program.chunks + 1), np.int64)
        """Where the chunks of each layer begin."""
        self._buffers: list[tuple[int, list[tuple[np.void, str]]]] = []
        self._learned = self._described_stages = 0

        self._describe_shared(program)
        if blocks[0].dense is None:
            self._describe_input(blocks[0].units)
        density = program.density
        result: list[tuple[np.void, str]] = []
        for number, block in enumerate(blocks):
            layer = self.layers[number]
            self._describe(layer, block)
            starts = chunk_starts(int(layer["input_units"]), program.chunks, self.dtype.itemsize)
            self.starts[number] = starts
            layer["chunk_units"] = self.starts[number:].ctypes.data
            layer["chunk_words"] = -(-int(np.diff(starts).max()) // 64)
            if block.dense is None:
                result = [(self.shared[0], "input_rows"), (layer, "outputs")]
            else:
                choose_kernels(layer, self.dtype, batch_size, number == 0, density)
                if self._learned == 0:
                    layer["gradient_by"] = NONE
                if training:
                    self._describe_step(layer, block.dense)
                self._learned += 1
                if number > 0:
                    # what the block below puts out is what this one takes in
                    layer["mask_inputs"] = blocks[number - 1].relu and not blocks[number - 1].stages
                    result.append((layer, "inputs"))
                    self._want(self.padded * layer["inputs_stride"], *result)
                self._lay_out(layer, number == 0)
                result = [(layer, "outputs")]
            result = self._add_stages(layer, block, result)
            is_top = number == len(blocks) - 1
            layer["mask_gradient"] = block.relu and (bool(block.stages) or is_top)
            if training and self._learned > 0:
                self._want_gradient(layer, is_top)
            density = density_after(block, density)
        self._describe_loss(program.loss, self.layers[-1], result)
        share_out(self.layers, self.starts, self.lanes, 0, 1)
        self._allocate()

    def _describe_shared(self, program: Program) -> None:
        shared = self.shared[0]
        shared["batch_size"] = self.batch_size
        shared["itemsize"] = self.dtype.itemsize
        shared["lanes"] = self.lanes
        shared["group"] = sample_group(self.lanes)
        shared["chunks"] = program.chunks
        shared["input_code"] = INPUT_CODES[program.input_dtype.name]
        shared["input_itemsize"] = program.input_dtype.itemsize
        shared["input_row_bytes"] = program.dense[0].input_units * program.input_dtype.itemsize
        shared["record"] = self.shared.ctypes.data
        shared["stages"] = self.stages.ctypes.data
        if len(self.stages):
            shared["forward_stages"] = stages.forward_stages.address(self.dtype, stages.STAGE)
            if self.training:
                shared["backward_stages"] = stages.backward_stages.address(self.dtype, stages.STAGE)
        for name in ("sources", "tail_sources"):
            self._want(self.padded * 8, (shared, name))
        # always zero: the sample that pads a batch, and what follows the last units of a sample
        byte = np.dtype(np.uint8)
        self._zeros = memory.aligned_zeros(int(shared["input_row_bytes"]), byte)
        shared["tail_stride"] = self.lanes * program.input_dtype.itemsize
        self._tails = memory.aligned_zeros(int(shared["group"] * shared["tail_stride"]), byte)
        shared["zeros"] = self._zeros.ctypes.data
        shared["tails"] = self._tails.ctypes.data

    def _describe_input(self, units: int) -> None:
        """Write down how the input is loaded where it is a block of its own."""
        shared = self.shared[0]
        shared["load_input"] = stages.load_input.address(self.dtype, SHARED)
        shared["input_units"] = units
        shared["input_rows_stride"] = memory.row_stride(units, self.dtype) * self.dtype.itemsize

    def _describe_loss(self, loss: str, top: np.void, result: list[tuple[np.void, str]]) -> None:
        """Write down what the loss reads and where its results go."""
        shared = self.shared[0]
        for name in ("output_units", "output_vectors"):
            shared[name] = top[name]
        shared["result_stride"] = top["outputs_stride"]
        size = self.padded * top["outputs_stride"]
        self._want(size, *result, (shared, "result"))
        if not self.training:
            return
        for name in ("labels", "predictions", "margins", "sums"):
            self._want(self.padded * 8, (shared, name))
        if self.layers["decay"].any():
            shared["add_penalties"] = add_penalties.address(self.dtype, LAYER)
            shared["layers"] = self.layers.ctypes.data
            self._want(8, (shared, "penalty"))
        if loss == "mse":
            shared["loss"] = squared_error.mean_squared_error.address(self.dtype, SHARED)
            self._want(size, (shared, "targets"))
            for name in ("batch_loss", "batch_correct"):
                self._want(8, (shared, name))

    def _describe(self, layer: np.void, block: Block) -> None:
        """Write down the shape of a block and where the parameters of its Dense layer lie."""
        itemsize = self.dtype.itemsize
        dense = block.dense
        inputs = block.units if dense is None else dense.input_units
        layer["input_units"] = inputs
        layer["output_units"] = block.units
        layer["input_vectors"] = -(-inputs // self.lanes)
        layer["output_vectors"] = -(-block.units // self.lanes)
        layer["inputs_stride"] = memory.row_stride(inputs, self.dtype) * itemsize
        layer["outputs_stride"] = memory.row_stride(block.units, self.dtype) * itemsize
        if dense is not None:
            layer["weights"] = dense.weights_offset * itemsize
            layer["weights_stride"] = dense.row_stride * itemsize
            layer["biases"] = dense.biases_offset * itemsize
            layer["activation"] = RELU if block.relu else IDENTITY

    def _add_stages(
        self, layer: np.void, block: Block, result: list[tuple[np.void, str]]
    ) -> list[tuple[np.void, str]]:
        """Describe the stages of a block; return who asks for the buffer of its result.

        `result` are those who ask for the buffer that the first stage reads.
        """
        first = self._described_stages
        stop = first + len(block.stages)
        layer["first_stage"], layer["lowest_stage"], layer["stop_stage"] = first, stop, stop
        self._described_stages = stop
        for number, described in zip(range(first, stop), block.stages, strict=True):
            stage = self.stages[number]
            self._want(self.padded * layer["outputs_stride"], *result, (stage, "source"))
            result = [(stage, "target")]
            stage["record"] = self.stages[number:].ctypes.data
            self._describe_stage(stage, described, layer)
            if isinstance(described, Dropout):
                self.dropouts.append(number)
            if self._learned > 0:
                layer["lowest_stage"] = min(layer["lowest_stage"], number)
        return result

    def _describe_stage(self, stage: np.void, described: Layer, layer: np.void) -> None:
        """Write down the operations of a stage, and its numbers."""
        itemsize = self.dtype.itemsize
        forward, backward = OPERATIONS[type(described)]
        if isinstance(described, BatchNorm) and not self.training:
            forward = stages.batch_norm_inference
        stage["forward"] = forward.address(self.dtype, stages.STAGE)
        if self.training:
            stage["backward"] = backward.address(self.dtype, stages.STAGE)
        stage["stride"] = layer["outputs_stride"]
        stage["units"] = layer["output_units"]
        stage["lanes"] = self.lanes
        stage["learned"] = -1
        if isinstance(described, Rescaling):
            stage["factor"] = described.scale
        elif isinstance(described, Dropout):
            stage["factor"] = 1 / (1 - described.p)
            stage["threshold"] = round(described.p * 2**32)
            stage["key"] = np.uint64(described.key).view(np.int64)
            # whole blocks of the generator, and what the last vector reads beyond its row
            words = self.padded * layer["output_units"] + memory.LINE_BYTES
            self._want(words * 4, (stage, "words"))
        elif isinstance(described, BatchNorm):
            stage["learned"] = self._learned
            stage["momentum"], stage["epsilon"] = described.momentum, described.epsilon
            stage["scale"] = described.scale_offset * itemsize
            stage["shift"] = described.shift_offset * itemsize
            stage["running_mean"] = described.running_mean_offset * itemsize
            stage["running_variance"] = described.running_variance_offset * itemsize
            if self.training:
                for name in ("mean", "inverse_deviation", "scale_gradient", "shift_gradient"):
                    self._want(layer["outputs_stride"], (stage, name))
                # a vector of parameters is a row, so that ranges of columns can be moved
                shape = MACHINE.bits // 8, self.lanes
                stage["move"] = steps.address(described.rule.kind, self.dtype)
                for which, name in enumerate(("scale", "shift")):
                    region = self._region(which, described.rule, stage[name], *shape)
                    stage[f"{name}_region"] = region
            self._learned += 1

    def _region(
        self, which: int, rule: Rule, parameters: int, stride: int, units: int,
        *asking: tuple[np.void, str],
    ) -> int:  # fmt: skip
        """Describe region 0 or 1 of the next learned layer; return the address of its record."""
        region = self.regions[self._learned, which]
        region["parameters"], region["stride"] = parameters, stride
        region["units"] = units
        for constant in ("beta1", "beta2", "epsilon"):
            region[constant] = getattr(rule, constant)
        self._want(8, (region, "squares"), *asking)
        return int(self.regions[self._learned, which:].ctypes.data)

    def _describe_step(self, layer: np.void, dense: Dense) -> None:
        """Write down how the parameters of a Dense layer are moved, and in what blocks."""
        rule, stride = dense.rule, layer["weights_stride"]
        layer["learned"] = self._learned
        layer["step_units"] = dense.input_units
        if rule.kind == "sgd" and dense.l2 == 0:
            return
        layer["step"] = steps.address(rule.kind, self.dtype)
        layer["step_units"] = steps.BLOCK_ROWS
        self._want(steps.BLOCK_ROWS * stride, (layer, "block"))
        units = dense.output_units
        layer["biases_region"] = self._region(1, rule, layer["biases"], stride, units)
        layer["weights_region"] = self._region(
            0, rule, layer["weights"], stride, units, (layer, "block_squares")
        )
        self._want(self.shared["chunks"][0] * 8, (layer, "squares"))
        if dense.l2 != 0:
            decays = self.regions["decay"][self._learned]
            decays[0] = 2 * dense.l2
            layer["decay"] = decays.ctypes.data

    def _lay_out(self, layer: np.void, first: bool) -> None:
        """Say which buffers a Dense layer needs, and how large they are."""
        itemsize = self.dtype.itemsize
        inputs = layer["input_vectors"] * self.lanes
        words = -(-self.padded // 64)
        turned_stride = memory.row_stride(self.padded, self.dtype) * itemsize
        ways = {int(layer["forward_by"])}
        if self.training:
            ways.add(int(layer["update_by"]))

        if first and layer["forward_by"] != BY_UNIT:
            self._want(self.padded * layer["inputs_stride"], (layer, "inputs"))

        layer["samples_stride"] = turned_stride
        layer["group_bytes"] = GROUP_SAMPLES * itemsize
        # the gradient is masked by the inputs as it comes out of the product, turned
        turned = self.training and layer["mask_inputs"] and layer["gradient_by"] == TURNED
        if BY_UNIT in ways or turned:
            size = inputs * turned_stride
            if first and self.padded > GROUP_SAMPLES:
                # each group of samples is a matrix of its own, which fits the cache
                layer["samples_stride"] = GROUP_SAMPLES * itemsize
                layer["group_bytes"] = inputs * layer["samples_stride"]
                size = -(-self.padded // GROUP_SAMPLES) * layer["group_bytes"]
            self._want(size, (layer, "inputs_transposed"))
        if BY_UNIT in ways:
            layer["bits_by_unit_stride"] = words * 8
            self._want(inputs * words * 8, (layer, "bits_by_unit"))
        if BY_SAMPLE in ways:
            layer["bits_by_sample_stride"] = layer["chunk_words"] * self.shared["chunks"][0] * 8
            self._want(self.padded * layer["bits_by_sample_stride"], (layer, "bits_by_sample"))

        layer["slot_bytes"] = self.padded * layer["outputs_stride"]
        self._want(layer["slot_bytes"] * self.shared["chunks"][0], (layer, "slots"))

    def _want_gradient(self, layer: np.void, is_top: bool) -> None:
        """Ask for the buffers of a block's gradient, and of the same transposed."""
        turned_stride = memory.row_stride(self.padded, self.dtype) * self.dtype.itemsize
        asking = [(self.stages[number], "gradient") for number in _stages_of(layer)]
        if is_top:
            asking.append((self.shared[0], "result_gradient"))
        self._want(self.padded * layer["outputs_stride"], (layer, "gradient"), *asking)
        outputs = layer["output_vectors"] * self.lanes
        self._want(outputs * turned_stride, (layer, "gradient_transposed"))

    def _want(self, nbytes: int, *fields: tuple[np.void, str]) -> None:
        self._buffers.append((memory.round_up(int(nbytes), memory.LINE_BYTES), list(fields)))

    def _allocate(self) -> None:
        """Lay all buffers end to end in one workspace and write their addresses."""
        total = sum(nbytes for nbytes, _ in self._buffers)
        self.workspace = memory.aligned_zeros(total, np.dtype(np.uint8))
        address = self.workspace.ctypes.data
        for nbytes, fields in self._buffers:
            for record, name in fields:
                record[name] = address
            address += nbytes


class Team:
    """What the members of a team work with: a table for each of them, and their messages."""

    def __init__(self, program: Program, members: int):
        # the caller, member 0, uses the table with which it works alone
        others = [Table(program, program.batch_size, training=True) for _ in range(1, members)]
        self.tables = [program.training, *others]
        self._records = np.zeros(members, TEAM)
        self._records["member"] = np.arange(members)
        self._records["members"] = members
        caller = self.tables[0]
        layers = [np.stack([table.layers, table.layers]) for table in self.tables]
        self._regions = [table.regions[:, 1].copy() for table in self.tables]
        for member, (_, shared_out) in enumerate(layers):
            share_out(shared_out, caller.starts, caller.lanes, member, members)
            # of the whole layer, for the caller to add up
            shared_out["squares"] = caller.layers["squares"]
            for layer in shared_out:
                if layer["biases_region"] != 0:
                    self._cut_biases(layer, self._regions[member][layer["learned"] :], caller.lanes)
        self._layers = layers
        together = [shared_out for _, shared_out in layers]
        self._messages = Messages(together, caller.starts, caller.lanes, caller.padded)

    @staticmethod
    def _cut_biases(layer: np.void, regions: np.ndarray, lanes: int) -> None:
        """Make the first of `regions`, the biases of a layer, that of a member's own columns."""
        first = layer["first_vector"] * lanes
        stop = min(layer["stop_vector"] * lanes, layer["output_units"])
        regions["parameters"][0] += layer["first_vector"] * (MACHINE.bits // 8)
        regions["units"][0] = max(stop - first, 0)
        layer["biases_region"] = regions.ctypes.data

    def run(
        self, words: Words, scale: Any, arguments: tuple[Any, ...], count: int
    ) -> tuple[float, int]:
        """Run `count` steps on all members; return what the caller's returned.

        In a single step the caller is alone: it waits for nobody, and who is woken would be late.
        So it is in a call that begins while the members are to stay away: to end a short call, they
        would have to be waited for.
        """
        said = words.new()
        # of this call alone: an interrupt may leave a member behind that is still about to begin
        records = self._records.copy()
        records["words"] = said.ctypes.data
        results: dict[int, tuple[float, int]] = {}

        def work(member: int) -> None:
            results[member] = run(
                scale, self.tables[member].shared, self._layers[member], *arguments,
                records[member : member + 1],
            )  # fmt: skip

        if count > 1 and not words.apart():
            run_together(work, len(self.tables), said)
        else:
            work(0)
        words.keep(said)
        return results[0]


def _stages_of(layer: np.void) -> range:
    """Return the numbers of a block's stages."""
    return range(layer["first_stage"], layer["stop_stage"])


def _end(layer: Learned, dtype: np.dtype) -> int:
    """Return where the parameters of a layer end in the flat vector."""
    if isinstance(layer, Dense):
        return layer.biases_offset + memory.row_stride(layer.output_units, dtype)
    last = max(
        layer.scale_offset,
        layer.shift_offset,
        layer.running_mean_offset,
        layer.running_variance_offset,
    )
    return last + memory.row_stride(layer.units, dtype)


def choose_kernels(
    layer: np.void, dtype: np.dtype, batch_size: int, first: bool, density: float
) -> None:
    """Decide how a layer multiplies, and how its work is cut.

    `density` is the share of non-zeros expected among the layer's inputs.
    """
    vectors = int(layer["output_vectors"])
    if batch_size <= FEW_SAMPLES:  # nothing is transposed
        layer["forward_by"] = layer["update_by"] = BY_SAMPLE
    elif density >= SPARSE_BELOW:
        layer["forward_by"] = layer["update_by"] = DENSE
    elif first:
        layer["forward_by"] = layer["update_by"] = BY_UNIT
    elif vectors >= NARROW_VECTORS:
        layer["forward_by"], layer["update_by"] = BY_SAMPLE, BY_UNIT
    else:
        layer["forward_by"] = layer["update_by"] = DENSE
    fills_half = 2 * batch_size > lanes(dtype.itemsize)
    layer["gradient_by"] = TURNED if fills_half else SMALL

    rows = min(batch_size, GROUP_SAMPLES) if first else 64
    layer["scatter_tile"] = tile_width(vectors, rows, MACHINE.scatter_vectors)
    layer["gather_tile"] = tile_width(vectors, rows, MACHINE.gather_vectors)
    # neighbouring pixels are active together, neighbouring hidden units are not
    layer["update_rows"] = 2 if first else 1
    layer["update_tile"] = layer["scatter_tile"] if first else layer["gather_tile"]


def tile_width(vectors: int, rows: int, registers: int) -> int:
    """Return how many vectors of a row the kernels that skip zeros take at a time.

    One row of a tile stays in registers and `rows` rows of it in the first-level cache. A matrix
    that fits both isn't cut; others are cut into tiles as equal as can be.
    """
    vector_bytes = MACHINE.bits // 8
    if vectors <= registers and rows * vectors * vector_bytes <= MACHINE.cached_bytes:
        return vectors
    most = min(registers, MACHINE.cached_bytes // (64 * vector_bytes))
    tiles = -(-vectors // most)
    return -(-vectors // tiles)


def chunks_of(dense: Sequence[Dense]) -> int:
    """Return into how many chunks the layers are cut, 1, 2 or 4: what threads can share.

    It depends on the network's shape alone, as it decides the order of sums.
    """
    weights = sum(layer.input_units * layer.output_units for layer in dense)
    return 1 if weights < 1 << 14 else 2 if weights < 1 << 20 else 4
