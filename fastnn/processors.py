"""The processors: how many of them this process may use, on which cores, and of what model."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
USUAL_CACHES = 1 << 15, 1 << 20, 1 << 25
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def processors() -> set[int]:
    """Return the processors on which this thread may run."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on this system
        return set(range(os.cpu_count() or 1))


def usable() -> int:
    """Return how many processors this process can keep busy.

    Those on which it may run, or fewer where its cgroup has a quota, as containers have: threads
    beyond that only wait for each other.
    """
    return max(1, math.floor(min(len(processors()), quota())))


def cores() -> list[set[int]]:
    """Return the processors on which this thread may run, those of one core together."""
    found: dict[str, set[int]] = {}
    for processor in sorted(processors()):
        try:
            topology = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
            with open(topology, encoding="ascii") as file:
                core = file.read()
        except OSError:
            core = str(processor)
        found.setdefault(core, set()).add(processor)
    return list(found.values())


def usable_cores() -> int:
    """Return how many cores this process can keep busy."""
    return min(len(cores()), usable())


def quota() -> float:
    """Return how many processors' time the cgroups of this process allow, infinity for no bound."""
    return _bound("cpu", _quota_of_version_2, _quota_of_version_1)


Reader = Callable[[Path], float]


def _bound(controller: str, of_version_2: Reader, of_version_1: Reader) -> float:
    """Return the narrowest bound that the cgroups of this process set, infinity for none."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not on this system
        return math.inf
    found = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            found += map(of_version_2, _upwards(CGROUPS, path))
        elif controller in controllers.split(","):
            root = CGROUPS / (controllers if (CGROUPS / controllers).is_dir() else controller)
            found += map(of_version_1, _upwards(root, path))
    return min(found)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Return a group and those that it is in, each of which may set a bound."""
    group = root / path.strip("/")
    while group != root and root in group.parents:
        yield group
        group = group.parent
    yield root


def _quota_of_version_2(group: Path) -> float:
    try:
        time, period = (group / "cpu.max").read_text().split()
        return math.inf if time == "max" else int(time) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # none here
        return math.inf


def _quota_of_version_1(group: Path) -> float:
    try:
        time = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return math.inf if time < 0 else time / period
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def model_name() -> str:
    """Return what the CPU calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file)
            return next(value.strip() for name, _, value in lines if name.strip() == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cache_bytes() -> tuple[int, int, int]:
    """Return how much the caches of a core hold, of data; what is usual if the system won't tell.

    One that is shared counts as a whole.
    """
    found = known_caches()
    first, second, third = (
        found.get(level, usual) for level, usual in enumerate(USUAL_CACHES, start=1)
    )
    return first, second, third


def known_caches() -> dict[int, int]:
    """Return how much the caches of a core hold, of data, by level, as far as the system tells."""
    found = {}
    for cache in CACHES.glob("index*"):
        try:
            kind, level, size = (
                (cache / name).read_text().strip() for name in ("type", "level", "size")
            )
            if kind != "Instruction":
                found[int(level)] = int(size.rstrip("K")) << 10
        except (OSError, ValueError):  # a line of it is not there, or is another
            continue
    return dict(sorted(found.items()))


def governor() -> str | None:
    """Return by which rule the system chooses the clock's rate; None if it doesn't tell."""
    try:
        return GOVERNOR.read_text().strip()
    except OSError:
        return None


def usable_bytes() -> int:
    """Return how much memory this process can fill; 0 if the system doesn't tell.

    What the machine has, or less where its cgroup has a bound.
    """
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf on Windows
        return 0
    return int(min(physical, _bound("memory", _bytes_of_version_2, _bytes_of_version_1)))


def _bytes_of_version_2(group: Path) -> float:
    return _bytes_in(group / "memory.max")


def _bytes_of_version_1(group: Path) -> float:
    return _bytes_in(group / "memory.limit_in_bytes")


def _bytes_in(file: Path) -> float:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max"
        return math.inf
