"""Where something else is the better choice: sizes and tasks at fastnn's edges, each measured.

    python -m benchmarks.edges [NAME ...] [--rounds N] [--json FILE]

An edge is a question with several pieces of work. Each contender computes the same, and is checked
before it gets a time; all have one thread on one processor, and take turns. A number is how many
times as long a contender took as fastnn: below 1, it is the better choice.
`docs/where-numpy-wins.md` tells what was found.
"""

from . import estimators, large, networks, operations, programs, small

EDGES = {
    edge.name: edge
    for module in (small, programs, networks, large, operations, estimators)
    for edge in module.EDGES
}
"""By name, in the order of the page."""
