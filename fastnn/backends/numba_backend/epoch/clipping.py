"""Clipping by the norm of the whole gradient, in the compiled epoch.

Nothing can be moved before all of the gradient is there. So where gradients are clipped, `collect`
stands in the place of `move`: it writes the gradient to a vector parallel to the parameters. At
the end of the step `clip` finds the norm of all of it and moves what belongs to its thread.

The vector is one for all members of a team. Squares of weights are added up chunk by chunk, by
whoever has the chunk, those of biases and of batch norm by each member for itself, vector by
vector; so the norm is the same number for all of them, and for any number of threads.
"""

from __future__ import annotations

import numpy as np

from ..jit import call, operation, record_at
from ..kernels.rows import put_real, real_at, span, square_root
from ..kernels.squares import add_squares
from ..language import Address, Int, Kernel, Matrix, Real
from ..microkernel import microkernel, shifted, submatrix
from .layer import chunk_at
from .optimizers import RATE_BYTES, ROWS_AT_ONCE, penalty_factor

SMALLEST_NORM = 1e-6
"""What is added to a norm before it divides, as in PyTorch."""

PART = np.dtype(
    [
        (name, np.int64)
        for name in (
            # of the rule: address of a REGION, and the number of the learned layer
            "region", "learned",
            # bytes from the start of the flat vector, and from a row to the next
            "place", "row_bytes",
            # rows that are this thread's own, where they are no chunks
            "first_row", "stop_row",
            # weights: where chunks of rows begin, and which of them are this thread's own
            "chunk_units", "first_chunk", "stop_chunk",
            # weights: addresses of the squares of the gradient, chunk by chunk, of the squares of
            # rows that were moved, and of where these are added up, chunk by chunk
            "squares", "moved_squares", "penalty_squares",
            # others: where the whole vector lies, as `place`, and how many numbers it has
            "whole", "whole_numbers",
            # of the first PART, for all of them: how many they are, into how many chunks rows are
            # cut; addresses of the gradient, of what its norm is clipped at, of the operation that
            # moves, of a float64, and of memory for some rows
            "parts", "chunks", "collected", "clip_norm", "move", "squares_of_vector", "scaled",
            "vector_bytes",
        )
    ]
)  # fmt: skip
"""A matrix of weights, or a vector, that is moved when the norm is known."""


@microkernel
def collect_rows(k: Kernel, decay: Real, W: Matrix, gradient: Address, target: Address) -> None:
    """target = gradient + decay * W; both lie at their addresses as the rows of W do."""
    decays = k.broadcast(decay)
    penalty = decays.differs(0.0)
    with k.loop(0, W.rows) as row:
        start = row * W.row_stride

        def body(offset: Int, count: int, load, store, start=start) -> None:
            place = start + offset
            g = load(gradient + place)
            # without a penalty nothing is added: 0 times an infinite weight would be NaN
            g = k.where(penalty, k.fma(decays, load(W.address + place), g), g)
            store(g, target + place)

        span(k, W.columns, body)


@microkernel
def scale_into(k: Kernel, factor: Real, source: Address, target: Address, vectors: Int) -> None:
    """target = factor * source, aligned whole vectors; zeros, as in padding, stay zero for NaN."""
    factors = k.broadcast(factor)
    with k.loop(0, vectors) as j:
        number = k.load(source + j * k.vector_bytes)
        scaled = k.where(number.equals(0.0), number, number * factors)
        k.store(scaled, target + j * k.vector_bytes)


@operation
def collect(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """Write the gradient of rows to the vector of all; the arguments are those of `move`."""
    of = record_at(record, 0)
    place = of.parameters.address + first * of.parameters.row_stride
    W = submatrix(shifted(of.parameters, parameters), first, 0, rows, of.parameters.columns)
    decay = type(one)(of.decay * penalty_factor(rates))
    collect_rows(decay, W, gradient, of.collected + place)
    if of.squares != 0:
        numbers = rows * of.parameters.row_stride // of.parameters.column_stride
        add_squares(one, of.collected + place, numbers, of.squares)


@operation
def clip(one, record, parameters, first_state, second_state, rates):
    """Move own parameters along a gradient whose norm is at most that at the address `clip_norm`.

    `record` is the first PART. What is collected, others may still read, so rows of it are scaled
    elsewhere.
    """
    of, total = record_at(record, 0), 0.0
    for number in range(of.parts):
        part = record_at(record, number)
        if part.squares != 0:
            for chunk in range(of.chunks):
                total += real_at(0.0, part.squares + 8 * chunk)
        else:
            add_squares(one, of.collected + part.whole, part.whole_numbers, of.squares_of_vector)
            total += real_at(0.0, of.squares_of_vector)
    norm = square_root(total) + SMALLEST_NORM
    most = real_at(0.0, of.clip_norm)
    factor = 1.0 if norm <= most else most / norm  # NaN for NaN
    for number in range(of.parts):
        part = record_at(record, number)
        for chunk in range(part.first_chunk, part.stop_chunk):
            begin, end = part.first_row, part.stop_row
            if part.chunk_units != 0:
                begin, end = chunk_at(part, chunk)
            squares = 0.0
            for row in range(begin, end, ROWS_AT_ONCE):
                rows = min(ROWS_AT_ONCE, end - row)
                gradient = of.collected + part.place + row * part.row_bytes
                if factor != 1.0:
                    vectors = rows * part.row_bytes // of.vector_bytes
                    scale_into(type(one)(factor), gradient, of.scaled, vectors)
                    gradient = of.scaled
                call(
                    of.move, one, part.region, rates + RATE_BYTES * part.learned,
                    parameters, gradient, first_state, second_state, row, rows,
                )  # fmt: skip
                if part.squares != 0:
                    squares += real_at(0.0, part.moved_squares)
            if part.squares != 0:
                put_real(squares, part.penalty_squares + 8 * chunk)
