"""Faults from outside: a cache that is damaged, full or of another machine; memory, threads and
disks that are at an end. Results are right, old files whole, and one warning says what is wrong."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, perceptron, python

import fastnn
from fastnn import cli
from fastnn.backends.numba_backend import machine
from fastnn.backends.numba_backend.compiling import cache as kept_code
from fastnn.backends.numba_backend.epoch import threads

if sys.platform == "win32":
    pytest.skip("limits and links as POSIX has them", allow_module_level=True)

PROGRAM = """
import hashlib, numpy as np, fastnn
X, y = np.random.default_rng(0).normal(size=(24, 5)), np.arange(24) % 3
network = fastnn.Network([fastnn.ELU(), fastnn.Softplus()], loss="mse", backend="numba")
output = fastnn.softmax(network.forward(X)[-1])
print(hashlib.sha256(output.tobytes()).hexdigest())
"""
"""Compiles a function of Numba's and kernels of fastnn's own."""


def run(program: str = PROGRAM, **variables: str):
    """Run a program in a process of its own; return it, and how often it has warned."""
    done = python(program, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.count("Warning")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache directory in which the program has compiled, and what it printed."""
    folder = tmp_path_factory.mktemp("cache")
    printed, warned = run(NUMBA_CACHE_DIR=str(folder))
    assert warned == 0
    return folder, printed


def files(folder):
    return list(folder.rglob("*.o"))


DAMAGE = {
    "of length zero": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * 20,
    "zeros at the end": lambda content: content[:-64] + bytes(64),
    "without its head": lambda content: content[32:],
}


def test_a_damaged_cache_is_made_anew(cache, tmp_path):
    """Without a word, and once: Numba alone would leave a damaged index there for ever."""
    folder, printed = cache
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damages = list(DAMAGE.values())
    for number, path in enumerate(sorted(files(copy))):
        path.write_bytes(damages[number % len(damages)](path.read_bytes()))
    assert run(NUMBA_CACHE_DIR=str(copy)) == (printed, 0)
    made = {path: path.stat().st_mtime_ns for path in files(copy)}
    assert run(NUMBA_CACHE_DIR=str(copy)) == (printed, 0)
    assert {path: path.stat().st_mtime_ns for path in files(copy)} == made


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_count_as_missing(tmp_path, damage, monkeypatch):
    monkeypatch.setattr(kept_code, "places", lambda: [tmp_path])
    kept_code.keep("function", b"code" * 25)
    assert kept_code.kept("function") == b"code" * 25
    (path,) = tmp_path.glob("*.o")
    path.write_bytes(damage(path.read_bytes()))
    assert kept_code.kept("function") is None
    kept_code.keep("function", b"new")
    assert kept_code.kept("function") == b"new"


def test_two_cpus_with_one_home(cache, tmp_path):
    """Each compiles for itself, and what the other has stays as it is."""
    folder, printed = cache
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = {path: path.read_bytes() for path in files(copy)}
    other = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    if platform.machine() != "x86_64":
        other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    _, warned = run(NUMBA_CACHE_DIR=str(copy), **other)
    assert warned == 0
    assert {path: path.read_bytes() for path in before} == before
    assert len(files(copy)) > len(files(folder))
    assert run(NUMBA_CACHE_DIR=str(copy)) == (printed, 0)


def test_no_place_for_a_cache(cache, tmp_path):
    """An installation and a home that can't be written, as root may write anywhere but there."""
    installed = tmp_path / "fastnn"
    shutil.copytree(ROOT / "fastnn", installed, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in {path.parent for path in installed.rglob("*.py")}:
        (folder / "__pycache__").touch()  # no folder, so nothing can be put into it
    nowhere = str(tmp_path / "fastnn" / "__init__.py" / "home")
    assert run(
        PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=nowhere, HOME=nowhere, XDG_CACHE_HOME=nowhere
    ) == (cache[1], 1)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""
"""A disk that is full: no file can be longer."""


def test_a_cache_on_a_full_disk(cache, tmp_path):
    assert run(LIMITED + PROGRAM, NUMBA_CACHE_DIR=str(tmp_path)) == (cache[1], 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.stat().st_size <= 32 for path in files)  # a note, which is a digest of nothing


def test_kernels_of_other_versions_are_removed_when_nobody_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_code, "places", lambda: [tmp_path])
    kept_code.keep("mine", b"")
    (mine,) = (path.name for path in tmp_path.iterdir())
    earlier, read = "step.run_v256_0123456789ab-12.py311", f"fastnn-0123456789ab-{'1' * 32}.o"
    old = [f"{earlier}.nbi", f"{earlier}.1.nbc", f"fastnn-{'0' * 32}.o"]
    old.append(f"fastnn-0123456789ab-{'0' * 32}.o")
    old.append(f"{mine}.4711.1")  # of a process that was killed before it was whole
    kept = [mine, read, "module.cpython-311.pyc", "notes.o", "fastnn.lock"]
    for name in old + kept:
        (tmp_path / name).touch()
        if name != read:  # which somebody has read
            then = time.time() - kept_code.OLD - 60
            os.utime(tmp_path / name, (then, then))
    monkeypatch.setattr(kept_code, "_cleared", set())
    kept_code._remove_old(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_warning_that_is_an_error_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_code, "places", lambda: [tmp_path])
    monkeypatch.setattr(kept_code, "_warned", False)
    monkeypatch.setattr(Path, "replace", lambda *_: (tmp_path / "nowhere" / "file").touch())
    with pytest.raises(RuntimeWarning):
        kept_code.keep("kernel", b"code")
    assert not list(tmp_path.iterdir())


def test_a_working_directory_that_may_not_be_searched(monkeypatch):
    """Numba's own file of settings is not there, then."""
    stat = os.stat

    def refused(path, *arguments, **options):
        if str(path) == ".numba_config.yaml":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert machine.numba_setting("CPU_NAME", "usual") == "usual"


def test_a_cpu_of_which_llvm_knows_nothing(monkeypatch):
    def refused():
        raise RuntimeError

    monkeypatch.setattr(machine.binding, "get_host_cpu_features", refused)
    assert machine.target_cpu.__wrapped__()[1] == ""


def test_it_makes_no_difference_whether_numba_is_imported(monkeypatch):
    """Its own answers may differ from those of a process that has not asked it."""
    import numba

    monkeypatch.setattr(numba.config, "ENABLE_AVX", 0)
    assert machine.numba_setting("ENABLE_AVX", 1) == 1


# Threads


class TestNoThreadCanBeHad:
    """Python says so by a RuntimeError; RLIMIT_NPROC would bind no root."""

    @pytest.fixture(autouse=True)
    def _none(self, monkeypatch):
        def start(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threads, "_pool", threads.ThreadPool())
        monkeypatch.setattr(threading.Thread, "start", start)

    def test_a_fit_runs_on_one(self, digits):
        X, y, _, _ = digits

        def bits(count):
            network = perceptron(784, 256, 128, 10, seed=0, backend="numba")
            history = network.fit(X, y, epochs=1, threads=count)
            return network._parameters.vector.tobytes(), history.loss

        assert bits(2) == bits(1)  # and a warning would be an error

    def test_many_fits_run_one_after_the_other(self, rng):
        X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
        networks = [perceptron(3, 4, 2, seed=seed, backend="numpy") for seed in range(3)]
        alone = [perceptron(3, 4, 2, seed=seed, backend="numpy") for seed in range(3)]
        histories = fastnn.fit_many(networks, X, y, epochs=2, workers=2)
        for network, other, history in zip(networks, alone, histories, strict=True):
            assert other.fit(X, y, epochs=2, threads=1).loss == history.loss
            assert network._parameters.vector.tobytes() == other._parameters.vector.tobytes()

    def test_one_that_raises_among_many(self, rng):
        X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
        networks = [perceptron(3, 4, 2, seed=seed, backend="numpy") for seed in range(2)]

        def stop(network, history):
            raise KeyError("of a user's")

        with pytest.raises(KeyError) as caught:
            fastnn.fit_many(networks, X, y, callbacks=[[], [stop]], workers=2)
        assert caught.value.__notes__ == ["This was networks[1] of fit_many."]


def test_fewer_threads_than_workers(rng, monkeypatch):
    """Those that the system gives train all networks."""
    real, started = threading.Thread.start, []

    def start(thread):
        if sum(other.is_alive() for other in started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    networks = [perceptron(3, 4, 2, seed=seed, backend="numpy") for seed in range(4)]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        histories = fastnn.fit_many(networks, X, y, workers=3)
    assert len(histories) == 4


# Memory


class Allocations:
    """Counts what NumPy is asked for in Python; the nth request fails."""

    def __init__(self, monkeypatch, fails: int) -> None:
        self.left = fails
        for name in ("empty", "zeros", "empty_like", "ascontiguousarray", "array", "full", "stack"):
            monkeypatch.setattr(np, name, self._failing(getattr(np, name)))

    def _failing(self, function):
        def allocate(*arguments, **options):
            self.left -= 1
            if self.left == 0:
                raise MemoryError("the nth")
            return function(*arguments, **options)

        return allocate


def job_fit(network, X, y, path):
    network.fit(X, y, epochs=2, batch_size=8, validation_data=(X, y))


def job_predict(network, X, y, path):
    network.predict_proba(X)
    network.evaluate(X, y)


def job_save(network, X, y, path):
    network.save(path)


def job_load(network, X, y, path):
    fastnn.load(path, backend=network.backend)


@pytest.mark.parametrize("job", [job_fit, job_predict, job_save, job_load])
def test_the_nth_allocation_fails(job, backend, rng, tmp_path):
    """A MemoryError comes through as it is; what was there stays, and the next try succeeds."""
    X, y = rng.normal(size=(24, 5)), np.arange(24) % 3
    path = tmp_path / "model"

    def made():
        layers = [
            fastnn.Dense(5, 6), fastnn.BatchNorm(6), fastnn.ReLU(), fastnn.Dropout(0.2),
            fastnn.Dense(6, 3),
        ]  # fmt: skip
        return fastnn.Network(layers, seed=0, optimizer="adam", backend=backend)

    whole = made()
    whole.save(path)
    job(whole, X, y, path)
    content = path.read_bytes()
    failed, n = 0, 0
    while True:
        n += 1
        network = made()
        with pytest.MonkeyPatch.context() as patched:
            allocations = Allocations(patched, n)
            try:
                job(network, X, y, path)
            except MemoryError:
                failed += 1
        assert [file.name for file in tmp_path.iterdir()] == ["model"]
        if allocations.left > 0:
            break  # it took fewer
        if job in (job_save, job_load):
            assert path.read_bytes() == content
        assert np.isfinite(network.predict_proba(X)).all()
        assert all(not layer.training for layer in network)
        if n % 5 == 1:
            network.fit(X, y, batch_size=8)
            network.save(tmp_path / "model")
            again = fastnn.load(tmp_path / "model", backend=backend)
            assert again.predict_proba(X).tobytes() == network.predict_proba(X).tobytes()
            path.write_bytes(content)
    assert failed == n - 1 > 0


# Disks


FULL = """
import resource
import numpy as np
import fastnn
from fastnn import page, sheet
from pathlib import Path
warm = fastnn.Network([fastnn.Dense(784, 10)], seed=0, backend="numpy")
X, y = np.random.default_rng(0).normal(size=(20, 784)), np.arange(20) % 10
pictures = np.zeros((2, 28, 28), np.uint8)
history = warm.fit(X, y, epochs=2)
jobs = {
    "model": lambda path: warm.save(path),
    "checkpoint": lambda path: warm.fit(X, y, epochs=2, checkpoint=path),
    "page.html": lambda path: page.write(warm, path),
    "curves.png": lambda path: history.plot(path),
    "sheet.png": lambda path: sheet.draw(warm, pictures, y[:2], path),
    "log.csv": lambda path: warm.fit(
        X, y, epochs=20, callbacks=[fastnn.CSVLogger(path, append=True)]
    ),
}
folder = Path(FOLDER)
for name, job in jobs.items():
    path = folder / name
    if name.endswith(".png"):  # of which making one takes longest
        path.write_bytes(b"another picture")
    else:
        job(path)
    before = path.read_bytes()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = len(before) + 200 if name == "log.csv" else 300
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        job(path)
    except OSError as error:
        said = str(error)
    else:
        said = "nothing"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "File too large" in said and str(path) in said, (name, said)
    after = path.read_bytes()
    if name == "log.csv":  # whole lines are kept
        assert after.startswith(before) and after.endswith(b"\\n"), after
        assert len({line.count(b",") for line in after.splitlines()}) == 1, after
    else:
        assert after == before, name
    done = list(jobs)[: list(jobs).index(name) + 1]
    assert sorted(file.name for file in folder.iterdir()) == sorted(done)
    job(path)
print("whole")
"""


def test_a_full_disk_leaves_old_files_whole(tmp_path):
    """Models, checkpoints, pages, pictures; of a log all whole lines. Errors name the file."""
    program = FULL.replace("FOLDER", repr(str(tmp_path)))
    assert run(program) == ("whole\n", 0)


def test_a_full_disk_in_a_sweep(small_data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "sweep.jsonl"
    command = ["sweep", "--data", str(small_data), "--out", str(out), "--epochs", "1"]
    command += ["--backend", "numpy", "--hidden", "4", "--workers", "1", "--seeds"]
    assert cli.main([*command, "1"]) == 0
    before = out.read_bytes()
    real = os.write

    def short(file, content):
        """Write some, and then find the disk full."""
        if bytes(content[:1]) == b"{":
            return real(file, content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        assert cli.main([*command, "2"]) == 2
    assert re.search(rf"error: .*No space left.*{out}", capsys.readouterr().err)
    assert out.read_bytes() == before
    assert cli.main([*command, "2"]) == 0
    assert len(out.read_text().splitlines()) == 2


def test_writes_that_are_short(tmp_path, monkeypatch, small_data):
    """Of each, one byte or two are taken at a time, as of a pipe or a network."""
    from fastnn import sweep

    real = os.write
    out = tmp_path / "sweep.jsonl"
    command = ["sweep", "--data", str(small_data), "--out", str(out), "--epochs", "1"]
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:7]))
    assert cli.main([*command, "--backend", "numpy", "--hidden", "4"]) == 0
    data = re.search(r'"data": "(\w+)"', out.read_text())[1]
    with sweep.Results(out, data) as results:
        assert len(results.found) == 1
