"""Files of CSV and Parquet, as tables of pandas."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import warnings
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from fastnn import checks, extras, unpacking
from fastnn.tables import cells
from fastnn.tables.cells import Frame
from fastnn.tables.encoding import Encoding

_PARQUET = (".parquet", ".pq")

_ENDINGS = (".csv", ".tsv", ".txt", *_PARQUET)

_SEPARATORS = ",;\t"

_OF_PARQUET, _MARK = b"PAR1", b"\xef\xbb\xbf"
"""How such files begin."""

_MOST_COLUMNS = 50_000
"""pandas needs two kB and a tenth of a millisecond for each, however small a file."""

_CSV_FILE = "a CSV file whose first line names its columns"

_STANDARD_INPUT = "standard input"

_LEFT_OUT = "fastnn: left out"
"""Of `pandas.DataFrame.attrs`."""


def is_table(path: str | os.PathLike[str]) -> bool:
    """Say whether the ending of a file is that of a table."""
    return _ending(path) in _ENDINGS


def holds_rows(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a table by its ending or, as that may be any, by how it begins."""
    if is_table(path):
        return True
    begin = _beginning(path)
    if begin[:2] == unpacking.GZIP or begin[:4] == _OF_PARQUET:
        return True
    # of pictures all have a byte of 0 soon, but for those that are markup
    return bool(begin.strip()) and b"\0" not in begin and not begin.lstrip().startswith(b"<")


def read(
    source: str | os.PathLike[str] | TextIO,
    *,
    parquet: bool | None = None,
    texts: Container[str] = (),
) -> Frame:
    """Return the table in a file of CSV or Parquet.

    Columns of a CSV file are separated by commas, semicolons or tabs, whichever there are most of
    in the first line, which names them. Empty cells, `NA` and others that pandas takes for missing
    values are, and so is `?`. A column without a name, which is mostly a number of the row, is left
    out, and so is the index of a table that pandas has written to Parquet; `prepare` notes it.

    Parameters
    ----------
    source
        The path of a file, CSV gzipped or not, or an open file of CSV.
    parquet
        By default, what the ending of the file says, or how it begins.
    texts
        Columns of CSV to read as texts, whatever they look like, as `Encoding.texts` has them.

    Raises
    ------
    ValueError
        If it can't be read as such a table.
    ImportError
        If pandas, or pyarrow for Parquet, is not installed.
    """
    cells.load_pandas()
    if not isinstance(source, str | os.PathLike):
        return _of_csv(_content(source), _STANDARD_INPUT, texts)
    name = os.fspath(source)
    if not Path(name).exists():
        raise FileNotFoundError(f"{name}: expected a table, found no such file")
    if parquet is None:
        ending = _ending(name)
        parquet = ending in _PARQUET or (
            ending not in _ENDINGS and _beginning(name)[:4] == _OF_PARQUET
        )
    if parquet:
        return _of_parquet(name)
    with _as_table(name, _CSV_FILE):
        content = _content(source)
    return _of_csv(content, name, texts)


def read_rows(source: TextIO, encoding: Encoding) -> Frame:
    """Return the table in an open file of CSV, whose first line may name its columns or not.

    Without names there are as many columns as the network was trained on, in the same order.

    Raises
    ------
    ValueError
        If there is another number of columns.
    """
    separator, content = _separated(_content(source))
    first, _ = _first_lines(content, separator)
    if not {cell.strip() for cell in first} & set(encoding.names):
        if len(first) != len(encoding.names):
            raise ValueError(
                f"{_STANDARD_INPUT}: expected a first line with the columns "
                f"{checks.listed(encoding.names)}, or rows of these {len(encoding.names)}, "
                f"got {len(first)} columns"
            )
        names = io.StringIO()
        csv.writer(names, delimiter=separator).writerow(encoding.names)
        content = names.getvalue().encode() + content
    content = f"sep={separator}\n".encode() + content
    return _of_csv(content, _STANDARD_INPUT, encoding.texts)


def text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file, gzipped or not.

    Raises
    ------
    ValueError
        If it is no text in UTF-8.
    """
    with _as_table(os.fspath(path), "a text, gzipped or not"):
        content = _content(path)
    with _in_utf8(os.fspath(path), content):
        return content.decode()


def left_out_of(frame: Frame) -> list[str]:
    """Return what `read` has left out of a table, and its index if it says something."""
    left_out = list(frame.attrs.get(_LEFT_OUT, ()))
    names = [str(name) for name in frame.index.names if name is not None]
    if names:
        left_out.append(f"the index ({checks.listed(names)})")
    elif not cells.load_pandas().api.types.is_integer_dtype(frame.index.dtype):
        left_out.append("the index, which has no name")
    return left_out


def _ending(path: str | os.PathLike[str]) -> str:
    return Path(os.fspath(path).lower().removesuffix(".gz")).suffix


def _beginning(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a file, none of what can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError:
        return b""


@contextmanager
def _as_table(name: str, kind: str) -> Iterator[None]:
    """Say in the message of an error what was expected of which file."""
    try:
        yield
    except UnicodeDecodeError:
        raise
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{name}: expected {kind}, got {checks.message(str(error))}") from error


@contextmanager
def _in_utf8(name: str, content: bytes) -> Iterator[None]:
    """Say what to do about a text that is not in UTF-8."""
    try:
        yield
    except UnicodeDecodeError:
        try:
            content.decode()
        except UnicodeDecodeError as error:
            wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
            likely, charset = "UTF-16", "UTF-16"
            if not wide:
                likely, charset = "Latin-1 or Windows-1252", "WINDOWS-1252"
            line = content.count(b"\n", 0, error.start) + 1
            file = shlex.quote(name) if name != _STANDARD_INPUT else "FILE"
            raise ValueError(
                f"{name}: expected a text in UTF-8, got the byte 0x{content[error.start]:02x} in "
                f"line {line}, so it may be in {likely}; to convert it: "
                f"iconv -f {charset} -t UTF-8 {file} > NEW"
            ) from None
        raise


def _of_parquet(name: str) -> Frame:
    """Return the table in a file of Parquet."""
    pandas = cells.load_pandas()
    try:
        import pyarrow
    except ImportError as error:
        needed = f"reading Parquet needs pyarrow: {extras.install('tables')}"
        raise ImportError(needed) from error
    expected = f"{name}: expected a Parquet file"
    try:
        if Path(name).is_file():
            _check_size(name)
        frame = pandas.read_parquet(name, engine="pyarrow")
        for place in range(frame.shape[1]):
            values = frame.iloc[:, place].array
            if getattr(values.dtype, "storage", "") == "pyarrow":  # texts, not looked at until now
                pyarrow.array(values).validate(full=True)
    except MemoryError as error:
        raise ValueError(f"{expected}, got one that asks for more memory than there is") from error
    except Exception as error:  # of any kind, where names or notes of pandas in it are damaged
        if isinstance(error, OSError) and error.filename is not None:
            raise
        told = isinstance(error, (ValueError, OSError)) and not isinstance(error, UnicodeError)
        reason = str(error) if told else f"{type(error).__name__}: {error}"
        raise ValueError(f"{expected}, got {checks.message(reason)}") from error
    return _named(frame, name, frame.columns)


def _check_size(name: str) -> None:
    """Raise if a file of Parquet, which can say much in few bytes, holds too much for its size."""
    from pyarrow import compute, parquet

    size = os.stat(name).st_size
    with parquet.ParquetFile(name) as file:
        of = file.metadata
    groups = [of.row_group(i) for i in range(of.num_row_groups)]
    rows = max(of.num_rows, sum(group.num_rows for group in groups))
    held = max(8 * rows * of.num_columns, sum(group.total_byte_size for group in groups))
    if of.num_columns > _MOST_COLUMNS:
        raise ValueError(f"{of.num_columns:,} columns; {_MOST_COLUMNS:,} are read at most")
    columns = [of.schema.column(i) for i in range(of.num_columns)]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    if texts and held <= unpacking.most(size):
        # as they are in the file, where a long one is there once, however many rows have it
        with parquet.ParquetFile(name, read_dictionary=texts) as file:
            for batch in file.iter_batches(columns=texts):
                for column in batch.columns:
                    if hasattr(column, "dictionary"):
                        lengths = compute.binary_length(column.dictionary)
                        held += compute.sum(lengths.take(column.indices)).as_py() or 0
    if held > unpacking.most(size):
        refusal = unpacking.refusal(size, instead="write the table as CSV")
        raise ValueError(f"{rows:,} rows of {of.num_columns:,} columns, which take {refusal}")


def _of_csv(content: bytes, name: str, texts: Container[str]) -> Frame:
    """Return the table in a file of CSV, of which pandas reads the bytes as they are."""
    pandas = cells.load_pandas()
    with _in_utf8(name, content), _as_table(name, _CSV_FILE):
        separator, content = _separated(content)
        header, row = _first_lines(content, separator)
        if len(header) > _MOST_COLUMNS:
            raise ValueError(f"{len(header):,} columns; {_MOST_COLUMNS:,} are read at most")
        if len(row) > len(header):
            # of which pandas would make names of the rows, and move all others by a column
            hint = ""
            if len(row) == len(header) + 1 and row[-1]:
                hint = (
                    "; if these are names of the rows, as R's write.table writes them, write the "
                    "table by write.csv(table, FILE, row.names = FALSE)"
                )
            raise ValueError(
                f"{len(row)} cells in the first row below {len(header)} names of columns{hint}"
            )
        parse = partial(
            pandas.read_csv,
            sep=separator,
            skipinitialspace=True,
            na_values=["?"],
            dtype={cell: str for cell in header if cell.strip() in texts},
        )
        with warnings.catch_warnings():
            # in parts, which stay in the cache, unless a column is of other kinds in other parts
            warnings.simplefilter("error", pandas.errors.DtypeWarning)
            try:
                frame = parse(io.BytesIO(content))
            except pandas.errors.DtypeWarning:
                frame = parse(io.BytesIO(content), low_memory=False)
    # the names are those of the first line, as pandas makes 'a' and 'a.1' of two called 'a'
    return _named(frame, name, filter(None, map(str.strip, header)))


def _named(frame: Frame, name: str, names: Iterable[object]) -> Frame:
    """Return the columns that have a name, if no two have the same; note what is left out."""
    frame.columns = [str(column).strip() for column in frame.columns]
    twice = [column for column, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        shown = checks.short(repr(twice[0]))
        raise ValueError(f"{name}: expected columns of different names, got {shown} twice")
    named = [column for column in frame.columns if column and column[:9] != "Unnamed: "]
    left_out = left_out_of(frame)
    if unnamed := len(frame.columns) - len(named):
        left_out.append(f"{unnamed} column{'s' * (unnamed > 1)} without a name")
        frame = frame[named]
    frame = frame.reset_index(drop=True)
    if left_out:
        frame.attrs[_LEFT_OUT] = left_out
    return frame


def _content(source: str | os.PathLike[str] | TextIO) -> bytes:
    """Return what is in a file of text, gzipped or not, without a mark of its order of bytes."""
    if not isinstance(source, str | os.PathLike):
        # in which standard input may hold what was not in UTF-8
        return source.read().encode("utf-8", "surrogateescape").removeprefix(_MARK)
    content = Path(source).read_bytes()
    if content[:2] == unpacking.GZIP:
        content = unpacking.text(content)
    return content.removeprefix(_MARK)


def _first_lines(content: bytes, separator: str) -> tuple[list[str], list[str]]:
    """Return the cells of the line of names, and of the first row."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
    filled = filter(any, csv.reader(text, delimiter=separator, skipinitialspace=True))
    return next(filled, []), next(filled, [])


def _separated(content: bytes) -> tuple[str, bytes]:
    """Return what separates cells, and the text from its first line of cells on.

    A line that says ``sep=;`` may come first, as spreadsheets write it. Else what there is most of
    in the first line is the separator, but for names in quotes, which may hold any.
    """
    content = content[re.match(rb"(?:[ \t]*\r?\n)*", content).end() :]  # type: ignore[union-attr]
    said = re.match(rb"sep=([%b])\r?\n" % _SEPARATORS.encode(), content)
    if said:
        return said[1].decode(), content[said.end() :]
    line = re.match(rb"[^\n]*", content)[0]  # type: ignore[index]
    first = re.sub(rb'"[^"]*"', b"", line)
    return max(_SEPARATORS, key=lambda separator: first.count(separator.encode())), content
