"""What names the code of a kernel in the cache, and how it gets there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.compiling import cache
from fastnn.backends.numba_backend.compiling.objects import Linker
from fastnn.backends.numba_backend.layerwise import losses


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A cache of its own, which does not exist yet."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_each_width_of_vectors_has_names_of_its_own():
    """Else code for wide vectors would run on tables for narrow ones."""
    program = "from fastnn.backends.numba_backend.compiling import cache; print(cache.VARIANT)"
    names = set()
    for bits in ("128", "256"):
        done = subprocess.run(
            [sys.executable, "-c", program], text=True, capture_output=True, check=True,
            env=os.environ | {"FASTNN_VECTOR_BITS": bits},
        )  # fmt: skip
        names.add(done.stdout)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_cpu", lambda: ("another", cache.target_cpu()[1])),
        ("target_cpu", lambda: (cache.target_cpu()[0], "-avx2")),
        ("VARIANT", "v128_0123456789ab"),
        ("llvmlite", type("llvmlite", (), {"__version__": "0.0"})),
    ],
    ids=["cpu", "features", "variant", "llvmlite"],
)
def test_what_code_is_for_is_in_the_name_of_its_file(name, value, directory, monkeypatch):
    """A home directory may be that of several machines, and see several versions."""
    cache.keep("kernel", b"code")
    (first,) = directory.iterdir()
    value = value() if name == "target_cpu" else value
    monkeypatch.setattr(cache, name, (lambda: value) if name == "target_cpu" else value)
    assert cache.kept("kernel") is None
    cache.keep("kernel", b"another")
    assert cache.kept("kernel") == b"another"
    assert len(list(directory.iterdir())) == 2
    assert first.read_bytes().endswith(b"code")


def test_each_dtype_has_a_file(directory, monkeypatch):
    monkeypatch.setattr(jit, "_objects", {})
    monkeypatch.setattr(jit, "LINKER", Linker())
    softmax = jit.Function(losses.softmax.function)
    for number in (np.float32(1), np.float64(1)):
        Y = np.zeros((3, 3), number.dtype)
        softmax(number, Y.itemsize, id(Y), id(Y))
        np.testing.assert_allclose(Y, 1 / 3)
    files = [path for path in directory.iterdir() if path.suffix == ".o"]
    assert (
        len({path.read_bytes() for path in files}) == 5
    )  # a function and a kernel for each; and a note


def test_no_half_of_a_file_is_seen_under_its_name(directory, monkeypatch):
    """A file is written under another name, and has its own in one step."""
    written = []
    write, replace = Path.write_bytes, Path.replace

    def noting_write(path, content):
        written.append(path.name)
        return write(path, content)

    def noting_replace(path, target):
        assert path.read_bytes()[32:]  # whole by now
        written.append(f"renamed to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(Path, "write_bytes", noting_write)
    monkeypatch.setattr(Path, "replace", noting_replace)
    cache.keep("kernel", b"code")
    (path,) = directory.iterdir()
    assert path.suffix == ".o"
    assert len(written) == 2
    assert written[0] != path.name
    assert written[1] == f"renamed to {path.name}"
