"""Links of Markdown to files of the repository, as on GitHub, led to pages of the site."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
INCLUDED = {
    "README.md": "start.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "suites.md",
}
"""Files outside `docs/`, and the pages that include or stand for them."""
LINK = re.compile(r"\]\((?!\w+:|#|/)([^()\s#]+)(#[^()\s]*)?\)")
FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.M | re.S)


def led(text: str, folder: Path, page_folder: Path) -> str:
    """Return `text` of a file in `folder`, with links for a page in `page_folder`.

    An example becomes its page of the gallery, a folder its README or plain text; other files
    that are no pages are downloads.
    """

    def target(link: re.Match[str]) -> str:
        path, anchor = link.groups()
        goal = (folder / path).resolve()
        if not goal.is_relative_to(ROOT):
            return link[0]
        if (name := goal.relative_to(ROOT).as_posix()) in INCLUDED:
            goal = ROOT / "docs" / INCLUDED[name]
        elif goal == ROOT / "examples":
            goal = ROOT / "docs" / "gallery" / "index.rst"
        elif goal.parent == ROOT / "examples" and goal.name != "common.py":
            goal = ROOT / "docs" / "gallery" / f"{goal.stem}.rst"
        elif goal.is_dir():
            return "]"
        return f"]({os.path.relpath(goal, page_folder)}{anchor or ''})"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(target, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(target, text[end:])])


def led_notebook(text: str, folder: Path) -> str:
    """Return a notebook in `folder` with the links of its texts led."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = led("".join(cell["source"]), folder, folder)
    return json.dumps(notebook)


def on_source(app, name: str, content: list[str]) -> None:
    """Lead the links of a page."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        content[0] = led(content[0], path.parent, path.parent)
    elif path.suffix == ".ipynb":
        content[0] = led_notebook(content[0], path.parent)


def on_include(app, path: Path, name: str, content: list[str]) -> None:
    """Lead the links of a file that a page includes."""
    path = Path(app.srcdir, path).resolve()
    if path.suffix == ".md":
        content[0] = led(content[0], path.parent, Path(app.env.doc2path(name)).parent)


def setup(app) -> dict[str, bool]:
    """Be an extension of Sphinx."""
    app.connect("source-read", on_source)
    app.connect("include-read", on_include)
    return {"parallel_read_safe": True}
