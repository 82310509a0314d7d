"""Kill sweeps with SIGKILL at random moments, and go on: `python tests/kill_sweep.py 200`.

After each kill the file of results is read, as any reader of JSON lines would read it: it must hold
every result that the sweep had printed. What a sweep that was killed again and again ends with is
compared bit for bit with what one ends with that nobody stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fastnn

HIDDEN, SEEDS = (8, 16), 40
LIFE = 1.0
"""Seconds from the beginning of a sweep, or its going on, to a kill: at most."""


@dataclass
class Counts:
    """What happened."""

    seeds: int = SEEDS
    kills: int = 0
    sweeps: int = 0
    printed: int = 0
    lost: int = 0
    unreadable: int = 0
    different: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.sweeps} sweeps of {len(HIDDEN) * self.seeds} trainings: "
            f"{self.printed} results printed, {self.lost} of them lost, {self.unreadable} files "
            f"unreadable, {self.different} ends that differ"
        )


def write_digits(folder: Path) -> None:
    """Write some of the embedded digits as IDX files."""
    X, y, _, _, X_test, y_test = fastnn.load_dataset(dtype=np.uint8)
    for name, images, labels in (("train", X[:700], y[:700]), ("t10k", X_test[:100], y_test[:100])):
        header = struct.pack(">4i", 0x803, *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">2i", 0x801, len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.astype("u1").tobytes())


def results(path: Path) -> dict[tuple[int, int], dict]:
    """Return the results in a file by width and seed, but for times; a ValueError if it can't."""
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        del record["seconds"]
        found[record["hidden"][0], record["seed"]] = record
    return found


def kill(tries: int, seed: int = 0, seeds: int = SEEDS) -> Counts:
    """Kill so many times; return what happened."""
    chance, counts = random.Random(seed), Counts(seeds)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_digits(folder)
        whole = folder / "whole.jsonl"
        _live(_command(folder, whole, seeds), None)
        expected = results(whole)
        while counts.kills < tries:
            counts.sweeps += 1
            out = folder / f"killed {counts.sweeps}.jsonl"
            complete = False
            # Where the last try comes in the midst, that sweep goes on to its end.
            while not complete:
                life = chance.uniform(0, LIFE) if counts.kills < tries else None
                printed, killed = _live(_command(folder, out, seeds), life)
                complete = not killed
                counts.kills += killed
                counts.printed += len(printed)
                try:
                    counts.lost += len(printed - results(out).keys())
                except ValueError as error:
                    counts.unreadable += 1
                    print(f"{out.name}: {error}", file=sys.stderr)
            counts.different += results(out) != expected
    return counts


def _command(folder: Path, out: Path, seeds: int) -> list[str]:
    command = [sys.executable, "-m", "fastnn", "sweep", "--data", str(folder), "--out", str(out)]
    for units in HIDDEN:
        command += ["--hidden", str(units)]
    return [*command, "--seeds", str(seeds), "--epochs", "30", "--workers", "2"]


def _live(command: list[str], life: float | None) -> tuple[set[tuple[int, int]], bool]:
    """Run a sweep, killed after so long; return which results it printed, and if it was killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(fastnn.__file__).parent.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "at a time" in line:
                break
        if life is not None:
            time.sleep(life)
            process.kill()
        rest = process.stdout.read()
        process.wait()
    if process.returncode != 0 and life is None:
        raise RuntimeError("a sweep has failed")
    told = re.findall(r"hidden (\d+), seed (\d+)  val accuracy", rest)
    return {(int(units), int(seed)) for units, seed in told}, process.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tries", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = kill(options.tries, options.seed)
    print(counts)
    return 1 if counts.lost or counts.unreadable or counts.different else 0


if __name__ == "__main__":
    sys.exit(main())
