"""Kernels of the elementwise functions: the walk through a matrix, for any formula.

Both wings use the same machine code, which is compiled for a function when a network first has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..jit import KernelOperation
from ..language import Int, Kernel, Matrix, Real, Vector
from .activations import FORMULAS

LONG_VECTORS = 32
"""Rows of more vectors than this are worth the start that aligns their stores."""


def _walk(formula: Callable[..., Vector], constants: int, backward: bool) -> Callable[..., None]:
    """Return the function that writes a kernel for a formula."""

    def write(k: Kernel, first: Real, second: Real, X: Matrix, G: Matrix, Y: Matrix) -> None:
        """Y = formula(X), which doesn't read G, or formula(X, G), with its constants behind.

        Shapes: all [rows, columns], rows of neighbouring numbers at any address. Y may be X or G.
        Why it is fast: vectors, the last of a row in part, so a row of ten costs one of them.
        Memory sets the pace of large matrices, so long rows begin with a part of a vector, after
        which stores are aligned.
        """
        numbers = [k.broadcast(number) for number in (first, second)[:constants]]
        matrices = [X, G, Y] if backward else [X, Y]
        columns = X.columns
        ahead = (0 - Y.address & (k.vector_bytes - 1)) // k.element_bytes
        ahead = k.where(columns > LONG_VECTORS * k.lanes, ahead, k.integer(0))
        whole = (columns - ahead) // k.lanes
        rest = columns - ahead - whole * k.lanes
        before, behind = k.lane_before(ahead), k.lane_before(rest)
        with k.loop(0, X.rows) as row:
            places = [matrix.row(row) for matrix in matrices]

            def move(offset: Int, load: Any, store: Any, places: Any = places) -> None:
                *sources, target = [place + offset for place in places]
                store(formula(k, *map(load, sources), *numbers), target)

            with k.when(ahead > 0):
                move(k.integer(0), *k.masked(before))
            start = ahead * k.element_bytes
            with k.loop(0, whole) as j:
                move(start + j * k.vector_bytes, k.load_anywhere, k.store_anywhere)
            with k.when(rest > 0):
                move(start + whole * k.vector_bytes, *k.masked(behind))

    return write


FORWARD = {
    name: KernelOperation(_walk(formula.forward, formula.constants, False), f"{name}_forward")
    for name, formula in FORMULAS.items()
}
"""The kernel of each function."""

BACKWARD = {
    name: KernelOperation(_walk(formula.backward, formula.constants, True), f"{name}_backward")
    for name, formula in FORMULAS.items()
}
"""The kernel of each derivative, times the gradient."""
