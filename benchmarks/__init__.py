"""What times fastnn beside its own command: asv, pytest-benchmark, and the ladder.

All of it has OpenBLAS choose its kernels, as `fastnn bench` has: ``python -m benchmarks.ladder``
and others, and pytest, import this before NumPy, which asv does with `over_commits`.
"""

import runpy
from pathlib import Path

_VARIABLES = Path(__file__).parents[1] / "fastnn" / "bench" / "threads.py"
runpy.run_path(str(_VARIABLES))["let_openblas_choose"]()
