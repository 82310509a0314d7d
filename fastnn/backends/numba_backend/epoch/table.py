"""The table of the compiled epoch: which kernels a layer uses, and where its buffers lie.

Everything that depends on a shape is decided here, once, in Python. The choice depends on shapes,
types, the share of non-zeros in the training set, the rule of the optimiser, L2 and the machine,
never on timing, so that the same training gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fastnn import guards, memory
from fastnn.backends.description import BatchNorm, Dense, Dropout, Elementwise, Rule

from ..checked import Range
from ..jit import Operation
from ..kernels import elementwise
from ..kernels.loading import FLOAT32, FLOAT64, UINT8
from ..kernels.matmul import MULTIPLY_SAMPLES, MULTIPLY_SAMPLES_TURNED
from ..kernels.optimizers import RULES
from ..kernels.relu import IDENTITY, RELU, TERM
from ..language import MATRIX
from ..machine import CACHED_BYTES, MACHINE, PAGE_BYTES, VECTOR_BYTES, lanes
from . import (
    backward,
    clipping,
    forward,
    in_pairs,
    losses,
    one_sample,
    optimizers,
    rounding,
    stages,
)
from .blocks import FEW_SAMPLES, Block, Structure, density_after
from .records import (
    BY_COLUMNS,
    BY_PAIRS,
    BY_ROWS,
    BY_SAMPLE,
    BY_UNIT,
    EVERY_NUMBER,
    GROUP_SAMPLES,
    IN_PAIRS,
    LAYER,
    NO_GRADIENT,
    ONE_SAMPLE,
    SHARED,
    WITH_UPDATE,
)
from .sharing import chunk_starts, share_out

INPUT_CODES = {
    np.dtype(np.uint8): UINT8,
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.float64): FLOAT64,
}

SPARSE_BELOW, SPARSE_BELOW_IN_BFLOAT16 = 0.55, 0.22
"""Share of non-zeros below which kernels that skip zeros are faster than dense ones, in float32 and
in bfloat16."""
WAITING_FROM = 0.7
"""Share of non-zeros from which one pass over all weights is faster than two over those in use."""
IN_PLACE_BYTES = 3 << 20
"""What a dense product may read of a batch, tile by tile of columns, without copying it before.

Measured: batches of 32 gain up to 1,024 units, those of 128 up to 256, those of 512 up to 64."""
TRANSPOSING = 12
"""Multiply-adds for a vector that take as long as to transpose it, there and back."""
ZEROED = {"dense_rows", "zeros", "tails"}
"""Parts of the workspace that are zero between calls, tails behind what has been copied there; what
others hold doesn't matter."""
READ_ONLY = {"zeros"}
"""Parts of the workspace that are never written."""
GAP_BYTES = 2 * memory.LINE_BYTES if guards.CHECKED else 0
"""Canaries between the parts of the workspace."""
ROWS_AHEAD = 4
"""Where rows of weights lie in pages of their own, the one that is asked for is so far ahead."""
SAMPLES_ALONE, SAMPLES_A_VECTOR = 32, 5
"""A first layer multiplies sample by sample in batches of up to so many, and up to so many for each
output vector; unit by unit in larger ones, where fewer ends of loops are mispredicted."""
OUTPUTS_TO_SHARE = 512
"""Outputs from which a first layer is shared by them: with 100, two threads lost 8 %."""
NARROW_VECTORS = 4
"""Hidden layers with fewer output vectors multiply densely: too few sums to hide a latency."""


class Table:
    """The records of one way to run a network, and the workspace to which they point."""

    def __init__(self, structure: Structure, batch_size: int, training: bool):
        self.dtype = structure.dtype
        self.lanes = lanes(self.dtype.itemsize)
        self.padded = memory.round_up(batch_size, self.lanes)
        self.batch_size = batch_size
        self.training = training
        blocks = structure.blocks
        if not training:  # dropout does nothing
            blocks = [
                replace(b, stages=[stage for stage in b.stages if stage.kind != "dropout"])
                for b in blocks
            ]
        self.shared = memory.aligned_zeros(1, SHARED)
        self.layers = memory.aligned_zeros(len(blocks), LAYER)
        count = sum(len(block.stages) for block in blocks)
        self.stages = memory.aligned_zeros(count, stages.STAGE)
        self.dropouts: list[int] = []
        """Numbers of the stages that are dropout."""
        count = 2 * len(structure.learned)
        self.regions = memory.aligned_zeros(count, optimizers.REGION).reshape(-1, 2)
        self.clipping = training and structure.collected is not None
        self._clip_norm = np.array([structure.clip_norm])
        self.collecting = self.regions.copy()
        """Where gradients are clipped, what `collect` has for each of the regions."""
        self.parts = memory.aligned_zeros(count, clipping.PART)
        self.owners: list[tuple[int, str]] = []
        """Of each part, the number of its block and which kind of array it is."""
        self.starts = np.zeros((len(blocks), structure.chunks + 1), np.int64)
        """Where the chunks of each layer begin."""
        self._buffers: list[tuple[int, list[tuple[np.void, str]]]] = []
        self._learned = self._described_stages = 0

        self._describe_shared(structure)
        if blocks[0].dense is None:
            self._describe_input(blocks[0].units)
        density = structure.density
        result: list[tuple[np.void, str]] = []
        for number, block in enumerate(blocks):
            layer = self.layers[number]
            self._describe(layer, block)
            itemsize = 2 if structure.bfloat16 else self.dtype.itemsize
            starts = chunk_starts(int(layer["input_units"]), structure.chunks, itemsize)
            self.starts[number] = starts
            layer["chunk_units"] = self.starts[number:].ctypes.data
            longest = max(stop - start for start, stop in pairwise(starts.tolist()))
            layer["chunk_words"] = -(-longest // 64)
            if block.dense is None:
                result = [(self.shared[0], "input_rows"), (layer, "outputs")]
            else:
                plain = block.dense.by_plain_sgd and not self.clipping
                may_wait = training and number == 0 and plain
                choose_kernels(
                    layer, self.dtype, batch_size, number == 0, density, may_wait,
                    chunk=longest,
                )  # fmt: skip
                # what a ReLU and nothing else puts out is what this one takes in
                layer["mask_inputs"] = (
                    number > 0 and blocks[number - 1].relu and not blocks[number - 1].stages
                )
                if structure.bfloat16:
                    choose_for_bfloat16(layer, number == 0, density)
                if number == 0 and plain and len(blocks) > 1 and is_shared_by_outputs(layer):
                    layer["by_outputs"] = 1
                    self.starts[number, 1:] = starts[-1]
                if self._learned == 0:
                    layer["gradient_by"] = NO_GRADIENT
                elif training and plain and in_one_pass(layer, self.padded, self.lanes):
                    layer["gradient_by"] = WITH_UPDATE
                    if layer["update_by"] == BY_UNIT:
                        self._want_matrix(self.padded, self.lanes, VECTOR_BYTES, (layer, "dots"))
                if training:
                    self.owners += [(number, "weights"), (number, "biases")]
                    self._describe_step(layer, block.dense)
                self._learned += 1
                if number > 0:
                    # what the block below puts out is what this one takes in
                    result.append((layer, "inputs"))
                    self._want_rows(block.dense.input_units, *result)
                in_place = number == 0 and self._multiplies_in_place(layer, structure)
                self._lay_out(layer, number == 0, in_place, starts)
                result = [(layer, "outputs")]
                if structure.chunks > 1 and not layer["by_outputs"]:
                    self._want_slots(layer, structure.chunks)
                else:  # whole sums are activated where they lie
                    result.append((layer, "slots"))
            self.owners += (
                2 * sum(s.kind == "batch_norm" for s in block.stages) * [(number, "norm")]
            )
            result = self._add_stages(layer, block, result)
            is_top = number == len(blocks) - 1
            layer["mask_gradient"] = block.relu and (bool(block.stages) or is_top)
            if training and self._learned > 0:
                self._want_gradient(layer, is_top)
            density = density_after(block, density)
        self._describe_loss(structure, self.layers[-1], result)
        share_out(self.layers, self.starts, self.lanes, 0, 1)
        self._terms = np.zeros((len(blocks), structure.chunks), TERM)
        if self.clipping:
            self._describe_clipping(structure)
        self._allocate()
        for layer, terms in zip(self.layers, self._terms, strict=True):
            address, stride, step, samples, units = layer["inputs"]
            by_columns = address, step, stride, units, samples
            copied = layer["inputs_transposed"]["address"] != 0
            layer["inputs_by_unit"] = layer["inputs_transposed"] if copied else by_columns
            terms["address"] = (
                layer["slots"]["address"] + np.arange(len(terms)) * layer["slot_bytes"]
            )
            terms["row_stride"] = layer["slots"]["row_stride"]
            layer["terms"] = terms.ctypes.data
            layer["term_count"] = 1 if layer["by_outputs"] else len(terms)

    def _describe_shared(self, structure: Structure) -> None:
        shared = self.shared[0]
        shared["batch_size"] = self.batch_size
        shared["itemsize"] = self.dtype.itemsize
        shared["lanes"] = self.lanes
        shared["chunks"] = structure.chunks
        shared["input_code"] = INPUT_CODES[structure.input_dtype]
        shared["input_itemsize"] = structure.input_dtype.itemsize
        shared["input_row_bytes"] = structure.dense[0].input_units * structure.input_dtype.itemsize
        shared["record"] = self.shared.ctypes.data
        shared["layers"] = self.layers.ctypes.data
        shared["stages"] = self.stages.ctypes.data
        if len(self.stages):
            shared["forward_stages"] = stages.forward_stages.address(self.dtype, stages.STAGE)
            if self.training:
                shared["backward_stages"] = stages.backward_stages.address(self.dtype, stages.STAGE)
        if structure.sparse:
            shared["put_rows"] = forward.put_rows.address(self.dtype, SHARED)
            self._want(self.batch_size * int(shared["input_row_bytes"]), (shared, "dense_rows"))

    def _describe_input(self, units: int) -> None:
        """Write down how the input is loaded where it is a block of its own."""
        shared = self.shared[0]
        shared["load_input"] = stages.load_input.address(self.dtype, SHARED)
        shared["input_units"] = units

    def _describe_loss(
        self, structure: Structure, top: np.void, result: list[tuple[np.void, str]]
    ) -> None:
        """Write down what the loss reads and where its results go."""
        shared = self.shared[0]
        units = int(top["output_units"])
        shared["output_units"] = units
        self._want_rows(units, *result, (shared, "result"))
        if not self.training:
            return
        for name in ("labels", "predictions", "margins", "sums"):
            self._want(self.padded * 8, (shared, name))
        if self.layers["decay"].any():
            shared["add_penalties"] = backward.add_penalties.address(self.dtype, LAYER)
            self._want(8, (shared, "penalty"))
        compiled = losses.LOSSES[structure.loss]
        shared["smoothing"] = structure.label_smoothing
        general = structure.weighted or structure.label_smoothing != 0
        operation = compiled.general if general else compiled.operation
        if operation is not None:
            shared["loss"] = operation.address(self.dtype, SHARED)
            self._want_rows(units, (shared, "targets"))
            for name in ("batch_loss", "batch_correct", "batch_weight"):
                self._want(8, (shared, name))

    def _describe(self, layer: np.void, block: Block) -> None:
        """Write down the shape of a block and where the parameters of its Dense layer lie."""
        itemsize = self.dtype.itemsize
        dense = block.dense
        inputs = block.units if dense is None else dense.input_units
        layer["input_units"] = inputs
        layer["output_units"] = block.units
        if dense is not None:
            layer["weights"] = (
                dense.weights_offset * itemsize, dense.row_stride * itemsize, itemsize,
                dense.input_units, self._whole_vectors(block.units),
            )  # fmt: skip
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
            self._want_rows(block.units, *result, (stage, "source"))
            result = [(stage, "target")]
            stage["record"] = self.stages[number:].ctypes.data
            stage["units"] = block.units
            stage["itemsize"], stage["lanes"] = self.dtype.itemsize, self.lanes
            stage["learned"] = -1
            describe_stage: Any = getattr(self, f"_describe_{described.kind}")
            describe_stage(stage, described, number)
            if self._learned > 0:
                layer["lowest_stage"] = min(layer["lowest_stage"], number)
        return result

    def _call(self, stage: np.void, forward: Operation, backward: Operation) -> None:
        """Write down the operations of a stage."""
        stage["forward"] = forward.address(self.dtype, stages.STAGE)
        if self.training:
            stage["backward"] = backward.address(self.dtype, stages.STAGE)

    def _describe_elementwise(self, stage: np.void, described: Elementwise, number: int) -> None:
        self._call(stage, stages.elementwise_forward, stages.elementwise_backward)
        stage["function"] = elementwise.FORWARD[described.function].address(self.dtype)
        if self.training:
            stage["derivative"] = elementwise.BACKWARD[described.function].address(self.dtype)
        stage["from_output"] = described.from_output
        stage["constants"][: len(described.constants)] = described.constants

    def _describe_dropout(self, stage: np.void, described: Dropout, number: int) -> None:
        self._call(stage, stages.dropout_forward, stages.dropout_backward)
        self.dropouts.append(number)
        stage["factor"] = 1 / (1 - described.p)
        stage["threshold"] = round(described.p * 2**32)
        stage["key"] = np.uint64(described.key).view(np.int64)
        # whole blocks of the generator, and what the last vector reads beyond its row
        words = self.padded * stage["units"] + memory.LINE_BYTES
        stage["words"] = 0, stage["units"] * 4, 4, self.padded, stage["units"]
        self._want(words * 4, (stage, "words"))

    def _describe_batch_norm(self, stage: np.void, described: BatchNorm, number: int) -> None:
        itemsize = self.dtype.itemsize
        forward = stages.batch_norm_forward if self.training else stages.batch_norm_inference
        self._call(stage, forward, stages.batch_norm_backward)
        stage["learned"] = self._learned
        stage["momentum"], stage["epsilon"] = described.momentum, described.epsilon
        stage["scale"] = described.scale_offset * itemsize
        stage["shift"] = described.shift_offset * itemsize
        stage["running_mean"] = described.running_mean_offset * itemsize
        stage["running_variance"] = described.running_variance_offset * itemsize
        if self.training:
            for name in ("mean", "variance", "scale_gradient", "shift_gradient"):
                self._want(self._row_bytes(stage["units"]), (stage, name))
            # a vector of parameters is a row, so that ranges of columns can be moved
            shape = self.lanes * itemsize, itemsize, -(-stage["units"] // self.lanes), self.lanes
            stage["move"] = self._mover()
            for which, name in enumerate(("scale", "shift")):
                region = self._region(which, described.rule, (stage[name], *shape))
                stage[f"{name}_region"] = region
        self._learned += 1

    def _region(
        self,
        which: int,
        rule: Rule,
        parameters: Sequence[int],
        *asking: tuple[np.void, str],
        penalised: bool = False,
    ) -> int:
        """Describe region 0 or 1 of the next learned layer; return the address of its record.

        Where gradients are clipped, that of what collects the gradient. Who is `asking` has the
        squares of rows, of the gradient or, if they are `penalised`, of the weights before they
        move.
        """
        place = self._learned, which
        region = self.regions[place]
        region["kernel"] = RULES[rule.kind].kernel.address(self.dtype)
        region["parameters"] = tuple(parameters)
        for constant in ("beta1", "beta2", "epsilon"):
            region[constant] = getattr(rule, constant)
        address = int(self.regions[self._learned, which:].ctypes.data)
        squares = [(region, "squares")] if penalised else []
        if not self.clipping:
            if asking:
                self._want(8, *squares, *asking)
            return address
        collecting, part = self.collecting[place], self.parts[2 * self._learned + which]
        collecting["parameters"] = region["parameters"]
        part["region"], part["learned"] = address, self._learned
        part["place"] = part["whole"] = parameters[0]
        part["row_bytes"] = parameters[1]
        self._want(8, *squares, (part, "moved_squares"))
        if asking:
            self._want(8, (collecting, "squares"), *asking)
        return int(self.collecting[self._learned, which:].ctypes.data)

    def _mover(self) -> int:
        """Return the address of what is handed a gradient: it moves, or collects it."""
        to_call = clipping.collect if self.clipping else optimizers.move
        return to_call.address(self.dtype, optimizers.REGION)

    def _describe_clipping(self, structure: Structure) -> None:
        """Write down what the step ends with where gradients are clipped."""
        assert structure.collected is not None
        shared, first = self.shared[0], self.parts[0]
        shared["clip"] = clipping.clip.address(self.dtype, clipping.PART)
        self.collecting["collected"] = structure.collected.ctypes.data
        first["parts"], first["chunks"] = len(self.parts), shared["chunks"]
        first["collected"] = structure.collected.ctypes.data
        first["clip_norm"] = self._clip_norm.ctypes.data
        first["move"] = optimizers.move.address(self.dtype, optimizers.REGION)
        first["vector_bytes"] = shared["lanes"] * shared["itemsize"]
        self._want(8, (first, "squares_of_vector"))
        widest = max(memory.LINE_BYTES, int(self.parts["row_bytes"].max()))
        self._want(optimizers.ROWS_AT_ONCE * widest, (first, "scaled"))
        share_parts(self.parts, self.owners, self.layers, self.dtype.itemsize)

    def _describe_step(self, layer: np.void, dense: Dense) -> None:
        """Write down how the parameters of a Dense layer are moved, and how many rows at a time."""
        rule, units = dense.rule, dense.output_units
        layer["learned"] = self._learned
        layer["rows_at_once"] = dense.input_units
        if dense.by_plain_sgd and not self.clipping:
            return
        layer["move"] = self._mover()
        layer["rows_at_once"] = optimizers.ROWS_AT_ONCE
        self._want_rows(units, (layer, "gradient_rows"), rows=optimizers.ROWS_AT_ONCE)
        weights, stride, itemsize, rows, _ = layer["weights"]
        layer["biases_region"] = self._region(
            1, rule, (layer["biases"], stride, itemsize, 1, units)
        )
        layer["weights_region"] = self._region(
            0, rule, (weights, stride, itemsize, rows, units), (layer, "squares_of_rows"),
            penalised=dense.l2 != 0,
        )  # fmt: skip
        self.regions["shrinks"][self._learned, 0] = True
        squares, penalty_squares = (layer, "squares"), (layer, "penalty_squares")
        nbytes = self.shared["chunks"][0] * 8
        if self.clipping:
            part = self.parts[2 * self._learned]
            part["chunk_units"] = layer["chunk_units"]
            self._want(nbytes, squares, (part, "squares"))
            self._want(nbytes, penalty_squares, (part, "penalty_squares"))
        else:
            self._want(nbytes, squares, penalty_squares)
        if dense.l2 != 0:
            decays = (self.collecting if self.clipping else self.regions)["decay"][self._learned]
            decays[0] = 2 * dense.l2
            layer["decay"] = decays.ctypes.data

    def _multiplies_in_place(self, layer: np.void, structure: Structure) -> bool:
        """Say whether the first layer multiplies samples as they lie, dense and in its own type.

        For a wide layer they are read again and again, and what lies together is sooner read.
        """
        vectors = self._whole_vectors(int(layer["output_units"])) // self.lanes
        passes = -(-vectors // MACHINE.tile_columns)
        return bool(
            layer["forward_by"] == layer["update_by"] == EVERY_NUMBER
            and structure.input_dtype == self.dtype
            and structure.scale == 1
            and not structure.sparse
            and int(self.shared["input_row_bytes"][0]) * self.batch_size * passes <= IN_PLACE_BYTES
        )

    def _wants_copy(self, layer: np.void) -> bool:
        """Say whether a hidden layer has a transposed copy of its inputs, too.

        The gradient is masked by it where it comes out of a product, transposed. And in a pass that
        goes back and updates, a gradient that fills the first-level cache would push out of it what
        is read by columns.
        """
        if layer["gradient_by"] == WITH_UPDATE and layer["update_by"] == BY_UNIT:
            return self.padded * self._row_bytes(int(layer["output_units"])) > CACHED_BYTES
        return bool(layer["mask_inputs"] and layer["gradient_by"] == BY_COLUMNS)

    def _lay_out(self, layer: np.void, first: bool, in_place: bool, starts: np.ndarray) -> None:
        """Say which buffers a Dense layer needs, and how large they are.

        `starts` says where its chunks of input units begin.
        """
        itemsize = self.dtype.itemsize
        units, outputs = int(layer["input_units"]), int(layer["output_units"])
        ways = {int(layer["forward_by"])}
        if self.training:
            ways.add(int(layer["update_by"]))

        if in_place:
            self._want(2 * self.batch_size * 8, (layer, "sources"))
            layer["multiply_samples"] = MULTIPLY_SAMPLES.address(self.dtype)
            if self.training:
                turned = MULTIPLY_SAMPLES_TURNED.address(self.dtype)
                layer["multiply_samples_turned"] = turned
        elif first and layer["forward_by"] != IN_PAIRS:
            self._want_rows(units, (layer, "inputs"))
        if self.training and self._wants_copy(layer):
            self._want_transposed(units, (layer, "inputs_transposed"))
        # sets of bits lie word by word, so that those of a group are side by side to be turned
        groups, words = -(-self.padded // GROUP_SAMPLES), int(layer["chunk_words"])
        if ways & {BY_UNIT, BY_SAMPLE}:
            self._want_columns(
                GROUP_SAMPLES * groups, words * int(self.shared["chunks"][0]),
                (layer, "bits_by_sample"),
            )  # fmt: skip
        if BY_UNIT in ways:  # whole words of the last chunk
            self._want_columns(int(starts[:-1].max()) + 64 * words, groups, (layer, "bits_by_unit"))

        if ONE_SAMPLE in ways:
            operation = one_sample.update_and_multiply
            layer["update_and_multiply"] = operation.address(self.dtype, LAYER)
            self._want_rows(units, (layer, "waiting"), rows=1)
            self._want(itemsize, (layer, "waiting_factor"))
        if IN_PAIRS in ways:
            self._lay_out_pairs(layer)
            if first:
                self._lay_out_samples_in_pairs()
        if layer["round_inputs"]:
            self._want_rows(outputs, (layer, "rounded_weights"), rows=self._whole_vectors(units))

    def _want_slots(self, layer: np.void, count: int) -> None:
        """Ask for slots, one after the other."""
        units = int(layer["output_units"])
        layer["slot_bytes"] = self.padded * self._row_bytes(units)
        self._want_rows(units, (layer, "slots"), rows=count * self.padded)

    def _lay_out_pairs(self, layer: np.void) -> None:
        """Say which copies in bfloat16 a Dense layer needs, and by what it multiplies them."""
        for name in (
            "multiply_in_pairs", "input_gradient_in_pairs", "gradient_in_pairs", "pack_weights"
        ):  # fmt: skip
            layer[name] = getattr(in_pairs, name).address(self.dtype, LAYER)
        units, outputs = int(layer["input_units"]), int(layer["output_units"])

        def want(name: str, rows: int, words: int) -> None:
            self._want_rows(words, (layer, name), rows=rows)

        def half(count: int) -> int:
            """Return the words of a row: whole vectors of float32 in twos, as they are packed."""
            return memory.round_up(count, 2 * self.lanes) // 2

        want("packed_inputs", self.padded, half(units))
        want("paired_weights", self._whole_vectors(units) // 2, outputs)
        if not self.training:
            return
        want("paired_inputs", self.padded // 2, units)
        want("paired_gradient", self.padded // 2, outputs)
        if layer["gradient_by"] == BY_PAIRS:
            want("packed_weights", self._whole_vectors(units), half(outputs))
            want("packed_gradient", self.padded, half(outputs))
            want("turned_weights", half(outputs), units)

    def _lay_out_samples_in_pairs(self) -> None:
        """Say what samples need that are packed as they are loaded, and by what they are."""
        shared = self.shared[0]
        shared["load_in_pairs"] = in_pairs.load_in_pairs.address(self.dtype, SHARED)
        # what makes up a pair, and what follows the last units of a sample
        self._want(int(shared["input_row_bytes"]), (shared, "zeros"))
        shared["tail_stride"] = self.lanes * shared["input_itemsize"]
        self._want(2 * int(shared["tail_stride"]), (shared, "tails"))

    def _want_gradient(self, layer: np.void, is_top: bool) -> None:
        """Ask for the buffers of a block's gradient, and of the same transposed."""
        asking = [(self.stages[number], "gradient") for number in _stages_of(layer)]
        if is_top:
            asking.append((self.shared[0], "result_gradient"))
        units = int(layer["output_units"])
        if layer["round_gradient"]:
            self._want_rows(units, (layer, "multiplied_gradient"))
        else:
            asking.append((layer, "multiplied_gradient"))
        self._want_rows(units, (layer, "gradient"), *asking)
        self._want_transposed(units, (layer, "gradient_transposed"))

    def _want_rows(self, units: int, *fields: tuple[np.void, str], rows: int | None = None) -> None:
        """Ask for a matrix, [rows or samples, units], that fields share."""
        rows = self.padded if rows is None else rows
        self._want_matrix(rows, self._whole_vectors(units), self._row_bytes(units), *fields)

    def _want_transposed(self, units: int, *fields: tuple[np.void, str]) -> None:
        """Ask for a matrix, [units, samples], that fields share."""
        rows = self._whole_vectors(units)
        self._want_matrix(rows, self.padded, self._row_bytes(self.padded), *fields)

    def _want_matrix(
        self, rows: int, columns: int, stride: int, *fields: tuple[np.void, str]
    ) -> None:
        """Ask for a matrix of rows that lie `stride` bytes apart."""
        for record, name in fields:
            record[name] = 0, stride, self.dtype.itemsize, rows, columns
        self._want(rows * stride, *fields)

    def _want_columns(self, rows: int, columns: int, field: tuple[np.void, str]) -> None:
        """Ask for a matrix of 64-bit words that lie column by column."""
        record, name = field
        record[name] = 0, 8, 8 * rows, rows, columns
        self._want(8 * rows * columns, field)

    def _whole_vectors(self, units: int) -> int:
        return memory.round_up(units, self.lanes)

    def _row_bytes(self, units: int) -> int:
        return memory.row_stride(units, self.dtype) * self.dtype.itemsize

    def _want(self, nbytes: int, *fields: tuple[np.void, str]) -> None:
        self._buffers.append((memory.round_up(int(nbytes), memory.LINE_BYTES), list(fields)))

    def _allocate(self) -> None:
        """Lay all buffers end to end in one workspace and write their addresses."""
        total = sum(nbytes + GAP_BYTES for nbytes, _ in self._buffers)
        self.workspace = memory.aligned_zeros(total, np.dtype(np.uint8))
        address = self.workspace.ctypes.data
        for nbytes, fields in self._buffers:
            for record, name in fields:
                if record.dtype[name] == MATRIX:
                    record[name]["address"] = address
                else:
                    record[name] = address
            address += nbytes + GAP_BYTES
        if guards.CHECKED:
            self.workspace[:] = guards.CANARY
            for part in self.workspace_parts():
                self._bytes_of(part)[:] = 0
            self.fill(guards.FILL)

    # what the checked build and its tests ask for

    def workspace_parts(self) -> list[Range]:
        """Return where each part of the workspace lies, by the name of who asked for it first."""
        records = {
            "shared": self.shared, "layer": self.layers, "stage": self.stages,
            "region": self.regions, "collecting": self.collecting, "part": self.parts,
        }  # fmt: skip

        def owner(record: np.void) -> str:
            # its own __array_interface__ lists its fields, which takes sixty times as long
            place = np.frombuffer(record, np.uint8).ctypes.data
            for name, array in records.items():
                number, rest = divmod(place - array.ctypes.data, array.itemsize)
                if 0 <= number < array.size and rest == 0:
                    return f"{name} {number}"
            raise AssertionError("a record that is in no table")

        address, parts = self.workspace.ctypes.data, []
        for nbytes, fields in self._buffers:
            record, field = fields[0]
            whose, writeable = f"{field!r} of {owner(record)}", field not in READ_ONLY
            parts.append(Range(address, address + nbytes, whose, writeable))
            address += nbytes + GAP_BYTES
        return parts

    def ranges(self) -> list[Range]:
        """Return what kernels may touch of what the table has, or points to by itself."""
        arrays = {
            "regions": self.regions, "collecting": self.collecting, "starts": self.starts,
            "clip_norm": self._clip_norm, "terms": self._terms,
        }  # fmt: skip
        read = [Range.of(array, name, writeable=False) for name, array in arrays.items()]
        return [*self.workspace_parts(), *read]

    def fill(self, value: str) -> None:
        """Fill the workspace with one of `guards.FILLS`, but for what has to be zero."""
        for part, (_, fields) in zip(self.workspace_parts(), self._buffers, strict=True):
            if not ZEROED.intersection(name for _, name in fields):
                guards.fill(self._bytes_of(part).view(self.dtype), value)

    def check_canaries(self) -> None:
        """Raise `OutOfBoundsError` if anything between the parts of the workspace has changed."""
        for part in self.workspace_parts():
            end = part.end - self.workspace.ctypes.data
            if (self.workspace[end : end + GAP_BYTES] != guards.CANARY).any():
                raise guards.OutOfBoundsError(
                    f"workspace: somebody has written behind the end of {part.name}"
                )

    def _bytes_of(self, part: Range) -> np.ndarray:
        """Return a part of the workspace."""
        start = self.workspace.ctypes.data
        return self.workspace[part.begin - start : part.end - start]


def share_parts(
    parts: np.ndarray, owners: Sequence[tuple[int, str]], layers: np.ndarray, itemsize: int
) -> None:
    """Write into the PARTs what belongs to the thread of which the records of the layers are."""
    for part, (number, kind) in zip(parts, owners, strict=True):
        layer = layers[number]
        if kind == "weights":
            part["first_chunk"], part["stop_chunk"] = layer["first_chunk"], layer["stop_chunk"]
            continue
        first, stop = int(layer["first_column"]), int(layer["stop_column"])
        part["first_chunk"], part["stop_chunk"] = 0, stop > first
        part["whole_numbers"] = memory.round_up(int(layer["output_units"]), lanes(itemsize))
        if kind == "biases":
            part["place"] = part["whole"] + first * itemsize
            part["row_bytes"] = (stop - first) * itemsize
            part["first_row"], part["stop_row"] = 0, 1
        else:
            width = lanes(itemsize)
            part["first_row"], part["stop_row"] = first // width, stop // width
    layers[0]["parts_to_clip"] = parts.ctypes.data


def _stages_of(layer: np.void) -> range:
    """Return the numbers of a block's stages."""
    return range(layer["first_stage"], layer["stop_stage"])


def sparse_below(bfloat16: bool) -> float:
    """Return the share of non-zeros below which the first layer skips zeros."""
    return SPARSE_BELOW_IN_BFLOAT16 if bfloat16 else SPARSE_BELOW


def choose_kernels(
    layer: np.void, dtype: np.dtype, batch_size: int, first: bool, density: float, may_wait: bool,
    chunk: int,
) -> None:  # fmt: skip
    """Decide how a layer multiplies, and how its work is cut.

    `density` is the share of non-zeros expected among the layer's inputs; `may_wait` says that
    nothing but the next sample's product needs the update of the layer's weights; `chunk` is how
    many input units the largest chunk has.
    """
    width = lanes(dtype.itemsize)
    vectors = -(-int(layer["output_units"]) // width)
    if batch_size == 1 and may_wait and density >= WAITING_FROM:
        layer["forward_by"] = layer["update_by"] = ONE_SAMPLE
    elif batch_size <= FEW_SAMPLES:  # nothing is transposed
        layer["forward_by"] = layer["update_by"] = BY_SAMPLE
    elif density >= sparse_below(False):
        layer["forward_by"] = layer["update_by"] = EVERY_NUMBER
    elif first:
        few_samples = batch_size <= min(SAMPLES_ALONE, SAMPLES_A_VECTOR * vectors)
        layer["forward_by"] = BY_SAMPLE if few_samples else BY_UNIT
        layer["update_by"] = BY_UNIT
    elif vectors >= NARROW_VECTORS:
        layer["forward_by"], layer["update_by"] = BY_SAMPLE, BY_UNIT
    else:
        layer["forward_by"] = layer["update_by"] = EVERY_NUMBER
    # vectors along output units end with adding up their lanes, vectors of samples are padded
    by_rows = batch_size * (vectors + width.bit_length())
    padded = memory.round_up(batch_size, width)
    by_columns = padded // width * (int(layer["output_units"]) + TRANSPOSING)
    layer["gradient_by"] = BY_ROWS if by_rows < by_columns else BY_COLUMNS

    samples = min(batch_size, GROUP_SAMPLES)
    # rows of the weights that come again with the next sample
    units = min(chunk, 64) if batch_size > FEW_SAMPLES else 1
    layer["scatter_tile"] = width * tile_width(
        vectors, samples if first else 64, MACHINE.scatter_vectors
    )
    tile = tile_width(vectors, units, MACHINE.gather_vectors)
    layer["gather_tile"] = width * tile
    # two words at once, if so many rows fit the cache but for those of pixels that are never lit
    room = CACHED_BYTES * 5 // 4
    fits = 128 * tile * VECTOR_BYTES <= room
    layer["gather_units"] = 128 if first and fits else 64
    # all columns of a row after each other, if the gradient stays in the cache meanwhile
    tiles = -(-vectors // MACHINE.backward_vectors)
    stays = samples * vectors * VECTOR_BYTES <= CACHED_BYTES
    layer["backward_tile"] = width * (vectors if stays else -(-vectors // tiles))
    # neighbouring pixels are active together, neighbouring hidden units are not
    layer["update_rows"] = 2 if first else 1
    registers = MACHINE.scatter_vectors if first else MACHINE.gather_vectors
    layer["update_tile"] = width * tile_width(vectors, samples, registers)
    if layer["weights"]["row_stride"] > PAGE_BYTES:
        layer["rows_ahead"] = ROWS_AHEAD


def is_shared_by_outputs(layer: np.void) -> bool:
    """Say whether a team shares the first layer, which plain SGD moves, by its outputs.

    Each member has all units of the samples then, and some columns of the weights: so nobody sends
    anything, and nothing is added up. To load all units pays if there is much to do with each.
    """
    by_columns = layer["forward_by"] == layer["update_by"] == EVERY_NUMBER
    return bool(by_columns and layer["output_units"] >= OUTPUTS_TO_SHARE)


def choose_for_bfloat16(layer: np.void, first: bool, density: float) -> None:
    """Decide how a layer multiplies numbers that are rounded to bfloat16.

    In pairs, zeros and all, but where so much of the input is zero that to skip it is faster.
    """
    if first and layer["update_by"] == BY_UNIT and density < sparse_below(True):
        for name in ("round_inputs", "round_weights", "round_gradient"):
            layer[name] = getattr(rounding, name).address(np.dtype(np.float32), LAYER)
    else:
        layer["forward_by"] = layer["update_by"] = IN_PAIRS
        layer["gradient_by"] = BY_PAIRS


def in_one_pass(layer: np.void, padded: int, width: int) -> bool:
    """Say whether a layer's update and input gradient are one pass over its weights.

    Both walk over the rows of W then, each over the samples in which its unit is active, of which
    one word has the bits; or there are so few outputs that W is transposed in registers.
    """
    if not layer["mask_inputs"]:
        return False
    few = int(layer["output_units"]) <= min(MACHINE.backward_vectors, width)
    by_columns = layer["update_by"] == EVERY_NUMBER and layer["gradient_by"] == BY_COLUMNS
    one_word = layer["update_by"] == BY_UNIT and padded <= GROUP_SAMPLES
    return bool(one_word or (few and by_columns))


def tile_width(vectors: int, rows: int, registers: int) -> int:
    """Return how many vectors of a row the kernels that skip zeros take at a time.

    One row of a tile stays in registers and `rows` rows of it in the first-level cache. A matrix
    that fits both isn't cut; others are cut into tiles as equal as can be.
    """
    if vectors <= registers and rows * vectors * VECTOR_BYTES <= CACHED_BYTES:
        return vectors
    most = min(registers, CACHED_BYTES // (64 * VECTOR_BYTES))
    tiles = -(-vectors // most)
    return -(-vectors // tiles)
