"""How long a training step takes on each rung of the ladder."""

from benchmarks.ladder.picture import add_keys, draw_ladder
from benchmarks.ladder.results import read
from fastnn import plotting

from . import INCHES, LADDER


def draw():
    """Return the figure."""
    lines, machine, _ = read(LADDER)
    figure = plotting.new_figure((INCHES, 5.8), layout="constrained")
    draw_ladder(figure.subplots(), lines, machine)
    add_keys(figure, columns=2)
    return figure
