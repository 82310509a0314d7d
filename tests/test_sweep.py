"""`fastnn sweep`: what it trains, keeps, prints and draws, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import kill_sweep
import numpy as np
import pytest
from test_cli import COMMAND, ENVIRONMENT

import fastnn
from fastnn import cli, many, sweep
from fastnn.settings import Task


@pytest.fixture
def run(small_data, tmp_path, monkeypatch, capsys):
    """Return a function that runs a sweep of small networks here; it returns status and output."""
    monkeypatch.chdir(tmp_path)

    def run(*options) -> tuple[int, str]:
        arguments = ["sweep", "--data", small_data, "--epochs", 2, *options]
        status = cli.main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def records(tmp_path):
    """Return a function that reads results as any reader of JSON lines would."""
    return lambda name="sweep.jsonl": [
        json.loads(line) for line in (tmp_path / name).read_text().splitlines()
    ]


def without_times(records: list[dict]) -> list[dict]:
    kept = [{name: value for name, value in of.items() if name != "seconds"} for of in records]
    return sorted(kept, key=json.dumps)


def test_all_combinations_and_seeds(run, records, backend):
    status, output = run(
        *("--hidden", 8, 7, "--hidden", "--learning-rate", 0.1, 0.2, "--seeds", 2, "--seed", 5),
        *("--plot", "sweep.png"),
    )
    assert status == 0, output
    assert "4 settings, 2 seeds each: 8 trainings, of which sweep.jsonl has 0" in output
    assert (
        len(re.findall(r"^\d/8  hidden .*, learning rate 0\.\d, seed [56]  val", output, re.M)) == 8
    )
    found = {(tuple(r["hidden"]), r["learning_rate"], r["seed"]) for r in records()}
    assert found == {(h, rate, s) for h in ((8, 7), ()) for rate in (0.1, 0.2) for s in (5, 6)}
    assert {r["backend"] for r in records()} == {backend}
    rows = [line[2:-2].split(" | ") for line in output.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0]] == [
        *("hidden", "learning rate", "val accuracy", "val loss", "parameters", "seconds", "seeds")
    ]
    means = []
    for hidden, rate, accuracy, *_ in rows[2:]:
        units = [] if hidden.strip() == "none" else [8, 7]
        values = [
            r["val_accuracy"] for r in records()
            if r["hidden"] == units and r["learning_rate"] == float(rate)
        ]  # fmt: skip
        means.append(np.mean(values))
        assert accuracy.strip() == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    assert len(means) == 4
    assert means == sorted(means, reverse=True)


def test_a_result_is_that_of_train(run, records, small_data, tmp_path, capsys):
    """The command that the sweep prints gives the same network again."""
    status, output = run(
        *("--hidden", 9, 5, "--activation", "gelu", "--batch-norm", "on", "--dropout", 0.25),
        *("--batch-size", 16, "--optimizer", "adam", "--schedule", "cosine"),
        *("--early-stopping", 3, "--dtype", "float64", "--seed", 2, "--learning-rate", 0.003),
    )
    assert status == 0, output
    (record,) = records()
    (command,) = re.findall("^to train it: fastnn (.+)$", output, re.M)
    assert cli.main([*command.split(), "--threads", "1"]) == 0
    assert f"test accuracy {record['test_accuracy']:.4f}" in capsys.readouterr().out
    X_test, y_test = fastnn.load_dataset(flatten=True, path=small_data, dtype=np.uint8)[4:]
    test = fastnn.load(tmp_path / "model.safetensors").evaluate(X_test, y_test)
    assert test == (record["test_loss"], record["test_accuracy"])
    history = record["history"]
    assert record["val_loss"] == min(history["val_loss"])
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_table(tmp_path, monkeypatch, capsys, records, rng, kind):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    X = rng.normal(size=(300, 3))
    y = 100 + 10 * X @ [1, 2, 3]
    frame = pandas.DataFrame(X, columns=["a", "b", "c"]).assign(other=1, y=y)
    frame["y"] = np.where(y > 100, "high", "low") if kind == "classification" else y
    frame.to_csv("table.csv", index=False)
    arguments = ["--csv", "table.csv", "--target", "y", "--ignore", "other", "--hidden", "8"]
    arguments += ["--learning-rate", "0.01", "0.1", "--plot", "sweep.png", "--seed", "3"]
    assert cli.main(["sweep", *arguments, "--seeds", "2"]) == 0
    output = capsys.readouterr().out
    measure = "accuracy" if kind == "classification" else "loss"
    means = [float(mean) for mean in re.findall(r"^\|.* (\d+\.\d+) ±", output, re.M)]
    assert "target: y, " in output
    assert len(records()) == 4
    assert ("val accuracy" in output) == (measure == "accuracy")
    best = [r for r in records() if r["learning_rate"] == 0.1]
    (command,) = re.findall("^to train it: fastnn (.+)$", output, re.M)
    assert cli.main(command.split()) == 0
    value = next(r for r in best if r["seed"] == 3)[f"test_{measure}"]
    assert f"test {measure} {value:.4f}" in capsys.readouterr().out
    rows = [line.split("|")[2:4] for line in output.splitlines() if line.startswith("| 0.")]
    assert len(rows) == 2
    assert means


def test_every_option_makes_a_difference(run, records):
    """What is not in a setting would let one result pass for another."""
    choices = {
        "activation": ("relu", "tanh"), "batch-norm": ("off", "on"), "dropout": (0, 0.2),
        "batch-size": (32, 16), "optimizer": ("sgd", "momentum"), "learning-rate": (0.1, 0.2),
        "schedule": ("constant", "cosine"), "dtype": ("float32", "float64"),
        "backend": ("numba", "numpy"), "seed": (0, 1), "epochs": (2, 3),
        "label-smoothing": (0, 0.1), "clip-norm": (0, 0.1),
        "matmul-precision": ("dtype", "bfloat16"),
    }  # fmt: skip
    others = {"hidden", "early_stopping"}
    assert {name.replace("-", "_") for name in choices} | others == set(sweep.NAMES)
    for option, (_, other) in choices.items():
        assert run("--hidden", 8, f"--{option}", other)[0] == 0
    assert len(without_times(records())) == len(choices)
    losses = [r["test_loss"] for r in records() if r["backend"] == "numba"]
    assert len(set(losses)) == len(losses)
    _, output = run("--hidden", 8, "--dropout", *choices["dropout"], "--seeds", 2)
    assert "4 trainings, of which sweep.jsonl has 2" in output


def test_a_precision_that_a_dtype_has_not(run):
    options = ("--dtype", "float32", "float64", "--matmul-precision", "dtype", "bfloat16")
    status, output = run("--hidden", 8, *options)
    assert status == 2
    assert "--matmul-precision: expected None beside dtype float64, got 'bfloat16'" in output


def test_it_goes_on_with_what_is_missing(run, records, tmp_path):
    run("--hidden", 8, "--seeds", 2)
    file = tmp_path / "sweep.jsonl"
    before = file.read_bytes()
    status, output = run("--hidden", 8, "--seeds", 2)
    assert (status, file.read_bytes()) == (0, before)
    assert "2 trainings, of which sweep.jsonl has 2" in output
    assert "at a time" not in output
    assert "± " in output
    first, second = before.splitlines(keepends=True)
    # what the end of a process may leave: half a line, a whole one without its end, a few bytes
    for left, kept in ((first + second[:-9], 1), (first + second[:-1], 2), (first + b'{"f', 1)):
        file.write_bytes(left)
        status, output = run("--hidden", 8, "--seeds", 3)
        assert status == 0, output
        assert f"3 trainings, of which sweep.jsonl has {kept}" in output
        assert len(records()) == 3
        expected = without_times([json.loads(first), json.loads(second)])
        assert without_times([r for r in records() if r["seed"] < 2]) == expected


def test_other_data_are_other_results(run, records, tmp_path, small_data):
    run("--hidden", 8)
    other = tmp_path / "other"
    other.mkdir()
    for path in small_data.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    labels = other / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + bytes([(content[-1] + 1) % 10]))
    assert "1 training, of which sweep.jsonl has 0" in run("--hidden", 8, "--data", other)[1]
    assert len(records()) == 2
    assert "1 training, of which sweep.jsonl has 1" in run("--hidden", 8)[1]


@pytest.mark.parametrize(
    "content",
    [
        b"notes of mine\n",
        b'{"name": "a file of another program"}',
        b"a line without an end",
        b'{"fastnn": "0.1.0", "data": 3}\n',
        b"\x93NUMPY\x01",
    ],
)
def test_a_file_of_something_else_stays_as_it_is(run, tmp_path, content):
    (tmp_path / "mine").write_bytes(content)
    status, output = run("--out", "mine")
    assert status == 2
    assert "--out: expected a file of results that `fastnn sweep` wrote, got mine, line 1" in output
    assert (tmp_path / "mine").read_bytes() == content


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero", "/dev/null"])
def test_a_device_is_no_file_of_results(run, device):
    status, output = run("--hidden", 4, "--out", device)
    assert status == 2
    assert f"--out: expected a file, got {device}, which is none" in output


def test_blank_lines_are_no_results(run, records, tmp_path):
    assert run("--hidden", 4)[0] == 0
    file = tmp_path / "sweep.jsonl"
    file.write_text("\n" + file.read_text() + "\n \n  ")
    status, output = run("--hidden", 4, "--hidden", 5)
    assert status == 0, output
    assert "2 trainings, of which sweep.jsonl has 1" in output
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    assert [json.loads(line)["hidden"] for line in lines] == [[4], [5]]


def test_results_of_before_there_were_all_options(run, records, tmp_path):
    run("--hidden", 8)
    (record,) = records()
    del record["clip_norm"], record["label_smoothing"], record["matmul_precision"]
    (tmp_path / "sweep.jsonl").write_text(json.dumps(record) + "\n")
    status, output = run("--hidden", 8, "--clip-norm", 0, 0.5)
    assert status == 0, output
    assert "2 trainings, of which sweep.jsonl has 1" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"history": ..., "diverged": ...},
            "expected the entries of a result, found no diverged, h",
        ),
        ({"parameters": ...}, "expected the entries of a result, found no parameters"),
        ({"activation": ...}, "expected the entries of a result, found no activation"),
        ({"history": {}}, "history: expected numbers of val_accuracy, found None"),
        ({"parameters": "many"}, "parameters: expected another value than 'many'"),
        ({"val_loss": "low"}, "val_loss: expected another value than 'low'"),
        ({"optimizer": ["sgd"]}, "unhashable type: 'list'"),
        ({"hidden": 8}, "'int' object is not iterable"),
    ],
)
def test_damaged_results(run, records, tmp_path, change, message):
    run("--hidden", 8)
    (record,) = records()
    record = {name: value for name, value in (record | change).items() if value is not ...}
    (tmp_path / "sweep.jsonl").write_text(json.dumps(record) + "\n")
    status, output = run("--hidden", 8)
    assert status == 2
    assert f"`fastnn sweep` wrote, got sweep.jsonl, line 1: {message}" in output


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are of POSIX")
def test_two_sweeps_do_not_write_to_one_file(run, tmp_path):
    with sweep.Results(tmp_path / "sweep.jsonl", "0"):
        status, output = run("--hidden", 8)
    assert status == 2
    assert "--out: expected a file that no other sweep writes to, got sweep.jsonl" in output
    assert run("--hidden", 8)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", 0], "--seeds: expected an integer of at least 1, got 0"),
        (["--workers", 0], "--workers: expected an integer of at least 1, got 0"),
        (["--epochs", 0], "--epochs: expected an integer of at least 1, got 0"),
        (["--hidden", 8, "--hidden", 0], "--hidden: expected an integer of at least 1, got 0"),
        (["--batch-size", 8, 0], "--batch-size: expected an integer of at least 1, got 0"),
        (["--learning-rate", 0.1, -1], "--learning-rate: expected"),
        (["--dropout", 0.1, 1.5], "--dropout: expected"),
        (["--early-stopping", 0], "--early-stopping: expected an integer of at least 1, got 0"),
        (["--out", "nowhere/results"], "--out: expected a file in an existing directory"),
        (["--plot", "sweep.txt"], "--plot: expected a .png, .svg or .pdf file, got sweep.txt"),
    ],
)
def test_bad_options_are_refused_before_any_training(run, tmp_path, options, message):
    status, output = run(*options)
    assert (status, output.count("\n")) == (2, 1)
    assert output.startswith(f"fastnn: error: {message}")
    assert not (tmp_path / "sweep.jsonl").exists()


def test_without_distributed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, output = run("--dask", "127.0.0.1:8786")
    assert status == 2
    assert "distributed to be installed: pip install distributed" in output


@pytest.mark.parametrize("address", ["somewhere", "somewhere:else", "http://127.0.0.1:8786"])
def test_addresses_of_no_scheduler(run, address):
    pytest.importorskip("distributed")
    status, output = run("--dask", address)
    assert status == 2
    assert "--dask: expected the address of a scheduler, as tcp://10.0.0.1:8786" in output
    assert f", got '{address}'" in output


def test_no_scheduler_at_an_address(run, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(many, "CONNECTING_SECONDS", 0.2)
    status, output = run("--dask", "tcp://127.0.0.1:1")
    assert status == 2
    assert "--dask: expected a scheduler at tcp://127.0.0.1:1, found none" in output


def test_workers_are_told_whole_paths(small_data, tmp_path, monkeypatch):
    """As they may run in another directory."""
    pandas = pytest.importorskip("pandas")
    loads = []

    def on_cluster(settings, load, of_data, address):
        loads.append((load, of_data))
        return iter(())

    monkeypatch.setattr(sweep, "on_cluster", on_cluster)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(small_data)
    (tmp_path / "elsewhere").mkdir()
    values = np.random.default_rng(0).normal(size=(100, 2))
    pandas.DataFrame(values, columns=["a", "y"]).to_csv("t.csv", index=False)
    for options in (["--data", "data"], ["--csv", "t.csv", "--target", "y"]):
        assert cli.main(["sweep", *options, "--dask", "tcp://127.0.0.1:1"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    for load, of_data in loads:
        assert sweep.digest(load()) == of_data


def test_a_worker_reads_data_once_and_no_others(digits):
    task = Task((*digits, *digits[2:]), 10, "images", 1.0, "mse", {}, [], None)
    reads = []

    def load():
        reads.append(1)
        return task

    for _ in range(2):
        assert sweep._loaded(load, sweep.digest(task)) is task
    assert len(reads) == 1
    other = task._replace(parts=(*task.parts[:-1], task.parts[-1][::-1]))
    with pytest.raises(ValueError, match="expected the same data on each worker as here"):
        sweep._loaded(load, sweep.digest(other))


def test_a_training_that_fails_keeps_no_other_back(run, records, monkeypatch):
    train = sweep.train

    def fails(setting, *others):
        if setting.seed == 1:
            raise MemoryError("no room")
        return train(setting, *others)

    monkeypatch.setattr(sweep, "train", fails)
    status, output = run("--hidden", 8, "--seeds", 3, "--workers", 2)
    assert status == 1
    assert "hidden 8, seed 1  failed: MemoryError: no room" in output
    assert "1 of 3 trainings are missing; the same command goes on with them" in output
    assert sorted(r["seed"] for r in records()) == [0, 2]
    monkeypatch.undo()


def test_nothing_but_failures(run, records, monkeypatch):
    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(sweep, "train", fails)
    status, output = run("--hidden", 8, "--seeds", 2, "--plot", "sweep.png")
    assert status == 1
    assert output.count("failed: MemoryError: no room") == 2
    assert "2 of 2 trainings are missing; the same command goes on with them" in output
    assert records() == []


def test_ctrl_c_before_the_first_result(run, records, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(sweep, "here", interrupted)
    status, output = run("--hidden", 8, "--seeds", 2)
    assert status == 130
    assert "2 of 2 trainings are missing; the same command goes on with them" in output
    assert output.endswith("interrupted\n")
    assert records() == []


def test_divergence(run, records, tmp_path):
    pytest.importorskip("matplotlib")
    status, output = run("--hidden", 8, "--learning-rate", 0.1, 1e30, "--plot", "sweep.svg")
    assert status == 0, output
    assert re.search(r"learning rate 1e\+30, seed 0  val accuracy .* s  diverged$", output, re.M)
    *_, good, bad = [line for line in output.splitlines() if line.startswith("|")]
    assert good.endswith(" 0 |")
    assert bad.endswith(" 1 |")
    assert "nan" in bad
    diverged = [r for r in records() if r["diverged"]]
    assert [r["history"] for r in diverged] == [{}]  # it ended in its first epoch
    assert [r["test_accuracy"] for r in diverged] == [None]
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")


def test_a_picture_of_more_settings_than_it_shows(run, tmp_path):
    pytest.importorskip("matplotlib")
    rates = [0.01 * (1 + i) for i in range(sweep.DRAWN_SETTINGS + 2)]
    status, output = run("--hidden", "--learning-rate", *rates, "--plot", "a.png", "--epochs", 1)
    assert status == 0, output
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c(small_data, tmp_path, records):
    """What has been printed is kept, the table shows it, and the same command goes on."""
    command = [*COMMAND, "sweep", "--data", small_data, "--hidden", "8", "--epochs", "20"]
    command = [*map(str, command), "--seeds", "2000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.match(r" *3/2000 ", line):
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    output = "".join(lines) + rest
    printed = {int(seed) for seed in re.findall(r"seed (\d+)  val accuracy", output)}
    assert 3 <= len(printed) < 2000
    kept = {r["seed"] for r in records()}
    assert printed <= kept  # one that is kept may not have been counted and printed yet
    assert len(kept - printed) <= 1
    assert "| hidden | " in output
    left = re.search(r"(\d+) of 2000 trainings are missing; the same command goes on", output)[1]
    assert int(left) in {2000 - len(kept), 2000 - len(printed)}


def test_killed(capsys):
    """`tests/kill_sweep.py` does this as often as one likes."""
    counts = kill_sweep.kill(2, seeds=16)
    assert counts.kills == 2
    assert counts.printed >= 32 - counts.kills  # one may be kept and not yet printed
    assert (counts.lost, counts.unreadable, counts.different) == (0, 0, 0)


def test_a_full_disk_leaves_whole_lines(run, tmp_path, monkeypatch):
    run("--hidden", 8)
    file = tmp_path / "sweep.jsonl"
    before = file.read_bytes()
    write = sweep.os.write

    def half(descriptor, content):
        if len(content) < 500:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:-100])

    monkeypatch.setattr(sweep.os, "write", half)
    status, output = run("--hidden", 8, "--seeds", 2)
    assert status == 2
    assert "No space left on device" in output
    assert file.read_bytes() == before
