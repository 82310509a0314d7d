"""What is nothing but large dense products, where a library's product is all that matters."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from fastnn.bench.cases import PEERS, Comparison, against
from fastnn.bench.measuring import measure

from .found import NUMPY, Edge, Found

NAMES = {"numba": "fastnn", "numpy": NUMPY}

NARROWER, WIDE, ONE_LAYER = (784, 512, 512, 10), (784, 2048, 2048, 10), (784, 4096, 10)


def of_comparison(comparison: Comparison, rounds: int, missing: tuple[str, ...]) -> Found:
    """Measure as `fastnn bench` does: a process for each contender, rounds in turn."""
    outcomes = measure(comparison, rounds).outcomes
    names = {o: NAMES.get(o.case.contender, o.label) for o in outcomes}
    return Found(
        work_of(comparison),
        {name: o.seconds[1:] for o, name in names.items() if o.error is None},
        errors={name: o.error for o, name in names.items() if o.error is not None},
        missing=missing,
    )


def work_of(comparison: Comparison) -> str:
    """Return what sets it apart from others here: all have one thread and random input."""
    return comparison.name.removesuffix(", random input, 1 thread")


def _edge(name: str, question: str, works: tuple[dict[str, Any], ...], of: tuple[str, ...]) -> Edge:
    missing = tuple(peer for peer in PEERS if find_spec(peer) is None)
    known = [c for peer, all in PEERS.items() if peer not in missing for c in all if c in of]
    comparisons = [against(known, input="random", **work) for work in works]

    def found(rounds: int) -> Iterator[Found]:
        for comparison in comparisons:
            yield of_comparison(comparison, rounds, missing)

    return Edge(name, question, tuple(map(work_of, comparisons)), found, rounds=3)


EDGES = (
    _edge(
        "wide",
        "Wide layers and large batches of dense input: steps that are large products.",
        (
            {"shape": WIDE, "batch_size": 512, "samples": 2_048},
            {"shape": WIDE, "batch_size": 2_048, "samples": 4_096},
            {"shape": NARROWER, "batch_size": 128, "samples": 4_096, "dtype": "float64"},
            {"shape": WIDE, "batch_size": 512, "samples": 1_024, "dtype": "float64"},
            {"shape": WIDE, "batch_size": 2_048, "samples": 2_048, "dtype": "float64"},
            {"shape": ONE_LAYER, "batch_size": 2_048, "samples": 8_192},
            {"shape": ONE_LAYER, "batch_size": 8_192, "samples": 8_192},
        ),
        ("torch", "jax"),
    ),
    _edge(
        "wide-predictions",
        "10,000 rows of dense input are predicted at once.",
        (
            {"task": "predict", "shape": NARROWER, "samples": 10_000},
            {"task": "predict", "shape": WIDE, "samples": 10_000},
            {"task": "predict", "shape": ONE_LAYER, "samples": 10_000},
            {"task": "predict", "shape": WIDE, "samples": 10_000, "dtype": "float64"},
        ),
        ("torch", "jax"),
    ),
    _edge(
        "bfloat16",
        "Wide layers with products in bfloat16.",
        tuple(
            {
                "shape": shape,
                "batch_size": batch_size,
                "samples": max(2_048, batch_size),
                "matmul_precision": "bfloat16",
            }
            for shape, batch_size in ((NARROWER, 512), (WIDE, 512), (WIDE, 2_048))
        ),
        ("torch", "torch.compile", "jax"),
    ),
)
