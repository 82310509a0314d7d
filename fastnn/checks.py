"""Checks of what a caller hands in: kernels have no bounds checks, so nothing wrong gets past here.

Every message names the argument, what was expected and what came. A wrong
kind of thing is a `TypeError`, a wrong value of the right kind a `ValueError`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floating = npt.NDArray[np.floating[Any]]

_Value = TypeVar("_Value")
_Function = TypeVar("_Function", bound=Callable[..., Any])

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

LONGEST_TEXT, LONGEST_NAME, MOST_NAMES = 1000, 60, 20
"""In a message: characters of what a file holds, and of a name in it, and how many names."""

MOST_NUMBERS = 2**53
"""In an array: what no machine holds, but for which no count or address overflows."""

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Checked(Generic[_Value]):
    """An attribute that is checked whenever it is set.

    Parameters
    ----------
    check
        Called with the name and the value; returns what is kept, or raises.
    """

    def __init__(self, check: Callable[[str, Any], _Value]) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, thing: None, owner: type) -> Self: ...
    @overload
    def __get__(self, thing: object, owner: type) -> _Value: ...
    def __get__(self, thing: object | None, owner: type) -> Self | _Value:
        if thing is None:
            return self
        if self._name not in vars(thing):
            raise AttributeError(f"{owner.__name__}: expected __init__ to set {self._name}")
        value: _Value = vars(thing)[self._name]
        return value

    def __set__(self, thing: object, value: Any) -> None:
        vars(thing)[self._name] = self._check(self._name, value)


def integer(name: str, value: object, *, minimum: int, any_size: bool = False) -> int:
    """Return `value` as an int that is at least `minimum`; a bool is not an integer here.

    It fits into 64 bits, as all that counts something has to, unless it may be of `any_size`.
    """
    expected = f"an integer of at least {minimum}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {_describe(value)}") from None
    if number < minimum:
        raise ValueError(f"{name}: expected {expected}, got {shown(number)}")
    if number >= 2**63 and not any_size:
        raise ValueError(f"{name}: expected an integer below 2^63, got {shown(number)}")
    return number


def held(names: str, *counts: int) -> None:
    """Raise if the product of counts, each at least 1, is of more numbers than an array can hold.

    NumPy refuses it as well, but does not say what it is about.
    """
    product = math.prod(counts)
    if product > MOST_NUMBERS:
        raise ValueError(f"{names}: expected at most 2^53 numbers, got {shown(product)}")


def steps(name: str, value: object) -> int:
    """Return `value` as a count of steps: at most 2^53, so that floats count on, and kernels."""
    number = integer(name, value, minimum=0, any_size=True)
    if number > 2**53:
        raise ValueError(f"{name}: expected an integer of at most 2^53, got {shown(number)}")
    return number


def real(name: str, value: object, *, minimum: float = -math.inf, below: float = math.inf) -> float:
    """Return `value` as a finite float that is at least `minimum` and less than `below`."""
    expected = "a finite number" + ("" if minimum == -math.inf else f" of at least {minimum:g}")
    expected += "" if below == math.inf else f" and below {below:g}"
    try:
        array = np.asarray(value)
    except ValueError:  # ragged lists
        array = np.empty(0)
    if array.ndim != 0 or array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected {expected}, got {_describe(value)}")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number) or not minimum <= number < below:
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def clip_norm(name: str, value: object) -> float | None:
    """Return `value` as a finite float above 0, or None."""
    if value is None:
        return None
    number = real(name, value, minimum=0.0)
    if number == 0.0:
        raise ValueError(f"{name}: expected None or a number above 0, got {number}")
    return number


def matmul_precision(name: str, value: object, dtype: np.dtype[Any]) -> str | None:
    """Return `value` if it is None or "bfloat16", which a network of float32 can multiply in."""
    if value is None:
        return None
    expected = "None or 'bfloat16'"
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {expected}, got {_describe(value)}")
    if value != "bfloat16":
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    if dtype != np.float32:
        raise ValueError(f"{name}: expected None beside dtype {dtype}, got {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """Return `value` as a bool; nothing but a bool will do.

    Anything has a truth value, so a path or a generator in the place of a flag would go unnoticed.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_describe(value)}")
    return bool(value)


def file_path(name: str, value: Any) -> str:
    """Return the path of a file as a str."""
    path = fspath(value) if isinstance(value, (str, PathLike)) else None
    if not isinstance(path, str):
        raise TypeError(f"{name}: expected the path of a file, got {_describe(value)}")
    return path


def function(name: str, value: _Function) -> _Function:
    """Return `value` if it can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {_describe(value)}")
    return value


def flat(values: Any) -> Iterator[Any]:
    """Yield a value, or those in lists and tuples of them, one within the other."""
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from flat(value)
    else:
        yield values


def read_only(array: Array) -> Array:
    """Return a view of `array` that a user's function can't write to."""
    view = array.view()
    view.flags.writeable = False
    return view


def float_dtype(name: str, value: object) -> np.dtype[Any]:
    """Return `value` as one of the two dtypes that networks compute in."""
    try:
        dtype: np.dtype[Any] | None = np.dtype(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    # np.dtype(None) is float64, which nobody who writes None can mean.
    if dtype is None or dtype not in FLOAT_DTYPES or value is None:
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}")
    return dtype


def generator(name: str, seed: object) -> np.random.Generator:
    """Return the generator that `seed` gives: None, an integer, or a generator itself."""
    if isinstance(seed, (bool, float, str, bytes)):
        raise TypeError(f"{name}: expected None, an integer or a Generator, got {seed!r}")
    try:
        return np.random.default_rng(seed)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        expected = "expected None, an integer of at least 0 or a Generator"
        raise type(error)(f"{name}: {expected}, got {_describe(seed)}") from None


def numeric(name: str, value: npt.ArrayLike) -> Array:
    """Return `value` as an array of real numbers, of any shape.

    Tables of pandas whose columns are numbers of several types, or may lack some, are float64 with
    NaN for what is missing.
    """
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return value
    if hasattr(value, "nnz") and hasattr(value, "toarray"):
        raise TypeError(
            f"{name}: expected a dense array, got a sparse one; write {name}.toarray(), or "
            "train an estimator of fastnn.sklearn, which takes sparse data as they are"
        )
    if np.ma.is_masked(value):
        raise TypeError(f"{name}: expected an array without masked elements")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected a regular array of numbers, got ragged data") from None
    if array.dtype.kind == "O" and _has_columns_of_numbers(value):
        return value.to_numpy(np.float64, na_value=np.nan)  # type: ignore[no-any-return, union-attr]
    if array.dtype.kind not in "biuf":
        hint = ""
        if array.ndim == 2 and array.dtype.kind in "OSUT":
            hint = f"; of a table with text write pandas.get_dummies({name}).astype(float)"
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {array.dtype}{hint}")
    return array


def _has_columns_of_numbers(value: object) -> bool:
    """Say whether `value` is a table or a column of pandas that holds numbers alone."""
    dtypes = getattr(value, "dtypes", None)
    kinds = [getattr(dtype, "kind", "O") for dtype in np.atleast_1d(np.asarray(dtypes, object))]
    return hasattr(value, "to_numpy") and all(kind in "biuf" for kind in kinds)


def matrix(name: str, value: npt.ArrayLike, *, units: int | None = None) -> Array:
    """Return `value` as a numeric array of shape [batch, units] with at least one row.

    Nothing is converted or copied but sequences that are not arrays yet.
    """
    array = numeric(name, value)
    shape = array.shape
    if len(shape) == 2 and units in (None, shape[1]) and 0 not in shape:
        return array
    width = "units" if units is None else units
    if array.ndim != 2:
        hint = ""
        if array.ndim > 2:
            hint = "; flatten images first, for example with load_dataset(flatten=True)"
        elif array.ndim == 1 and units in (None, array.size):
            sample = f"{name}[np.newaxis]" if type(value) is np.ndarray else f"[{name}]"
            hint = f"; a single sample is {sample}"
        raise ValueError(f"{name}: expected shape [batch, {width}], got {array.shape}{hint}")
    if units is not None and array.shape[1] != units:
        raise ValueError(f"{name}: expected shape [batch, {units}], got {array.shape}")
    raise ValueError(f"{name}: expected at least one row and column, got shape {array.shape}")


def filled(name: str, value: npt.ArrayLike) -> Array:
    """Return `value` as a numeric array, of any shape, with at least one element."""
    array = numeric(name, value)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one number, got shape {array.shape}")
    return array


def shaped(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return `value` as a numeric array of exactly `shape`."""
    array = numeric(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def floating_matrix(name: str, value: npt.ArrayLike) -> Array:
    """Return `value` as a matrix in float32 or float64; integers become float64."""
    if type(value) is np.ndarray and value.dtype in FLOAT_DTYPES and value.ndim == 2 and value.size:
        return value  # as a rule: a layer without weights costs little more than its call
    array = matrix(name, value)
    if array.dtype in FLOAT_DTYPES:
        return array
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array.astype(compute_dtype(name, array.dtype, np.dtype(np.float32)), copy=False)


def labels(name: str, value: npt.ArrayLike, *, batch: int, classes: int) -> npt.NDArray[np.int64]:
    """Return `value` as int64 class ids of shape [batch], each in 0 .. classes - 1.

    Whole numbers in a floating dtype are taken, as tables often hold labels so.
    """
    try:
        array = numeric(name, value)
    except TypeError as error:
        if np.asarray(value).dtype.kind not in "OSUT":
            raise
        raise TypeError(
            f"{error}; names become class ids by np.unique({name}, return_inverse=True)[1], and "
            "fastnn.sklearn.MLPClassifier takes them as they are"
        ) from None
    if array.ndim != 1:
        hint = ""
        if array.shape == (batch, 1):
            hint = (
                f"; write {name}.ravel(), or np.ravel({name}) of a table; "
                "fastnn.sklearn.MLPClassifier takes a column as it is"
            )
        elif array.shape == (batch, classes):
            hint = f"; of one-hot rows write {name}.argmax(axis=1)"
        raise ValueError(
            f"{name}: expected class ids of shape [{batch}], got shape {array.shape}{hint}"
        )
    if len(array) != batch:
        raise ValueError(f"{name}: expected {batch} class ids, one a row, got {len(array)}")
    if array.dtype.kind == "f":
        fractional = ~(np.isfinite(array) & (array == np.floor(array)))
        if fractional.any():
            at = int(fractional.argmax())
            raise ValueError(f"{name}: expected whole class ids, got {array[at]} at index {at}")
    outside = (array < 0) | (array >= classes)
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(
            f"{name}: expected class ids from 0 to {classes - 1}, got {array[at]} at index {at}"
            + _hint_of_labels(name, array, classes)
        )
    # A copy: kernels trust it, whatever happens to the caller's array meanwhile.
    return np.array(array, np.int64)


def _hint_of_labels(name: str, array: Array, classes: int) -> str:
    """Return what to write where class ids are not in 0 .. classes - 1."""
    found = np.unique(array)
    if len(found) > classes:
        return f"; of its {len(found)} classes each needs an output" if classes > 1 else ""
    if found[0] == 1 and found[-1] == classes:
        return f"; of labels that count from 1 write {name} - 1"
    return f"; np.unique({name}, return_inverse=True)[1] counts the labels that occur from 0"


def weights(name: str, value: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Return `value` as float64 weights of shape [count], at least 0 and not all of them 0."""
    array = shaped(name, value, (count,)).astype(np.float64)  # a copy, as of labels
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"{name}: expected finite weights of at least 0, got {array[at]} at index {at}"
        )
    if not 0 < array.sum() < math.inf:
        raise ValueError(f"{name}: expected a finite sum above 0, got {array.sum()}")
    return array


def compute_dtype(name: str, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that promotion of `dtypes` gives; it must be float32 or float64."""
    first = dtypes[0]
    # the usual case is one dtype, in which there is nothing to promote
    same = first in FLOAT_DTYPES and dtypes.count(first) == len(dtypes)
    dtype = first if same else np.result_type(*dtypes)
    if dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name}: expected data that computes in float32 or float64, got {dtype}")
    return dtype


def printable(text: str) -> str:
    """Return a text from elsewhere, as a file, so that a terminal shows it and obeys nothing in it.

    What a terminal would obey is escaped, as by `repr`; that is control characters but ends of
    lines, those that change the direction of what follows, and halves of a pair of UTF-16.
    """
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


def message(text: str) -> str:
    """Return what is said of a text from elsewhere: printable, and of a long one the ends."""
    return _ends(text, LONGEST_TEXT)


def short(name: object) -> str:
    """Return a name or a value from elsewhere, as that of a column, as `message` does a text."""
    return _ends(str(name), LONGEST_NAME)


def listed(names: Iterable[object], most: int = MOST_NAMES, *, separator: str = ", ") -> str:
    """Return names from elsewhere in a row, of many the first ones.

    Of a mapping, each with what it is mapped to behind it.
    """
    found = [short(name) for name in names]
    if isinstance(names, Mapping):
        found = [f"{name} {said}" for name, said in zip(found, names.values(), strict=True)]
    return separator.join(found[:most] + ["..."] * (len(found) > most))


def _ends(text: str, most: int) -> str:
    """Return a printable text of about so many characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def shown(number: int) -> str:
    """Return an integer in digits, unless it has too many of them."""
    return str(number) if number.bit_length() <= 200 else f"one of {number.bit_length()} bits"


def _describe(value: object) -> str:
    kind = type(value).__name__
    try:
        text = shown(value) if type(value) is int else repr(value)
    except Exception:  # of a user's class, or of an integer in a list that has too many digits
        return f"{kind} that can't be shown"
    return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}"
