"""Progress: what is seen of a training as it goes on, by where it is seen.

In a terminal a bar within the epoch, which gives way to one line when the epoch is over; in a log
file or a pipe the lines alone; in a notebook a table that grows.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from fastnn import checks, compilations

if TYPE_CHECKING:
    from fastnn.training import History

__all__ = ["Lines", "Notebook", "Progress", "Terminal"]

REDRAW_SECONDS = 0.25
"""From one state of a notebook's table to the next: each is kept by the browser for a while."""

FIRST_ROWS, LAST_ROWS = 3, 20
"""What a notebook's table shows of very many epochs."""


class Progress:
    """How far a training is; the base shows nothing.

    `fit` enters it as a context, so that a class of your own can leave things in order whatever
    ends the training.

    Attributes
    ----------
    history : History
        Of the epochs that are over.
    epochs : int
        How many there are to be.
    samples : int or None
        Those of the epoch that is running; None where it isn't known how many it has.
    done : int
        How many of them it has been through.
    averages : dict of float
        Running means of that epoch: its loss and, of class ids, its accuracy.
    """

    history: History
    epochs: int
    samples: int | None
    done: int
    averages: dict[str, float]

    def begin(self, history: History, epochs: int) -> None:
        """Hear what is going to be trained; entering the context follows."""
        self.history, self.epochs = history, epochs
        self.samples, self.done, self.averages = 0, 0, {}

    def begin_epoch(self, samples: int | None, done: int) -> None:
        """Hear that an epoch begins, of which a training that goes on has done some samples."""
        self.samples, self.done, self.averages = samples, done, {}

    def advance(self, samples: int, averages: dict[str, float]) -> None:
        """Hear of some more samples, and what the means of the epoch are with them."""
        self.done += samples
        self.averages = averages

    def hide(self) -> None:
        """Make room for a warning in the midst of an epoch."""

    def end_epoch(self) -> None:
        """Hear that an epoch is over and in the history."""
        self.samples, self.done, self.averages = 0, 0, {}

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Lines(Progress):
    """One plain line an epoch.

    Parameters
    ----------
    stream
        To write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def end_epoch(self) -> None:
        """Write the line of the epoch."""
        super().end_epoch()
        self._write("  ".join(_parts(self.history, len(self.history), self.epochs)))

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Terminal(Lines):
    """A bar within the epoch, and one line for each that is over.

    The bar is gone while callbacks run, as they may print. It stays where it was if an exception,
    such as Ctrl-C, ends the training.

    Parameters
    ----------
    stream
        To write lines to.
    bars
        The terminal to draw bars on.
    """

    def __init__(self, stream: TextIO, bars: TextIO) -> None:
        super().__init__(stream)
        self._bars = bars
        self._bar: Any = None
        self._began = 0.0
        self._preparing = ExitStack()

    def __enter__(self) -> None:
        # Where nothing has been compiled yet, it takes some seconds to the first epoch.
        self._bar = self._draw(bar_format="preparing")
        self._began = time.perf_counter()
        self._preparing.enter_context(compilations.told_to(self._tell_of_compilation))

    def _tell_of_compilation(self, name: str) -> None:
        """Show what is being compiled, once for this machine, and how long that has taken."""
        seconds = time.perf_counter() - self._began
        self._bar.bar_format = f"preparing: compiling {name}, {seconds:.1f} s so far"
        self._bar.refresh()

    def begin_epoch(self, samples: int | None, done: int) -> None:
        """Note when the epoch began; a short one gets no bar."""
        super().begin_epoch(samples, done)
        self._preparing.close()
        self._close()
        self._began = time.perf_counter()

    def advance(self, samples: int, averages: dict[str, float]) -> None:
        """Move the bar."""
        before = self.done
        super().advance(samples, averages)
        if self._bar is None:
            if self.done == self.samples:
                return
            number = len(self.history) + 1
            self._bar = self._draw(
                desc=f"epoch {number:{len(str(self.epochs))}}/{self.epochs}",
                total=self.samples,
                initial=before,
                unit=" samples",
                unit_scale=True,
                # Fits 80 columns with everything in it.
                bar_format="{desc} {bar:12} {rate_fmt}{postfix}",
                # The first state is drawn below, with a rate. `fit` chooses how often to report.
                delay=1e-9,
                mininterval=0.0,
                miniters=1,
            )
            # as if it had been there from the beginning
            self._bar.start_t = self._bar.last_print_t = time.time() - (
                time.perf_counter() - self._began
            )
        means = ", ".join(f"{name} {_number(value)}" for name, value in averages.items())
        self._bar.set_postfix_str(means, refresh=False)
        self._bar.update(samples)

    def hide(self) -> None:
        """Clear the line of the bar; the next state appears below."""
        if self._bar is not None:
            self._bar.clear()

    def end_epoch(self) -> None:
        """Put the line of the epoch in the place of the bar."""
        self._close()
        super().end_epoch()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._preparing.close()
        if self._bar is not None:
            self._bar.leave = kind is not None and self.done > 0
        self._close()

    def _write(self, line: str) -> None:
        columns = _columns(self._stream)
        # rather without the last figures than on two lines
        while columns is not None and len(line) > columns and "  " in line:
            line = line.rpartition("  ")[0]
        from tqdm import tqdm

        tqdm.write(line, file=self._stream)  # above the bar of a user's own loop, if there is one
        self._stream.flush()

    def _draw(self, **options: Any) -> Any:
        # Imported here as it would be half of the time that `import fastnn` takes.
        from tqdm import tqdm

        return tqdm(file=self._bars, leave=False, dynamic_ncols=True, **options)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Notebook(Progress):
    """A table in a Jupyter notebook, one row an epoch, that changes as the training goes on."""

    def __enter__(self) -> None:
        self._drawn = time.monotonic()
        show = import_module("IPython.display").display
        self._handle = show(self._state(), raw=True, display_id=True)

    def advance(self, samples: int, averages: dict[str, float]) -> None:
        """Bring the row of the epoch up to date."""
        super().advance(samples, averages)
        self._redraw()

    def end_epoch(self) -> None:
        """Fill in the row of the epoch."""
        super().end_epoch()
        self._redraw()

    def __exit__(self, *_: object) -> None:
        self._redraw(now=True)

    def _redraw(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn > REDRAW_SECONDS:
            self._handle.update(self._state(), raw=True)
            self._drawn = time.monotonic()

    def _state(self) -> dict[str, str]:
        """Return the table for those who can show one, and the lines for others."""
        over = len(self.history)
        numbers: list[int | None] = list(range(1, over + 1))
        if over > FIRST_ROWS + LAST_ROWS:
            numbers[FIRST_ROWS:-LAST_ROWS] = [None]
        lines = [
            "  ".join(_parts(self.history, number, self.epochs)) if number else "..."
            for number in numbers
        ]
        running = self.averages
        if running:
            means = "  ".join(f"{name} {_number(value)}" for name, value in running.items())
            lines.append(f"epoch {over + 1}/{self.epochs}  {means}")
        names = [name for name in self.history.columns if name != "seconds"]
        names = names or [*running]
        rows = [_cells(self.history, number, names) for number in numbers]
        if running:
            of = f' value="{self.done}" max="{self.samples}"' if self.samples else ""
            share = f"<progress{of}></progress>"
            cells = [_number(running[name]) if name in running else "" for name in names]
            rows.append([f"{over + 1}", *cells, share])
        if not rows:
            return {"text/plain": "preparing", "text/html": "preparing"}
        heads = ["epoch", *(_HEADS.get(name, name.replace("_", " ")) for name in names)]
        table = [_html_row("th", heads), *(_html_row("td", row) for row in rows)]
        below = f"of {self.epochs:,} epochs" if over < self.epochs else ""
        return {
            "text/plain": "\n".join(lines),
            "text/html": f"<table>{''.join(table)}</table>{below}",
        }


_HEADS = {"samples_per_second": "samples/s"}


def checked_progress(progress: bool | Progress) -> Progress | None:
    """Return what shows the progress that `fit` is asked for, None for nothing.

    Raises
    ------
    TypeError
        If it is neither a bool nor a `Progress`.
    """
    if isinstance(progress, Progress):
        return progress
    if not checks.flag("progress", progress):
        return None
    if _in_kernel():
        return Notebook()
    # None is what a program without a console has
    return None if sys.stderr is None or sys.stderr.closed else on(sys.stderr, bars=sys.stderr)


def on(stream: TextIO | None, bars: TextIO | None) -> Progress:
    """Return what writes lines to `stream`, and draws bars on `bars` if it is a terminal.

    None stands for a stream that was closed before the program began; nothing is shown then.
    """
    if stream is None:
        return Progress()
    if bars is None or not _is_terminal(bars) or os.environ.get("TERM") == "dumb":
        return Lines(stream)
    return Terminal(stream, bars)


def _is_terminal(stream: TextIO) -> bool:
    return hasattr(stream, "isatty") and stream.isatty()


def _columns(stream: TextIO) -> int | None:
    """Return the width of a terminal; None for something else, or where it is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (AttributeError, OSError, ValueError):
        return None


def _in_kernel() -> bool:
    """Say whether this is the kernel of a notebook: then IPython has been imported, and runs."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _parts(history: History, number: int, epochs: int) -> list[str]:
    """Return the parts of the line of an epoch, the most important ones first."""
    row = history[number - 1]
    parts = [f"epoch {number:{len(str(epochs))}}/{epochs}"]
    for kind in ("loss", "accuracy", "r2"):
        columns = {kind: kind, f"val_{kind}": "val", f"train_{kind}": "train"}
        found = [f"{label} {_number(row[name])}" for name, label in columns.items() if name in row]
        if found and kind not in row:
            found.insert(0, kind)
        if found:
            parts.append(" ".join(found))
    return [*parts, f"{_rounded(row['samples_per_second'])} samples/s"]


def _cells(history: History, number: int | None, names: list[str]) -> list[str]:
    """Return the cells of an epoch, or of those that are left out."""
    if number is None:
        return ["..."] * (len(names) + 1)
    row = history[number - 1]
    numbers = [f"{row[n]:,.0f}" if n == "samples_per_second" else _number(row[n]) for n in names]
    return [f"{number}", *numbers]


def _html_row(kind: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{cell}</{kind}>' for cell in cells)}</tr>"


def _number(value: float) -> str:
    """Return a loss, an accuracy or R² in some six characters."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def _rounded(value: float) -> str:
    """Return a number in three digits, as 384k."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + unit
    return f"{value:.3g}"
