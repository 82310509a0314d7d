"""A register tile in a turn of its loop, and which tiles fit into the registers."""

from __future__ import annotations

from fastnn import plotting
from fastnn.backends.numba_backend.machine import MACHINES
from fastnn.plotting import BLUE, GREY, ORANGE

from . import INCHES

LANES = 16
LARGEST = 14, 6
"""Rows and vectors of the tiles that are compared."""
WIDE, NARROW = MACHINES[512, 32], MACHINES[256, 16]


def registers(rows: int, vectors: int) -> int:
    """Return how many a tile needs: its sums, vectors of B, and one number of A in all lanes."""
    return rows * vectors + vectors + 1


def loads_a_product(rows: int, vectors: int) -> float:
    """Return the loads of a turn by its multiply-adds."""
    return (rows + vectors) / (rows * vectors)


def draw():
    """Return the figure."""
    figure = plotting.new_figure((INCHES, 8.6), layout="constrained")
    turn, shapes = figure.subplots(2, 1, height_ratios=[1, 1.25])
    _turn(turn, WIDE.tile_rows, WIDE.tile_columns)
    _shapes(shapes)
    return figure


def _turn(axes, rows: int, vectors: int) -> None:
    wide = LANES / 2  # a vector in the drawing; a number of A is 2 wide

    def box(x, y, width, color, text=""):
        axes.add_patch(_rectangle((x, y), width, 0.84, facecolor=color, alpha=0.35))
        axes.text(x + width / 2, y + 0.42, text, ha="center", va="center", fontsize="small")

    for i in range(rows):
        box(0, i + 1.6, 2.2, ORANGE, f"a{i + 1}")
        for j in range(vectors):
            box(3.2 + j * (wide + 0.5), i + 1.6, wide, BLUE, f"+ a{i + 1} b{j + 1}")
    for j in range(vectors):
        left = 3.2 + j * (wide + 0.5)
        box(left, 0, wide, ORANGE, f"b{j + 1}")
        for lane in range(1, LANES):
            x = left + lane * wide / LANES
            axes.plot([x, x], [0, 0.16], color=GREY, linewidth=0.6)
    axes.set_xlim(-0.2, 3.2 + vectors * (wide + 0.5))
    axes.set_ylim(rows + 1.7, -0.2)
    axes.axis("off")
    axes.set_title(
        f"A turn: {rows} numbers of A and {vectors} vectors of B\nare loaded, "
        f"{rows * vectors} sums stay in registers",
        loc="left", fontsize="medium",
    )  # fmt: skip


def _shapes(axes) -> None:
    tall, broad = LARGEST
    ours = {(of.tile_rows, of.tile_columns) for of in (WIDE, NARROW)}
    for rows in range(1, tall + 1):
        for vectors in range(1, broad + 1):
            needed = registers(rows, vectors)
            fits = 16 if needed <= 16 else 32 if needed <= 32 else None
            color = {16: ORANGE, 32: BLUE, None: "white"}[fits]
            place = vectors - 0.5, rows - 0.5
            edge = "black" if (rows, vectors) in ours else "none"
            axes.add_patch(_rectangle(place, 1, 1, facecolor=color, alpha=0.3))
            axes.add_patch(_rectangle(place, 1, 1, facecolor="none", edgecolor=edge, linewidth=2))
            axes.text(vectors, rows, f"{loads_a_product(rows, vectors):.2f}", ha="center",
                      va="center", fontsize="small", color="black" if fits else GREY)  # fmt: skip
    axes.set_xlim(0.5, broad + 0.5)
    axes.set_ylim(tall + 0.5, 0.5)
    axes.set_xlabel("vectors of a tile")
    axes.set_ylabel("its rows")
    axes.set_yticks(range(1, tall + 1))
    axes.set_title("Loads for a product: 16 registers are enough\nfor orange tiles, 32 for blue",
                   loc="left", fontsize="medium")  # fmt: skip


def _rectangle(*place, **options):
    from matplotlib.patches import Rectangle

    return Rectangle(*place, **options)
