"""Files that lie: refused by name, whatever they say, in little memory."""

from __future__ import annotations

import gc
import gzip
import io
import struct
import sys
import zlib

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("memory is measured as Linux tells it", allow_module_level=True)

import fuzz_files

import fastnn
from fastnn import cli, images, tables

MUTATIONS = 50
"""Of each format. `python tests/fuzz_files.py` takes more."""


@pytest.mark.parametrize("name", fuzz_files.FORMATS)
def test_files_that_have_been_changed(name):
    """Each is refused by a message that names it, or gives what is valid: see `fuzz_files`."""
    counts = fuzz_files.fuzz(name, 0, MUTATIONS)
    assert counts.wrong == []
    assert counts.counts["loaded"] + counts.counts["refused"] == MUTATIONS
    assert counts.counts["loaded"] >= MUTATIONS / 50
    assert counts.peak < fuzz_files.MOST_BYTES


def zipped(head: bytes, part: bytes, count: int) -> bytes:
    """Return a gzip file of a head, and a part repeated."""
    return gzip.compress(head, mtime=0) + gzip.compress(part, 9, mtime=0) * count


def png(width: int, height: int, depth: int, kind: int) -> bytes:
    """Return a PNG without a stroke in it, of so many bits a sample, whose kind is 0, 2 or 6."""
    row = bytes(1 + (width * {0: 1, 2: 3, 6: 4}[kind] * depth + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(fuzz_files.chunk(*of) for of in chunks)


def jpeg(**options) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (5100, 5100), "white").save(file, "JPEG", **options)
    return file.getvalue()


def parquet(**columns) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def long_texts() -> bytes:
    """A text of a million characters, which is in the file once, and of which a row is a bit."""
    import pyarrow

    codes = pyarrow.array(np.zeros(20_000, np.int32))
    column = pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(["x" * 1_000_000]))
    return parquet(a=column, b=np.arange(20_000) % 2)


MEGABYTE = bytes(2**20)

BOMBS = {
    "table.csv": (lambda: zipped(b"a,b\n", b"1,1\n" * 2**18, 400), tables.read, "are unpacked of"),
    "rows.csv": (lambda: zipped(b"", b"\n" * 2**20, 400), tables.text, "are unpacked of"),
    "wide.csv": (
        lambda: b"\n".join([b",".join(b"%d" % i for i in range(200_000))] * 2),
        tables.read,
        "200,000 columns; 50,000 are read at most",
    ),
    "rows.parquet": (
        lambda: parquet(a=np.zeros(20_000_000), b=np.zeros(20_000_000, np.int8)),
        tables.read,
        "20,000,000 rows of 2 columns, which take more than the",
    ),
    "texts.parquet": (long_texts, tables.read, "20,000 rows .*, write the table as CSV"),
    "bits.png": (lambda: png(30_000, 5000, 1, 0), images.read, "30000 by 5000 pixels; 25,000,000"),
    "colours.png": (lambda: png(6000, 5000, 8, 2), images.read, "6000 by 5000 pixels"),
    "most.png": (lambda: png(5000, 5000, 8, 6), images.read, "found no stroke"),
    "photo.jpg": (jpeg, images.read, "found no stroke"),
    "most.jpg": (lambda: jpeg(progressive=True), images.read, "5100 by 5100 pixels"),
}
"""A file, what reads it, and what is said of it."""


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_unpacked_has_a_bound(name, tmp_path):
    make, read, said = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    gc.collect()
    with fuzz_files.Peak() as peak, pytest.raises(ValueError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert peak.used < fuzz_files.MOST_BYTES


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("says", [100, 2**30])
def test_images_that_unpack_to_more_than_they_say_or_may(says, dtype, tmp_path):
    for name, content in zip(
        ("t10k-images-idx3", "t10k-labels-idx1", "train-images-idx3", "train-labels-idx1"),
        fuzz_files.idx(tmp_path),
        strict=True,
    ):
        (tmp_path / f"{name}-ubyte").write_bytes(content)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(zipped(struct.pack(">4i", 0x803, 30, says // 30, 1), MEGABYTE, 400))
    said = "bytes follow the" if says == 100 else "are unpacked of"
    with fuzz_files.Peak() as peak, pytest.raises(ValueError, match=said) as caught:
        fastnn.load_dataset(path=tmp_path, dtype=dtype)
    assert str(path) in str(caught.value)
    assert peak.used < fuzz_files.MOST_BYTES


def test_as_many_blank_images_as_mnist_has_are_no_bomb(tmp_path):
    """They are packed to a thousandth."""
    for of, count in (("train", 60_000), ("t10k", 10)):
        head = struct.pack(">4i", 0x803, count, 28, 28)
        (tmp_path / f"{of}-images-idx3-ubyte.gz").write_bytes(
            zipped(head, bytes(7840), count // 10)
        )
        head = struct.pack(">2i", 0x801, count)
        (tmp_path / f"{of}-labels-idx1-ubyte.gz").write_bytes(zipped(head, b"\1" * 10, count // 10))
    X, y, *_ = fastnn.load_dataset(path=tmp_path, dtype=np.uint8)
    assert X.shape == (50_000, 28, 28)
    assert (y == 1).all()


def test_what_a_terminal_would_obey_is_escaped(tmp_path, capsys):
    """Names of columns and classes, of layers and of arrays, in errors and in answers."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    table = tmp_path / "evil.csv"
    rows = "\n".join(f"{i},{i % 2}{evil},{i % 3}" for i in range(40))
    table.write_text(f"a{evil},kind,\x1b[31mc\n{rows}\n", "utf-8")
    model = tmp_path / "evil.safetensors"
    command = ["train", "--csv", str(table), "--epochs", "1", "--backend", "numpy", "--hidden"]
    assert cli.main([*command, "--target", "kind", "--save", str(model)]) == 0
    assert cli.main(["predict", str(model), str(table), "--backend", "numpy"]) == 0
    assert cli.main(["evaluate", str(model), "--csv", str(table), "--backend", "numpy"]) == 0
    assert cli.main([*command, "--target", "none"]) == 2
    assert cli.main(["evaluate", str(model)]) == 2
    printed = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in printed.out
    for stream in printed:
        assert not [c for c in stream if (not c.isprintable() and c != "\n") or c == "\u202e"]
