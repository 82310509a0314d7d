"""The error of finite differences of exp at 1, by their step."""

from __future__ import annotations

import numpy as np

from fastnn import eval_numerical_gradient, plotting
from fastnn.plotting import BLUE, GREY, ORANGE

from . import INCHES

STEPS = np.logspace(-0.5, -13, 76)


def central() -> np.ndarray:
    """Return the derivative by central differences in float64, for each step."""
    return np.array(
        [eval_numerical_gradient(lambda x: np.exp(x[0]), np.ones(1), h=h)[0] for h in STEPS]
    )


def one_sided() -> np.ndarray:
    """Return the derivative by differences on one side in float64, for each step."""
    return (np.exp(1 + STEPS) - np.exp(1.0)) / STEPS


def central_float32() -> np.ndarray:
    """Return the derivative by central differences in float32, for each step."""
    h, one = STEPS.astype(np.float32), np.float32(1)
    return (np.exp(one + h) - np.exp(one - h)) / (2 * h)


def draw():
    """Return the figure."""
    figure = plotting.new_figure((INCHES, 4.8), layout="constrained")
    axes = figure.subplots()
    for found, color, marker, name in (
        (central_float32(), GREY, "^", "both sides, float32"),
        (one_sided(), ORANGE, "s", "one side, float64"),
        (central(), BLUE, "o", "both sides, float64"),
    ):
        axes.loglog(STEPS, np.abs(found - np.e), marker, color=color, markersize=3.5, label=name)
    u, step = np.finfo(np.float64).eps / 2, np.array([STEPS[-1], STEPS[0]])
    for bound, name, place, side in (
        (step**2 / 6 * np.e, "h² M / 6", (3e-3, 1e-6), "left"),
        (step / 2 * np.e, "h max|f''| / 2", (2e-6, 1e-5), "right"),
        (u * np.e / step, "u S / h", (2e-10, 3e-8), "right"),
    ):
        axes.loglog(step, bound, color="black", linewidth=0.8, zorder=0)
        axes.text(*place, name, fontsize="small", ha=side)
    axes.set_ylim(1e-13, 30)
    axes.set_xlabel("step h")
    axes.set_ylabel("error of the derivative")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", frameon=False)
    return figure
