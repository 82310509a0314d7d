"""The guide's figures, drawn by ``python -m benchmarks.figures [NAME ...]`` into `docs/figures/`.

A figure is a module with a function `draw`, which returns it; its first line says what it shows.
What was measured is read from `ladder.json` and `step.json`, which lie beside the pictures;
``--measure`` makes them anew. All else follows from shapes, from samples and from counting.

Pictures are SVG on a white card, so they can be read on light and on dark pages. They are narrow
and tall and their letters large, as a telephone shows them 360 pixels wide.
"""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
LADDER, STEP = FOLDER / "ladder.json", FOLDER / "step.json"
NAMES = (
    "ladder", "roofline", "data-way", "anatomy", "latency", "bits", "tile", "backprop",
    "differences", "activations", "descent",
)  # fmt: skip
INCHES = 4.8
"""How wide a picture is."""
STYLE = {
    "font.family": "DejaVu Sans",  # which matplotlib brings
    "font.size": 12,
    "svg.fonttype": "path",
    "svg.hashsalt": "fastnn",  # the same names of parts each time, so that pictures can be compared
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.06,
}


def write(name: str, folder: Path) -> Path:
    """Draw a figure; return its file."""
    import matplotlib

    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    path = folder / f"{name}.svg"
    with matplotlib.rc_context(STYLE):
        title = module.__doc__.splitlines()[0]
        module.draw().savefig(path, metadata={"Title": title, "Date": None})
    return path
