"""Whether a kernel computes what it should, and where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.checks import Array

from .tasks import Exercise

GUARD = 64
"""Numbers before and behind each array that nobody may write, and nobody should read."""


def fault_of(exercise: Exercise, function: Callable[..., Any]) -> str | None:
    """Return what is wrong with what a function computes, on the first shape where it is.

    Raises
    ------
    NotImplementedError
        If it is not filled in.
    """
    for shape in exercise.shapes:
        given = exercise.made(shape, np.random.default_rng(sum(shape)))
        expected = exercise.expected(given)
        guarded = {name: _guarded(of) for name, of in given.items() if isinstance(of, np.ndarray)}
        function(*(guarded[name][0] if name in guarded else of for name, of in given.items()))
        for name, (found, room) in guarded.items():
            if name in expected:
                fault = _difference(name, found, *expected[name])
            elif np.array_equal(found, given[name]):
                fault = None
            else:
                fault = f"{name} was changed, and should stay as it is"
            if fault is None and _is_overrun(room, found.size):
                fault = f"something was written before {name} or behind it"
            if fault is not None:
                return f"on the shape {' x '.join(map(str, shape))}: {fault}"
    return None


def _guarded(array: Array) -> tuple[Array, Array]:
    """Return a copy, and the memory in whose middle it lies."""
    room = np.full(array.size + 2 * GUARD, _unread(array.dtype), array.dtype)
    copy = room[GUARD : GUARD + array.size].reshape(array.shape)
    copy[...] = array
    return copy, room


def _unread(dtype: np.dtype[Any]) -> Any:
    """Return what spoils each sum that it gets into; of classes, one that there is."""
    return np.nan if dtype.kind == "f" else 0


def _is_overrun(room: Array, size: int) -> bool:
    around = np.concatenate([room[:GUARD], room[GUARD + size :]])
    return not np.array_equal(around, np.full_like(around, _unread(room.dtype)), equal_nan=True)


def _difference(name: str, found: Array, value: Array, tolerance: Array) -> str | None:
    """Return where `found` is further from `value` than rounding explains."""
    wrong = ~(np.abs(found - value) <= tolerance)  # and what is NaN
    if not wrong.any():
        return None
    place = tuple(int(of) for of in np.argwhere(wrong)[0])
    element = f"{name}[{', '.join(map(str, place))}]"
    text = f"{element} is {found[place]:.7g} and should be {value[place]:.7g}"
    if np.isfinite(found[place]):
        text += f", which rounding explains up to {tolerance[place]:.1e}"
    first = int(np.argwhere(wrong)[:, -1].min())
    where = f", all in column {first} and later" if first > 0 and wrong.ndim == 2 else ""
    return f"{text}; {wrong.sum()} of {wrong.size} numbers are wrong{where}"
