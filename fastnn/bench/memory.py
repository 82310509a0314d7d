"""The most memory that this process has held.

It needs the standard library alone: programs that run on another commit's fastnn have its text.
"""

import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")


def forget_peak_memory() -> None:
    """Have the peak be that of what follows, where the system can; elsewhere it stays."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has held, None where nobody knows."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not on this system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
