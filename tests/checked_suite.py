"""Run the whole suite under the checked build: `python tests/checked_suite.py`.

At every vector width that this machine has, and with new memory filled with NaN, with ones and
with zeros; arguments are handed to pytest. It takes a quarter of an hour for each width on two
cores, most of it for kernels that are compiled anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from fastnn.backends.numba_backend.machine import MACHINE
from fastnn.guards import FILLS

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Run; return 1 if any run of the suite failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    widths = [bits for bits in (512, 256, 128) if bits <= MACHINE.vector_bits]
    parser.add_argument("--bits", type=int, nargs="+", default=widths)
    parser.add_argument("--fill", nargs="+", default=["nan"], choices=FILLS)
    options, rest = parser.parse_known_args()
    failed = []
    for bits in options.bits:
        for fill in options.fill:
            checked = {
                "FASTNN_CHECKED": "1",
                "FASTNN_CHECKED_FILL": fill,
                "FASTNN_VECTOR_BITS": str(bits),
            }
            print(f"== vectors of {bits} bits, memory filled with {fill}", flush=True)
            command = [sys.executable, "-m", "pytest", "-q", *(rest or ["-n", "2", "tests"])]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | checked)
            if done.returncode != 0:
                failed.append(f"{bits} bits, {fill}")
    print(f"failed: {'; '.join(failed) or 'nothing'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
