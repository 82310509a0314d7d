"""Plant bugs and see that the suite finds each: `python tests/planted_bugs.py`.

`planted_bugs.toml` has the bugs: a text that occurs once in a file, what stands there instead, what
that breaks, and the tests that are expected to find it. Each is planted in a copy of this tree,
alone, and those tests run; where they pass, a bug has survived, and the suite has a hole. With
`--whole` the rest of the suite has its turn before that is said.

First the same tests run without a bug: one that fails then would find anything. A bug in the
compiled backend gets an empty cache of kernels, as any change there has all of them compiled anew;
the others share the cache of that first run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("fastnn", "tests", "docs", "examples", "benchmarks", "pyproject.toml", "README.md")
COMPILED = "fastnn/backends/numba_backend/"
LONGEST = 600.0
"""Seconds after which tests that a bug may have stopped are ended."""


@dataclass(frozen=True)
class Bug:
    """A bug as the table has it. `tests` are arguments of pytest."""

    name: str
    file: str
    before: str
    after: str
    breaks: str
    tests: tuple[str, ...]

    def planted(self, text: str) -> str:
        """Return the text of the file with the bug in it."""
        found = text.count(self.before)
        if found != 1:
            raise ValueError(
                f"{self.name}: expected this text once in {self.file}, found it {found} times:\n"
                f"{self.before}"
            )
        return text.replace(self.before, self.after)


def bugs() -> list[Bug]:
    """Return the table."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return [Bug(**{**row, "tests": tuple(row["tests"])}) for row in content["bug"]]


class Tree:
    """A copy of the tree, in which one bug at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._caches = folder / "caches"
        shutil.rmtree(self.root, ignore_errors=True)  # of a run before, whose caches stay
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
            elif (ROOT / name).exists():
                self.root.mkdir(exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)

    def result(self, tests: Sequence[str], bug: Bug | None = None) -> str:
        """Run tests; return what found a bug, "" where nothing has."""
        cache = self._caches / "base"
        if bug is None:
            return self._run(tests, cache, 10 * LONGEST)
        path = self.root / bug.file
        text, stat = path.read_text("utf-8"), path.stat()
        if bug.file.startswith(COMPILED):
            cache = self._caches / bug.name
        try:
            path.write_text(bug.planted(text), "utf-8")
            return self._run(tests, cache, LONGEST)
        finally:
            # with the time that it had, by which caches know it
            path.write_text(text, "utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            if cache.name != "base":
                shutil.rmtree(cache, ignore_errors=True)

    def _run(self, tests: Sequence[str], cache: Path, longest: float) -> str:
        # no bytecode, of which a file's time and length decide whether it is still that of the file
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(cache),
        }
        options = ["-m", "pytest", "-x", "-v", "--tb=line", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [sys.executable, *options, *tests], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=longest)
            how = ""
        except subprocess.TimeoutExpired:
            how = "hangs: "
        finally:
            with contextlib.suppress(ProcessLookupError):  # what tests have started as well
                os.killpg(process.pid, signal.SIGKILL)
        if how:
            output, _ = process.communicate()
        if process.returncode in (0, 5):  # 5: all tests are of a library that is not here
            return ""
        if failed := re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE):
            return failed[1]
        if process.returncode == 4:
            raise RuntimeError(f"there are no tests {' '.join(tests)}:\n{output[-2000:]}")
        begun = re.findall(r"^(tests/\S+)", output, re.MULTILINE)
        how = how or ("crashes: " if process.returncode < 0 else "ends: ")
        return how + (begun[-1] if begun else output[-200:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="the name of a bug; may be given again")
    parser.add_argument("--list", action="store_true", help="say what there is, and plant nothing")
    parser.add_argument("--whole", action="store_true", help="whole suite where its tests fail")
    parser.add_argument("--no-first-run", action="store_true", help="trust the tests as they are")
    parser.add_argument("--folder", type=Path, help="where the copy and its caches stay")
    options = parser.parse_args()
    chosen = [bug for bug in bugs() if options.only is None or bug.name in options.only]
    if options.only is not None and len(chosen) < len(set(options.only)):
        parser.error(f"no bug of a name in {', '.join(options.only)}")
    if options.list:
        for bug in chosen:
            print(f"{bug.name:34} {bug.file}\n    {bug.breaks}")
        return 0
    survived = []
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Tree((options.folder or Path(folder)).resolve())
        if not options.no_first_run:
            every = dict.fromkeys(test for bug in chosen for test in bug.tests)
            # those of a file that is there as a whole would be left out of it
            tests = [test for test in every if test.partition("::")[0] not in {*every} - {test}]
            if found := tree.result(tests):
                print(f"fails without a bug: {found}")
                return 2
        for bug in chosen:
            start = time.monotonic()
            found = tree.result(bug.tests, bug)
            if not found and options.whole:
                found = tree.result(["-n", "2"], bug)
            if not found:
                survived.append(bug)
            seconds = time.monotonic() - start
            print(f"{bug.name:34} {found or 'SURVIVED'}  ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen)} bugs planted, {len(chosen) - len(survived)} found")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
