"""From a list of layers to the table and the workspace of the compiled epoch.

Everything that depends on a shape is decided here, once, in Python: which kernels a
layer uses, how wide their tiles are, where each buffer lies. The choice depends on shapes, types,
the share of non-zeros in the training set and the machine, never on timing, so that the same
training gives the same bits every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastnn import memory

from .epoch import (
    BY_SAMPLE,
    BY_UNIT,
    DENSE,
    GROUP_SAMPLES,
    LAYER,
    SHARED,
    SMALL,
    TURNED,
    run,
)
from .rows import FLOAT32, FLOAT64, IDENTITY, RELU, UINT8, sample_group
from .simd import MACHINE, lanes


@dataclass(frozen=True)
class Rescaling:
    """Multiplies its input by a number."""

    scale: float


@dataclass(frozen=True)
class Dense:
    """Output = input @ weights + biases; offsets and stride count elements of the flat vector."""

    input_units: int
    output_units: int
    weights_offset: int
    row_stride: int
    biases_offset: int


@dataclass(frozen=True)
class ReLU:
    """Output = max(input, 0)."""


Layer = Rescaling | Dense | ReLU

INPUT_CODES = {"uint8": UINT8, "float32": FLOAT32, "float64": FLOAT64}

PREDICTION_BATCH = 64
"""Samples that go through the network together in prediction: one group of the first layer."""
SPARSE_BELOW = 0.55
"""Share of non-zeros below which kernels that skip zeros are faster than dense ones."""
HIDDEN_DENSITY = 0.5
"""Share of non-zeros expected after ReLU."""
FEW_SAMPLES = 2
"""Batches up to this size are handled sample by sample."""
NARROW_VECTORS = 4
"""Hidden layers with fewer output vectors multiply densely: too few sums to hide a latency."""


def why_not(
    layers: Sequence[object],
    loss: str = "softmax_cross_entropy",
    dtype: np.dtype | type = np.float32,
    input_dtype: np.dtype | type = np.float32,
) -> str | None:
    """Return why the compiled epoch can't run this network, or None if it can."""
    if loss != "softmax_cross_entropy":
        return f"the loss {loss!r} is not compiled"
    if np.dtype(dtype).name not in ("float32", "float64"):
        return f"parameters of type {np.dtype(dtype)} are not compiled"
    if np.dtype(input_dtype).name not in INPUT_CODES:
        return f"input of type {np.dtype(input_dtype)} is not compiled"
    units = None
    for layer in layers:
        if isinstance(layer, Dense):
            if units not in (None, layer.input_units):
                return f"a Dense layer of {layer.input_units} inputs follows one of {units} outputs"
            units = layer.output_units
        elif isinstance(layer, Rescaling):
            if units is not None:
                return "a Rescaling layer comes after a Dense layer"
        elif not isinstance(layer, ReLU):
            return f"the layer {type(layer).__name__} is not compiled"
        elif units is None:
            return "a ReLU layer comes before the first Dense layer"
    return "there is no Dense layer" if units is None else None


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
        reason = why_not(layers, loss, dtype, input_dtype)
        if reason is not None:
            raise ValueError(reason)
        self.batch_size = batch_size
        self.dtype = np.dtype(dtype)
        self.input_dtype = np.dtype(input_dtype)
        self.density = density
        self.dense = [layer for layer in layers if isinstance(layer, Dense)]
        self.activations = _activations(layers)
        self.scale = math.prod(la.scale for la in layers if isinstance(la, Rescaling))
        self._parameters_end = max(
            la.biases_offset + memory.row_stride(la.output_units, self.dtype) for la in self.dense
        )
        self._totals = 0.0, 0

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
        labels: np.ndarray,
        order: np.ndarray,
        parameters: np.ndarray,
        learning_rates: np.ndarray,
    ) -> tuple[float, int]:
        """Train on samples[order], batch by batch; return sums of losses and right answers.

        They are sums since `start`, over all calls, so that their order of addition does not
        depend on how many calls there were.

        `parameters` changes in place. `learning_rates` holds one float64 for each Dense layer.
        Labels and order are trusted to be in range.
        """
        _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        _check("labels", labels, np.dtype(np.int64), (len(samples),))
        _check("order", order, np.dtype(np.int64), (None,))
        self._check_parameters(parameters)
        _check("learning_rates", learning_rates, np.dtype(np.float64), (len(self.dense),))
        loss, correct = run(
            self.dtype.type(self.scale), self.training.shared, self.training.layers,
            samples.ctypes.data, labels.ctypes.data, order.ctypes.data, len(order),
            parameters.ctypes.data, learning_rates, 0, *self._totals,
        )  # fmt: skip
        self._totals = float(loss), int(correct)
        return self._totals

    def start(self) -> None:
        """Begin an epoch: what `run` returns is added up from here."""
        self._totals = 0.0, 0

    def _check_parameters(self, parameters: np.ndarray) -> None:
        """Raise unless `parameters` holds what the table points to, where vectors expect it."""
        _check("parameters", parameters, self.dtype, (None,))
        if len(parameters) < self._parameters_end:
            raise ValueError(
                f"parameters must hold {self._parameters_end} numbers, not {len(parameters)}"
            )
        if parameters.ctypes.data % memory.LINE_BYTES:
            raise ValueError(f"parameters must lie at a multiple of {memory.LINE_BYTES} bytes")

    def predict(self, samples: np.ndarray, parameters: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Write the logits of all samples, in their order, to `out`, and return it."""
        _check("samples", samples, self.input_dtype, (None, self.dense[0].input_units))
        self._check_parameters(parameters)
        _check("out", out, self.dtype, (len(samples), self.dense[-1].output_units))
        run(
            self.dtype.type(self.scale), self.prediction.shared, self.prediction.layers,
            samples.ctypes.data, 0, 0, len(samples),
            parameters.ctypes.data, np.zeros(len(self.dense)), out.ctypes.data, 0.0, 0,
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


class Table:
    """The records of one way to run a network, and the workspace to which they point."""

    def __init__(self, program: Program, batch_size: int, training: bool):
        self.dtype = program.dtype
        self.lanes = lanes(self.dtype.itemsize)
        self.padded = memory.round_up(batch_size, sample_group(self.lanes))
        self.batch_size = batch_size
        self.training = training
        self.shared = np.zeros(1, SHARED)
        self.layers = np.zeros(len(program.dense), LAYER)
        self._buffers: list[tuple[int, list[tuple[np.void, str]]]] = []

        self._describe_shared(program)
        below = None
        for number, (dense, activation) in enumerate(
            zip(program.dense, program.activations, strict=True)
        ):
            layer = self.layers[number]
            self._describe(layer, dense, activation)
            if below is None:
                density = program.density
            else:
                density = HIDDEN_DENSITY if below["activation"] == RELU else 1.0
            choose_kernels(layer, self.dtype, batch_size, below is None, density)
            self._lay_out(layer, below)
            below = layer
        top = self.layers[-1]
        self._want(self.padded * top["outputs_stride"], (top, "outputs"))
        self._allocate()

    def _describe_shared(self, program: Program) -> None:
        shared = self.shared[0]
        shared["batch_size"] = self.batch_size
        shared["itemsize"] = self.dtype.itemsize
        shared["lanes"] = self.lanes
        shared["group"] = sample_group(self.lanes)
        shared["input_code"] = INPUT_CODES[program.input_dtype.name]
        shared["input_itemsize"] = program.input_dtype.itemsize
        shared["input_row_bytes"] = program.dense[0].input_units * program.input_dtype.itemsize
        for name in ("labels", "predictions", "margins", "sums", "sources", "tail_sources"):
            self._want(self.padded * 8, (shared, name))
        # always zero: the sample that pads a batch, and what follows the last units of a sample
        byte = np.dtype(np.uint8)
        self._zeros = memory.aligned_zeros(int(shared["input_row_bytes"]), byte)
        shared["tail_stride"] = self.lanes * program.input_dtype.itemsize
        self._tails = memory.aligned_zeros(int(shared["group"] * shared["tail_stride"]), byte)
        shared["zeros"] = self._zeros.ctypes.data
        shared["tails"] = self._tails.ctypes.data

    def _describe(self, layer: np.void, dense: Dense, activation: int) -> None:
        """Write down the shape of a layer and where its parameters lie."""
        itemsize = self.dtype.itemsize
        layer["input_units"] = dense.input_units
        layer["output_units"] = dense.output_units
        layer["input_vectors"] = -(-dense.input_units // self.lanes)
        layer["output_vectors"] = -(-dense.output_units // self.lanes)
        layer["weights"] = dense.weights_offset * itemsize
        layer["weights_stride"] = dense.row_stride * itemsize
        layer["biases"] = dense.biases_offset * itemsize
        layer["activation"] = activation
        layer["inputs_stride"] = memory.row_stride(dense.input_units, self.dtype) * itemsize
        layer["outputs_stride"] = memory.row_stride(dense.output_units, self.dtype) * itemsize

    def _lay_out(self, layer: np.void, below: np.void | None) -> None:
        """Say which buffers a layer needs, and how large they are."""
        itemsize = self.dtype.itemsize
        inputs = layer["input_vectors"] * self.lanes
        outputs = layer["output_vectors"] * self.lanes
        words = -(-self.padded // 64)
        turned_stride = memory.row_stride(self.padded, self.dtype) * itemsize
        output_bytes = self.padded * layer["outputs_stride"]
        ways = {int(layer["forward_by"])}
        if self.training:
            ways.add(int(layer["update_by"]))

        if below is not None:
            # what the layer below puts out is what this one takes in
            size = self.padded * layer["inputs_stride"]
            self._want(size, (layer, "inputs"), (below, "outputs"))
        elif layer["forward_by"] != BY_UNIT:
            self._want(self.padded * layer["inputs_stride"], (layer, "inputs"))

        turned = self.training and below is not None and layer["gradient_by"] == TURNED
        if BY_UNIT in ways or turned:
            layer["samples_stride"] = turned_stride
            layer["group_bytes"] = GROUP_SAMPLES * itemsize
            size = inputs * turned_stride
            if below is None and self.padded > GROUP_SAMPLES:
                # each group of samples is a matrix of its own, which fits the cache
                layer["samples_stride"] = GROUP_SAMPLES * itemsize
                layer["group_bytes"] = inputs * layer["samples_stride"]
                size = -(-self.padded // GROUP_SAMPLES) * layer["group_bytes"]
            self._want(size, (layer, "inputs_transposed"))
        if BY_UNIT in ways:
            layer["bits_by_unit_stride"] = words * 8
            self._want(inputs * words * 8, (layer, "bits_by_unit"))
        if BY_SAMPLE in ways:
            layer["bits_by_sample_stride"] = -(-inputs // 64) * 8
            self._want(self.padded * layer["bits_by_sample_stride"], (layer, "bits_by_sample"))

        layer["slot_bytes"] = output_bytes
        self._want(output_bytes * layer["chunks"], (layer, "slots"))
        if self.training:
            self._want(output_bytes, (layer, "gradient"))
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


def _activations(layers: Sequence[Layer]) -> list[int]:
    """Return the code of the activation after each Dense layer."""
    codes: list[int] = []
    for layer in layers:
        if isinstance(layer, Dense):
            codes.append(IDENTITY)
        elif isinstance(layer, ReLU):
            codes[-1] = RELU
    return codes


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
    layer["chunks"], layer["chunk_units"] = chunks_of(
        int(layer["input_units"]), int(layer["output_units"])
    )


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


def chunks_of(input_units: int, output_units: int) -> tuple[int, int]:
    """Return into how many chunks the input units are cut, 1, 2 or 4, and how long they are.

    It depends on the layer's shape alone. Small layers are not worth sharing. Chunks are multiples
    of 64 units, a word of bits, and none is empty.
    """
    weights = input_units * output_units
    chunks = 1 if weights < 1 << 14 else 2 if weights < 1 << 18 else 4
    while True:
        units = memory.round_up(-(-input_units // chunks), 64)
        if -(-input_units // units) == chunks:
            return chunks, units
        chunks //= 2
