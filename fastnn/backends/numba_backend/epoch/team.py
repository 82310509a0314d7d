"""A team of threads that trains one network: a table for each member, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from typing import Any, TypeVar

import numpy as np

from fastnn import guards

from ..checked import Range, watched
from .blocks import Structure
from .meetings import WAKING_TIME, Signals
from .sharing import MEMBER, Messages, share_out
from .step import entry_for
from .table import Table, share_parts
from .threads import run_together

Result = TypeVar("Result")


def note_end(function: Callable[[], Result], ended: list[Result]) -> None:
    """Call a function and put what it returns into a list.

    The interpreter, which may raise what a signal asks for as soon as a call has ended, has no part
    in what happens in between.
    """
    ended.extend(starmap(function, ((),)))


class Team:
    """What the members of a team work with: a table for each of them, and their messages."""

    def __init__(self, structure: Structure, caller: Table, members: int):
        # the caller, member 0, uses the table with which it works alone
        size = structure.batch_size
        others = [Table(structure, size, training=True) for _ in range(1, members)]
        self.tables = [caller, *others]
        self._records = np.zeros(members, MEMBER)
        self._records["member"] = np.arange(members)
        self._records["members"] = members
        layers = [np.stack([table.layers, table.layers]) for table in self.tables]
        self._regions = [table.regions[:, 1].copy() for table in self.tables]
        self._collecting = [table.collecting[:, 1].copy() for table in self.tables]
        self._parts = [table.parts.copy() for table in self.tables]
        for member, (_, shared_out) in enumerate(layers):
            share_out(shared_out, caller.starts, caller.lanes, member, members)
            # of the whole layer, for the caller to add up
            for name in ("squares", "penalty_squares"):
                shared_out[name] = caller.layers[name]
            if caller.clipping:
                self._share_parts(caller, member, shared_out)
            for layer in shared_out:
                if layer["biases_region"] != 0:
                    moving = self._regions[member][layer["learned"] :]
                    layer["biases_region"] = self._cut_biases(layer, moving)
                    if caller.clipping:
                        self._parts[member]["region"][2 * layer["learned"] + 1] = moving.ctypes.data
                        collecting = self._collecting[member][layer["learned"] :]
                        layer["biases_region"] = self._cut_biases(layer, collecting)
        self._layers = layers
        together = [shared_out for _, shared_out in layers]
        self._messages = Messages(together, caller.starts, caller.lanes, caller.padded)

    @property
    def layers(self) -> np.ndarray:
        """The records of the layers as they are shared out to the caller."""
        shared_out: np.ndarray = self._layers[0][1]
        return shared_out

    def _share_parts(self, caller: Table, member: int, layers: np.ndarray) -> None:
        """Write down what a member moves where gradients are clipped."""
        parts = self._parts[member]
        for name in ("squares", "penalty_squares"):
            parts[name] = caller.parts[name]
        share_parts(parts, caller.owners, layers, caller.dtype.itemsize)

    def _ranges(self, member: int) -> list[Range]:
        """Return what kernels may touch for a member: its table, messages, the caller's sums."""
        sums = [part for part in self.tables[0].workspace_parts() if "squares" in part.name]
        return [
            *sums,
            *self.tables[member].ranges(),
            *self._messages.ranges(),
        ]

    @staticmethod
    def _cut_biases(layer: np.void, regions: np.ndarray) -> int:
        """Make the first of `regions`, the biases of a layer, that of a member's own columns.

        Returns its address.
        """
        first = layer["first_column"]
        stop = min(layer["stop_column"], layer["output_units"])
        parameters = regions["parameters"][0]
        parameters["address"] += first * parameters["column_stride"]
        parameters["columns"] = max(stop - first, 0)
        return int(regions.ctypes.data)

    def run_batches(
        self,
        signals: Signals,
        scale: Any,
        arguments: tuple[Any, ...],
        count: int,
        totals: np.ndarray,
        ended: list[int],
        laps: Sequence[int],
        ranges: Sequence[Range] = (),
    ) -> None:
        """Run `count` steps on all members; the caller adds to `totals`, and `ended` notes its end.

        `laps` says where the cycles of each member are counted, of none if they are not. `ranges`
        are those of the arguments, in the checked build.

        In a single step the caller is alone, unless the step is long enough to wait for members:
        who is woken would be late. So it is in a call that begins while the members are to stay
        away: to end a short call, they would have to be waited for.
        """
        patience = signals.patience()
        together = (count > 1 or patience > WAKING_TIME) and not signals.apart()
        said = signals.new(patience if together else 0)
        # of this call alone: an interrupt may leave a member behind that is still about to begin
        records = self._records.copy()
        records["signals"] = said.ctypes.data

        entry = entry_for(self.tables[0].dtype, team=True, laps=len(laps) > 0)

        def work(member: int) -> None:
            layers = self._layers[member]
            run = partial(
                entry, scale, self.tables[member].shared.ctypes.data, layers.ctypes.data,
                layers.shape[1], *arguments, totals.ctypes.data,
                records[member : member + 1].ctypes.data, *laps[member : member + 1],
            )  # fmt: skip
            noted = ended if member == 0 else []
            if guards.CHECKED:
                own = Range.of(said, "signals"), Range.of(totals, "totals", writeable=member == 0)
                with watched([*ranges, *self._ranges(member), *own]):
                    note_end(run, noted)
                self.tables[member].check_canaries()
            else:
                note_end(run, noted)

        if together:
            run_together(work, len(self.tables), said)
        else:
            work(0)
        signals.keep(said)
