"""A team of threads that trains one network: a table for each member, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np

from .blocks import Structure
from .sharing import MEMBER, Messages, share_out
from .step import run_batches
from .table import Table
from .threads import Signals, run_together


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
        for member, (_, shared_out) in enumerate(layers):
            share_out(shared_out, caller.starts, caller.lanes, member, members)
            # of the whole layer, for the caller to add up
            shared_out["squares"] = caller.layers["squares"]
            for layer in shared_out:
                if layer["biases_region"] != 0:
                    self._cut_biases(layer, self._regions[member][layer["learned"] :])
        self._layers = layers
        together = [shared_out for _, shared_out in layers]
        self._messages = Messages(together, caller.starts, caller.lanes, caller.padded)

    @staticmethod
    def _cut_biases(layer: np.void, regions: np.ndarray) -> None:
        """Make the first of `regions`, the biases of a layer, that of a member's own columns."""
        first = layer["first_column"]
        stop = min(layer["stop_column"], layer["output_units"])
        parameters = regions["parameters"][0]
        parameters["address"] += first * parameters["column_stride"]
        parameters["columns"] = max(stop - first, 0)
        layer["biases_region"] = regions.ctypes.data

    def run_batches(
        self, signals: Signals, scale: Any, arguments: tuple[Any, ...], count: int
    ) -> tuple[float, int]:
        """Run `count` steps on all members; return what the caller's returned.

        In a single step the caller is alone: it waits for nobody, and who is woken would be late.
        So it is in a call that begins while the members are to stay away: to end a short call, they
        would have to be waited for.
        """
        said = signals.new()
        # of this call alone: an interrupt may leave a member behind that is still about to begin
        records = self._records.copy()
        records["signals"] = said.ctypes.data
        results: dict[int, tuple[float, int]] = {}

        def work(member: int) -> None:
            results[member] = run_batches(
                scale, self.tables[member].shared, self._layers[member], *arguments,
                records[member : member + 1],
            )  # fmt: skip

        if count > 1 and not signals.apart():
            run_together(work, len(self.tables), said)
        else:
            work(0)
        signals.keep(said)
        return results[0]
