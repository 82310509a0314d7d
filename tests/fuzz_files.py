"""Read files that lie: `python tests/fuzz_files.py --mutations 10000`.

Valid files of each format that fastnn reads are changed, most of them where their structure has
something to lose: sizes in headers, entries of JSON, chunks whose checksum is made right again.
What comes of it is read as a user would read it, in a process of its own. It must be refused by a
ValueError or OSError that names the file, or give what is valid: a network predicts, is saved and
loads again, data have the numbers and shapes that they say.

A mutation is known by the name of its format and a number, so that one can be looked at alone:
`python tests/fuzz_files.py --formats png --first 4711 --mutations 1 --keep FOLDER`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import io
import itertools
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastnn

SECONDS = 60.0
"""What takes longer hangs."""

MOST_BYTES = 200 * 10**6
"""Of memory, beyond what the process has before it reads."""

BATCH = 2500
"""Mutations for one process."""

Rng = random.Random
Mutation = Callable[[Rng, bytes, list[bytes]], bytes]


# Changes of bytes, whatever they mean

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS += (2**63 - 1, 2**63, 2**64 - 1)


def flip(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Flip a few bits."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_behind(rng: Rng, content: bytes, others: list[bytes]) -> bytes:
    half = len(content) // 2
    return content[:half] + flip(rng, content[half:], others)


def flip_in_front(rng: Rng, content: bytes, others: list[bytes]) -> bytes:
    return flip(rng, content[:64], others) + content[64:]


def cut(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def extend(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    count = rng.choice((1, 7, 4096))
    return content + rng.choice((bytes(count), rng.randbytes(count), content[:count]))


def remove(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 4, 8, 100)) :]


def repeat(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    start = rng.randrange(len(content) + 1)
    part = content[start : start + rng.choice((1, 4, 16, 200))]
    return content[:start] + part * rng.choice((2, 3, 300)) + content[start:]


def splice(rng: Rng, content: bytes, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = rng.randrange(len(content) + 1), rng.randrange(len(other) + 1)
    return content[:start] + other[end:]


def number(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Write a number that is the largest or smallest of its kind, more often near the front."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
    reach = rng.choice((32, 256, len(content)))
    start = rng.randrange(max(1, min(reach, len(content)) - size + 1))
    return content[:start] + value.to_bytes(size, order) + content[start + size :]


ANY: list[Mutation] = [
    flip,
    flip_in_front,
    flip_behind,
    cut,
    extend,
    remove,
    repeat,
    splice,
    number,
    number,
]


# Changes of JSON

DEEP = "\uf8ffdeep"
HUGE = "\uf8ffhuge"
TEXTS = ("", "\0", "\x1b[2J\x1b[31m", "\u202egpj.exe", "\ud800", "x" * 5000, "../../etc/passwd")
VALUES = (
    0, -1, 1, 2, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.0, 5e-324, 1e308,
    float("inf"), float("-inf"), float("nan"), True, False, None, [], {}, [[]], [1, 2], {"a": 1},
    "os.system", "Dense", "Dropout", "Adam", "PCG64", DEEP, HUGE, *TEXTS,
)  # fmt: skip


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a tree of JSON with each of its keys or places."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def edited(rng: Rng, tree: Any) -> str:
    """Return a tree of JSON as text, with a change; texts in it that are JSON are changed inside.

    Some changes, such as a key that is there twice, are of the text.
    """
    found = list(places(tree)) if isinstance(tree, dict | list) else []
    if found:
        within, key = rng.choice(found)
        value = within[key]
        inner = None
        if isinstance(value, str) and value[:1] in ("{", "["):
            with contextlib.suppress(ValueError):
                inner = json.loads(value)
        if inner is not None and rng.random() < 0.9:
            within[key] = edited(rng, inner)
        else:
            _edit(rng, within, key, [container[name] for container, name in found])
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.9)
    for mark, put in ((DEEP, "[" * 100_000 + "]" * 100_000), (HUGE, "9" * 5000)):
        if mark in text or json.dumps(mark) in text:
            text = text.replace(json.dumps(mark), put).replace(f'"{mark}"', put)
    if rng.random() < 0.3:
        text = text.replace("Infinity", "1e999")
    if rng.random() < 0.05 and (starts := [m.end() for m in re.finditer(r"\{(?=\")", text)]):
        start, names = rng.choice(starts), re.findall(r'"(\w+)":', text)
        value = json.dumps(rng.choice([v for v in VALUES if v not in (DEEP, HUGE)]))
        text = f'{text[:start]}"{rng.choice(names or ["a"])}": {value}, {text[start:]}'
    return text


def _edit(rng: Rng, within: Any, key: Any, values: list[Any]) -> None:
    """Change one entry of a container."""
    value = within[key]
    how = rng.randrange(7)
    if isinstance(value, int | float) and rng.random() < 0.5:
        how = 3
    if how == 0:
        del within[key]
    elif how == 1 and isinstance(within, dict):
        within[rng.choice((*TEXTS, f"{key}2", "type"))] = within.pop(key)
    elif how == 2:
        within[key] = json.loads(json.dumps(rng.choice(values)))
    elif how == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        within[key] = rng.choice(
            (-value, value + 1, value - 1, value * 2, value / 2, value * 1e300, str(value))
        )
    elif how == 4 and isinstance(within, list):
        within[key:key] = [value] * rng.choice((1, 3, 1000))
    elif how == 5 and isinstance(value, list | dict):
        within[key] = [value] if isinstance(value, list) else list(value.values())
    else:
        within[key] = rng.choice(VALUES)


# Changes by format


def of_header(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Change the header of a safetensors file, and say how long it is now."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError:  # of bytes that have been changed before
        return content
    if not isinstance(header, dict):
        return content
    of = header.get("__metadata__")
    if isinstance(of, dict) and rng.random() < 0.85:
        # most of what fastnn itself reads is here; the library refuses what is no text
        header["__metadata__"] = json.loads(edited_texts(rng, of))
        text = json.dumps(header)
    else:
        text = edited(rng, header)
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data + content[8 + length :]


def edited_texts(rng: Rng, texts: dict[str, Any]) -> str:
    """Return a dict of texts, one of which has been changed, as JSON."""
    if not texts:
        return "{}"
    name = rng.choice(list(texts))
    value = texts[name]
    try:
        inner = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        inner = value
    if isinstance(inner, dict | list):
        texts[name] = edited(rng, inner)
    else:
        texts[name] = rng.choice([str(v) for v in VALUES if v not in (DEEP, HUGE)])
    if rng.random() < 0.1:
        del texts[name]
    return json.dumps(texts)


def of_dimensions(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Change sizes in the header of an IDX file."""
    words = content[3:4]
    if not words or not 1 <= words[0] <= 8:
        return content
    start = 4 + 4 * rng.randrange(words[0])
    old = int.from_bytes(content[start : start + 4], "big")
    new = rng.choice((0, 1, old + 1, max(0, old - 1), old * 2, 2**16, 2**31, 2**32 - 1))
    return content[:start] + (new & 0xFFFFFFFF).to_bytes(4, "big") + content[start + 4 :]


def unzipped(mutation: Mutation) -> Mutation:
    """Return a change of what is in a gzip file, which it is packed into again."""

    def mutate(rng: Rng, content: bytes, others: list[bytes]) -> bytes:
        if content[:2] != b"\x1f\x8b":
            return mutation(rng, content, others)
        try:
            inner = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return content
        return gzip.compress(mutation(rng, inner, [inner]), 1, mtime=0)

    return mutate


CELLS = (
    b"", b"1e999", b"-inf", b"nan", b"9" * 5000, b'"', b'""', b'"a\nb"', b"\0", b"\xff\xfe", b"?",
    b"\x1b[31m", "‮".encode(), b"x" * 200_000, b"0x10", b"1_000", b"True", b"2020-01-01", b"1,5",
    b"=cmd()", b"\xed\xa0\x80", "١٢".encode(), b"1e-400", b"-0", b"\r", b"99999999999999999999",
)  # fmt: skip


def of_cells(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Change a cell of CSV, or a whole row or column."""
    lines = content.split(b"\n")
    at = rng.choice((0, rng.randrange(len(lines))))
    cells = lines[at].split(b",")
    how = rng.randrange(8)
    if how == 0:
        lines[at:at] = [lines[at]] * rng.choice((1, 50))
    elif how == 1:
        del lines[at]
    elif how == 2:
        lines[at] = b",".join(cells * rng.choice((2, 30)))
    elif how == 3:
        lines = [line + b"," + rng.choice(CELLS) for line in lines]
    elif how == 4:
        lines[at:at] = [rng.choice((b"sep=;", b"sep=,", b"", b",,,", b'"', b"\xef\xbb\xbf"))]
    else:
        cells[rng.randrange(len(cells))] = rng.choice(CELLS)
        lines[at] = b",".join(cells)
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(lines)


def of_lines(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Change an entry in a line of JSON."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        record = json.loads(lines[at])
    except (ValueError, RecursionError):
        return content
    lines[at] = edited(rng, record).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of PNG."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def of_chunks(rng: Rng, content: bytes, others: list[bytes]) -> bytes:
    """Change a chunk of PNG, whose checksum is made right again; pixels are packed again."""
    chunks, start = [], 8
    while start + 12 <= len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += 12 + size
    if not chunks:
        return content
    at = rng.randrange(len(chunks))
    kind, data = chunks[at]
    how = rng.randrange(6)
    if how == 0:
        chunks[at:at] = [(kind, data)] * rng.choice((1, 200))
    elif how == 1:
        del chunks[at]
    elif how == 2:
        kinds = b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"acTL", b"gAMA", b"iCCP", b"fdAT", b"tEXt"
        chunks[at:at] = [(rng.choice(kinds), rng.choice((data, rng.randbytes(30))))]
    elif kind == b"IDAT" and how < 5:
        try:
            inner = zlib.decompress(data)
        except zlib.error:
            inner = data
        chunks[at] = kind, zlib.compress(rng.choice(ANY)(rng, inner, [inner]), 1)
    else:
        chunks[at] = kind, rng.choice((flip, cut, number, extend))(rng, data, [data])
    return content[:8] + b"".join([chunk(kind, data) for kind, data in chunks])


def of_segments(rng: Rng, content: bytes, _: list[bytes]) -> bytes:
    """Change a number in a segment of JPEG, such as its width and height."""
    starts = [m.start() for m in re.finditer(rb"\xff[\xc0-\xfe]", content)]
    if not starts:
        return content
    start = rng.choice(starts) + 2 + rng.randrange(12)
    size = rng.choice((1, 2))
    value = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
    return content[:start] + value.to_bytes(size, "big") + content[start + size :]


# Valid files, and what reading them means


@dataclass
class Format:
    """A format: names of files that are valid, what is changed in them, and how one is read."""

    samples: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    mutations: list[Mutation] = field(default_factory=list)
    suffix: str = ""
    check: Callable[[Any, Path], None] = lambda result, folder: None


def _network(kind: int, backend: str | None = None) -> fastnn.Network:
    """Return a small network that has trained, of many kinds of layers and optimisers."""
    from fastnn import losses, optimizers, schedules

    warm = schedules.WarmUp(schedules.CosineDecay(0.01, 100), 10)
    X = np.random.default_rng(kind).normal(size=(12, 4))
    ids = np.arange(12) % 3
    layers: list[Any] = [
        fastnn.Rescaling(0.5),
        fastnn.Dense(4, 5, l2=0.01),
        fastnn.BatchNorm(5),
        [fastnn.ReLU, fastnn.ELU, fastnn.Softplus, fastnn.Tanh, fastnn.Mish][kind](),
        fastnn.Dropout(0.25),
        fastnn.Dense(5, 3),
    ]
    loss, y = [
        ("softmax_cross_entropy", ids),
        (losses.SoftmaxCrossEntropy(0.1), ids),
        ("mse", X[:, :3]),
        ("binary_cross_entropy", np.eye(3)[ids]),
        ("poisson", np.eye(3)[ids]),
    ][kind]
    optimizer = [
        "sgd",
        optimizers.Adam(warm),
        "momentum",
        "rmsprop",
        optimizers.SGD(schedules.StepDecay(0.1, 0.5, 3)),
    ][kind]
    network = fastnn.Network(
        layers, loss=loss, optimizer=optimizer, clip_norm=[None, 1.0][kind % 2], seed=kind,
        backend=backend, dtype=["float32", "float64"][kind % 2],
    )  # fmt: skip
    network.metadata = [{}, {"classes": '["a", "b"]'}][kind % 2]
    network.fit(X, y, batch_size=6)
    return network


def models(folder: Path) -> list[bytes]:
    contents = []
    for kind in range(5):
        _network(kind).save(folder / "sample")
        contents.append((folder / "sample").read_bytes())
    return contents


def _samples_of(network: fastnn.Network) -> tuple[Any, Any] | None:
    """Return two samples that a network could learn, None where it takes any width."""
    widths = [layer.input_units for layer in network if layer.input_units]
    outputs = [layer.output_units for layer in network if layer.output_units]
    if not widths:
        return None
    X = np.random.default_rng(0).normal(size=(2, widths[0]))
    name = network._loss.name
    y = np.zeros(2, np.int64) if name == "softmax_cross_entropy" else np.ones((2, outputs[-1]))
    return X, y


def check_network(network: fastnn.Network, folder: Path) -> None:
    """Raise unless a network predicts, is saved, loads again as the same, and can train."""
    samples = _samples_of(network)
    again = folder / "again"
    network.save(again)
    loaded = fastnn.load(again, backend=network.backend)
    assert repr(loaded) == repr(network)
    if not len(network):
        return
    X, y = samples or (np.ones((2, 3)), None)
    with np.errstate(all="ignore"):
        assert network.predict(X).tobytes() == loaded.predict(X).tobytes()
        if y is None:
            return
        for trained in (network, loaded):
            trained.train_step(X, y)
        before, after = network(X), loaded(X)
        assert before.tobytes() == after.tobytes()
        with contextlib.suppress(ArithmeticError):  # a file may hold what does not converge
            network.fit(X, y, batch_size=2)
    network.save(again)


def checkpoints(folder: Path) -> list[bytes]:
    contents = []
    for kind, options in enumerate(
        (
            {"callbacks": fastnn.EarlyStopping("loss")},
            {"validation_split": 0.25, "checkpoint_every": 3, "batch_size": 3},
        )
    ):
        network = _network(kind, fastnn.available_backends()[kind])
        network.fit(*_DATA, epochs=2, checkpoint=folder / "sample", **options)
        contents.append((folder / "sample").read_bytes())
    return contents


_DATA = np.random.default_rng(1).normal(size=(12, 4)), np.arange(12) % 3


def read_checkpoint(path: Path) -> fastnn.Network:
    """Go on with the training, not for as many epochs as the file may ask for."""
    from fastnn import checkpoints

    saved = checkpoints.read(path)
    callbacks = [fastnn.EarlyStopping("loss") for _ in saved.callbacks]
    try:
        return fastnn.resume(path, *_DATA, epochs=3, callbacks=callbacks)
    except ArithmeticError:  # a file may hold what does not converge
        return fastnn.load(path)


def idx(folder: Path, zipped: bool = False) -> list[bytes]:
    """Return the four files of a data set, each as long as it says in front of it."""
    rng = np.random.default_rng(0)
    contents = []
    n, side = 30, 5
    for _ in range(2):
        images = rng.integers(0, 256, (n, side, side), np.uint8)
        labels = rng.integers(0, 10, n, np.uint8)
        contents.append(struct.pack(">4i", 0x803, n, side, side) + images.tobytes())
        contents.append(struct.pack(">2i", 0x801, n) + labels.tobytes())
    return [gzip.compress(content, mtime=0) if zipped else content for content in contents]


def read_idx(path: Path) -> Any:
    """Read a data set of which one file is this, by its first bytes images or labels."""
    begin = content = path.read_bytes()
    with contextlib.suppress(zlib.error):
        begin = (
            zlib.decompressobj(31).decompress(content, 4) if content[:2] == b"\x1f\x8b" else content
        )
    folder = path.parent / "idx"
    folder.mkdir(exist_ok=True)
    good = _good_idx(path.parent)
    names = [f"{of}-{what}" for of in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    which = len(content) % 2 * 2 + (begin[3:4] == b"\x01")
    for place, name in enumerate(names):
        file = folder / f"{name}-ubyte"
        file.write_bytes(content if place == which else good[place % 2])
    try:
        return fastnn.load_dataset(path=folder, dtype=[np.uint8, np.float32][which // 2])
    except (ValueError, OSError) as error:
        # which names the file that it is in this folder
        if str(folder) in str(error):
            raise type(error)(f"{path}: {error}") from None
        raise


_good: list[bytes] = []


def _good_idx(folder: Path) -> list[bytes]:
    if not _good:
        _good.extend(idx(folder))
    return _good


def check_data(parts: Any, _: Path) -> None:
    for X, y in zip(parts[::2], parts[1::2], strict=True):
        assert len(X) == len(y)
        assert X.ndim == 3
        assert y.dtype == np.int64
        assert (y >= 0).all()
        assert X.dtype == np.uint8 or ((X >= 0) & (X <= 1)).all()


def _table(seed: int) -> Any:
    import pandas

    rng = np.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "size": rng.normal(10, 3, 40).round(3),
            "count": rng.integers(0, 50, 40),
            "colour": rng.choice(["red", "green", "blue"], 40),
            "kind": rng.choice(["a", "b"], 40) if seed % 2 else rng.normal(size=40),
        }
    )


def csv(_: Path) -> list[bytes]:
    contents = [_table(seed).to_csv(index=False).encode() for seed in range(2)]
    return [*contents, gzip.compress(contents[0], mtime=0), contents[1].replace(b",", b";")]


def parquet(_: Path) -> list[bytes]:
    contents = []
    for seed, compression in enumerate(("snappy", "gzip", "zstd", None)):
        file = io.BytesIO()
        _table(seed).to_parquet(file, compression=compression, index=False)
        contents.append(file.getvalue())
    return contents


def read_table(path: Path) -> Any:
    """Prepare a table as `fastnn train` does."""
    from fastnn.cli import sources

    missing = (None, "mean", "drop")[path.stat().st_size % 3 - 1]
    options = {
        "csv": None, "parquet": None, "data": None, "target": "kind", "task": None, "ignore": [],
        "missing": missing, "categorical": [], "seed": 0, "test_share": 0.2,
        "validation_share": 0.1, "dtype": "float32", path.suffix[1:]: path,
    }  # fmt: skip
    return sources.task(argparse.Namespace(**options))


def check_task(task: Any, _: Path) -> None:
    for X, y in zip(task.parts[::2], task.parts[1::2], strict=True):
        assert X.ndim == 2
        assert len(X) == len(y)
        assert np.isfinite(X).all()
        assert np.isfinite(y).all()


def rows(_: Path) -> list[bytes]:
    numbers = np.random.default_rng(0).normal(size=(20, 4))
    lines = [",".join(map(str, row)) for row in numbers.tolist()]
    contents = ["\n".join(lines).encode(), "\r\n".join(["a,b,c,d", *lines, ""]).encode()]
    return [*contents, gzip.compress(contents[1], mtime=0)]


def read_rows(path: Path) -> Any:
    """Read rows of numbers as `fastnn predict` does."""
    from fastnn import prediction, tables

    network = fastnn.Network([fastnn.Dense(4, 3)] if path.stat().st_size % 2 else [])
    return prediction.of_csv(network, io.StringIO(tables.text(path), newline=""), str(path))


def check_rows(found: Any, _: Path) -> None:
    assert found.ndim == 2
    assert np.isfinite(found).all()


def pictures(kind: str, modes: tuple[str, ...], **options: Any) -> Callable[[Path], list[bytes]]:
    """Return what draws a digit in files of a kind."""

    def draw(_: Path) -> list[bytes]:
        from PIL import Image, ImageDraw

        contents = []
        for mode in modes:
            picture = Image.new("L", (40, 36), 255)
            ImageDraw.Draw(picture).line([(20, 5), (12, 20), (28, 30)], 0, 4)
            file = io.BytesIO()
            picture.convert("P" if mode == "P" else "I" if mode == "I;16" else mode).convert(
                mode
            ).save(file, kind, **options)
            contents.append(file.getvalue())
        return contents

    return draw


def read_picture(path: Path) -> Any:
    from fastnn import images

    return images.read(path)


def check_digit(pixels: Any, _: Path) -> None:
    assert pixels.shape == (28, 28)
    assert ((pixels >= 0) & (pixels <= 1)).all()


def results(folder: Path) -> list[bytes]:
    from fastnn.cli import main

    data = folder / "of a sweep"
    data.mkdir()
    for place, content in enumerate(idx(data)):
        of, what = ("train", "t10k")[place // 2], ("images-idx3", "labels-idx1")[place % 2]
        content = idx(data)[place % 2]
        (data / f"{of}-{what}-ubyte").write_bytes(content)
    out = folder / "sample.jsonl"
    command = ["sweep", "--data", str(data), "--out", str(out), "--epochs", "2", "--seeds", "2"]
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert main([*command, "--backend", "numpy", "--hidden", "3", "--hidden", "4"]) == 0
    finally:
        sys.stdout = stdout
    content = out.read_bytes()
    return [content, content[: content.index(b"\n", 100) + 1]]


def read_results(path: Path) -> Any:
    from fastnn import sweep

    of_data = json.loads(path.read_bytes().split(b"\n")[0])["data"] if path.name == "whole" else ""
    with sweep.Results(path, of_data or _DIGEST[0]) as found:
        return found.found


_DIGEST: list[str] = []


def results_of_these(folder: Path) -> list[bytes]:
    contents = results(folder)
    _DIGEST[:] = [json.loads(contents[0].split(b"\n")[0])["data"]]
    return contents


def check_results(found: Any, folder: Path) -> None:
    from fastnn import sweep

    rows = sweep.rows(list(found.values()))
    if rows:
        sweep.table(rows)
        sweep.draw(rows, folder / "picture.png") if len(found) % 7 == 6 else None


def state_dicts(folder: Path) -> list[bytes]:
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return [save(arrays), save({n: a.astype(np.float32) for n, a in arrays.items()})]


def read_state_dict(path: Path) -> fastnn.Network:
    """Read arrays by the library, as users do, and then what fastnn makes of them."""
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}") from None
    network = fastnn.Network([fastnn.Dense(4, 5), fastnn.ReLU(), fastnn.Dense(5, 3)], seed=0)
    try:
        network.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None  # it sees no file
    return network


FORMATS = {
    "model": Format(models, fastnn.load, [of_header] * 12 + [flip_behind] * 4, check=check_network),
    "checkpoint": Format(
        checkpoints, read_checkpoint, [of_header] * 12 + [flip_behind] * 4, check=check_network
    ),
    "state_dict": Format(state_dicts, read_state_dict, [of_header] * 6, check=check_network),
    "idx": Format(idx, read_idx, [of_dimensions] * 6, check=check_data),
    "idx.gz": Format(
        partial(idx, zipped=True),
        read_idx,
        [unzipped(of_dimensions), unzipped(number), unzipped(cut), unzipped(extend)] * 2,
        check=check_data,
    ),
    "csv": Format(csv, read_table, [unzipped(of_cells)] * 12, ".csv", check_task),
    "rows": Format(rows, read_rows, [unzipped(of_cells)] * 12, check=check_rows),
    "parquet": Format(parquet, read_table, [flip] * 3, ".parquet", check_task),
    "results": Format(results_of_these, read_results, [of_lines] * 12, check=check_results),
    "png": Format(
        pictures("PNG", ("L", "RGBA", "P", "1", "LA", "I;16")),
        read_picture,
        [of_chunks] * 12,
        ".png",
        check_digit,
    ),
    "jpeg": Format(pictures("JPEG", ("L", "RGB", "CMYK")), read_picture, [of_segments] * 6,
                   ".jpg", check_digit),
    "bmp": Format(pictures("BMP", ("L", "RGB", "1", "P")), read_picture, [], ".bmp", check_digit),
    "gif": Format(pictures("GIF", ("L", "P")), read_picture, [], ".gif", check_digit),
    "tiff": Format(pictures("TIFF", ("L", "RGB", "F", "I;16"), compression="tiff_lzw"),
                   read_picture, [], ".tiff", check_digit),
    "webp": Format(pictures("WEBP", ("L", "RGBA")), read_picture, [], ".webp", check_digit),
}  # fmt: skip


def mutated(name: str, which: int, samples: list[bytes]) -> bytes:
    """Return the file of a mutation."""
    rng = random.Random(f"{name} {which}")
    content = rng.choice(samples)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutation = rng.choice([*ANY, *FORMATS[name].mutations])
        with contextlib.suppress(Exception):  # of content that has lost its structure before
            content = mutation(rng, content, samples)
    return content


# Reading one, in a process of its own


def outcome(of: Format, path: Path, folder: Path) -> str:
    """Read a file; return "loaded", "refused", or what is wrong."""
    try:
        result = of.read(path)
    except (ValueError, OSError) as error:
        text = str(error)
        if str(path) not in text:
            return f"no file named: {_said(error)}"
        rest = text.replace(str(path), "")
        if len(rest) > 2000:
            return f"a message of {len(rest)} characters: {text[:200]!r}"
        kinds = {unicodedata.bidirectional(c) for c in rest}
        obeyed = any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in rest)
        if obeyed or kinds & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}:
            return f"characters that a terminal obeys: {text[:300]!r}"
        return "refused"
    except BaseException as error:
        return f"error: {_said(error)}"
    try:
        of.check(result, folder)
    except BaseException as error:
        return f"invalid: {_said(error)}"
    return "loaded"


def _said(error: BaseException) -> str:
    trace, frames = error.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:300]!r} in {' '.join(frames[-4:])}"


class Peak:
    """How much memory the process took, beyond what it had, while a `with` statement ran."""

    used = 0

    def __enter__(self) -> Peak:
        self._before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # forgets the peak
        return self

    def __exit__(self, *_: object) -> None:
        self.used = _status("VmHWM") - self._before


def _status(name: str) -> int:
    """Return a number of bytes that the system tells of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * int(next(line for line in file if line.startswith(name)).split()[1])


def work(name: str, first: int, count: int, log: Path) -> None:
    """Read so many mutations; write a line for each to `log`: its number, and what came of it."""
    warnings.simplefilter("ignore")
    of, backends = FORMATS[name], fastnn.available_backends()
    with tempfile.TemporaryDirectory() as place, log.open("a", buffering=1) as told:
        folder = Path(place)
        samples = of.samples(folder)
        path = folder / f"file{of.suffix}"
        for backend, content in itertools.product(backends, samples):
            fastnn.set_backend(backend)
            path.write_bytes(content)
            if (came := outcome(of, path, folder)) == "refused":
                of.read(path)
            if came != "loaded":
                raise SystemExit(f"{name}: a sample that is valid: {came}")
        limit = _status("VmSize") + 2 * 10**9  # so that none of them stops the machine
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for which in range(first, first + count):
            path.write_bytes(mutated(name, which, samples))
            fastnn.set_backend(backends[which % len(backends)])
            told.write(f"{which} ")
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            with Peak() as peak:
                came = outcome(of, path, folder)
            used = peak.used
            faulthandler.cancel_dump_traceback_later()
            if came in ("loaded", "refused") and used > MOST_BYTES:
                came = f"memory: {used / 1e6:.0f} MB"
            told.write(f"{used} {came}\n".replace("\r", " "))


# Running many


@dataclass
class Counts:
    """What came of the mutations of a format."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = "loaded", "refused", "crash", "hang", "memory", "other"
        said = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in kinds)
        return f"{self.name:10}  {said}; {self.peak / 1e6:.0f} MB at most"


def fuzz(name: str, first: int, count: int) -> Counts:
    """Read so many mutations of a format in processes of their own."""
    counts, end = Counts(name), first + count
    while first < end:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            size = min(BATCH, end - first)
            command = [sys.executable, __file__, "--work", name, str(first), str(size), str(log)]
            root = str(Path(fastnn.__file__).parent.parent)
            done = subprocess.run(
                command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
            )
            lines = log.read_text().split("\n") if log.exists() else [""]
        for line in lines[:-1]:
            which, used, came = line.split(" ", 2)
            counts.peak = max(counts.peak, int(used))
            kind = came.partition(":")[0]
            counts.counts[kind if kind in ("loaded", "refused", "memory") else "other"] += 1
            if came not in ("loaded", "refused"):
                counts.wrong.append(f"{name} {which}: {came}")
        first += len(lines) - 1
        if lines[-1]:  # it has begun with one, and not ended
            kind = "hang" if "Timeout (" in done.stderr else "crash"
            counts.counts[kind] += 1
            last = "\n".join(done.stderr.splitlines()[-12:])
            counts.wrong.append(f"{name} {first}: {kind}, status {done.returncode}\n{last}")
            first += 1
        elif done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-3000:]}")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000, help="of each format")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--keep", type=Path, help="a folder for the files that are read wrongly")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, first, count, log = options.work
        work(name, int(first), int(count), Path(log))
        return 0
    failed = False
    for name in options.formats:
        start = time.monotonic()
        counts = fuzz(name, options.first, options.mutations)
        print(f"{counts}, {time.monotonic() - start:.0f} s", flush=True)
        print(*counts.wrong[:20], sep="\n", end="\n" * bool(counts.wrong), flush=True)
        failed |= bool(counts.wrong)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                samples = FORMATS[name].samples(Path(folder))
            chosen = [int(line.split()[1].rstrip(":")) for line in counts.wrong]
            if options.mutations == 1:
                chosen = [options.first]
            for which in chosen:
                file = options.keep / f"{name}-{which}{FORMATS[name].suffix}"
                file.write_bytes(mutated(name, which, samples))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
