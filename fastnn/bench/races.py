"""Races to a share of right answers on MNIST's test set: who gets there, and after how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from fastnn.bench.cases import Case
from fastnn.bench.figures import NO_VALUE, spread
from fastnn.bench.recipes import Look, Recipe
from fastnn.markdown import markdown_table


@dataclass(frozen=True)
class Runner:
    """One contender's runs, one a seed, each as what was seen after its epochs.

    `error` says why there are none to report.
    """

    case: Case
    label: str
    error: str | None
    runs: tuple[tuple[Look, ...], ...]


@dataclass(frozen=True)
class Race:
    """A recipe that all run in turn, seed by seed; the first runner is the subject."""

    name: str
    recipe: Recipe
    runners: tuple[Runner, ...]

    def times(self, runner: Runner) -> list[float | None]:
        """Return for each seed the seconds until the target was reached first, None for never."""
        return [
            next((look.seconds for look in run if look.accuracy >= self.recipe.target), None)
            for run in runner.runs
        ]

    def pairs(self, runner: Runner) -> list[tuple[float, float]]:
        """Return the times of a runner and of the subject for the seeds with which both arrive."""
        both = zip(self.times(runner), self.times(self.runners[0]), strict=False)  # one failed
        return [(time, own) for time, own in both if time is not None and own is not None]

    @property
    def verdict(self) -> str:
        """The race in a line."""
        shown = []
        for runner in self.runners:
            times = [seconds for seconds in self.times(runner) if seconds is not None]
            when = f", after {spread(times)} s" if times else ""
            shown.append(f"{runner.label} {len(times)} of {len(runner.runs)}{when}")
        return f"there: {'; '.join(shown)}"


def race_sections(races: Sequence[Race]) -> list[str]:
    """How long each took to a share of right answers, a table for each race."""
    parts = []
    header = ["contender", "arrived", "s to the target", "s in all", "right at the end"]
    for race in races:
        rows = []
        for runner in race.runners:
            times = [seconds for seconds in race.times(runner) if seconds is not None]
            ratios = [other / own for other, own in race.pairs(runner)]
            ends = [run[-1] for run in runner.runs]
            rows.append(
                [
                    runner.label,
                    f"{len(times)} of {len(ends)}",
                    str(spread(times)) if times else NO_VALUE,
                    str(spread(end.seconds for end in ends)) if ends else NO_VALUE,
                    _shares([end.accuracy for end in ends]) if ends else NO_VALUE,
                    str(spread(ratios)) if ratios else NO_VALUE,
                ]
            )
        subject = race.runners[0].label
        parts += [f"### {race.name}", markdown_table([*header, f"time over {subject}"], rows)]
    parts.append(
        "Medians over the seeds, quartiles in brackets; of right answers at the end the least and "
        "the most. The clock stands still while the test set is looked at, after each epoch."
    )
    return parts


def _shares(values: Sequence[float]) -> str:
    return f"{median(values):.2%} ({min(values):.2%}-{max(values):.2%})"
