"""Learning rates that change as training goes on: functions of the step.

A schedule is any callable of the step, 0 for the first one, that returns a
rate. Steps are counted layer by layer: how many its parameters have taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastnn import checks
from fastnn.registry import Registry

Schedule = Callable[[int], float]
Rate = float | Schedule
"""What a learning rate can be: a number, or a function of the step."""

BUILT_IN: Registry[Schedule] = Registry()
"""fastnn's own schedules."""


def checked(name: str, value: object) -> Rate:
    """Return `value` as a float that is not negative, or as the function that it is."""
    return value if callable(value) else checks.real(name, value, minimum=0.0)


def is_known(rate: Rate) -> bool:
    """Say whether what gives the rate is fastnn's own: it draws nothing, and never raises."""
    if isinstance(rate, WarmUp):
        return rate in BUILT_IN and is_known(rate.schedule)
    return not callable(rate) or rate in BUILT_IN


def rate_at(name: str, rate: Rate, step: int) -> float:
    """Return the rate in force at `step`; what a schedule gives is checked as a number is."""
    if not callable(rate):
        return rate
    value = rate(step)
    try:
        return checks.real(name, value, minimum=0.0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} from {rate!r} at step {step}") from None


@BUILT_IN.register
@dataclass(frozen=True)
class Constant:
    """The same rate at every step.

    Parameters
    ----------
    rate
        Finite and not negative.

    Raises
    ------
    ValueError
        If `rate` is negative, infinite or NaN.
    TypeError
        If it is not a number.
    """

    rate: float

    def __post_init__(self) -> None:
        _set(self, rate=_rate("rate", self.rate))

    def __call__(self, step: int) -> float:
        """Return the rate at `step`."""
        return self.rate


@BUILT_IN.register
@dataclass(frozen=True)
class StepDecay:
    """rate * factor^⌊step / every⌋: the rate is multiplied by `factor` after every `every` steps.

    Parameters
    ----------
    rate
        At the beginning; finite and not negative.
    factor
        Finite and not negative, as a rule below 1.
    every
        Steps at each rate, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If `rate` or `factor` is not a number, or `every` not an integer.
    """

    rate: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        rate, factor = _rate("rate", self.rate), _rate("factor", self.factor)
        _set(self, rate=rate, factor=factor, every=_steps("every", self.every))

    def __call__(self, step: int) -> float:
        """Return the rate at `step`."""
        try:
            return self.rate * self.factor ** (step // self.every)
        except OverflowError:  # of a factor above 1
            return math.inf


@BUILT_IN.register
@dataclass(frozen=True)
class CosineDecay:
    """Half a wave of the cosine, from `rate` at step 0 to `final_rate` at step `steps` and beyond.

    final_rate + (rate - final_rate) (1 + cos(π t / steps)) / 2, with t = min(step, steps).

    Parameters
    ----------
    rate
        At the beginning; finite and not negative.
    steps
        Steps until the end, at least 1.
    final_rate
        At the end; finite and not negative.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If a rate is not a number, or `steps` not an integer.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm
    restarts", ICLR 2017, equation 5, without restarts.
    """

    rate: float
    steps: int
    final_rate: float = 0.0

    def __post_init__(self) -> None:
        rate, final_rate = _rate("rate", self.rate), _rate("final_rate", self.final_rate)
        _set(self, rate=rate, steps=_steps("steps", self.steps), final_rate=final_rate)

    def __call__(self, step: int) -> float:
        """Return the rate at `step`."""
        share = (1.0 + math.cos(math.pi * min(step, self.steps) / self.steps)) / 2.0
        return self.final_rate + (self.rate - self.final_rate) * share


@BUILT_IN.register
@dataclass(frozen=True)
class WarmUp:
    """A schedule whose first steps are small: its rate times min(1, (step + 1) / steps).

    The rate grows by equal parts, the first step is taken at 1 / steps of it,
    and from step `steps` - 1 on it is the schedule's own. The schedule counts
    its steps from the beginning, the warm-up included.

    Parameters
    ----------
    schedule
        What to warm up to: a schedule or a number.
    steps
        Steps until the whole rate, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If `schedule` is neither a number nor callable, or `steps` not an integer.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1
    hour", 2017, section 2.2, "gradual warmup".
    """

    schedule: Rate
    steps: int

    def __post_init__(self) -> None:
        schedule = checked("schedule", self.schedule)
        _set(self, schedule=schedule, steps=_steps("steps", self.steps))

    def __call__(self, step: int) -> float:
        """Return the rate at `step`."""
        return rate_at("schedule", self.schedule, step) * min(1.0, (step + 1) / self.steps)


def _rate(name: str, value: object) -> float:
    return checks.real(name, value, minimum=0.0)


def _steps(name: str, value: object) -> int:
    return checks.integer(name, value, minimum=1)


def _set(instance: object, /, **values: object) -> None:
    """Set checked values, which a frozen dataclass allows in its `__post_init__` this way alone."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
