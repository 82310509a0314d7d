"""Data larger than memory
==========================

Samples of ten classes, 128 float32 numbers each, are drawn in blocks of 16 MB, as
they would be read from files; `Network.fit_blocks` holds one block at a time.
After each block, the most memory that the process has had so far is noted.

What to see: the peak stays where it was after the first blocks, whatever has been
seen since.

::

    python examples/larger_than_memory.py                   4 GB
    python examples/larger_than_memory.py --gigabytes 40    as long as you like
    python examples/larger_than_memory.py --quick           0.2 GB
"""

from __future__ import annotations

import math
import resource
import sys
import time

import numpy as np
from common import BLUE, GREY, conclude, new_figure, parse_options, print_table, tidy

import fastnn

WIDTH, CLASSES, ROWS = 128, 10, 2**15
BLOCK_BYTES = 4 * WIDTH * ROWS
GIGABYTE = 1e9

CENTRES = np.random.default_rng(0).normal(scale=0.35, size=(CLASSES, WIDTH)).astype(np.float32)


def drawn(number: int):
    """Return block `number`, which is the same whenever it is asked for."""
    rng = np.random.default_rng([1, number])
    y = rng.integers(0, CLASSES, ROWS)
    X = rng.standard_normal((ROWS, WIDTH), np.float32)
    X += CENTRES[y]
    return X, y


def peak_megabytes() -> float:
    """Return the most memory that the process has had, as the system counts its pages."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Train, print the peak as it goes, draw it and check that it stays."""
    sizes = {"gigabytes": (4.0, 0.2, "of samples to train on")}
    options = parse_options(__doc__, sizes=sizes)
    count = max(8, math.ceil(options.gigabytes * GIGABYTE / BLOCK_BYTES))
    layers = [fastnn.Dense(WIDTH, 64), fastnn.ReLU(), fastnn.Dense(64, CLASSES)]
    network = fastnn.Network(layers, seed=0)
    before = peak_megabytes()
    peaks: list[float] = []

    def blocks():
        for number in range(count):
            yield drawn(number)
            peaks.append(peak_megabytes())

    start = time.perf_counter()
    history = network.fit_blocks(blocks, batch_size=128)
    seconds = time.perf_counter() - start
    seen = np.arange(1, count + 1) * BLOCK_BYTES / GIGABYTE
    accuracy = network.evaluate(*drawn(count)).accuracy

    shown = sorted({1, 2, *(math.ceil(count * share) for share in (0.25, 0.5, 0.75, 1))})
    print_table(
        ["blocks", "GB seen", "peak memory, MB", "over that before training, MB"],
        [
            [n, f"{seen[n - 1]:.2f}", f"{peaks[n - 1]:.0f}", f"{peaks[n - 1] - before:.0f}"]
            for n in shown
        ],
    )
    print(
        f"\n{history.samples_seen:,} samples in {seconds:.1f} s, of which training steps took "
        f"{history.seconds[0]:.1f} s; accuracy on a new block {accuracy:.4f}"
    )

    figure = new_figure(6, 3.6)
    axes = figure.add_subplot()
    axes.plot(seen, seen * 1000, color=GREY, linestyle="--", label="samples seen")
    axes.plot(seen, peaks, color=BLUE, label="peak memory of the process")
    axes.set_ylim(0, 2.5 * peaks[-1])
    axes.legend(frameon=False)
    tidy(axes, "GB of samples seen", "MB", title="One block of 16 MB is held at a time")
    figure.savefig(options.output)
    print(f"picture in {options.output}")

    conclude(
        {
            "after the second block the peak grows by less than half a block": (
                peaks[-1] - peaks[1] < BLOCK_BYTES / 2e6
            ),
            "every sample is trained on once": history.samples_seen == count * ROWS,
            "the network tells the classes apart": accuracy > 0.95,
        }
    )


if __name__ == "__main__":
    main()
