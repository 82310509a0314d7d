"""``python -m benchmarks.edges``; see the docstring of the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fastnn.bench.machine import describe_environment
from fastnn.bench.report import machine_line

from . import EDGES
from .found import as_json, as_markdown, failures


def main() -> int:
    """Run; return 1 where a contender computed something else."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edges",
        description="Where NumPy, PyTorch, JAX or scikit-learn is the better choice than fastnn.",
        epilog=" ".join(["Names:", *EDGES]),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="edges, by default all")
    parser.add_argument("--rounds", type=int, help="in which contenders are timed in turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each value of each round")
    options = parser.parse_args()
    if unknown := set(options.names) - set(EDGES):
        parser.error(f"no edge {', '.join(sorted(unknown))}; there are {', '.join(EDGES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, got {options.rounds}")
    machine = describe_environment()
    print(machine_line(machine))
    print("\nHow many times as long each took as fastnn: medians, quartiles in brackets.")
    document = {"environment": machine, "edges": []}
    failed = False
    for name in options.names or EDGES:
        edge, found = EDGES[name], []
        for of in edge.measure(options.rounds or edge.rounds):
            found.append(of)
            print(f"{name}: {of.work}", file=sys.stderr, flush=True)
        print(f"\n{as_markdown(edge, found)}", flush=True)
        failed |= bool(failures(found))
        document["edges"].append(as_json(edge, found))
        if options.json:
            options.json.write_text(json.dumps(document, indent=2))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
