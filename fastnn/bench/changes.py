"""Two states of fastnn: is the new one slower, or is that noise?

Each piece of work is measured on the old state, on the old one once more, and on the new one, in
rounds that take turns. What the two old ones differ by is noise, as it is on this machine in this
minute, and no difference between old and new counts that is not larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from fastnn.bench.figures import NO_VALUE, short
from fastnn.checks import Array
from fastnn.markdown import markdown_table

OLD, AGAIN, NEW = SIDES = ("old", "old again", "new")
"""What is measured; the second is the control."""

REGRESSION = 0.05
"""What a change may cost before it is called one."""

RESAMPLES = 2_000
_Z = 2.5758293035489004
"""99 % of a normal distribution are within so many standard deviations."""

SLOWER = f"slower by at least {REGRESSION:.0%}".replace("%", " %")
PERHAPS = f"slower, perhaps by {REGRESSION:.0%}".replace("%", " %")
NO_SLOWER = f"no slower than {REGRESSION:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Change:
    """A piece of work as it was measured.

    Attributes
    ----------
    name : str
        The work in words.
    seconds : dict
        By side, a row for each process and in it the rounds. In the second round of two the sides
        come in the opposite order.
    error : str, optional
        Why there is nothing.
    """

    name: str
    seconds: dict[str, tuple[tuple[float, ...], ...]]
    error: str | None = None


class Finding(NamedTuple):
    """What comes of a change: new over old, and between what bounds it lies in 99 of 100 runs.

    `control` is old over old, which would be 1 without noise.
    """

    ratio: float
    lower: float
    upper: float
    control: float

    @property
    def verdict(self) -> str:
        """Whether it is slower, in words."""
        if self.lower >= 1 + REGRESSION:
            return SLOWER
        if self.upper < 1 + REGRESSION:
            return NO_SLOWER
        if not self.is_hidden:
            return PERHAPS
        return f"can't tell: noise of {self.noise:.1%}".replace("%", " %")

    @property
    def noise(self) -> float:
        """How far the ratio may be off."""
        return max(self.upper / self.ratio, self.ratio / self.lower) - 1

    @property
    def is_regression(self) -> bool:
        """Whether it is slower for certain, and by 5 % for all that is known."""
        return self.lower > 1 and self.upper >= 1 + REGRESSION

    @property
    def is_hidden(self) -> bool:
        """Whether noise hides if it is slower."""
        return self.lower <= 1 and self.upper >= 1 + REGRESSION


def findings(changes: Sequence[Change]) -> list[Finding | None]:
    """Return what comes of each change, None where nothing was measured.

    Notes
    -----
    The logarithm of a ratio is taken between neighbours: of two rounds in opposite order, so that
    what drifts steadily falls out. New is compared with each of the old ones, and the finding is
    the mean of the two medians. Over the mean of both old ones it would be biased where noise is
    skewed, as that mean isn't distributed like one of them.

    Pairs of the same processes are not independent, since memory lies as it lies for all of a
    process's life; so the standard error is found by bootstrap over processes. Bounds are by
    Student's t, as there are few of them.

    Then the control is asked. Where old over old strays farther than its own standard errors
    explain, in the root mean square over all changes, bounds are wider by that factor; and none is
    nearer than what the control of the same work is off.
    """
    measured = [of for of in changes if of.error is None and len(of.seconds[OLD]) > 1]
    if not measured:
        return [None] * len(changes)
    pairs = [_log_ratios(change) for change in measured]
    news = [_estimate(*new) for new, _ in pairs]
    controls = [_estimate(control) for _, control in pairs]
    strayed = [(value / error) ** 2 for value, error in controls if error > 0]
    wider = max(1.0, float(np.sqrt(np.mean(strayed)))) if strayed else 1.0
    found = {}
    for change, (new, error), (control, _) in zip(measured, news, controls, strict=True):
        freedom = len(change.seconds[OLD]) - 1
        within = max(student_bound(freedom) * wider * error, abs(control))
        bounds = new, new - within, new + within, control
        found[id(change)] = Finding(*(float(np.exp(bound)) for bound in bounds))
    return [found.get(id(change)) for change in changes]


def _log_ratios(change: Change) -> tuple[tuple[Array, Array], Array]:
    """Return log new over either old, and log old over old.

    Each is ``[processes, pairs of rounds]``.
    """
    logs = {side: np.log(np.array(of)) for side, of in change.seconds.items()}
    old, again, new = (logs[side].reshape(len(logs[side]), -1, 2).mean(axis=2) for side in SIDES)
    return (new - old, new - again), again - old


def _estimate(*log_ratios: Array) -> tuple[float, float]:
    """Return the mean of the medians and its standard error, by bootstrap over rows."""
    rows = len(log_ratios[0])
    drawn = np.random.default_rng(0).integers(rows, size=(RESAMPLES, rows))
    medians = [np.median(of[drawn].reshape(RESAMPLES, -1), axis=1) for of in log_ratios]
    # of as many rows as were drawn from, the spread is too small by this factor
    error = float(np.mean(medians, axis=0).std()) * np.sqrt(rows / max(rows - 1, 1))
    return float(np.mean([np.median(of) for of in log_ratios])), float(error)


def student_bound(freedom: int) -> float:
    """Return what 99 % of Student's t are within, by the expansion of Cornish and Fisher."""
    if freedom < 5:  # where the expansion is off by a hundredth and more
        return {1: 63.657, 2: 9.925, 3: 5.841, 4: 4.604}.get(freedom, np.inf)
    n, z = freedom, _Z
    terms = (
        z,
        (z**3 + z) / 4 / n,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3,
    )
    return sum(terms)


def change_sections(changes: Sequence[Change]) -> list[str]:
    """Render what was found: a row for each piece of work."""
    rows = []
    judged = findings(changes)
    for change, found in zip(changes, judged, strict=True):
        if found is None:
            rows.append([change.name, *[NO_VALUE] * 5])
            continue
        milliseconds = [
            short(1e3 * median(np.ravel(change.seconds[side]).tolist())) for side in (OLD, NEW)
        ]
        interval = f"{found.ratio:.3f} ({found.lower:.3f}-{found.upper:.3f})"
        rows.append([change.name, *milliseconds, interval, f"{found.control:.3f}", found.verdict])
    header = ["work", "old, ms", "new, ms", "new over old", "old over old", "verdict"]
    known = [found for found in judged if found is not None]
    parts = [markdown_table(header, rows)]
    if known:
        off = max(abs(np.log(found.control)) for found in known)
        parts.append(
            "Medians; in brackets the bounds between which the ratio lies with 99 % confidence, by "
            "bootstrap over processes. Old over old, which would be 1.000 on a machine without "
            f"noise, is off by up to {np.expm1(off):.1%}.".replace("%.", " %.")
        )
    return parts
