"""What the tests share."""

from __future__ import annotations

import ctypes
import gc
import gzip
import itertools
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

ROOT = Path(__file__).parent.parent


# One thread: matrices are small here, and a pool that fights for cores with other programs is slow.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What a user has set is not what is tested, but for the vector width, which tests set themselves.
for name in ("FASTNN_BACKEND", "FASTNN_DATA", "FASTNN_NUM_THREADS"):
    os.environ.pop(name, None)


POISON = 0x7F
"""What is in memory that nobody has written yet: as numbers they are above 1e38."""


def poison_memory() -> bool:
    """Have glibc fill what malloc hands out; return whether there is a glibc."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    m_perturb = -6
    return hasattr(libc, "mallopt") and libc.mallopt(m_perturb, POISON ^ 0xFF) == 1


POISONED = poison_memory()

import fastnn  # noqa: E402
from fastnn import backends, paths  # noqa: E402
from fastnn.locks import locked  # noqa: E402

# A test has programs of its own: it may change what they are made by.
paths.IDLE_BYTES = 0

# Of machines that are slow, or busy, hypothesis has nothing to say; and each run is the same one.
settings.register_profile(
    "default of fastnn",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    stateful_step_count=8,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long",
    settings.get_profile("default of fastnn"),
    derandomize=False,
    max_examples=5000,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("default of fastnn")


def pytest_collection_finish() -> None:
    """Leave what was collected, which stays to the end, out of each collection of garbage."""
    gc.collect()
    gc.freeze()


BATCHES = (1, 7, 16, 33)
"""One sample, odd, a whole number of vectors, and one more than that."""

SHAPES = ((1, 1), (3, 5), (20, 7), (17, 16), (33, 129), (130, 10))
"""(input units, output units), few of them multiples of a vector width."""


@pytest.fixture(params=fastnn.available_backends())
def backend(request: pytest.FixtureRequest):
    """Every backend in turn, in force while the test runs."""
    with fastnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Both dtypes in turn."""
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that is the same in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def digits():
    """A few hundred digits: X_train, y_train, X_val, y_val."""
    X, y, X_val, y_val, _, _ = fastnn.load_dataset(flatten=True)
    return X[:2000], y[:2000], X_val[:500], y_val[:500]


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Return a function that returns what a command says of arguments that it refuses."""

    def said(main: Callable[[], object], *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return said


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, request):
    """A function that returns a text by its name, which one process of a run makes for all."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # of xdist
        folder = folder.parent

    def text(name: str, make: Callable[[], str]) -> str:
        path = folder / name
        with path.with_suffix(".lock").open("ab") as lock:
            while not locked(lock.fileno()):
                time.sleep(0.1)
            if not path.exists():
                path.write_text(made := make())
                return made
        return path.read_text()

    return text


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A directory with 700 + 100 of the embedded digits."""
    folder = tmp_path_factory.mktemp("digits")
    X, y, _, _, X_test, y_test = fastnn.load_dataset(dtype=np.uint8)
    for name, images, labels in (("train", X[:700], y[:700]), ("t10k", X_test[:100], y_test[:100])):
        header = struct.pack(">4i", 0x803, *images.shape)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(header + images.tobytes())
        )
        header = struct.pack(">2i", 0x801, len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.astype("u1").tobytes())
    return folder


@pytest.fixture(scope="session")
def reader():
    """A network that reads most digits; it takes pixels from 0 to 1."""
    X, y, *_ = fastnn.load_dataset(flatten=True)
    network = perceptron(784, 100, 50, 10, seed=1, backend="numba")
    network.fit(X, y, epochs=4)
    return network


@pytest.fixture
def numba_backend():
    return backends.load("numba")


@pytest.fixture
def met(numba_backend, monkeypatch):
    """A list that gets, after each call of a team, at which meeting a member came: 0 if at none."""
    from fastnn.backends.numba_backend.epoch import meetings

    numbers: list[int] = []
    keep = meetings.Signals.keep

    def noting(signals, after):
        numbers.append(int(after[meetings.ARRIVED // 8]))
        keep(signals, after)

    monkeypatch.setattr(meetings.Signals, "keep", noting)
    return numbers


@pytest.fixture
def together(numba_backend, monkeypatch):
    """The caller waits until others are awake, so that few steps are enough to share some."""
    from fastnn.backends.numba_backend.epoch import meetings

    milliseconds = 50
    monkeypatch.setattr(meetings.Signals, "patience", lambda signals: milliseconds * 1_000_000)


@pytest.fixture(params=["contiguous", "strided", "reversed", "unaligned", "fortran"])
def arrange(request):
    """Return a function that lays an array out as a user might have it."""

    def lay_out(array: np.ndarray) -> np.ndarray:
        if request.param == "strided":
            filler = np.nan if array.dtype.kind == "f" else -1
            wide = np.full((array.shape[0] * 2, array.shape[1] * 3), filler, array.dtype)
            wide[::2, ::3] = array
            return wide[::2, ::3]
        if request.param == "reversed":
            return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
        if request.param == "unaligned":
            return unaligned(array)
        return np.asarray(array, order="F" if request.param == "fortran" else "C")

    return lay_out


def unaligned(array: np.ndarray) -> np.ndarray:
    """Return a copy at an odd address."""
    buffer = np.empty(array.nbytes + 1, np.uint8)
    copy = buffer[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def at_the_end_of_memory(array: np.ndarray) -> np.ndarray:
    """Return a copy whose last byte is the last that may be read."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    everything = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    no_access = 0
    assert libc.mprotect(ctypes.c_void_p(everything.ctypes.data + size), page, no_access) == 0
    copy = everything[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.fixture
def programs_handed_on(monkeypatch):
    """Small programs go from network to network, as they do elsewhere."""
    monkeypatch.setattr(paths, "IDLE_BYTES", 1 << 18)
    monkeypatch.setattr(paths, "_idle", paths._IdlePrograms())


def bits(network: fastnn.Network) -> bytes:
    """Return all parameters of a network as they lie in memory."""
    return b"".join(array.tobytes() for array in network.get_weights())


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, which finds fastnn and what the tests share."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=os.sep, text=True, capture_output=True,
        timeout=300, env=os.environ | {"PYTHONPATH": paths} | variables,
    )  # fmt: skip


def in_pairs(**axes: Iterable) -> tuple[str, list[tuple]]:
    """Return arguments of `parametrize`: few cases, in which any two values of two axes meet.

    What a mistake depends on is a value or two; of more, most combinations say nothing new. Where
    tests run again, as `test_other_processors.py` does, dtype is no axis: it has float32 alone.
    """
    everything = list(itertools.product(*axes.values()))
    assert len(axes) > 1  # one alone has no pairs, and would be no case
    pairs = [set(itertools.combinations(enumerate(case), 2)) for case in everything]
    cases, missing = [], set().union(*pairs)
    while missing:
        best = max(range(len(pairs)), key=lambda at: len(pairs[at] & missing))
        missing -= pairs[best]
        cases.append(everything[best])
    return ", ".join(axes), cases


def once(*values):
    """Return parameters that are left out where tests run again: `test_other_processors.py`."""
    return [pytest.param(value, marks=pytest.mark.once) for value in values]


def sum_bound(terms: int, magnitude: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return how far a sum of `terms` rounded products may be off.

    `magnitude` is the sum of the absolute values. Any order of summation obeys
    |error| <= (terms + 1) eps magnitude to first order (N. J. Higham, "Accuracy
    and Stability of Numerical Algorithms", 2002, section 3.1).
    """
    return (terms + 2) * np.finfo(dtype).eps * magnitude


def perceptron(*units: int, **options) -> fastnn.Network:
    """Return a network of dense layers with ReLU between them."""
    rate = options.pop("learning_rate", 0.1)
    network = fastnn.Network(**options)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(units)):
        if i:
            network.add(fastnn.ReLU())
        network.add(fastnn.Dense(inputs, outputs, rate))
    return network
