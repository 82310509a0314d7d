"""From files to arrays, and from arrays to minibatches.

Images and labels are read from the IDX format of MNIST, in which Fashion-MNIST, KMNIST, EMNIST and
QMNIST are published too, with oddities of their own. MNIST itself comes with the package.
"""

from __future__ import annotations

import gzip
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn import checks, unpacking

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["iterate_minibatches", "load_dataset", "normalize", "standardize"]

_CHUNK_BYTES = 1 << 18
"""Bytes converted at a time: few enough to stay in cache between reading and scaling."""

_TYPES: dict[str, tuple[int, np.dtype[Any]]] = {
    "ubyte": (8, np.dtype(np.uint8)),
    "int": (12, np.dtype(">i4")),
}
"""Of elements, as the names of files have them: the code in the header, and the dtype."""


@dataclass(frozen=True)
class _Published:
    """A data set as its authors publish it.

    Attributes
    ----------
    address : str
        Where people get the files.
    folder : str
        What torchvision calls the folder that it keeps them in.
    prefix : str
        What the names of the files begin with.
    test : str
        What the test set is called in them.
    labels : str
        What the labels are called in them; in two dimensions, the class is the first column.
    transposed : bool
        Whether images are stored column by column.
    first_label : int
        The smallest label in the files.
    """

    address: str
    folder: str
    prefix: str = ""
    test: str = "t10k"
    labels: str = "labels-idx1-ubyte"
    transposed: bool = False
    first_label: int = 0

    def files(self, subset: str) -> tuple[str, str]:
        """Return the names of the images and labels of "train" or of `test`."""
        stem = f"{self.prefix}{subset}"
        return f"{stem}-images-idx3-ubyte", f"{stem}-{self.labels}"


def _emnist(split: str, first_label: int = 0) -> _Published:
    return _Published(
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        "EMNIST",
        prefix=f"emnist-{split}-",
        test="test",
        transposed=True,
        first_label=first_label,
    )


_PUBLISHED = {
    "mnist": _Published("https://ossci-datasets.s3.amazonaws.com/mnist/", "MNIST"),
    "fashion_mnist": _Published("https://github.com/zalandoresearch/fashion-mnist", "FashionMNIST"),
    "kmnist": _Published("http://codh.rois.ac.jp/kmnist/", "KMNIST"),
    "qmnist": _Published(
        "https://github.com/facebookresearch/qmnist",
        "QMNIST",
        prefix="qmnist-",
        test="test",
        labels="labels-idx2-int",
    ),
    "emnist_balanced": _emnist("balanced"),
    "emnist_byclass": _emnist("byclass"),
    "emnist_bymerge": _emnist("bymerge"),
    "emnist_digits": _emnist("digits"),
    "emnist_letters": _emnist("letters", first_label=1),
    "emnist_mnist": _emnist("mnist"),
}
"""By name."""


_Split = tuple[
    NDArray[Any],
    NDArray[np.int64],
    NDArray[Any],
    NDArray[np.int64],
    NDArray[Any],
    NDArray[np.int64],
]


@overload
def load_dataset(
    flatten: bool = False,
    /,
    *,
    path: str | os.PathLike[str] | None = None,
    dtype: DTypeLike = np.float32,
) -> _Split: ...
@overload
def load_dataset(
    name: str | None = None,
    flatten: bool = False,
    *,
    path: str | os.PathLike[str] | None = None,
    dtype: DTypeLike = np.float32,
) -> _Split: ...


def load_dataset(
    name: str | bool | None = None,
    flatten: bool = False,
    *,
    path: str | os.PathLike[str] | None = None,
    dtype: DTypeLike = np.float32,
) -> _Split:
    """Load MNIST, or a data set in the same format, split in three.

    The last 10,000 training examples are held out for validation. Of a training
    set of `n` examples that is not as large as MNIST's 60,000, the last
    ``min(10_000, n // 6)`` are.

    Parameters
    ----------
    name : str, optional
        "mnist", "fashion_mnist", "kmnist", "qmnist", or a part of EMNIST: "emnist_balanced",
        "emnist_byclass", "emnist_bymerge", "emnist_digits", "emnist_letters" or "emnist_mnist". The
        package carries MNIST alone, and nothing is ever downloaded: the files of others are looked
        for in `path`, or else in a directory of the name below `FASTNN_DATA`, in
        `~/.keras/datasets`, as Keras keeps them, and in `data`, as torchvision does.
        A bool in this place is `flatten`.
    flatten : bool, default False
        Return each image as one row of pixels.
    path : str or path-like, optional
        Directory of the four files, such as `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
        `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`. Each may be gzipped, whatever
        it is called, and may have a dot before `idx`; one without `.gz` is preferred. The files of
        EMNIST and QMNIST are known by their names.
        By default the directory that the environment variable `FASTNN_DATA`
        names, or the MNIST files of the package if it is unset or empty.
    dtype : dtype, default np.float32
        A floating dtype gives pixels scaled to [0, 1], ``np.uint8`` the raw pixels.

    Returns
    -------
    X_train : ndarray of `dtype`, [n_train, height, width] or [n_train, height * width]
        Training images. MNIST has 50,000 of 28 by 28 pixels. Those of EMNIST, which are stored
        column by column, are turned upright.
    y_train : ndarray of int64, [n_train]
        Training labels, from 0 on: the letters of EMNIST, 1 to 26 in its files, are 0 to 25.
    X_val, y_val
        Validation images and labels, likewise; 10,000 in MNIST.
    X_test, y_test
        Test images and labels, likewise; 10,000 in MNIST.

    Raises
    ------
    TypeError
        If `name` is no str, `flatten` not a bool, `path` not a path, or `dtype` neither floating
        nor uint8.
    FileNotFoundError
        If the directory or one of the four files is missing; of a data set by name, the message
        says which files are to be put where, and where to get them.
    ValueError
        If there is no data set of that name; if a directory holds several of them and there is no
        name; if a file is truncated, corrupt or too long, if images and labels differ in
        number, or if training and test images differ in size.
    """
    if isinstance(name, bool | np.bool_):
        name, flatten = None, bool(name)
    checks.flag("flatten", flatten)
    dtype = _check_pixel_dtype(dtype)
    directory, published = _located(name, path)

    train, test = published.files("train"), published.files(published.test)
    X_train, y_train = _load_examples(directory, published, *train, dtype)
    X_test, y_test = _load_examples(directory, published, *test, dtype)
    if X_train.shape[1:] != X_test.shape[1:]:
        raise ValueError(
            f"{_find(directory, test[0])}: images are {_by(X_test.shape[1:])} pixels, "
            f"but those of {_find(directory, train[0])} are {_by(X_train.shape[1:])}"
        )
    if flatten:
        X_train = X_train.reshape(len(X_train), -1)
        X_test = X_test.reshape(len(X_test), -1)

    n_train = len(X_train) - min(10_000, len(X_train) // 6)
    return (
        X_train[:n_train],
        y_train[:n_train],
        X_train[n_train:],
        y_train[n_train:],
        X_test,
        y_test,
    )


def iterate_minibatches(
    inputs: ArrayLike,
    targets: ArrayLike,
    batchsize: int,
    shuffle: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Iterate once over the samples, `batchsize` at a time.

    The samples left over when `batchsize` does not divide their number are dropped,
    so that every minibatch has the same shape; fewer than `batchsize` samples make
    no minibatch.

    Parameters
    ----------
    inputs : array_like, [n, ...]
        Samples along the first axis.
    targets : array_like, [n, ...]
        What belongs to each sample.
    batchsize : int
        Samples in a minibatch, at least 1.
    shuffle : bool, default False
        Visit the samples in a random order, drawn at the call.
    rng : numpy.random.Generator, optional
        Draws the order if `shuffle` is true; by default a fresh ``default_rng()``.

    Returns
    -------
    iterator of (ndarray [batchsize, ...], ndarray [batchsize, ...])
        Inputs and targets of one minibatch: views of the arrays passed in, or
        copies if `shuffle` is true.

    Raises
    ------
    TypeError
        If `batchsize` is not an integer, `shuffle` not a bool or `rng` not a
        Generator.
    ValueError
        If `batchsize` is not positive, if `inputs` or `targets` has no axis to
        iterate over, or if they differ in length.
    """
    inputs = np.asarray(inputs)
    targets = np.asarray(targets)
    for name, array in (("inputs", inputs), ("targets", targets)):
        if array.ndim == 0:
            raise ValueError(f"{name}: expected an array of at least one dimension, got a scalar")
    if len(inputs) != len(targets):
        raise ValueError(
            "inputs and targets: expected the same length, "
            f"got {len(inputs)} inputs and {len(targets)} targets"
        )
    batchsize = checks.integer("batchsize", batchsize, minimum=1)
    checks.flag("shuffle", shuffle)
    if not isinstance(rng, np.random.Generator | None):
        raise TypeError(f"rng: expected a numpy.random.Generator or None, got {_described(rng)}")

    order = None
    if shuffle:
        order = (np.random.default_rng() if rng is None else rng).permutation(len(inputs))
    # A generator would run the checks above at the first next(), far from the mistake.
    return _minibatches(inputs, targets, batchsize, order)


LEAST_PIXELS = 64
"""Columns of what is taken for images; a table of counts and ages may hold such numbers too."""

SCALES = 10
"""Columns are of one scale if none is narrower than so many times all of them together."""


def normalize(
    values: ArrayLike, reference: ArrayLike | None = None, *, axis: int | None = None
) -> NDArray[Any]:
    """Scale to [0, 1]: (values - min) / (max - min), over the whole array or by column.

    Parameters
    ----------
    values : array_like of any shape
        Real numbers of any dtype.
    reference : array_like of any shape, optional
        What the minimum and the maximum are taken of, the training data as a
        rule, so that all data are scaled alike; `values` itself by default.
    axis : {None, 0}
        0 scales each column of a table by itself, as columns of metres and of euros ask for.

    Returns
    -------
    ndarray of the shape of `values`
        float32 for float32, for smaller floats and for integers of up to 16
        bits, pixels among them; float64 for others. Values beyond those of
        the reference lie outside of [0, 1]. If the reference holds one value
        alone, it is subtracted and nothing divided: constant values give zeros.

    Raises
    ------
    ValueError
        If an array is empty or the reference holds NaN or infinity; if `axis` is another; with
        axis 0, if there is no table of as many columns.
    TypeError
        If an array does not hold real numbers, or numbers wider than float64.

    Warns
    -----
    UserWarning
        If a table of pandas or polars has columns of different scales, and `axis` is None.
    """
    if axis is not None:
        return _by_column(_normalized, values, reference, axis)
    return _normalized(*_all_together("normalize", values, reference))


def standardize(
    values: ArrayLike, reference: ArrayLike | None = None, *, axis: int | None = None
) -> NDArray[Any]:
    """Scale to mean 0 and deviation 1: (values - mean) / deviation, over all or by column.

    Mean and deviation, that of the population, are computed in float64.

    Parameters
    ----------
    values : array_like of any shape
        Real numbers of any dtype.
    reference : array_like of any shape, optional
        What mean and deviation are taken of; see `normalize`.
    axis : {None, 0}
        0 scales each column of a table by itself; see `normalize`.

    Returns
    -------
    ndarray of the shape of `values`
        In a dtype as of `normalize`, and constant references as there.

    Raises
    ------
    ValueError, TypeError
        As `normalize`.

    Warns
    -----
    UserWarning
        As `normalize`.
    """
    if axis is not None:
        return _by_column(_standardized, values, reference, axis)
    return _standardized(*_all_together("standardize", values, reference))


def _normalized(name: str, array: NDArray[Any], of: NDArray[Any]) -> NDArray[Any]:
    """Return an array scaled by the limits of another, which is called `name`."""
    low, high = _limits(name, of)
    return _moved_and_scaled(array, low, high - low)


def _standardized(name: str, array: NDArray[Any], of: NDArray[Any]) -> NDArray[Any]:
    """Return an array scaled by mean and deviation of another, which is called `name`."""
    low, high = _limits(name, of)
    if low == high:  # whose mean, rounded, may be another
        return _moved_and_scaled(array, low, 0.0)
    mean = sum(float(chunk.sum()) for chunk in _chunks(of)) / of.size
    spread = high - low  # in units of which no square overflows, nor do all vanish
    squares = sum(float(np.square((chunk - mean) / spread).sum()) for chunk in _chunks(of))
    return _moved_and_scaled(array, mean, spread * math.sqrt(squares / of.size))


def _by_column(
    scaled: Callable[[str, NDArray[Any], NDArray[Any]], NDArray[Any]],
    values: ArrayLike,
    reference: ArrayLike | None,
    axis: int,
) -> NDArray[Any]:
    """Return a table whose columns have been scaled one by one."""
    if axis != 0:
        raise ValueError(f"axis: expected None or 0, got {axis!r}")
    table = checks.matrix("values", values)
    name, source, of = "values", values, table
    if reference is not None:
        name, source = "reference", reference
        of = checks.matrix(name, reference, units=table.shape[1])
    called = _names_of_columns(source) or [""] * table.shape[1]
    columns = [
        scaled(f"{name}, column {j}{of_name}", table[:, j], of[:, j])
        for j, of_name in enumerate(called)
    ]
    return np.stack(columns, axis=1)


def _names_of_columns(table: object) -> list[str]:
    """Return what to say behind the numbers of a table's columns, nothing if they have no names."""
    names = getattr(table, "columns", None)
    return [f" ({checks.short(repr(name))})" for name in names] if names is not None else []


def _all_together(
    method: str, values: ArrayLike, reference: ArrayLike | None
) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """Return what the reference is called, the values and the reference.

    Warn of a table with names for columns that should not be scaled by the same numbers.
    """
    array = checks.filled("values", values)
    name, source, of = "values", values, array
    if reference is not None:
        name, source, of = "reference", reference, checks.filled("reference", reference)
    called = _names_of_columns(source) or _names_of_columns(values)
    if (
        of.ndim == 2
        and len(called) == of.shape[1] > 1
        and np.isfinite(of).all()
        and not _may_be_pixels(of)
    ):
        ranges = of.max(axis=0).astype(np.float64) - of.min(axis=0)
        whole = float(of.max()) - float(of.min())
        narrow = (ranges > 0) & (SCALES * ranges < whole)
        if narrow.any():
            j = int(narrow.argmax())
            warnings.warn(
                f"axis: expected 0 for a table whose columns are of different scales, got None, "
                f"which scales all by the same numbers; column {j}{called[j]} spans "
                f"{ranges[j]:.3g}, all columns {whole:.3g}. Write {method}(..., axis=0)",
                UserWarning,
                stacklevel=3,
            )
    return name, array, of


def _may_be_pixels(of: NDArray[Any]) -> bool:
    """Say whether a table may be of images, many of whose pixels are dark, but of one scale."""
    return of.shape[1] >= LEAST_PIXELS and bool(of.min() == 0 and of.max() <= 255)


def _limits(name: str, of: NDArray[Any]) -> tuple[float, float]:
    """Return the least and the largest of numbers, if all are finite."""
    low, high = float(of.min()), float(of.max())
    if math.isfinite(low) and math.isfinite(high - low):
        return low, high
    wrong = ~np.isfinite(of)
    if wrong.any():
        at = np.argwhere(wrong)[0]
        place = f"row {at[0]}" if of.ndim == 1 else f"place {tuple(at.tolist())}"
        raise ValueError(
            f"{name}: expected a finite range, got {of[tuple(at)]} in {place}; fill in or leave "
            "out such values"
        )
    raise ValueError(f"{name}: expected a finite range, got values from {low} to {high}")


def _moved_and_scaled(values: NDArray[Any], shift: float, scale: float) -> NDArray[Any]:
    """Return (values - shift) / scale, computed in float64; a scale of 0 counts as 1."""
    dtype = checks.compute_dtype("values", np.result_type(values.dtype, np.float32))
    result = np.empty(values.shape, dtype)
    with np.nditer(
        [values, result],
        flags=["external_loop", "buffered"],
        op_flags=[["readonly"], ["writeonly"]],
        op_dtypes=[np.float64, np.float64],
        casting="same_kind",
    ) as chunks:
        for source, target in chunks:
            np.subtract(source, shift, out=target)
            np.divide(target, scale or 1.0, out=target)
    return result


def _chunks(array: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Yield all elements in float64, so many at a time that no array of theirs is ever whole."""
    yield from np.nditer(
        array, flags=["external_loop", "buffered"], op_dtypes=[np.float64], casting="same_kind"
    )


def _minibatches(
    inputs: NDArray[Any],
    targets: NDArray[Any],
    batchsize: int,
    order: NDArray[np.int64] | None,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for start in range(0, len(inputs) - batchsize + 1, batchsize):
        batch = slice(start, start + batchsize)
        excerpt = batch if order is None else order[batch]
        yield inputs[excerpt], targets[excerpt]


def _described(value: object) -> str:
    return f"{value!r} of type {type(value).__name__}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _check_pixel_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    expected = "dtype: expected a floating dtype or np.uint8"
    if dtype is None:  # which NumPy would take for float64
        raise TypeError(f"{expected}, got None")
    try:
        checked = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise TypeError(f"{expected}, got {dtype!r}") from error
    if checked != np.uint8 and not np.issubdtype(checked, np.floating):
        raise TypeError(f"{expected}, got {checked}")
    return checked


def _located(
    name: str | None, path: str | os.PathLike[str] | None
) -> tuple[Traversable, _Published]:
    """Return the directory of a data set, and what it is."""
    if not isinstance(path, str | os.PathLike | None):
        raise TypeError(f"path: expected a str, a path or None, got {_described(path)}")
    if name is None:
        directory = _data_directory(path)
        return directory, _recognised(directory)
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str or None, got {_described(name)}")
    if not is_name(name):
        raise ValueError(
            f"name: expected one of {', '.join(_PUBLISHED)}, got {name!r}; "
            "a directory is given as path"
        )
    name = _as_known(name)
    published = _PUBLISHED[name]
    if name == "mnist" and path is None:
        return _embedded(), published
    places = _places(name, path)
    for place in places:
        if _holds(place, published):
            return place, published
    files = *published.files("train"), *published.files(published.test)
    raise FileNotFoundError(
        f"{name}: found no files of it; fastnn carries MNIST alone and downloads nothing. Get "
        f"{', '.join(files)}, gzipped or not, from {published.address} and put them into "
        f"{' or '.join(map(str, places))}, or give the directory that they are in as path"
    )


def is_name(name: str) -> bool:
    """Say whether `load_dataset` knows a data set of that name."""
    return _as_known(name) in _PUBLISHED


def _as_known(name: str) -> str:
    """Return the name as fastnn spells it, or what it is without dashes and capitals."""
    plain = name.lower().replace("-", "_")
    return next((known for known in _PUBLISHED if known.replace("_", "") == plain), plain)


def _places(name: str, path: str | os.PathLike[str] | None) -> list[Path]:
    """Return the directories in which the files of a data set may be.

    Right in `FASTNN_DATA` only those whose names say what they are: the files of Fashion-MNIST and
    KMNIST are called as those of MNIST.
    """
    published = _PUBLISHED[name]
    in_torchvision = f"{published.folder}/raw"
    if path is not None:
        return [Path(path), Path(path) / in_torchvision]
    places = [
        Path(os.path.expanduser("~/.keras/datasets")) / name.replace("_", "-"),
        Path("data") / in_torchvision,
    ]
    given = os.environ.get("FASTNN_DATA")
    if given:
        places[:0] = [Path(given) / folder for folder in (name, in_torchvision)]
        if published.prefix:
            places.insert(0, Path(given))
    return places


def _embedded() -> Traversable:
    from importlib import resources  # takes longer to import than this module

    return resources.files(__package__) / "mnist"


def _data_directory(path: str | os.PathLike[str] | None) -> Traversable:
    source = "path"
    if path is None:
        source = "FASTNN_DATA"
        path = os.environ.get(source)
        if not path:
            return _embedded()
    directory = Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{source}: expected an existing directory, got {directory}; the names of data sets "
            f"are {', '.join(_PUBLISHED)}"
        )
    return directory


def _recognised(directory: Traversable) -> _Published:
    """Return what the names of the files say; the plain ones are those of MNIST and its like."""
    found = {
        name: published for name, published in _PUBLISHED.items() if _holds(directory, published)
    }
    if "mnist" in found or not found:
        return _PUBLISHED["mnist"]
    if len(found) > 1:
        raise ValueError(
            f"{directory}: expected one data set, found {', '.join(found)}; "
            f'choose one by name, as in load_dataset("{next(iter(found))}", path=...)'
        )
    return found.popitem()[1]


def _holds(directory: Traversable, published: _Published) -> bool:
    """Say whether the training images of a data set are there."""
    names = _spellings(published.files("train")[0])
    return any((directory / name).is_file() for name in names)


def _spellings(file_name: str) -> list[str]:
    """Return what a file may be called, the preferred name first."""
    return [
        file_name.replace("-idx", f"{separator}idx") + suffix
        for suffix in ("", ".gz")
        for separator in "-."
    ]


def _find(directory: Traversable, file_name: str) -> Traversable:
    names = _spellings(file_name)
    for name in names:
        file = directory / name
        if file.is_file():
            return file
    raise FileNotFoundError(f"{directory}: found none of the files {', '.join(names)}")


def _load_examples(
    directory: Traversable,
    published: _Published,
    images_name: str,
    labels_name: str,
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the images, [n, height, width], and labels, [n], of a training or test set."""
    # Labels first: they are small, so what is wrong with them shows at once.
    labels_file = _find(directory, labels_name)
    images_file = _find(directory, images_name)
    labels = _read_labels(labels_file, labels_name, published.first_label)
    images = _read_idx(images_file, images_name, dtype)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_file}: holds {len(labels)} labels, "
            f"but {images_file} holds {len(images)} images"
        )
    return _turned(images) if published.transposed else images, labels


def _read_labels(file: Traversable, name: str, first: int) -> NDArray[np.int64]:
    labels = _read_idx(file, name, _format(name)[2])
    ids = (labels if labels.ndim == 1 else labels[:, 0]).astype(np.int64) - first
    if ids.min() < 0:
        raise ValueError(f"{file}: expected labels of at least {first}, got {ids.min() + first}")
    return ids


def _turned(images: NDArray[Any]) -> NDArray[Any]:
    """Return images that are stored column by column upright, in the memory that they are in."""
    n, columns, rows = images.shape
    upright = images.reshape(n, rows, columns)
    step = max(1, _CHUNK_BYTES // (rows * columns))
    for start in range(0, n, step):
        part = slice(start, start + step)
        upright[part] = images[part].transpose(0, 2, 1).copy()
    return upright


def _format(name: str) -> tuple[int, int, np.dtype[Any]]:
    """Return what the name of an IDX file says: dimensions, code of the type, and dtype."""
    dimensions, _, of = name.rpartition("idx")[2].partition("-")
    code, dtype = _TYPES[of]
    return int(dimensions), code, dtype


def _read_idx(file: Traversable, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read an IDX file whose name, as published, says what is in it.

    Unsigned bytes are scaled to [0, 1] if `dtype` is floating.
    """
    with cast(BinaryIO, file.open("rb")) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        zipped = stream.read(2) == unpacking.GZIP
        stream.seek(0)
        try:
            if zipped:
                with gzip.GzipFile(fileobj=stream) as unzipped:
                    most, otherwise = unpacking.most(size), unpacking.refusal(size)
                    return _parse_idx(cast(BinaryIO, unzipped), most, otherwise, name, dtype)
            return _parse_idx(stream, size, "too many for its size", name, dtype)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file}: corrupt gzip data: {error}") from error
        except EOFError as error:
            raise ValueError(f"{file}: truncated gzip data") from error
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


def _parse_idx(
    stream: BinaryIO, most: int, otherwise: str, name: str, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Parse a stream of at most so many bytes; `otherwise` is said of one that promises more.

    The format: two zero bytes, the type of the elements (8: unsigned byte, 12: integer of 32 bits),
    the number of dimensions; each dimension as a big-endian 32-bit integer; the elements, big
    end first.
    """
    ndim, code, stored = _format(name)
    header = stream.read(4 + 4 * ndim)
    magic = bytes([0, 0, code, ndim])
    if header[:4] != magic[: len(header)]:
        kind = "unsigned bytes" if stored.itemsize == 1 else "32-bit integers"
        dimensions = f"{ndim} dimension{'s' * (ndim > 1)}"
        raise ValueError(
            f"not an IDX file of {kind} in {dimensions}: "
            f"expected it to start with {magic.hex(' ')}, got {header[:4].hex(' ')}"
        )
    if len(header) < 4 + 4 * ndim:
        raise ValueError(f"truncated: expected a header of {4 + 4 * ndim} bytes, got {len(header)}")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
    if 0 in shape:
        raise ValueError(f"empty: its header says {_by(shape)}")
    size = math.prod(shape)
    promised = f"its header promises {_by(shape)} {'bytes' if stored.itemsize == 1 else 'integers'}"
    # Before allocating: a damaged header can ask for more memory than there is.
    if size * stored.itemsize > most:
        raise ValueError(f"{promised}, {otherwise}")

    elements = np.empty(size, dtype)
    for start in range(0, size, _CHUNK_BYTES):
        chunk = elements[start : start + _CHUNK_BYTES]
        content = stream.read(len(chunk) * stored.itemsize)
        whole = len(content) // stored.itemsize
        if whole < len(chunk):
            raise ValueError(f"truncated: {promised}, but it holds {start + whole}")
        raw = np.frombuffer(content, stored)
        if dtype.kind == "f":
            np.divide(raw, 255, out=chunk, dtype=dtype.type)
        else:
            chunk[:] = raw
    # Reading to the end also makes gzip compare its checksum.
    if stream.read(1):
        raise ValueError(f"too long: bytes follow the {_by(shape)} that its header promises")
    return elements.reshape(shape)
