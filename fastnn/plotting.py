"""Learning curves; matplotlib is imported when first used."""

from __future__ import annotations

import io
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnn import extras, saving

if TYPE_CHECKING:
    from fastnn.training import History

BLUE, ORANGE, GREY = "#1f6fb4", "#d9731a", "#5a5a5a"


def learning_curves(history: History, path: str | PathLike[str] | None, title: str = "") -> Any:
    """Draw loss and accuracy by epoch, side by side; return the figure.

    Parameters
    ----------
    history
        At least one epoch. Curves that it does not hold are left out.
    path
        Of a picture to write; the ending chooses the format: .png, .svg, .pdf.
    title
        Above both panels.

    Raises
    ------
    ValueError
        If `history` holds no epoch.
    ImportError
        If matplotlib is not installed.
    """
    if not history:
        raise ValueError("history: expected at least one epoch, got none")
    figure = new_figure((9, 3.6), dpi=150, layout="constrained")
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(history) + 1)
    running = "training (running)"
    panels = {
        "loss": (history.loss, history.train_loss, history.val_loss),
        "accuracy": (history.accuracy, history.train_accuracy, history.val_accuracy),
    }
    if not history.accuracy:
        del panels["accuracy"]
    (all_axes,) = figure.subplots(1, len(panels), squeeze=False)
    marker = "o" if len(history) < 40 else None
    for axes, (label, (during, after, validation)) in zip(all_axes, panels.items(), strict=True):
        axes.plot(epochs, after or during, color=BLUE, marker=marker, markersize=3,
                  label="training" if after else running)  # fmt: skip
        if validation:
            axes.plot(epochs, validation, color=ORANGE, marker=marker, markersize=3,
                      label=f"validation (last {validation[-1]:.4f})")  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        add_grid(axes)
        axes.legend(frameon=False)
        if label == "loss":
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(top=1.0)
    if title:
        figure.suptitle(title, fontsize=11, color=GREY)
    if path is not None:
        write(figure, path)
    return figure


def add_grid(axes: Any, lines: str = "both", without: tuple[str, ...] = ("top", "right")) -> None:
    """Add thin lines behind all that is drawn, and take away sides of the frame.

    Parameters
    ----------
    axes
        Of matplotlib.
    lines : {"both", "x", "y"}
        From the ticks of which axis.
    without : tuple of str
        Sides of the frame.
    """
    axes.grid(axis=lines, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[[*without]].set_visible(False)


def check_installed() -> None:
    """Raise an ImportError that says how to install matplotlib, unless it is there."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError(f"drawing needs matplotlib: {extras.install('plot')}") from None


def new_figure(inches: tuple[float, float], **options: Any) -> Any:
    """Return an empty figure of such a width and height.

    By the object API: no window system is asked for and no global state is left behind.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    check_installed()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(inches, **options)
    FigureCanvasAgg(figure)
    return figure


def write(figure: Any, path: str | PathLike[str]) -> None:
    """Write a picture in the format that the ending says, ".png" if there is none.

    Raises
    ------
    OSError
        If it can't be written; a file that was there before is still there.
    """
    ending = Path(path).suffix
    picture = io.BytesIO()
    figure.savefig(picture, format=ending[1:] or "png")
    saving.replace_file(path if ending else f"{fspath(path)}.png", picture.getvalue(), "picture")
