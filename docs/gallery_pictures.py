"""How sphinx-gallery runs the examples: in their quick form, each drawing one picture."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

PICTURE = Path(tempfile.gettempdir()) / "fastnn-gallery.png"


def quick_form(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments of an example."""
    return ["--quick", "--output", str(PICTURE)]


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Return the reST that shows what an example has drawn, if it has drawn since."""
    if not PICTURE.exists():
        return ""
    path = next(block_vars["image_path_iterator"])
    shutil.move(PICTURE, path)
    return figure_rst([path], gallery_conf["src_dir"])
