"""Work whose contenders take turns in one process, each checked before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.bench.rounds import in_turn

CHECKED_CALLS = 3
"""Of each contender, before others of its kind are timed."""
MOST_OTHERS = 1e-3
"""Share of class ids that may differ: near-ties, which rounding decides."""


@dataclass(frozen=True)
class Task:
    """What contenders do.

    Attributes
    ----------
    contenders : mapping
        What makes the call that is timed, each time anew; ImportError where a library is missing.
    reference : str
        The contender whose results are right.
    tolerance : float
        Largest difference of numbers, as a part of the largest one.
    judge : callable
        Makes of a result what is compared, outside of the time.
    """

    contenders: Mapping[str, Callable[[], Callable[[], Any]]]
    reference: str
    tolerance: float
    judge: Callable[[Any], Any] = np.asarray


def timed(task: Task, rounds: int) -> dict[str, Any]:
    """Return `values`, `errors` and `missing`, as `Found` has them."""
    outcomes, errors, missing = {}, {}, []
    for name, make in task.contenders.items():
        try:
            call = make()
        except ImportError:
            missing.append(name)
            continue
        outcomes[name] = [np.array(task.judge(call())) for _ in range(CHECKED_CALLS)]
    expected = outcomes[task.reference]
    for name, outcome in outcomes.items():
        for found, right in zip(outcome, expected, strict=True):
            if error := disagreement(found, right, task.tolerance):
                errors[name] = error
    agreed = {name: task.contenders[name]() for name in outcomes if name not in errors}
    return {"values": in_turn(agreed, rounds), "errors": errors, "missing": missing}


def disagreement(found: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """Return what is wrong with a result, or None."""
    if found.shape != expected.shape:
        return f"a result of shape {found.shape}, not {expected.shape}"
    if expected.dtype.kind in "iu":
        others = float((found != expected).mean())
        return f"{others:.2%} of the answers are others" if others > MOST_OTHERS else None
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    return None if off <= tolerance else f"off by {off:.2g} of the largest number"
