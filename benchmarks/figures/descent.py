"""Forty steps of each optimiser in a valley, twenty-five times as curved across as along."""

from __future__ import annotations

import numpy as np

from fastnn import SGD, Adam, RMSprop, backends, plotting
from fastnn.optimizers import Optimizer
from fastnn.plotting import BLUE, GREY, ORANGE

from . import INCHES

CURVATURES = np.array([1.0, 25.0])
START = np.array([-2.0, 0.6])
STEPS = 40
OPTIMIZERS: dict[str, Optimizer] = {
    "SGD, rate 0.03": SGD(0.03),
    "SGD, rate 0.078": SGD(0.078),
    "momentum 0.8, rate 0.03": SGD(0.03, momentum=0.8),
    "Nesterov's 0.8, rate 0.03": SGD(0.03, momentum=0.8, nesterov=True),
    "RMSprop, rate 0.06": RMSprop(0.06),
    "Adam, rate 0.15": Adam(0.15),
}


def path(optimizer: Optimizer) -> np.ndarray:
    """Return the places from the start on, one a row."""
    backend, places = backends.load("numpy"), [START]
    state = [np.zeros(2) for _ in optimizer.state_names]
    for step in range(STEPS):
        place = places[-1].copy()
        optimizer.step(backend, place, CURVATURES * place, state, step)
        places.append(place)
    return np.array(places)


def draw():
    """Return the figure."""
    x, y = np.meshgrid(np.linspace(-2.3, 1.1, 120), np.linspace(-0.8, 0.8, 80))
    loss = (CURVATURES[0] * x**2 + CURVATURES[1] * y**2) / 2
    figure = plotting.new_figure((INCHES, 1.45 * len(OPTIMIZERS)), layout="constrained")
    panels = figure.subplots(len(OPTIMIZERS), 1, sharex=True)
    for axes, (name, optimizer) in zip(panels, OPTIMIZERS.items(), strict=True):
        axes.contour(x, y, loss, levels=[0.05, 0.3, 1, 2, 4, 7], colors="#cccccc", linewidths=0.7)
        places = path(optimizer)
        axes.plot(*places.T, "o-", color=BLUE, markersize=2.5, linewidth=0.8)
        axes.plot(0, 0, "x", color=ORANGE)
        final = (CURVATURES * places[-1] ** 2).sum() / 2
        axes.set_title(f"{name}: loss {final:.1e} at the end", loc="left", fontsize="medium")
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel("along the valley", color=GREY)
    return figure
