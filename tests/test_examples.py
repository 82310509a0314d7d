"""The examples run, in their quick form, and their tables hold what they promise."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import ROOT
from test_cli import ENVIRONMENT


def test_speedrun(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "speedrun.py", "--quick"],
        text=True,
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    reached = re.search(r"^\| fastnn \| (\d) of 2 \|", done.stdout, re.M)
    assert int(reached[1]) >= 1
