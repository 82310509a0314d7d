"""What names the code of a kernel in the cache, and how it gets there."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, python

from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.compiling import cache, sources
from fastnn.backends.numba_backend.compiling.objects import Linker
from fastnn.backends.numba_backend.layerwise import losses


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A cache of its own, which does not exist yet."""
    monkeypatch.setattr(cache, "places", lambda: [tmp_path / "cache"])
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
        ("numba_release", lambda: "0.0"),
        ("CONSTANTS", ["RATES=5"]),
    ],
    ids=["cpu", "features", "variant", "llvmlite", "numba", "constants"],
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


def test_what_other_modules_write_into_code_is_in_its_name():
    """All integers that modules of this backend import from elsewhere in fastnn."""
    known = {line.partition("=")[0] for line in cache.CONSTANTS}
    assert {"RATES", "PENALTY_FACTOR", "LINE_BYTES", "object"} <= known
    for path in sources.HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastnn."):
                module = importlib.import_module(str(node.module))
                for name in (alias.name for alias in node.names):
                    value = getattr(module, name)
                    if isinstance(value, int) and name != "CHECKED":  # which `VARIANT` has
                        assert name in known, path
    assert cache.numba_release()


EDIT = """
import sys
from pathlib import Path
import numpy as np
from fastnn.backends.numba_backend.layerwise import losses
path, Y = Path(losses.__file__), np.zeros((1, 1))
text = path.read_text()
if sys.argv[1] == "edited":
    changed = text.replace("    softmax_rows(one, ", "    softmax_rows(one + one, ")
    assert changed != text
    path.write_text(changed)  # as `git checkout` does
print(losses.softmax(np.float64(1), 8, id(Y), id(Y)), Y)
path.write_text(text)
"""


def test_an_edit_beside_a_running_process_is_not_kept(tmp_path):
    """What is compiled is what was imported; and no later process takes one for the other."""
    ignored = shutil.ignore_patterns("mnist", "__pycache__")
    shutil.copytree(ROOT / "fastnn", tmp_path / "fastnn", ignore=ignored)
    folder = tmp_path / "cache"

    def printed(way: str) -> str:
        done = python(EDIT, way, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert printed("edited") == "0 [[1.]]\n"
    assert not list(folder.glob("*.o"))
    assert printed("as it is") == "0 [[1.]]\n"
    assert list(folder.glob("*.o"))


def test_a_cache_that_can_not_be_written_is_read(directory, monkeypatch):
    cache.keep("kernel", b"code")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache.kept("kernel") == b"code"  # without a warning


def test_a_cache_that_can_not_be_listed_keeps_code(directory, monkeypatch):
    """What other versions left stays then; of nothing else is there anything to say."""

    def refuse(_):
        raise PermissionError("may be written, not listed")

    monkeypatch.setattr(cache, "_cleared", set())
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(Path, "iterdir", refuse)
    cache.keep("kernel", b"code")  # without a warning
    assert cache.kept("kernel") == b"code"


def test_a_cache_stays_where_it_is(tmp_path, monkeypatch):
    """Also if its path is told from a working directory which the process leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "numba_setting", lambda *_: "cache")
    assert cache.places.__wrapped__() == [tmp_path / "cache"]


def test_without_a_home(monkeypatch):
    """As in a container whose user has no entry; a folder called ~ is nobody's."""
    monkeypatch.setattr(cache, "numba_setting", lambda *_: "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert cache.places.__wrapped__() == [sources.HERE / "__pycache__"]


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
