"""Kill trainings with SIGKILL at random moments, and go on: `python tests/kill_resume.py 200`.

Each training writes a checkpoint every few steps, a model after each epoch, and a CSV file. After
each kill the files are read. What a training that was killed again and again ends with is compared
bit for bit with what one ends with that nobody stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fastnn
from fastnn import checkpoints, saving

CHECKPOINT, MODEL, LOG = "checkpoint.safetensors", "model-{epoch}", "log.csv"
END, HISTORY = "end.safetensors", "history.json"

LIFE = 0.4
"""Seconds from the beginning of a training, or its going on, to a kill: at most."""


@dataclass
class Counts:
    """What happened."""

    kills: int = 0
    trainings: int = 0
    lost: int = 0
    unreadable: int = 0
    different: int = 0
    left_behind: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.trainings} trainings: {self.lost} checkpoints lost, "
            f"{self.unreadable} files unreadable, {self.different} ends that differ; "
            f"{self.left_behind} unfinished files left behind"
        )


def train(folder: Path, every: int, epochs: int, threads: int) -> None:
    """Train in `folder`, from the beginning or from the checkpoint that is there."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 600)
    X = rng.normal(size=(600, 300)) + y[:, np.newaxis]
    network = fastnn.Network(
        [
            fastnn.Dropout(0.2),
            fastnn.Dense(300, 100),
            fastnn.BatchNorm(100),
            fastnn.ReLU(),
            fastnn.Dense(100, 3),
        ],
        optimizer="adam",
        seed=1,
    )
    write = checkpoints.Writer.write

    def write_and_tell(self: checkpoints.Writer, position: checkpoints.Position) -> None:
        write(self, position)
        print(position.step, flush=True)

    checkpoints.Writer.write = write_and_tell
    checkpoint = folder / CHECKPOINT
    history = network.fit(
        X,
        y,
        epochs=epochs,
        batch_size=16,
        threads=threads,
        validation_split=0.2,
        callbacks=[
            fastnn.EarlyStopping(patience=epochs),
            fastnn.ReduceOnPlateau(patience=2, factor=0.5),
            fastnn.Checkpoint(folder / MODEL),
            fastnn.CSVLogger(folder / LOG),
        ],
        checkpoint=checkpoint,
        checkpoint_every=every,
        resume=checkpoint if checkpoint.exists() else None,
    )
    network.save(folder / END)
    columns = {name: values for name, values in history.to_dict().items() if "second" not in name}
    (folder / HISTORY).write_text(json.dumps({**columns, "samples": history.samples_seen}))


def end_of(folder: Path) -> object:
    """Return what a training ended with, its times left out."""
    header, tensors = saving.opened(folder / END)
    log = [line.split(",")[:3] for line in (folder / LOG).read_text().splitlines()]
    tensors = {name: array.tobytes() for name, array in sorted(tensors.items())}
    return header, tensors, json.loads((folder / HISTORY).read_text()), log


def kill(tries: int, seed: int = 0, every: int = 3, epochs: int = 12) -> Counts:
    """Kill so many times; return what happened."""
    chance, counts = random.Random(seed), Counts()
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        # without a checkpoint within an epoch, and on one thread
        subprocess.run(_command(whole, 10**9, epochs, 1), check=True, stdout=subprocess.DEVNULL)
        expected = end_of(whole)
        while counts.kills < tries:
            folder = Path(place) / f"killed {counts.trainings}"
            folder.mkdir()
            counts.trainings += 1
            step = 0
            # Where the last try comes in the midst, that training goes on to its end.
            while not (folder / HISTORY).exists():
                threads = chance.choice([1, 2])
                life = chance.uniform(0, LIFE) if counts.kills < tries else None
                told, killed = _live(_command(folder, every, epochs, threads), life)
                counts.kills += killed
                step = _look(folder, max(step, told), counts)
            counts.different += end_of(folder) != expected
            counts.left_behind += len([path for path in folder.iterdir() if path.name[0] == "."])
    return counts


def _command(folder: Path, every: int, epochs: int, threads: int) -> list[str]:
    numbers = map(str, (every, epochs, threads))
    return [sys.executable, __file__, "--train", str(folder), *numbers]


def _live(command: list[str], life: float | None) -> tuple[int, bool]:
    """Run a training, killed after so long; return the last step that it told, and if it was."""
    environment = os.environ | {"PYTHONPATH": str(Path(fastnn.__file__).parent.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # a checkpoint before the first step
        if life is not None:
            time.sleep(life)
            process.kill()
        rest = process.stdout.read()
        process.wait()
    if process.returncode != 0 and life is None:
        raise RuntimeError("a training has failed")
    # a kill may cut the last line
    told = [int(line) for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]
    return max(told, default=0), process.returncode != 0


def _look(folder: Path, step: int, counts: Counts) -> int:
    """Read what there is; return the step of the checkpoint, which must be `step` or later."""
    for model in folder.glob(MODEL.format(epoch="*")):
        counts.unreadable += not _reads(fastnn.load, model)
    checkpoint = folder / CHECKPOINT
    if not checkpoint.exists():
        counts.lost += 1
        return 0
    if not (_reads(checkpoints.read, checkpoint) and _reads(fastnn.load, checkpoint)):
        counts.unreadable += 1
        return 0
    found = checkpoints.read(checkpoint).position.step
    counts.lost += found < step
    return found


def _reads(read, path: Path) -> bool:
    try:
        read(path)
    except (ValueError, OSError) as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tries", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train is not None:
        folder, *numbers = options.train
        train(Path(folder), *map(int, numbers))
        return 0
    counts = kill(options.tries, options.seed)
    print(counts)
    return 1 if counts.lost or counts.unreadable or counts.different else 0


if __name__ == "__main__":
    sys.exit(main())
