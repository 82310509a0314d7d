"""What a package index is told beside `pyproject.toml`: a hook of Hatchling, run by every build.

An index shows README.md without the files beside it, so that pictures and links have to be
addresses. Where the repository lies, no file of it says, as forks lie elsewhere: the workflow that
builds releases says it in FASTNN_REPOSITORY. In other builds the README stays as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(!?)(\[[^\[\]]*\])\((?!\w+:|#)([^()\s]+)\)")
"""A picture or a link of Markdown to a file of the repository."""


def with_addresses(text: str, repository: str, version: str) -> str:
    """Return Markdown whose pictures and links lead to files of the version's tag."""

    def address(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}{words}({repository}/{kind}/v{version}/{path})"

    return RELATIVE.sub(address, text)


class IndexMetadata(MetadataHookInterface):
    """The README, and the addresses that an index lists."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the fields that `pyproject.toml` calls dynamic."""
        version = metadata["version"]
        text = (Path(self.root) / "README.md").read_text("utf-8")
        urls = {}
        if repository := os.environ.get("FASTNN_REPOSITORY", "").rstrip("/"):
            text = with_addresses(text, repository, version)
            urls = {
                "Repository": repository,
                "Documentation": f"{repository}/tree/v{version}/docs",
                "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls
