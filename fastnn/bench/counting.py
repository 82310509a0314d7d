"""What each part of a training step has to do, counted from the table of the network.

The table says which kernels a layer uses and how large its operands are; the sets of bits in its
workspace say what is not zero in the batch that came last. From these follow the vectors that each
kernel multiplies, loads and stores, and the bytes that come from each level of memory.

Where bytes come from is a model: an operand is in the first cache that holds all that has been
touched since it was touched last, from part to part and from step to step. Lines that drive each
other out although there is room, and what the processor fetches ahead, it doesn't know.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnn import memory
from fastnn.backends.numba_backend.epoch.backward import leaves_transposed
from fastnn.backends.numba_backend.epoch.records import (
    BY_COLUMNS,
    BY_ROWS,
    BY_SAMPLE,
    BY_UNIT,
    EVERY_NUMBER,
    GROUP_SAMPLES,
    NO_GRADIENT,
    ONE_SAMPLE,
    WITH_UPDATE,
)
from fastnn.backends.numba_backend.machine import MACHINE, VECTOR_BYTES
from fastnn.bench.anatomy import COUNTED, Counts

WORD = GROUP_SAMPLES
"""Samples that a word has bits of, or units."""


@dataclass
class Touch:
    """An operand of a part: what names it, how much of it is touched, and what once more.

    `again` bytes come back after `span` others, within the part.
    """

    operand: tuple[str, int]
    nbytes: float
    again: float = 0.0
    span: float = 0.0


@dataclass(frozen=True)
class Work(Counts):
    """What a part of a step does, and which operands it touches, in their order."""

    touched: list[Touch] = field(default_factory=list)

    def __add__(self, other: Work) -> Work:
        sums = (getattr(self, name) + getattr(other, name) for name in (*COUNTED, "touched"))
        return Work(*sums)


def passes(loads: float = 0.0, stores: float = 0.0) -> Work:
    """Return the work of moving so many vectors."""
    return Work(loads=loads, stores=stores)


def product(rows: int, inner: int, vectors: int, keep: bool) -> Work:
    """Return the work of `matmul` for [rows, inner] times [inner, vectors], without its operands.

    As `write_product` cuts it: tiles of rows of full height, then of half of it, down to one.
    """
    blocks = max(1, -(-inner // MACHINE.block_inner))
    tiles, height, left = 0, MACHINE.tile_rows, rows
    while height:
        count, left = divmod(left, height)
        tiles, height = tiles + count, height // 2
    columns = -(-vectors // MACHINE.tile_columns)
    ends = rows * vectors * (blocks if keep else blocks - 1)
    return Work(
        multiply_adds=rows * vectors * inner + ends,
        loads=inner * (rows * columns + tiles * vectors) + ends,
        stores=rows * vectors * blocks,
    )


def operand(matrix: np.void, space: str = "") -> tuple[str, int]:
    """Return what names the memory of a matrix; of parameters, `space` says whose they are."""
    return space, int(matrix["address"])


def numbers(matrix: np.void, dtype: Any, rows: int | None = None) -> np.ndarray:
    """Return a matrix of the workspace, [rows, columns], as an array."""
    address, row_stride, column_stride, all_rows, columns = (int(x) for x in matrix.item())
    rows = all_rows if rows is None else rows
    nbytes = max((rows - 1) * row_stride + columns * column_stride, 0)
    room = (ctypes.c_char * nbytes).from_address(address)
    flat: Any = np.frombuffer(memoryview(room).cast("B"), np.uint8)
    strides = row_stride, column_stride
    return np.ndarray((rows, columns), dtype, flat, strides=strides)


def visits(words: np.ndarray, rows_at_once: int) -> int:
    """Return how many bits are set in sets of bits, or in those of as many rows joined."""
    return int.from_bytes(joined(words, rows_at_once).tobytes(), "little").bit_count()


def joined(words: np.ndarray, rows_at_once: int) -> np.ndarray:
    """Return sets of bits as kernels take them, single rows or two together."""
    return words if rows_at_once == 1 else words[0::2] | words[1::2]


class Counted:
    """The parts of a step of one thread.

    Parameters
    ----------
    shared, layers
        Records of the table, the layers' as they are shared out to this thread. None of them
        multiplies in bfloat16.
    """

    def __init__(self, shared: np.void, layers: np.ndarray) -> None:
        self.shared, self.layers = shared, layers.view(np.recarray)
        self.count = int(shared["batch_size"])
        self.padded = memory.round_up(self.count, int(shared["lanes"]))
        self.itemsize, self.lanes = int(shared["itemsize"]), int(shared["lanes"])
        self.dtype = np.dtype(f"f{self.itemsize}")

    def parts(self) -> list[tuple[int, str, Work]]:
        """Return number of the layer, name and work of each part, in the order of the step."""
        found = [part for number in range(len(self.layers)) for part in self._forward(number)]
        top = self.layers[-1]
        size = self.padded * self._vectors(top["output_units"])
        gradient = Touch(operand(self.shared["result_gradient"]), size * VECTOR_BYTES)
        result = Touch(operand(self.shared["result"]), size * VECTOR_BYTES)
        found.append((len(self.layers) - 1, "loss", Work(touched=[result, gradient])))
        for number in reversed(range(len(self.layers))):
            found += self._backward(number)
        return found

    # what a layer's record says

    def _vectors(self, units: Any) -> int:
        return -(-int(units) // self.lanes)

    def _units(self, layer: np.void) -> int:
        """Own input units, padded to whole vectors."""
        return int(layer["stop_unit"] - layer["first_unit"])

    def _columns(self, layer: np.void) -> int:
        """Vectors of own columns."""
        return self._vectors(layer["stop_column"] - layer["first_column"])

    def _chunks(self, layer: np.void) -> list[tuple[int, int]]:
        """First and last unit of own chunks."""
        first, stop = int(layer["first_chunk"]), int(layer["stop_chunk"])
        starts = (ctypes.c_int64 * (stop + 1)).from_address(int(layer["chunk_units"]))
        return [(starts[chunk], starts[chunk + 1]) for chunk in range(first, stop)]

    def _rows(self, layer: np.void) -> int:
        """Own input units that there are."""
        return sum(last - first for first, last in self._chunks(layer))

    def _bits_by_unit(self, layer: np.void) -> np.ndarray:
        words = numbers(layer["bits_by_unit"], np.uint64)
        return words[int(layer["first_unit"]) : int(layer["stop_unit"])]

    def _bits_by_sample(self, layer: np.void) -> np.ndarray:
        words = numbers(layer["bits_by_sample"], np.uint64, self.count)
        each = int(layer["chunk_words"])
        found = []
        for chunk, (first, last) in zip(
            range(int(layer["first_chunk"]), int(layer["stop_chunk"])),
            self._chunks(layer), strict=True,
        ):  # fmt: skip
            found.append(words[:, chunk * each : chunk * each - (-(last - first) // WORD)])
        return np.concatenate(found, axis=1)

    def nonzero(self, layer: np.void) -> int:
        """Return how many of a layer's own inputs are not zero in the batch that came last."""
        ways = layer["forward_by"], layer["update_by"]
        if BY_UNIT in ways:
            return visits(self._bits_by_unit(layer), 1)
        if BY_SAMPLE in ways:
            return visits(self._bits_by_sample(layer), 1)
        rows = layer["waiting"] if ONE_SAMPLE in ways else layer["inputs"]
        first = int(layer["first_unit"])
        if layer["sources"] != 0:
            places = (ctypes.c_int64 * self.count).from_address(int(layer["sources"]))
            nbytes = self._rows(layer) * self.itemsize
            return sum(
                int(np.count_nonzero(np.frombuffer(ctypes.string_at(place, nbytes), self.dtype)))
                for place in (place + first * self.itemsize for place in places)
            )
        inputs = numbers(rows, self.dtype, self.count)
        return int(np.count_nonzero(inputs[:, first : first + self._rows(layer)]))

    def _own_outputs(self, layer: np.void) -> int:
        """Outputs by which this thread multiplies its units: of some layers own columns alone."""
        outputs = int(layer["output_units"])
        if layer["by_outputs"]:
            return max(min(int(layer["stop_column"]), outputs) - int(layer["first_column"]), 0)
        return outputs

    def _asked(self, layer: np.void, work: Work) -> Work:
        """Add what the mathematics of one product asks for."""
        outputs = self._own_outputs(layer)
        return work + Work(
            dense=self.count * self._rows(layer) * outputs,
            nonzero=self.nonzero(layer) * outputs,
        )

    def _weights(self, layer: np.void, again: float = 0.0, span: float = 0.0) -> Touch:
        nbytes = self._rows(layer) * self._vectors(self._own_outputs(layer)) * VECTOR_BYTES
        return Touch(operand(layer["weights"], "parameters"), nbytes, again * nbytes, span)

    def _inputs(self, layer: np.void, again: float = 0.0, span: float = 0.0) -> Touch:
        nbytes = self.count * self._units(layer) * self.itemsize
        return Touch(operand(layer["inputs"]), nbytes, again * nbytes, span)

    def _inputs_there(self, layer: np.void) -> list[Touch]:
        """Inputs of the forward product, of the samples that it may read as they lie."""
        inputs = self._inputs(layer)
        if layer["sources"] == 0:
            return [inputs]
        # from wherever all samples are; in the update they are those of this batch
        return [Touch(("samples", 0), inputs.nbytes), Touch(inputs.operand, 0.0)]

    def _outputs(self, layer: np.void, name: str, again: float = 0.0, span: float = 0.0) -> Touch:
        """A matrix of samples and outputs: slots, outputs or gradient."""
        nbytes = self.count * self._vectors(layer["output_units"]) * VECTOR_BYTES
        return Touch(operand(layer[name]), nbytes, again * nbytes, span)

    # forward

    def _forward(self, number: int) -> Iterator[tuple[int, str, Work]]:
        layer = self.layers[number]
        if layer["weights"]["rows"] == 0:  # the input itself
            yield number, "load", Work()
            yield number, "stages", Work()
            return
        if number == 0:
            yield number, "load", self._load(layer)
        elif layer["inputs_transposed"]["address"] != 0:
            moved = self.padded * self._vectors(self._units(layer))
            touched = [self._inputs(layer), self._transposed(layer)]
            yield number, "prepare", passes(moved, moved) + Work(touched=touched)
        yield number, "prepare", self._find_nonzeros(layer, number == 0)
        # a batch of one multiplies after the update that has waited for it
        asked = self._twice if layer["forward_by"] == ONE_SAMPLE else self._asked
        yield number, "forward", asked(layer, self._multiply(layer))
        yield number, "meeting", Work()
        vectors, terms = self.count * self._columns(layer), int(layer["term_count"])
        read = [self._slot(layer, term, vectors) for term in range(terms)]
        written = Touch(operand(layer["outputs"]), vectors * VECTOR_BYTES)
        added = passes((terms + 1) * vectors, vectors)
        yield number, "activation", added + Work(touched=[*read, written])
        yield number, "stages", Work()

    def _slot(self, layer: np.void, number: int, vectors: int) -> Touch:
        name = f"slot {number}", int(layer["slots"]["address"])
        return Touch(name, vectors * VECTOR_BYTES)

    def _load(self, layer: np.void) -> Work:
        if layer["sources"] != 0:  # nothing but addresses
            return Work()
        each = int(self.shared["input_itemsize"])
        read = Touch(("samples", 0), self.count * self._rows(layer) * each)
        vectors = self.count * self._vectors(self._units(layer))
        work = passes(vectors, vectors) + Work(touched=[read, self._inputs(layer)])
        if layer["bits_by_sample"]["address"] != 0:
            work += passes(0, self.count * self._words(layer)) + self._turn(layer)
        return work

    def _words(self, layer: np.void) -> int:
        """How many words the set of a sample's own units takes."""
        return sum(-(-(last - first) // WORD) for first, last in self._chunks(layer))

    def _turn(self, layer: np.void) -> Work:
        if layer["bits_by_unit"]["address"] == 0:
            return Work()
        vectors = self._groups() * self._words(layer) * (WORD * 8 // VECTOR_BYTES)
        return passes(vectors, vectors)

    def _transposed(self, layer: np.void) -> Touch:
        return Touch(
            operand(layer["inputs_transposed"]), self.padded * self._units(layer) * self.itemsize
        )

    def _find_nonzeros(self, layer: np.void, first: bool) -> Work:
        if first or layer["bits_by_sample"]["address"] == 0:
            return Work()  # those of the first layer are found as samples are loaded
        work = passes(
            self.count * self._vectors(self._units(layer)), self.count * self._words(layer)
        )
        return work + self._turn(layer)

    def _multiply(self, layer: np.void) -> Work:
        vectors, way = self._vectors(self._own_outputs(layer)), int(layer["forward_by"])
        weights = self._rows(layer) * vectors
        lengths = [last - first for first, last in self._chunks(layer)]
        chunks = [length for length in lengths if length > 0]
        slots = [self._slot(layer, number, self.count * vectors) for number in range(len(lengths))]
        if way == BY_UNIT:
            tile = int(layer["scatter_tile"]) // self.lanes
            union = visits(self._bits_by_unit(layer), 2)
            tiles = -(-vectors // tile)
            work = Work(
                multiply_adds=2 * union * vectors,
                loads=union * (2 * tiles + vectors) + weights * self._groups(),
                stores=union * vectors + self.count * vectors * len(lengths),
            )
            return work + Work(touched=[self._inputs(layer), self._weights(layer), *slots])
        # slots of empty chunks
        cleared = (len(lengths) - len(chunks)) * self.count * vectors
        if way == BY_SAMPLE:
            tiles = -(-vectors // (int(layer["gather_tile"]) // self.lanes))
            found = visits(self._bits_by_sample(layer), 1)
            words = self.count * sum(-(-units // int(layer["gather_units"])) for units in chunks)
            ends = (words - self.count * len(chunks)) * vectors
            work = Work(
                multiply_adds=found * vectors + ends,
                loads=found * (tiles + vectors) + ends,
                stores=words * vectors + cleared,
            )
            return work + Work(touched=[self._inputs(layer), self._weights(layer), *slots])
        if way == ONE_SAMPLE:
            tiles = -(-vectors // (int(layer["scatter_tile"]) // self.lanes))
            work = Work(
                multiply_adds=2 * weights,
                loads=weights + 2 * self._rows(layer) * tiles,
                stores=weights,
            )
            return work + Work(touched=[self._weights(layer)])
        work = Work(stores=cleared, touched=[*self._inputs_there(layer), *slots])
        for units in chunks:
            work += product(self.count, units, vectors, False)
        # each strip of rows reads a panel of the weights once more
        panel = min(max(lengths), MACHINE.block_inner) * MACHINE.block_columns * VECTOR_BYTES
        strips = -(-self.count // MACHINE.tile_rows)
        return work + Work(touched=[self._weights(layer, strips - 1, panel)])

    def _groups(self) -> int:
        return -(-self.count // GROUP_SAMPLES)

    # backward

    def _backward(self, number: int) -> Iterator[tuple[int, str, Work]]:
        layer = self.layers[number]
        yield number, "stages", Work()
        if layer["weights"]["rows"] == 0:
            return
        columns, way = self._columns(layer), int(layer["gradient_by"])
        if layer["mask_gradient"]:
            yield number, "mask", passes(2 * self.count * columns, self.count * columns)
        if way != NO_GRADIENT:
            yield from self._input_gradient(number, layer, way)
        if way != WITH_UPDATE and layer["update_by"] != ONE_SAMPLE:
            yield number, "update", self._asked(layer, self._update(layer))
            if layer["move"] != 0:
                moved = self._rows(layer) * self._vectors(layer["output_units"])
                work = passes(2 * moved, moved) + Work(touched=[self._weights(layer)])
                yield number, "optimizer", work
        work = passes(self.padded * columns + columns, columns)
        yield number, "biases", work + Work(touched=[self._outputs(layer, "gradient")])

    def _input_gradient(
        self, number: int, layer: np.void, way: int
    ) -> Iterator[tuple[int, str, Work]]:
        below = self.layers[number - 1]
        units, outputs = self._units(layer), int(layer["output_units"])
        across, along = self._vectors(units), self._vectors(self.padded)
        vectors = self._vectors(outputs)
        turned = Touch(operand(below["gradient"]), self.padded * units * self.itemsize)
        G = self._outputs(layer, "gradient")
        if way == BY_COLUMNS:
            above = self.layers[number + 1 :]
            done = len(above) > 0 and leaves_transposed.function(above[0], layer)
            moved = self.padded * (vectors - self._columns(layer) if done else vectors)
            if moved > 0:
                yield number, "turn", passes(moved, moved) + Work(touched=[G])
            work = product(units, outputs, along, False)
            work += Work(touched=[self._weights(layer), G])
            yield number, "input gradient", self._asked(layer, work)
            if layer["mask_inputs"]:
                yield number, "mask", passes(2 * units * along, units * along)
            yield number, "turn", passes(units * along, units * along) + Work(touched=[turned])
        elif way == BY_ROWS:
            work = Work(
                multiply_adds=self.count * units * vectors,
                loads=self.count * across * vectors * (1 + self.lanes),
                stores=self.count * across,
            )
            work += Work(touched=[self._weights(layer), G, turned])
            yield number, "input gradient", self._asked(layer, work)
            if layer["mask_inputs"]:
                yield number, "mask", passes(2 * self.count * across, self.count * across)
        elif layer["update_by"] == EVERY_NUMBER:  # few outputs
            work = Work(
                multiply_adds=2 * self.count * across * outputs + units * vectors,
                loads=across * self.count * (1 + outputs) + 2 * units * vectors,
                stores=across * self.count + units * vectors,
            )
            touched = [self._weights(layer), G, self._inputs(layer), turned]
            yield number, "backward", self._twice(layer, work) + Work(touched=touched)
        else:
            tiles = -(-vectors // MACHINE.backward_vectors)
            calls = -(-vectors // (int(layer["backward_tile"]) // self.lanes))
            found = visits(self._bits_by_unit(layer), 1)
            work = Work(
                multiply_adds=2 * found * vectors + units * vectors,
                loads=found * (vectors + 2 * tiles) + units * (vectors + self.padded * calls),
                stores=found * tiles + units * (vectors + along * calls),
            )
            copied = layer["inputs_transposed"]["address"] != 0
            inputs = self._transposed(layer) if copied else self._inputs(layer)
            touched = [self._weights(layer), G, inputs, turned]
            yield number, "backward", self._twice(layer, work) + Work(touched=touched)
            yield number, "turn", passes(units * along, units * along) + Work(touched=[turned])

    def _twice(self, layer: np.void, work: Work) -> Work:
        """Add what the mathematics of update and input gradient asks for."""
        return self._asked(layer, self._asked(layer, work))

    def _update(self, layer: np.void) -> Work:
        vectors, way = self._vectors(self._own_outputs(layer)), int(layer["update_by"])
        keep, units = bool(layer["move"] == 0), self._rows(layer)
        G, W, X = self._outputs(layer, "gradient"), self._weights(layer), self._inputs(layer)
        if way == BY_UNIT:
            at_once = int(layer["update_rows"])
            tiles = -(-vectors // (int(layer["update_tile"]) // self.lanes))
            words = joined(self._bits_by_unit(layer), at_once)
            found = visits(words, 1)
            # rows of W that nothing is added to are not touched
            ends = at_once * int(np.count_nonzero(words) if keep else len(words)) * vectors
            return Work(
                multiply_adds=at_once * found * vectors + ends,
                loads=found * (at_once * tiles + vectors) + ends,
                stores=ends,
                touched=[X, G, W],
            )
        if way == BY_SAMPLE:
            found = visits(self._bits_by_sample(layer), 1)
            tiles = -(-vectors // (int(layer["scatter_tile"]) // self.lanes))
            return Work(
                multiply_adds=found * vectors,
                loads=found * (tiles + vectors),
                stores=found * vectors,
                touched=[X, G, W],
            )
        panel = self.count * MACHINE.block_columns * VECTOR_BYTES
        strips = -(-units // MACHINE.tile_rows)
        again = self._outputs(layer, "gradient", strips - 1, panel)
        return product(units, self.count, vectors, keep) + Work(touched=[X, again, W])


def bytes_by_level(
    works: Iterable[Work], caches: Sequence[int], samples_bytes: float
) -> list[list[float]]:
    """Return how many bytes each part gets from each level, in a step like the one before it.

    Parameters
    ----------
    works
        The parts of a step, in order.
    caches
        Bytes that each level holds, but the last.
    samples_bytes
        What all samples take; those of a step were touched an epoch ago.
    """
    works = list(works)
    recent: list[tuple[tuple[str, int], float]] = []
    """Operands and their bytes, the one touched last at the end."""
    found: list[list[float]] = []
    for turn in range(2):
        for work in works:
            levels = [0.0] * (len(caches) + 1)
            for touch in work.touched:
                since, known = touch.nbytes, False
                for place in reversed(range(len(recent))):
                    if recent[place][0] == touch.operand:
                        del recent[place]
                        known = True
                        break
                    since += recent[place][1]
                if touch.operand[0] == "samples":
                    since, known = samples_bytes, True
                recent.append((touch.operand, touch.nbytes))
                levels[_level(since, caches) if known else -1] += touch.nbytes
                levels[_level(touch.span, caches)] += touch.again
            # what is in registers came through the first level
            levels[0] = (work.loads + work.stores) * VECTOR_BYTES
            if turn == 1:
                found.append(levels)
    return found


def _level(distance: float, caches: Sequence[int]) -> int:
    """Return the first level that holds what was touched so many bytes ago."""
    return next((i for i, size in enumerate(caches) if distance <= size), len(caches))
