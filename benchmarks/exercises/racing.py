"""How fast a kernel is beside another, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.bench.figures import Spread, spread
from fastnn.memory import aligned_zeros

from .tasks import Exercise

ROUND_SECONDS = 0.004
"""Of each of the two, in every round."""
ROUNDS = 25
NOISE = 0.1
"""How far the quartiles may be apart, as a share of the median, before it is measured again."""
TRIES = 4

SLOWLY = np.float32(1e-6)

Call = Callable[[], Any]


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
    """Return a call with arguments of its own that lie at cache lines."""
    given = exercise.made(exercise.timed, np.random.default_rng(0))
    arguments = []
    for of in given.values():
        if isinstance(of, np.ndarray):
            copy = aligned_zeros(of.size, of.dtype).reshape(of.shape)
            copy[...] = of
            of = copy
        arguments.append(of)
    if "rate" in given:  # weights are changed thousands of times, and should stay what they are
        arguments[list(given).index("rate")] = given["rate"] * SLOWLY
    return lambda: function(*arguments)


def _measure(own: Call, reference: Call) -> Spread:
    counts = [_calls_of_a_round(call) for call in (own, reference)]
    shares = []
    for _ in range(ROUNDS):
        taken = [
            _seconds(call, count) / count
            for call, count in zip((own, reference), counts, strict=True)
        ]
        shares.append(taken[1] / taken[0])
    return spread(shares)


def _calls_of_a_round(call: Call) -> int:
    count = 1
    while _seconds(call, count) < ROUND_SECONDS:
        count *= 2
    return count


def _seconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start
