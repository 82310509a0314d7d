"""The anatomy of a training step: its parts, what each did, and the limit that binds it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from statistics import median
from typing import Any

from fastnn.bench.cases import Case
from fastnn.bench.figures import NO_VALUE, Spread, short, spread
from fastnn.markdown import markdown_table

LEVELS = "L1", "L2", "L3", "memory"

LEAST_SHARE = 0.0005
"""Of a step; what takes less is not shown."""


@dataclass(frozen=True)
class Bound:
    """What a part can't be faster than: the limit, and how long it takes at that."""

    limit: str
    seconds: float


@dataclass(frozen=True)
class Counts:
    """What is counted of a part of a step.

    Attributes
    ----------
    dense, nonzero : float
        Multiply-adds that the mathematics asks for, all and without those of inputs that are zero.
    multiply_adds, loads, stores : float
        Vectors that the kernels multiply, load and store; a number in every lane is a vector.
    """

    dense: float = 0.0
    nonzero: float = 0.0
    multiply_adds: float = 0.0
    loads: float = 0.0
    stores: float = 0.0


COUNTED = tuple(field.name for field in fields(Counts))
"""The names of what is counted."""


@dataclass(frozen=True, kw_only=True)
class Part(Counts):
    """A part of a step, and what is counted of it.

    Attributes
    ----------
    layer : str
        The units of the layer, as 784-100.
    name : str
        One of `PARTS` in `epoch/laps.py`.
    seconds : float
        The median of all calls.
    bytes : tuple of float
        Those that come from each of `LEVELS`; of the first one, all that is loaded and stored.
    bound : Bound or None
        None where nothing is counted.
    """

    layer: str
    name: str
    seconds: float
    bytes: tuple[float, ...] = ()
    bound: Bound | None = None

    @property
    def share_of_limit(self) -> float | None:
        """How near the part comes to its limit, 1 where it can't be faster."""
        return None if self.bound is None else self.bound.seconds / self.seconds


@dataclass(frozen=True)
class Anatomy:
    """What a step consists of.

    Attributes
    ----------
    name : str
        Network, batch and so on in words.
    case : Case
    error : str or None
        Why there is nothing else.
    plain, counted : Spread
        Seconds of a step, as ever and with laps counted.
    summed : Spread
        What the laps of a step come to, in seconds by the processor's counter.
    parts : tuple of Part
        In the order of the step.
    limits : dict
        What the machine can do in a second: `Limits` in `limits.py`.
    lanes : int
        Numbers of a vector.
    """

    name: str
    case: Case
    error: str | None = None
    plain: Spread | None = None
    counted: Spread | None = None
    summed: Spread | None = None
    parts: tuple[Part, ...] = ()
    limits: dict[str, Any] | None = None
    lanes: int = 0

    @property
    def verdict(self) -> str:
        """The step in a line."""
        if self.plain is None:
            return f"no time: {self.error}"
        step = f"{short(self.plain.median * 1e6)} us a step"
        if not self.parts:  # the processor's counter stands still
            return f"{step}; its parts could not be timed"
        longest = max(self.parts, key=lambda part: part.seconds)
        return (
            f"{step}; the longest part is {longest.layer} {longest.name}, "
            f"{short(longest.seconds * 1e6)} us"
        )


def gathered(name: str, case: Case, found: Sequence[dict[str, Any]]) -> Anatomy:
    """Make one anatomy of what the worker said in each round."""
    # what a core can do at its best; what disturbs a round makes it look slower
    limits = {}
    for limit, first in found[0]["limits"].items():
        values = [of_round["limits"][limit] for of_round in found]
        several = isinstance(first, list)
        limits[limit] = [max(of) for of in zip(*values, strict=True)] if several else max(values)
    plain, counted, summed = (
        spread(of_round[kind] for of_round in found) for kind in ("plain", "counted", "summed")
    )
    parts = tuple(_part(case, of_rounds, limits) for of_rounds in _by_part(found))
    return Anatomy(name, case, None, plain, counted, summed, parts, limits, found[0]["lanes"])


def _by_part(found: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return of each part what each round knows."""
    by_part: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for of_round in found:
        for part in of_round["parts"]:
            by_part.setdefault((part["layer"], part["name"]), []).append(part)
    return list(by_part.values())


def _part(case: Case, rounds: Sequence[dict[str, Any]], limits: dict[str, Any]) -> Part:
    fields = {**rounds[-1], "seconds": median(of["seconds"] for of in rounds)}
    units = list(pairwise(case.shape))[fields.pop("layer")]
    part = Part(layer="-".join(map(str, units)), **fields)
    if part.loads + part.stores == 0:  # nothing is counted
        return part
    times = {
        "FMA": part.multiply_adds / limits["multiply_adds"],
        "loads": part.loads / limits["loads"],
        "stores": part.stores / limits["stores"],
    }
    for level, nbytes, speed in zip(LEVELS, part.bytes, limits["bandwidth"], strict=True):
        if level != LEVELS[0]:
            times[level] = nbytes / speed
    limit = max(times, key=lambda name: times[name])
    return replace(part, bytes=tuple(part.bytes), bound=Bound(limit, times[limit]))


def as_markdown(anatomy: Anatomy) -> list[str]:
    """Render an anatomy: a row for every part."""
    if anatomy.plain is None or anatomy.counted is None or anatomy.summed is None:
        return []
    total = sum(part.seconds for part in anatomy.parts)
    rows = []
    for part in anatomy.parts:
        if part.seconds < LEAST_SHARE * total:
            continue
        share, bytes_of_levels = part.share_of_limit, [NO_VALUE] * len(LEVELS)
        if part.bytes:
            bytes_of_levels = [f"{nbytes / 1e3:,.0f}" for nbytes in part.bytes]
        rows.append(
            [
                f"{part.layer} {part.name}",
                short(part.seconds * 1e6),
                f"{part.seconds / total:.1%}",
                *(
                    f"{2 * count / 1e6:,.2f}" if count else NO_VALUE
                    for count in (part.dense, part.nonzero)
                ),
                *bytes_of_levels,
                NO_VALUE if part.bound is None else part.bound.limit,
                NO_VALUE if share is None else f"{share:.0%}",
            ]
        )
    header = ["part", "us", "share", "Mflop", "without zeros"]
    header += [f"{level}, kB" for level in LEVELS] + ["bound by", "of the limit"]
    plain, counted, summed = (s.median for s in (anatomy.plain, anatomy.counted, anatomy.summed))
    limits = anatomy.limits or {}
    bandwidth = ", ".join(
        f"{speed / 1e9:,.0f} from {level}"
        for level, speed in zip(LEVELS, limits["bandwidth"], strict=True)
    )
    note = (
        f"A step takes {anatomy.plain.median * 1e6:,.1f} us "
        f"({short(anatomy.plain.lower * 1e6)}-{short(anatomy.plain.upper * 1e6)}), "
        f"{counted / plain - 1:+.1%} with laps counted, and the laps add up to "
        f"{summed / counted:.1%} of that. "
        f"Limits in this run: {2 * anatomy.lanes * limits['multiply_adds'] / 1e9:,.0f} GFLOP/s, "
        f"{limits['loads'] / 1e9:.2f} G loads and {limits['stores'] / 1e9:.2f} G stores of "
        f"vectors a second, {bandwidth} GB/s."
    )
    return [f"### {anatomy.name}", markdown_table(header, rows), note]
