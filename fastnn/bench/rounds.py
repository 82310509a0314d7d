"""Calls that are timed in rounds, in turn: so many calls a round as a clock needs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

Call = Callable[[], Any]

ROUND_SECONDS = 0.002
"""What a round takes at least, unless told."""
LOOKS = 2
"""How often a round must have taken so long: a first call, and one that is disturbed, take longer
than others."""


def in_turn(
    calls: Mapping[str, Call], rounds: int, least: float | None = None
) -> dict[str, list[float]]:
    """Return the seconds that each call takes in each round, in which all have their turn.

    A round takes `least` seconds, or ROUND_SECONDS: as many calls as that needs.
    """
    if least is None:
        least = ROUND_SECONDS
    numbers = {name: calls_of_a_round(call, least) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, number in numbers.items():
            seconds[name].append(_seconds(calls[name], number) / number)
    return seconds


def calls_of_a_round(call: Call, least: float) -> int:
    """Return how many calls in a row take `least` seconds: a power of two."""
    number = 1
    while any(_seconds(call, number) < least for _ in range(LOOKS)):
        number *= 2
    return number


def _seconds(call: Call, number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - start
