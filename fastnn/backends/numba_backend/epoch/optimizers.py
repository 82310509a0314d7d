"""How the compiled epoch moves parameters that plain SGD does not move by itself.

Plain SGD needs nothing of this: its update kernels add to the weights what the gradient asks
for. Any other rule wants the whole gradient of a parameter before it moves it. So the update
kernels write the gradient of some rows of the weights to a buffer that stays in the first levels
of cache, and `move` goes once through these rows and their state, by the kernel of the rule.

Each parameter is moved by itself, so no bit depends on who moves which rows. Of a row nothing is
read or written but its own numbers: a gradient of infinity leaves NaN in what pads that of a row,
which the state would keep for ever.
"""

from __future__ import annotations

import numpy as np

from fastnn.backends.description import PENALTY_FACTOR, RATES

from ..jit import jit_part, operation, record_at
from ..kernels.optimizers import step_by
from ..kernels.rows import real_at
from ..language import MATRIX
from ..microkernel import shifted, submatrix

ROWS_AT_ONCE = 64
"""Rows that are moved at a time, a multiple of the bits of a word."""

REGION = np.dtype(
    [
        (name, np.int64)
        for name in (
            # address of the kernel of the rule
            "kernel",
            # address of a float64 for the sum of squares of rows that were moved, before they were;
            # or 0
            "squares",
            # address of the gradient of all parameters, where it is collected
            "collected",
            # whether the decoupled weight decay of AdamW is for it
            "shrinks",
        )
    ]
    # [rows, units]; its address counts from the start of the flat vector
    + [("parameters", MATRIX)]
    # twice the L2 factor; beta1 is also the momentum, and the rho of RMSprop
    + [(name, np.float64) for name in ("decay", "beta1", "beta2", "epsilon")]
)  # fmt: skip
"""Where a matrix or a vector of parameters lies, and the numbers of its rule."""

RATE_BYTES = 8 * RATES
"""Of the numbers of a learned layer in one step."""


@jit_part
def penalty_factor(rates):
    """What a layer's penalty is multiplied by in the step whose numbers are at `rates`."""
    return real_at(0.0, rates + 8 * PENALTY_FACTOR)


@operation
def move(
    one, record, rates, parameters, gradient, first_state, second_state, first, rows
):  # fmt: skip
    """Move rows `first` to `first + rows` of a REGION.

    `rates` is the address of the numbers of this step, `parameters` that of the flat vector, to
    which the states are parallel, and `gradient` that of the gradient of the first row, whose rows
    are as far apart as those of the parameters.
    """
    of, real = record_at(record, 0), type(one)
    place = of.parameters.address + first * of.parameters.row_stride
    moved = submatrix(shifted(of.parameters, parameters), first, 0, rows, of.parameters.columns)
    step_by(
        of.kernel, rate=real(real_at(0.0, rates)), correction=real(real_at(0.0, rates + 8)),
        beta1=real(of.beta1), rest1=real(1.0 - of.beta1),
        beta2=real(of.beta2), rest2=real(1.0 - of.beta2), epsilon=real(of.epsilon),
        shrinking=real(real_at(0.0, rates + 16) if of.shrinks != 0 else 0.0),
        decay=real(of.decay * penalty_factor(rates)), parameters=moved, gradient=gradient,
        first_state=first_state + place, second_state=second_state + place, squares=of.squares,
    )  # fmt: skip
