"""How fast a kernel is beside another, in turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from fastnn.bench.figures import Spread, spread
from fastnn.bench.rounds import Call, in_turn
from fastnn.memory import aligned_zeros

from .tasks import Exercise

ROUND_SECONDS = 0.004
"""Of each of the two, in every round."""
ROUNDS = 25
NOISE = 0.1
"""How far the quartiles may be apart, as a share of the median, before it is measured again."""
TRIES = 4

BATCHES = 20
"""Of samples, in turn: of a single one a processor would learn by heart where each branch goes."""
SLOWLY = np.float32(1e-6)


def share_of_speed(exercise: Exercise, function: Callable[..., Any]) -> Spread:
    """Return how many times as fast as the reference a function is: the steadiest of some tries."""
    own, reference = (_bound(exercise, of) for of in (function, exercise.reference))
    found: list[Spread] = []
    while len(found) < TRIES:
        found.append(_measure(own, reference))
        if _noise(found[-1]) <= NOISE:
            break
    return min(found, key=_noise)


def _noise(share: Spread) -> float:
    return (share.upper - share.lower) / share.median


def _bound(exercise: Exercise, function: Callable[..., Any]) -> Call:
    """Return a call that takes the next batch each time; all arrays lie at cache lines."""
    made = [exercise.made(exercise.timed, np.random.default_rng(seed)) for seed in range(BATCHES)]
    kept = {name: _at_line(of) for name, of in made[0].items()}
    if "rate" in kept:  # weights are changed thousands of times, and should stay what they are
        kept["rate"] *= SLOWLY
    turns = [kept | {name: _at_line(of[name]) for name in exercise.samples} for of in made]
    batches = cycle([tuple(of.values()) for of in turns])
    return lambda: function(*next(batches))


def _at_line(value: Any) -> Any:
    """Return a copy of an array at the beginning of a cache line, and anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    copy = aligned_zeros(value.size, value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def _measure(own: Call, reference: Call) -> Spread:
    seconds = in_turn({"own": own, "reference": reference}, ROUNDS, ROUND_SECONDS)
    pairs = zip(seconds["reference"], seconds["own"], strict=True)
    return spread(theirs / ours for theirs, ours in pairs)
