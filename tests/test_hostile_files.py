"""Files that lie: refused by name, whatever they say, in little memory."""

from __future__ import annotations

import fuzz_files
import pytest

MUTATIONS = 500
"""Of each format. `python tests/fuzz_files.py` takes more."""


@pytest.mark.parametrize("name", fuzz_files.FORMATS)
def test_files_that_have_been_changed(name):
    """Each is refused by a message that names it, or gives what is valid: see `fuzz_files`."""
    counts = fuzz_files.fuzz(name, 0, MUTATIONS)
    assert counts.wrong == []
    assert counts.counts["loaded"] + counts.counts["refused"] == MUTATIONS
    assert counts.counts["loaded"] >= MUTATIONS / 50
    assert counts.peak < fuzz_files.MOST_BYTES
