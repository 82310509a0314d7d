"""Errors of elementwise functions in units in the last place: `python tests/ulps.py --exhaustive`.

That takes every float32 there is through every function and derivative of both backends, and many
a float64, compares the results with longer ones, and writes the largest errors, and where they are,
to `ulps.json` beside this file. It takes a quarter of an hour on two cores; names behind it choose
functions.
`--page` writes what was found into `docs/numbers.md`. With FASTNN_VECTOR_BITS, `--digest` gives a
digest of all results, which tells whether vectors of another width gave the same bits.

`test_ulps.py` takes a sample of the same numbers, and those at which the largest errors are.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from elementwise import ROWS, Row, gaussian, normal_distribution
from sums import KERNELS

from fastnn import backends
from fastnn.backends import numpy_backend as reference

FOUND = Path(__file__).with_name("ulps.json")
PAGE = Path(__file__).parent.parent / "docs" / "numbers.md"
CHUNK = 2**16
LONGER = {np.dtype(np.float32): np.dtype(np.float64), np.dtype(np.float64): np.dtype(np.longdouble)}
"""What results are compared with."""
BACKENDS = ("numpy", "numba")
FAR = 13
"""An exponential of half a square of less is a normal number."""
WORST = 6
"""Arguments that are kept of each function, dtype and backend."""

Compute = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Function:
    """A function of one number: what it is, how backends compute it, how far they may be off.

    `exact` gives the summands of the value, whose sizes are what an error is measured by. `ulps`
    bounds errors, and `condition` says by how much more NumPy's equation may be off. Where an
    exponential is below the smallest normal number, `floor` times that number may be lost as well.
    """

    name: str
    exact: Callable[[np.ndarray], list[Any]]
    by: dict[str, Compute]
    ulps: float
    condition: Compute = np.ones_like
    low: float = -np.inf
    high: float = np.inf
    costly: tuple[str, ...] = ()

    def bound(self, backend: str, x: np.ndarray) -> np.ndarray:
        """How far a backend may be off at x, of higher precision."""
        return self.ulps * (self.condition(x) if backend == "numpy" else np.ones_like(x))


@functools.cache
def numba_backend() -> Any:
    return backends.load("numba")


def _kernel(name: str, formula: Callable[..., Any]) -> Compute:
    """Compile a piece, which has no kernel of its own."""
    from fastnn.backends.numba_backend.jit import KernelOperation
    from fastnn.backends.numba_backend.kernels.elementwise import _walk
    from fastnn.backends.numba_backend.layerwise.arrays import KernelEntries

    module = numba_backend()
    operation = KernelOperation(_walk(formula, 0, False), f"ulps_{name}")
    entries = KernelEntries(module._apply, operation)
    return lambda x: module._elementwise(entries, x[np.newaxis], x[np.newaxis], ())[0]


def _forward(row: Row, backend: str) -> Compute:
    """Return a layer's function. Numba's is the kernel's, where a layer alone takes NumPy's too."""
    name, constants = row.layer._function, row.layer._numbers
    if backend == "numpy":
        return lambda x: reference.elementwise_forward(name, x, *constants)
    module = numba_backend()
    entries = module._forward[name]
    return lambda x: module._elementwise(entries, x[np.newaxis], x[np.newaxis], constants)[0]


def _slope(row: Row, backend: str) -> Compute:
    """Return a layer's derivative: the gradient by its input where that by its output is 1."""
    name, constants = row.layer._function, row.layer._numbers
    forward = _forward(row, backend)
    module = reference if backend == "numpy" else numba_backend()

    def compute(x: np.ndarray) -> np.ndarray:
        value = (forward(x) if row.layer._from_output else x)[np.newaxis]
        return module.elementwise_backward(name, value, np.ones_like(value), *constants)[0]

    return compute


def _pieces() -> Iterator[Function]:
    """What activations and losses are made of, beside NumPy's functions."""
    from fastnn.backends.numba_backend.kernels import exponential as e
    from fastnn.backends.numba_backend.kernels import special

    def distribution(k: Any, x: Any) -> Any:
        return special.normal_distribution(k, x, special.gaussian(k, x))

    pieces: list[tuple[Any, ...]] = [
        ("exp", e.exponential, lambda x: [np.exp(x)], 3, np.exp, -np.inf, 0.0),
        ("exp of any sign", e.exponential_of_any, lambda x: [np.exp(x)], 3, np.exp, -87.0, 88.5),
        ("expm1", e.expm1, lambda x: [np.expm1(x)], 4, np.expm1, -np.inf, 0.0),
        ("log1p", special.log1p, lambda x: [np.log1p(x)], 4, np.log1p, 0.0, 1.0),
        ("tanh", None, lambda x: [np.tanh(x)], 4, np.tanh, -np.inf, np.inf),
        ("gaussian", special.gaussian, lambda x: [gaussian(x)], 4, None, -1000.0, 1000.0),
        ("normal distribution", distribution, lambda x: [normal_distribution(x)], 7, None, -1000.0,
         1000.0),
    ]  # fmt: skip
    for name, formula, exact, ulps, ufunc, low, high in pieces:
        by: dict[str, Compute] = {"numpy": ufunc} if ufunc else {}
        if formula:
            by["numba"] = _kernel(name, formula)
        yield Function(f"{name} (piece)", exact, by, ulps, low=low, high=high)


@functools.cache
def functions() -> dict[str, Function]:
    """All functions, by their names."""
    found = list(_pieces())
    for row in ROWS:
        costly = ("numpy",) if row.layer._function == "gelu" else ()
        for suffix, exact, make, ulps in (
            ("", lambda x, row=row: [row.exact(x)], _forward, row.ulps),
            ("'", row.slope, _slope, row.slope_ulps),
        ):
            by = {backend: make(row, backend) for backend in BACKENDS}
            name = repr(row.layer).replace("()", "") + suffix
            found.append(Function(name, exact, by, ulps, row.condition, costly=costly))
    return {function.name: function for function in found}


def units(magnitude: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The unit in the last place of each number, in the dtype that it is measured in."""
    info = np.finfo(dtype)
    if magnitude.dtype == np.float64:  # by the exponent, which is many times faster
        power = (magnitude.view(np.int64) & (0x7FF << 52)).view(np.float64)
    else:
        fraction, exponent = np.frexp(magnitude)
        power = np.ldexp(np.ones_like(fraction), exponent - 1)
    return np.maximum(power, float(info.tiny)) * float(info.eps)


def errors(function: Function, x: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the error of each backend at x, in units in the last place.

    Where exponentials may be below the smallest normal number, which is beyond FAR, twice that
    number times the size of x is no error. What is rounded to infinity is as good as the first
    power of two that the dtype doesn't hold.
    """
    dtype = x.dtype
    longer = x.astype(LONGER[dtype])
    size = np.abs(longer)
    largest = size.max()
    with np.errstate(all="ignore"):
        summands = [np.asarray(s).astype(longer.dtype, copy=False) for s in function.exact(longer)]
        exact, magnitude = summands[0], np.abs(summands[0])
        for summand in summands[1:]:
            exact, magnitude = exact + summand, magnitude + np.abs(summand)
        limit = longer.dtype.type(2) ** (128 if dtype == np.float32 else 1024)
        # most chunks need neither; that makes an exhaustive run twice as fast
        overflows = largest > np.sqrt(limit)
        if overflows:
            exact, magnitude = np.clip(exact, -limit, limit), np.minimum(magnitude, limit / 2)
        unit = units(magnitude, dtype)
        lost = {}
        for backend, values in found.items():
            assert values.dtype == dtype, (function.name, backend, values.dtype)
            values = values.astype(longer.dtype)
            if overflows:
                values = np.clip(values, -limit, limit)
            error = np.abs(values - exact)
            if largest > FAR:
                below = 2 * float(np.finfo(dtype).tiny) * size
                error[(error <= below) & (size > FAR)] = 0
            error /= unit
            lost[backend] = error
    return lost


class Worst:
    """The largest errors of a function on one backend, and where they are."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float, float]] = []
        self.count = 0

    def add(self, x: np.ndarray, error: np.ndarray, condition: np.ndarray | None) -> None:
        """Look at a chunk, of which no more than the worst number is kept."""
        self.count += len(x)
        shares = error if condition is None else error / condition
        place = int(np.argmax(shares))  # of a NaN, where there is one
        if np.isnan(shares[place]):
            shares = error = np.full_like(shares, np.inf)
        if len(self.found) < WORST or shares[place] > self.found[-1][0]:
            self.found.append((float(shares[place]), float(error[place]), float(x[place])))
            self.found = sorted(self.found, reverse=True)[:WORST]

    def needs(self, inexact: np.ndarray) -> bool:
        """Whether a chunk that is rounded as it should be may have the largest error."""
        return (not self.found or self.found[0][0] < 0.5) and bool(inexact.any())

    def record(self) -> dict[str, Any]:
        """What is written to the file."""
        return {
            "count": self.count,
            "ulps": round(self.found[0][0], 3),
            "at": [x.hex() for _, _, x in self.found],
        }


def every_float32() -> Iterator[np.ndarray]:
    """All finite numbers, by chunks of one sign and exponent."""
    places = np.arange(CHUNK, dtype=np.uint32)
    for start in range(0, 2**32, CHUNK):
        if start >> 23 & 255 != 255:
            yield (places + np.uint32(start)).view(np.float32)


def many_float64(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Numbers of random mantissas: half of them of any exponent, half from 2^-32 to 2^10."""
    rng = np.random.default_rng(seed)
    chunk = 2**13
    for _ in range(count // chunk):
        bits = rng.integers(0, 2**64, chunk, np.uint64)
        exponents = rng.integers(0, 2047, chunk, np.uint64)
        exponents[::2] = rng.integers(1023 - 32, 1023 + 10, chunk // 2)
        cleared = bits & ~np.uint64(0x7FF << 52)
        yield (cleared | exponents << np.uint64(52)).view(np.float64)


def sample(dtype: np.dtype, mantissas: int) -> np.ndarray:
    """Every exponent of both signs, those of subnormals too, each with so many mantissas.

    Half of them are random, a quarter each next to the ends. The middle of the range has more.
    """
    single = dtype == np.float32
    bits, biggest, integer = (23, 255, np.uint32) if single else (52, 2047, np.uint64)
    rng = np.random.default_rng(7)
    bias = biggest // 2
    parts = []
    for first, last, count in ((0, biggest, mantissas), (bias - 32, bias + 10, 16 * mantissas)):
        exponents = np.arange(first, last, dtype=integer)[:, np.newaxis]
        ends = np.arange(count // 4, dtype=integer)
        chosen = rng.integers(0, 2**bits, (len(exponents), count // 2), dtype=integer)
        both = np.concatenate([ends, integer(2**bits - 1) - ends])
        fractions = np.concatenate(
            [chosen, np.broadcast_to(both, (len(exponents), len(both)))], axis=1
        )
        parts.append((exponents << integer(bits) | fractions).ravel())
    positive = np.concatenate(parts).view(dtype)
    return np.concatenate([positive, -positive])


def inside(function: Function, x: np.ndarray) -> np.ndarray:
    """The numbers that a function takes."""
    if function.low == -np.inf and function.high == np.inf:
        return x
    if len(x) == CHUNK and not (function.low <= x[CHUNK // 2] <= function.high):
        return x[:0]  # a chunk has one sign and exponent
    return x[(x >= function.low) & (x <= function.high)]


def near_zero_or_far(function: Function, x: np.ndarray) -> np.ndarray | None:
    """The function at all numbers of a chunk, where a polynomial gives it in a tenth of the time.

    Below 2^-30 that is the first terms of its series, of which what is left out is below 2^-60 of
    them; beyond 2^8 it is a line, from which the function differs by less than exp(-256). None
    elsewhere.
    """
    size = abs(float(x[0]))
    if 2**-30 <= size < 2**8 or len(x) != CHUNK or x.dtype != np.float32:
        return None
    a, b, c = _polynomial(function.name, bool(np.signbit(x[0])), size < 1)
    longer = x.astype(np.float64)
    return a + longer * (b + longer * c if c else b)


@functools.cache
def _polynomial(name: str, negative: bool, near: bool) -> tuple[float, float, float]:
    """Coefficients of the polynomial for the numbers of a sign, near zero or far from it."""
    sign = -1.0 if negative else 1.0
    step = 2.0**-20
    at = np.array([2.0**-200, step, 2 * step] if near else [512.0, 1024.0])
    with np.errstate(all="ignore"):
        values = sum(np.asarray(s, np.float64) for s in functions()[name].exact(sign * at))
    if not near:
        slope = (values[1] - values[0]) / 512
        return values[0] - 512 * slope, sign * slope, 0.0
    first, second, third = np.where(np.abs(values) < 2.0**-100, 0, values)
    slope = (4 * second - third - 3 * first) / (2 * step)
    return first, sign * slope, (third - 2 * second + first) / (2 * step * step)


def measure(function: Function, dtype: np.dtype, chunks: Iterator[np.ndarray]) -> dict[str, Any]:
    """Return the largest errors of each backend in all chunks.

    Numbers of a chunk that are all what the exact ones round to are off by half a unit at most.
    """
    worst = {backend: Worst() for backend in function.by}
    for chunk in chunks:
        x = inside(function, chunk)
        if not len(x):
            continue
        with np.errstate(all="ignore"):
            size = abs(float(x[0]))
            found = {
                backend: compute(x)
                for backend, compute in function.by.items()
                if backend not in function.costly or dtype == np.float64 or 2**-32 < size < 64
            }
            simple = near_zero_or_far(function, x)
            if simple is not None:
                rounded = simple.astype(dtype)
                for backend in [b for b in found if np.array_equal(found[b], rounded)]:
                    if not worst[backend].needs(rounded != simple):
                        worst[backend].count += len(x)
                        del found[backend]
        if not found:
            continue
        lost = errors(function, x, found)
        for backend, error in lost.items():
            conditioned = backend == "numpy" and function.condition is not np.ones_like
            with np.errstate(over="ignore"):
                condition = function.condition(x.astype(np.float64)) if conditioned else None
            worst[backend].add(x, error, condition)
    return {backend: of.record() for backend, of in worst.items()}


def bits_of_results() -> str:
    """A digest of what the kernels give for a sample of all exponents."""
    whole = hashlib.sha256()
    for function in functions().values():
        for dtype in (np.float32, np.float64) if "numba" in function.by else ():
            x = inside(function, sample(np.dtype(dtype), 16))
            whole.update(function.by["numba"](x).tobytes())
    return whole.hexdigest()


def digest(function: Function) -> str:
    """Return a digest of what the kernel gives for every float32."""
    whole = hashlib.sha256()
    for chunk in every_float32():
        x = inside(function, chunk)
        if len(x) and not len(x) % 2:
            values = function.by["numba"](x).view(np.uint64)
            whole.update(np.array([values.sum(), np.dot(values, values)]).tobytes())
    return whole.hexdigest()[:16]


def known() -> dict[str, Any]:
    """What was found before."""
    return json.loads(FOUND.read_text()) if FOUND.exists() else {"float32": {}, "float64": {}}


def _write(found: dict[str, Any]) -> None:
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def measured(name: str, doubles: int, singles: bool) -> tuple[str, dict[str, Any], float]:
    """Measure a function; return its name, what was found, and how long it took."""
    function, start, results = functions()[name], time.perf_counter(), {}
    if singles:
        results["float32"] = measure(function, np.dtype(np.float32), every_float32())
    if doubles:
        results["float64"] = measure(function, np.dtype(np.float64), many_float64(doubles))
    return name, results, time.perf_counter() - start


def exhaustive(names: list[str], doubles: int, singles: bool, jobs: int) -> None:
    """Measure, and write what was found after each function."""
    measure_one = functools.partial(measured, doubles=doubles, singles=singles)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for name, results, seconds in pool.imap_unordered(measure_one, names):
            found = known()
            for dtype, result in results.items():
                found[dtype][name] = result
            found["by"] = f"{platform.machine()}, NumPy {np.__version__}"
            _write(found)
            shown = {
                dtype: {backend: of["ulps"] for backend, of in result.items()}
                for dtype, result in results.items()
            }
            print(f"{name}: {shown} {seconds:.0f} s", flush=True)


def tables() -> dict[str, str]:
    """The tables of `docs/numbers.md`."""
    found = known()
    lines = {"activations": [], "pieces": []}
    for name, function in functions().items():
        bound = f"{function.ulps:g}"
        cells = []
        for dtype in ("float32", "float64"):
            for backend in BACKENDS:
                of = found[dtype].get(name, {}).get(backend)
                cells.append("" if of is None else _found(of, dtype))
        piece = name.endswith(" (piece)")
        shown = f"`{name.removesuffix(' (piece)')}`"
        lines["pieces" if piece else "activations"].append([shown, bound, *cells])
    head = ["bound", *(f"{dtype}, {of}" for dtype in ("float32", "float64") for of in BACKENDS)]
    kernels = [[f"`{kernel.compute.__name__}`", kernel.bound] for kernel in KERNELS]
    return {
        "activations": _table(["function", *head], lines["activations"]),
        "pieces": _table(["function", *head], lines["pieces"]),
        "kernels": _table(["operation", "how far off a number is, at most"], kernels),
    }


def _found(of: dict[str, Any], dtype: str) -> str:
    number = np.dtype(dtype).type(float.fromhex(of["at"][0]))
    at = f"{number:.9g}" if dtype == "float32" else f"{number:.17g}"
    return f"{of['ulps']:.2f} at {at}" if of["ulps"] else "0"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(text: str) -> str:
    """Return the text of the page with its tables as they should be."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + table + end + after
    return text


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="functions; all without names")
    parser.add_argument("--exhaustive", action="store_true")
    parser.add_argument("--doubles", type=int, default=2**21, help="numbers of float64")
    parser.add_argument("--no-singles", action="store_true", help="leave float32 out")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/numbers.md")
    parser.add_argument("--digest", action="store_true", help="print digests of all results")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    names = options.names or list(functions())
    if options.exhaustive:
        exhaustive(names, options.doubles, not options.no_singles, options.jobs)
    if options.page:
        PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    if options.digest:
        for name in names:
            if "numba" in functions()[name].by:
                print(name, digest(functions()[name]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
