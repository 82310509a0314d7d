"""How sphinx-gallery shows the examples: in the README's order, each with the picture it draws."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

PICTURE = Path(tempfile.gettempdir()) / f"fastnn-gallery-{os.getpid()}.png"
"""Of the one example that this process runs at a time."""
README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
ORDER = re.findall(r"^\| `(\w+\.py)` \|", README, re.M)
strictness = ExitStack()


def place(name: str) -> tuple[int, str]:
    """Return what examples are sorted by: those that the README leaves out come last."""
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def quick_form(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments of an example: its quick form."""
    return ["--quick", "--output", str(PICTURE)]


def be_strict(gallery_conf: dict[str, Any], example: str | None, when: str) -> None:
    """Have an example begin without a picture, and end with its first warning, as in the tests."""
    strictness.close()
    PICTURE.unlink(missing_ok=True)  # of one that failed, in a process of the same number
    if when == "before" and example:
        strictness.enter_context(warnings.catch_warnings())
        for category in (RuntimeWarning, UserWarning):
            warnings.simplefilter("error", category)


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Return the reST that shows what an example has drawn; fail, as the tests do, if nothing."""
    if not PICTURE.exists():
        raise FileNotFoundError(f"{block_vars['src_file']} has drawn nothing")
    path = next(block_vars["image_path_iterator"])
    shutil.move(PICTURE, path)
    return figure_rst([path], gallery_conf["src_dir"])
