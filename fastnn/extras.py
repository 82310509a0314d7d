"""Libraries that a part of fastnn needs and the rest does not."""

from __future__ import annotations

LIBRARIES = {
    "plot": "matplotlib",
    "images": "pillow",
    "tables": "pandas pyarrow",
    "dask": "distributed",
    "sklearn": "scikit-learn",
    "onnx": "onnx",
    "torch": "torch",
}
"""Of each extra, by the names that an index has for them.

Messages name the libraries, not the extra: nobody knows whether fastnn came from an index, and
under which name, or from a clone.
"""


def install(extra: str) -> str:
    """Return the command that installs what an extra is for."""
    return f"pip install {LIBRARIES[extra]}"
