"""Members of a team that are late, each at each of its messages: who does not wait for them shows.

Without delays a race goes well nearly always. Here a member has something long to do beside one
kind of message. What it moves is a message to itself, which a team of as many members as there are
chunks has no use for: its time lies before what member 0 sends or takes in, and behind that of
member 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_epoch_kernel import Case

from fastnn import guards, memory
from fastnn.backends import description
from fastnn.backends.numba_backend.epoch import meetings, sharing
from fastnn.backends.numba_backend.epoch.program import Program

pytestmark = [
    pytest.mark.skipif(meetings.MOST_MEMBERS == 1, reason="no teams on this system"),
    pytest.mark.skipif(guards.CHECKED, reason="what a late member moves is no memory of a call"),
]

SIZES, BATCH, STEPS = (200, 96, 64, 10), 32, 6
PARTING = {
    meetings.ENOUGH_TIME: 0, meetings.ENOUGH_STEPS: 1, meetings.PAUSE: 0, meetings.LONGEST_PAUSE: 0,
    meetings.ALONE_TIME: 0, meetings.ALONE_STEPS: 1 << 62,
}  # fmt: skip
"""The caller believes that it is faster alone: the others part after every step, and come back."""

DELAY_BYTES = 1 << 19
"""What a late member copies for each sample: some hundred microseconds for a batch."""


class Racing:
    """A training by two members, as often as one likes."""

    def __init__(self, rule, l2, clip_norm, settings):
        self.case = Case(SIZES, BATCH, STEPS * BATCH)
        layers = [
            replace(layer, rule=description.Rule(rule, 0.9, 0.999, 1e-8), l2=l2)
            if isinstance(layer, description.Dense)
            else layer
            for layer in self.case.layers
        ]
        self.program = Program(
            layers, "softmax_cross_entropy", BATCH, self.case.dtype, self.case.samples.dtype, 0.3,
            clip_norm=clip_norm,
        )  # fmt: skip
        assert self.program._structure.chunks == 2
        size = self.case.parameters.size
        self.states = [memory.aligned_zeros(size, self.case.dtype) for _ in range(2)]
        self.settings = settings

    def result(self, threads):
        """Train from the beginning; return all bits."""
        case, program = self.case, self.program
        case.parameters[:] = case.initial
        for state in self.states:
            state[:] = 0
        program.start()
        program._signals.settings.update(meetings.SETTINGS | self.settings)
        totals = program.prepare(
            case.samples, case.labels, case.order, case.parameters, case.rates, self.states,
            threads=threads,
        )()  # fmt: skip
        return (*[vector.tobytes() for vector in (case.parameters, *self.states)], *totals)

    def delay(self, member, kind):
        """Make a member late in all layers; return what is to be kept in memory."""
        source, target = (memory.aligned_zeros(DELAY_BYTES, np.dtype(np.uint8)) for _ in range(2))
        messages = self.program._team(2)._messages._messages[member, :, :, member]
        assert not messages["parts"].any()
        columns = DELAY_BYTES // self.case.dtype.itemsize
        of_kind = messages[:, sharing.KINDS.index(kind)]
        for number in range(len(of_kind)):
            of_kind[number] = source.ctypes.data, 0, 1, 0, target.ctypes.data, 0, columns
        return source, target


@pytest.mark.parametrize("settings", [{}, PARTING], ids=["patient", "parting"])
@pytest.mark.parametrize(
    ("rule", "l2", "clip_norm"), [("sgd", 0.0, 0.0), ("adam", 0.01, 0.0), ("adam", 0.0, 0.1)]
)
@pytest.mark.parametrize("kind", sharing.KINDS)
@pytest.mark.parametrize("member", [0, 1])
def test_who_is_late_is_waited_for(member, kind, rule, l2, clip_norm, settings, met):
    racing = Racing(rule, l2, clip_norm, settings)
    expected = racing.result(1)
    kept = racing.delay(member, kind)
    for _ in range(200):
        assert racing.result(2) == expected
        if sum(meeting > 0 for meeting in met) == 2:
            break
    else:
        pytest.fail("the members never met")
    assert all(array.size for array in kept)  # still there
