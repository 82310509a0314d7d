"""How much of the machine a process may use, by its affinity and by the quotas of its cgroups."""

from __future__ import annotations

import math
import os

import pytest

from fastnn import processors


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Return a function that makes the files of some groups, and puts this process in one."""
    monkeypatch.setattr(processors, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(processors, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(processors, "processors", lambda: set(range(8)))

    def make(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return make


@pytest.mark.parametrize(
    ("files", "quota", "usable"),
    [
        ({"cpu.max": "100000 100000\n"}, 1.0, 1),
        ({"cpu.max": "max 100000\n"}, math.inf, 8),
        ({"cpu.max": "50000 100000\n"}, 0.5, 1),
        ({"cpu.max": "max 100000\n", "a/b/cpu.max": "250000 100000\n"}, 2.5, 2),
        # the narrowest of all groups that it is in
        ({"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 3.0, 3),
        ({"c/cpu.max": "100000 100000\n"}, math.inf, 8),
        ({"cpu.max": "1600000 100000\n"}, 16.0, 8),
        ({"cpu.max": "nonsense"}, math.inf, 8),
        ({"cpu.max": "1 0"}, math.inf, 8),
        ({}, math.inf, 8),
    ],
)
def test_version_2(cgroups, files, quota, usable):
    cgroups("0::/a/b\n", files)
    assert (processors.quota(), processors.usable()) == (quota, usable)


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("time", "usable"), [("-1", 8), ("100000", 1), ("350000", 3)])
def test_version_1(cgroups, folder, time, usable):
    own = f"4:memory:/pod\n3:{folder}:/pod\n0::/\n"
    period = {f"{folder}/pod/cpu.cfs_period_us": "100000\n"}
    cgroups(own, period | {f"{folder}/pod/cpu.cfs_quota_us": f"{time}\n"})
    assert processors.usable() == usable


@pytest.mark.parametrize(
    ("own", "file"),
    [("0::/a/b\n", "a/memory.max"), ("4:memory:/a\n0::/\n", "memory/a/memory.limit_in_bytes")],
)
def test_memory_of_a_container(cgroups, own, file):
    machine = processors.usable_bytes()
    cgroups(own, {file: f"{machine // 2}\n"})
    assert processors.usable_bytes() == machine // 2
    cgroups(own, {file: "max\n"})
    assert processors.usable_bytes() >= machine


def test_no_cgroups(cgroups, tmp_path):
    assert processors.quota() == math.inf
    assert processors.usable() == 8


def test_affinity(monkeypatch):
    monkeypatch.setattr(processors, "quota", lambda: math.inf)
    if hasattr(os, "sched_getaffinity"):
        assert processors.usable() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    assert processors.usable() == os.cpu_count()


def test_a_quota_of_one_core_means_one_thread(cgroups):
    """Two threads of a team on one core's time would wait for each other."""
    from fastnn.processors import usable_cores

    cgroups("0::/\n", {"cpu.max": "100000 100000\n"})
    assert usable_cores() == 1


def test_caches(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "CACHES", tmp_path)
    assert processors.cache_bytes() == processors.USUAL_CACHES
    for number, lines in enumerate(
        [("Data", "1", "48K"), ("Instruction", "1", "64K"), ("Unified", "2", "2048K"),
         ("Unified", "3", "nonsense"), ("Unified", "4", "1K")]
    ):  # fmt: skip
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, line in zip(("type", "level", "size"), lines, strict=True):
            (folder / name).write_text(f"{line}\n")
    assert processors.cache_bytes() == (48 << 10, 2 << 20, processors.USUAL_CACHES[2])
    assert processors.known_caches() == {1: 48 << 10, 2: 2 << 20, 4: 1 << 10}


def test_the_governor(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "GOVERNOR", tmp_path / "governor")
    assert processors.governor() is None
    (tmp_path / "governor").write_text("powersave\n")
    assert processors.governor() == "powersave"
