"""How the members of a team share a step of the compiled epoch, and what they tell each other.

The input units of every layer, and with them the rows of its weights and the outputs of the layer
below, are cut into chunks, as many as the network's shape decides. A member owns chunks that lie
next to each other, the same of every layer; the outputs of the last layer, and with them the loss,
belong to member 0. Each member has a workspace of its own, so that nothing moves from one core
to another but messages:

    forward     a member multiplies its own units, first by the others' columns, and sends them its
                part of these; then by its own, which it adds up with the parts that others have
                sent meanwhile, where they lie: they are its units of the next layer
    backward    a member sends the others the gradient by its own columns of a layer; with the
                whole gradient it computes that by its own units, and changes its own weights

A message goes through a box, which belongs to an owner of columns and one of the others. Forward
it carries the other's part of the owner's columns, backward their gradient. So whoever has read a
box is the next to write to it: its lines are in that one's cache already, and each crosses only
once for each message. That is most of what a team gains: a line that was written here and read
there must come back before it can be written here again, which takes several times as long as to
read it, above all between cores without a common cache.
Two members write to a box by turns, and between two turns is always a meeting, which orders the
one's reads before the other's writes (see `meetings.py`): forward the other writes, they meet, the
owner reads; backward the owner writes, they meet, the other reads, and writes again in the next
step. Loads and stores of numbers are plain ones.
Tried and lost: one workspace for all, whose lines cross twice; columns of the weights shared out
instead of rows; samples shared out (every weight's gradient moves); stores past the cache;
prefetching lines to write to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn import memory

from ..checked import Range
from ..kernels.relu import TERM
from ..kernels.rows import MESSAGE_FIELDS

MEMBER = np.dtype([(name, np.int64) for name in ("signals", "member", "members")])
"""What a member knows of its team: the address of its signals (see `meetings.py`), who it is."""

MESSAGE = np.dtype([(name, np.int64) for name in MESSAGE_FIELDS])

KINDS = ("products_out", "gradient_out", "gradient_in")
"""The messages of a layer, as its record names them."""

BOX_GAP = 512
"""Bytes between boxes: processors fetch lines ahead of those that are read."""


def chunk_starts(units: int, chunks: int, itemsize: int) -> np.ndarray:
    """Return where chunks of input units begin, and where the last one ends.

    They are as equal as whole cache lines can be; some of a small layer are empty.
    """
    line = memory.LINE_BYTES // itemsize
    nearest = [int(chunk * units / chunks / line + 0.5) * line for chunk in range(chunks)]
    last_line = (units - 1) // line * line
    return np.array([*(min(start, last_line) for start in nearest), units])


def share_out(
    layers: np.ndarray, starts: np.ndarray, lanes: int, member: int, members: int
) -> None:
    """Write into the records of the layers what belongs to a member of a team.

    Shapes: layers [n], starts [n, chunks + 1].
    """
    chunks = starts.shape[1] - 1
    first, stop = member * chunks // members, (member + 1) * chunks // members
    for number, layer in enumerate(layers):
        layer["record"], layer["number"] = layers[number:].ctypes.data, number
        # by its outputs a layer is in one chunk, which all work on
        own = (0, 1) if layer["by_outputs"] else (first, stop)
        layer["first_chunk"], layer["stop_chunk"] = own
        layer["first_unit"] = starts[number, own[0]]
        layer["stop_unit"] = memory.round_up(int(starts[number, own[1]]), lanes)
        columns = own_columns(layers, starts, lanes, number, member, members)
        layer["first_column"], layer["stop_column"] = columns


def own_columns(
    layers: np.ndarray, starts: np.ndarray, lanes: int, number: int, member: int, members: int
) -> tuple[int, int]:
    """Return which columns of a layer's output belong to a member, first and stop."""
    if number == len(layers) - 1:
        return 0, int(layers[number]["outputs"]["columns"]) if member == 0 else 0
    chunks = starts.shape[1] - 1
    first, stop = (starts[number + 1, m * chunks // members] for m in (member, member + 1))
    return int(first), memory.round_up(int(stop), lanes)


class Messages:
    """The boxes of a team, and what its members write to them and read from them.

    Parameters
    ----------
    tables
        The records of the layers, [n], of each member; addresses of messages are written to them.
    starts
        Where chunks begin, [n, chunks + 1].
    lanes
        Numbers in a vector.
    rows
        Samples of a batch, padded.
    """

    def __init__(
        self, tables: Sequence[np.ndarray], starts: np.ndarray, lanes: int, rows: int
    ) -> None:
        members = len(tables)
        count = len(starts)
        # the boxes of a layer, of equal size, one after the other
        self._boxes = []
        self._messages = np.zeros((members, count, len(KINDS), members), MESSAGE)
        each = (starts.shape[1] - 1) // members
        self._terms = np.zeros((members, count, members - 1 + each), TERM)
        for number in range(count):
            columns = [
                own_columns(tables[0], starts, lanes, number, member, members)
                for member in range(members)
            ]
            alone = tables[0][number]["by_outputs"] != 0  # nobody says anything
            widest = 0 if alone else max(stop - first for first, stop in columns)
            itemsize = tables[0][number]["outputs"]["column_stride"]
            box_bytes = rows * widest * itemsize + BOX_GAP
            boxes = memory.aligned_zeros(members * members * box_bytes, np.dtype(np.uint8))
            self._boxes.append(boxes.reshape(-1, box_bytes))
            for member, layers in enumerate(tables):
                messages = self._messages[member, number]
                for place, kind in enumerate(KINDS):
                    layers[number][kind] = messages[place].ctypes.data
                own = boxes.ctypes.data + member * members * box_bytes
                others = [] if alone else [m for m in range(members) if m != member]
                for other in others:
                    theirs = boxes.ctypes.data + (other * members + member) * box_bytes
                    self._write(
                        messages[:, other], layers[number], member * each, each,
                        columns[member], columns[other], own + other * box_bytes, theirs,
                    )  # fmt: skip
                self._list_terms(
                    self._terms[member, number], layers[number], member, columns[member],
                    [own + other * box_bytes for other in others],
                )  # fmt: skip

    def ranges(self) -> list[Range]:
        """Return what kernels may touch: messages, terms, each box but for the gap behind it."""
        return [
            Range.of(self._messages, "messages", writeable=False),
            Range.of(self._terms, "terms", writeable=False),
        ] + [
            Range.of(box[:-BOX_GAP], f"box {number} of layer {layer}")
            for layer, boxes in enumerate(self._boxes)
            for number, box in enumerate(boxes)
            if len(box) > BOX_GAP
        ]

    @staticmethod
    def _list_terms(
        terms: np.ndarray, layer: np.void, member: int, own: tuple[int, int], boxes: Sequence[int]
    ) -> None:
        """Write of what a member adds up its own columns: its own slots, and what is in its boxes.

        Two slots are added first, as everybody adds up two: of a sum of two, the order is all one.
        """
        _, stride, itemsize, _, _ = layer["outputs"]
        slots = layer["slots"]["address"] + own[0] * itemsize
        chunks = range(layer["first_chunk"], layer["stop_chunk"])
        found = [(box, (own[1] - own[0]) * itemsize) for box in boxes]
        place = member if len(chunks) == 1 else 0
        found[place:place] = [(slots + chunk * layer["slot_bytes"], stride) for chunk in chunks]
        terms[: len(found)] = found
        layer["terms"], layer["term_count"] = terms.ctypes.data, len(found)

    @staticmethod
    def _write(
        messages: np.ndarray, layer: np.void, first_slot: int, each: int,
        own: tuple[int, int], others: tuple[int, int], mine: int, theirs: int,
    ) -> None:  # fmt: skip
        """Write what a member says to another one about a layer, and hears of it."""
        products_out, gradient_out, gradient_in = messages
        _, stride, itemsize, _, _ = layer["outputs"]
        slot_bytes = layer["slot_bytes"]

        def write(message: np.void, *fields: int) -> None:
            for name, value in zip(MESSAGE_FIELDS, fields, strict=True):
                message[name] = value

        own_offset, offset = own[0] * itemsize, others[0] * itemsize
        own_width, width = own[1] - own[0], others[1] - others[0]
        source = layer["slots"]["address"] + first_slot * slot_bytes + offset
        write(products_out, source, stride, each, slot_bytes, theirs, width * itemsize, width)
        gradient, own_stride = layer["gradient"]["address"], own_width * itemsize
        write(gradient_out, gradient + own_offset, stride, 1, 0, mine, own_stride, own_width)
        write(gradient_in, theirs, width * itemsize, 1, 0, gradient + offset, stride, width)
