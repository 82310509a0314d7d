"""The suites: which comparisons each consists of, and which options it takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from fastnn.bench.cases import IMAGES, VARIANTS, Case, Comparison, against
from fastnn.bench.recipes import PROGRAMS, RECIPES
from fastnn.bench.samples import described

SUITES = {
    "quick": "an epoch of one network, in a minute",
    "default": "training from floats and from raw pixels, and prediction",
    "variants": "momentum, Adam, dropout and batch norm",
    "inputs": "MNIST, Fashion-MNIST, dense columns, samples that lie by columns",
    "small": "200 epochs of 150 samples, and the prediction of one row",
    "threads": "two threads on all sides, and over one of our own",
    "bfloat16": "products in bfloat16 on all sides, and over our float32",
    "grid": "60 pairs of network and batch size, or those of the options",
    "step": "the parts of a training step, each beside the limit that binds it",
    "operations": "every operation of a backend, NumPy over Numba",
    "trainings": "every layer, optimiser and loss, NumPy over Numba",
    "costs": "first fit, import, validation, memory",
    "recipes": "seconds to 98 % and 99 % of MNIST's test set",
    "commits": "what --compare measures unless told: seven trainings and predictions",
    "table": "default to threads, and costs; float64, AVX2 and single layers",
}
"""What each is, in a line."""

#: Timed rounds by suite, unless told.
ROUNDS = dict.fromkeys(SUITES, 7) | {
    "quick": 3,
    "grid": 5,
    "step": 3,
    "trainings": 3,
    "recipes": 10,
}

ONE_NETWORK = ("shape", "hidden", "batch_size", "dtype", "threads", "input", "data")
#: The options that a suite takes, beside those of all; it chooses by itself what is not here.
TAKES = {
    "quick": ONE_NETWORK,
    "default": ONE_NETWORK,
    "variants": ONE_NETWORK,
    "inputs": ("dtype", "threads", "data"),
    "small": ("dtype",),
    "threads": ("dtype", "threads"),
    "bfloat16": ("threads",),
    "grid": ("hidden", "batch_size", "dtype", "threads", "input", "data"),
    "step": ONE_NETWORK,
    "operations": ("dtype",),
    "trainings": ("dtype",),
    "costs": (),
    "recipes": ("threads",),
    "commits": ("dtype", "threads"),
    "table": ("data",),
}
#: Of these a suite may take several values at once.
TAKES_SEVERAL = {
    "grid": ("hidden", "batch_size", "input", "data"),
    "inputs": ("data",),
    "table": ("data",),
}

HIDDEN = (100, 200)
GRID_HIDDEN = ((32,), (128,), (512,), (100, 200), (512, 512), (1024,))
GRID_BATCH_SIZES = (1, 8, 32, 128, 512)
#: About how much a round of the grid computes, so that large networks don't take all the time.
GRID_FLOPS = 16_000_000_000
#: Batch, input units and output units of single layers, and how often a round runs them.
DENSE_LAYERS = ((128, 512, 512), (512, 1024, 1024))
DENSE_STEPS = 50

#: Hidden layers, batch size and input of what two threads share.
SHARED = (
    ((100, 200), 32, "float"),
    ((100, 200), 128, "float"),
    ((512, 512), 32, "float"),
    ((512, 512), 512, "random"),
    ((2048, 2048), 128, "float"),
    ((2048, 2048), 128, "random"),
    ((2048, 2048), 512, "random"),
)
#: Hidden layers, batch size and input of what is multiplied in bfloat16.
ROUNDED = (
    ((512, 512), 128, "random"),
    ((512, 512), 512, "random"),
    ((1024,), 128, "random"),
    ((1024,), 512, "random"),
    ((100, 200), 32, "random"),
    ((100, 200), 32, "float"),
    ((512, 512), 128, "float"),
)
#: Hidden layers and batch size of what is trained on every kind of input.
FED = (((100, 200), 32), ((512, 512), 128))
TABLE_COLUMNS = 100
BY_COLUMNS_SAMPLES = 20_000
#: As many samples and columns as Fisher's irises, and batches that are whole for all.
SMALL = {"shape": (4, 10, 3), "samples": 150, "epochs": 200, "input": "table"}
SMALL_BATCH_SIZES = (30, 150)
ROWS = 1_000

#: What a change to fastnn is likely to show in.
COMMITS: tuple[dict[str, Any], ...] = (
    {"samples": 12_800},
    {"samples": 12_800, "dtype": "float64"},
    {"samples": 12_800, "batch_size": 128, "variant": "batch norm", "input": "uint8"},
    {"samples": 12_800, "batch_size": 128, "variant": "adam"},
    {"samples": 2_560, "batch_size": 128, "shape": (784, 512, 512, 10), "input": "random"},
    {**SMALL, "task": "fit", "batch_size": 30, "epochs": 2_000},
    {"task": "row", "samples": ROWS},
)


def suite_comparisons(
    suite: str, contenders: Iterable[str], options: Mapping[str, Any]
) -> Iterator[Comparison]:
    """Yield the comparisons of a suite.

    Parameters
    ----------
    suite : str
        One of `SUITES`.
    contenders : iterable of str
        Peers to compare with.
    options : mapping
        What the caller chose, by the names in `TAKES`. What a suite takes several of
        (`TAKES_SEVERAL`) is a sequence.
    """
    known = set()
    for comparison in _SUITES[suite](tuple(contenders), options):
        if comparison.name not in known:  # parts of the table share one
            known.add(comparison.name)
            yield comparison


def _quick(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    yield against(peers, **_network(options, samples=12_800))


def _default(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    for form in [options["input"]] if "input" in options else ["float", "uint8"]:
        yield against(peers, **_network({**options, "input": form}))
    yield against(peers, task="predict", **_network(options, samples=10_000))


def _variants(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    for variant in VARIANTS:
        yield against(peers, variant=variant, **_network(options))


def _inputs(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """Images of each data set, a table, and random numbers; then what lies by columns."""
    options = dict(options)
    images = [{"input": "float", "data": data} for data in options.pop("data", ("mnist",))]
    for hidden, batch_size in FED:
        for kind in (*images, {"input": "table"}, {"input": "random"}):
            yield against(peers, **_sized(hidden, batch_size, {**options, **kind}))
    by_rows = Case("numba", samples=BY_COLUMNS_SAMPLES, **options)
    by_columns = replace(by_rows, order="F")
    yield Comparison((by_rows, by_columns, replace(by_rows, contender="numpy")))


def _small(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """What takes so little arithmetic that all else shows."""
    for batch_size in SMALL_BATCH_SIZES:
        yield against(peers, task="fit", batch_size=batch_size, **SMALL, **options)
    yield against(peers, task="row", samples=ROWS, **options)


def _threads(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """As many threads on all sides, and fastnn on one."""
    options = {"threads": 2, **options}
    for hidden, batch_size, form in SHARED:
        work = _sized(hidden, batch_size, {**options, "input": form}, least_batches=16)
        shared = against(peers, **work).cases
        yield Comparison((*shared, replace(shared[0], threads=1)))


def _bfloat16(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """Operands of all products rounded to bfloat16, and fastnn without that."""
    options = {"matmul_precision": "bfloat16", **options}
    for hidden, batch_size, form in ROUNDED:
        rounded = against(peers, **_sized(hidden, batch_size, {**options, "input": form})).cases
        yield Comparison((*rounded, replace(rounded[0], matmul_precision=None)))


def _grid(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """Every network with every batch size, on every kind of input."""
    options = dict(options)
    forms = options.pop("input", ("float", "random"))
    data = options.pop("data", ("mnist",))
    networks = options.pop("hidden", GRID_HIDDEN)
    batch_sizes = options.pop("batch_size", GRID_BATCH_SIZES)
    for form in forms:
        kinds = [{"input": form}]
        if form in IMAGES:
            kinds = [{"input": form, "data": images} for images in data]
        for kind, hidden, batch_size in product(kinds, networks, batch_sizes):
            yield against(peers, **_sized(hidden, batch_size, {**options, **kind}))


def _step(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """One network, in both dtypes."""
    for dtype in [options["dtype"]] if "dtype" in options else ["float32", "float64"]:
        yield Comparison((Case("numba", task="step", **_network({**options, "dtype": dtype})),))


def _nothing(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """What `measure_costs` and `measure_ratios` measure is no comparison of cases."""
    yield from ()


def _recipes(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """Each recipe on one thread and on two, with products in float32 and in bfloat16."""
    known = [name for name in ("numba", *peers) if name in PROGRAMS]
    for threads in [options["threads"]] if "threads" in options else [1, 2]:
        for recipe in RECIPES:
            cases = [
                Case(
                    name, task="recipe", recipe=recipe, threads=threads, matmul_precision=precision
                )
                for precision in (None, "bfloat16")
                for name in known
            ]
            yield Comparison(tuple(cases))


def _commits(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """The main ways through fastnn, each in rounds of some hundredths of a second."""
    for work in COMMITS:
        yield against(peers, **{**work, **options})


def _table(peers: Sequence[str], options: Mapping[str, Any]) -> Iterator[Comparison]:
    """The tables of `docs/measured.md`; with one processor, `run` leaves threads out."""
    yield from _default(peers, {})
    yield against(peers, dtype="float64")
    yield against(peers, avx2=True)
    yield from _variants(peers, {})
    for batch_size, *units in DENSE_LAYERS:
        yield against(
            peers,
            task="dense",
            shape=tuple(units),
            batch_size=batch_size,
            samples=DENSE_STEPS * batch_size,
            input="random",
        )
    yield from _inputs(peers, options)
    yield from _small(peers, {})
    yield from _threads(peers, {})


_SUITES: dict[str, Callable[[Sequence[str], Mapping[str, Any]], Iterator[Comparison]]] = {
    "quick": _quick,
    "default": _default,
    "variants": _variants,
    "inputs": _inputs,
    "small": _small,
    "threads": _threads,
    "bfloat16": _bfloat16,
    "grid": _grid,
    "step": _step,
    "operations": _nothing,
    "trainings": _nothing,
    "costs": _nothing,
    "recipes": _recipes,
    "commits": _commits,
    "table": _table,
}


def _network(options: Mapping[str, Any], samples: int = 50_000) -> dict[str, Any]:
    """Return the fields of a case for one network, as options say it."""
    fields = dict(options)
    hidden = fields.pop("hidden", HIDDEN)
    inputs, outputs, there = _ends(fields)
    fields.setdefault("shape", (inputs, *hidden, outputs))
    return fields | {"samples": min(samples, there)}


def _sized(
    hidden: tuple[int, ...], batch_size: int, options: Mapping[str, Any], least_batches: int = 32
) -> dict[str, Any]:
    """Return the fields of a case that takes about as long for every network."""
    inputs, outputs, there = _ends(options)
    shape = (inputs, *hidden, outputs)
    flops = Case("numba", shape=shape, batch_size=1, samples=1, input="random").flops
    samples = max(min(25_600, 4_096 * batch_size, GRID_FLOPS // flops), least_batches * batch_size)
    return {
        **options,
        "shape": shape,
        "batch_size": batch_size,
        "samples": min(samples, there),
    }


def _ends(options: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return input units, output units, and how many samples there are at the most."""
    form = options.get("input", "float")
    if form in IMAGES:
        return described(options.get("data", "mnist"))
    units, outputs, _ = described("mnist")
    return TABLE_COLUMNS if form == "table" else units, outputs, 10**9
