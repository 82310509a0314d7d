"""The compiled epoch: one function that trains, or predicts with, any network of the table.

A network is an array of records, see `records.py`, which `table.py` writes; nothing is compiled
again for a new one. `forward.py` and `backward.py`, which `run_batches` calls layer by layer, read
like the layers of the NumPy backend, with the batch in rows of X, A and G:

    forward     Z = X W + b,  A = max(Z, 0),  A = stage(A) for each stage
    backward    dX = G W^T,  back through the stages,  dZ = dX where A > 0,
                W -= rate * X^T G,  b -= rate * sum(G)

The first W may change as late as in the next sample's forward pass, see `one_sample.py`.
Rows past the last sample of a batch, up to the next multiple of the vector length, are zero in
every buffer that is read by whole vectors of samples, so they add nothing.

Order of sums: the input units of every layer are cut into as many chunks as the network's shape
decides. The product of each chunk goes into a slot of its own, and the slots are added in a fixed
order; so no bit depends on how many threads share the chunks. What a thread does is written in its
table: its own chunks of the input units, and its own columns of the output. One thread has all of
them; `sharing.py` says who does what in a team.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..jit import call, jit, jit_part, record_at
from ..kernels.loading import copy_bytes
from ..kernels.relu import mask_by_sign
from ..kernels.rows import clear, integer_at, put_integer, put_real, real_at, transfer
from ..microkernel import submatrix
from .backward import input_gradient, leaves_transposed, transpose_gradient, update
from .forward import finish_forward, multiply
from .laps import (
    ACTIVATION,
    INPUT_GRADIENT,
    LOAD,
    LOSS,
    MASK,
    MEETING,
    OPTIMIZER,
    REST,
    STAGES,
    TURN,
    UPDATE,
    begin_lap,
    lap,
)
from .losses import softmax_of_batch
from .meetings import (
    END,
    arrive,
    call_members,
    clock,
    consider_parting,
    meet,
    note_alone,
    parted,
    wait,
    wait_for_call,
)
from .one_sample import nothing_waits
from .optimizers import RATE_BYTES
from .records import BY_COLUMNS, BY_PAIRS, LAYER, NO_GRADIENT, ONE_SAMPLE, SHARED, TOTALS_BYTES
from .sharing import MEMBER


@jit_part
def loss_gradient(one, shared, targets, order, start, count, padded):
    """Gradient of the mean loss by the result; returns the sum of losses and the right answers."""
    loss = 0.0
    correct = 0
    if shared.loss != 0:
        call(shared.loss, one, shared.record, targets, order, start, count)
        loss = real_at(0.0, shared.batch_loss)
        correct = integer_at(shared.batch_correct)
    else:
        loss, correct = softmax_of_batch(one, shared, targets, order, start, count, None)
    G = shared.result_gradient
    clear(one, submatrix(G, count, 0, padded - count, G.columns))
    return loss, correct


@jit_part
def store_result(shared, outputs, start, count):
    """Copy the result of a batch to its rows of `outputs`, which have no gaps."""
    row_bytes = shared.output_units * shared.itemsize
    for row in range(count):
        source = shared.result.address + row * shared.result.row_stride
        copy_bytes(source, outputs + (start + row) * row_bytes, row_bytes)


@jit
def run_batches(
    scale, shared_record, tables, blocks, samples, targets, order, total, epoch,
    parameters, first_state, second_state, rates, rates_stride, outputs, totals, team, laps,
):  # fmt: skip
    """Run `total` samples through the network by batches; add losses and right answers to totals.

    With targets it trains. Without, it writes the result to `outputs`. `scale` multiplies the
    input and gives the network's type; `order` may be 0 for the order in which samples lie. Each
    `epoch` samples of it are an epoch: its last batch may be smaller. The
    state vectors are parallel to the parameters. `rates` is the address of a table of float64,
    the numbers of the step for each learned layer; the next step's is `rates_stride` bytes further.
    `totals` is the address of TOTALS, one for each epoch, which go on from call to call.

    `tables` holds the records of the blocks for a thread that works alone and behind them, for it
    as a member of a team, as many more. `team` is what a member knows of its team, or None: then
    this is compiled without the branches for a team, so that one thread pays nothing for what it
    doesn't use. `laps` is the address of what `laps.py` notes, or None likewise.
    """
    shared = record_at(shared_record, 0)
    one = type(scale)(1)
    last = blocks - 1
    first_dense = 0 if shared.load_input == 0 else 1
    training = targets != 0
    loss = 0.0
    correct = 0
    if training:
        loss = real_at(0.0, totals)
        correct = integer_at(totals + 8)
    member = 0
    members = 1  # that share this step
    called = 0
    meeting = 0
    layers = 0  # the number of the first record
    changed = 1  # weights, by somebody else than these records
    one_by_one = training and total > 0 and record_at(tables, 0).update_by == ONE_SAMPLE
    if one_by_one:
        nothing_waits(one, record_at(tables, 0))
    start = 0
    if laps is not None:
        first = record_at(tables, 0)
        begin_lap(laps)
    while start < total:
        if team is not None:
            signals = record_at(team, 0).signals
            if members == 1:
                member = record_at(team, 0).member
                if member != 0:
                    called = wait_for_call(signals, member, called)
                    if called == END:
                        break
                    start = called - 1
                    members = record_at(team, 0).members
                    changed = 1
                elif call_members(signals, record_at(team, 0).members, start + 1):
                    members = record_at(team, 0).members
                    changed = 1
            layers = 0 if members == 1 else blocks
            began = clock()
            lap(laps, first, MEETING)
        before = start % epoch  # samples of the epoch
        count = min(shared.batch_size, epoch - before)
        padded = (count + shared.lanes - 1) // shared.lanes * shared.lanes
        epoch_steps = (epoch + shared.batch_size - 1) // shared.batch_size
        step = start // epoch * epoch_steps + before // shared.batch_size
        step_rates = rates + step * rates_stride
        read_samples, read_order, read_start = samples, order, start
        if shared.put_rows != 0:
            call(shared.put_rows, one, shared.record, order, start, count, 1)
            read_samples, read_order, read_start = shared.dense_rows, 0, 0
            lap(laps, first, LOAD)
        for number in range(last + 1):
            layer = record_at(tables, layers + number)
            if number < first_dense:
                call(
                    shared.load_input, scale, shared.record,
                    read_samples, read_order, read_start, count, padded,
                )  # fmt: skip
                lap(laps, layer, LOAD)
            else:
                part = first_part = 2
                if team is not None and members > 1 and layer.by_outputs == 0:
                    # the others wait for their columns, those before own ones and those behind
                    part = first_part = 0
                while part <= 2:
                    first_column, stop_column = layer.first_column, layer.stop_column
                    if part == 0:
                        first_column, stop_column = 0, first_column
                    elif part == 1:
                        first_column, stop_column = stop_column, layer.slots.columns
                    multiply(
                        scale, shared, layer, number == 0,
                        read_samples, read_order, read_start, total,
                        parameters, count, padded, training, changed, laps,
                        first_column, stop_column, part == first_part,
                    )  # fmt: skip
                    if team is not None and part == 1:
                        transfer(one, layer.products_out, members, count)
                        meeting = arrive(signals, member, meeting)
                        lap(laps, layer, MEETING)
                    part += 1
                if team is not None and members > 1:
                    wait(signals, members, meeting)
                    lap(laps, layer, MEETING)
                finish_forward(one, shared, layer, parameters, count)
                lap(laps, layer, ACTIVATION)
            if layer.first_stage != layer.stop_stage and layer.first_column != layer.stop_column:
                call(
                    shared.forward_stages, one, shared.stages, parameters,
                    layer.first_stage, layer.stop_stage, layer.first_column, layer.stop_column,
                    count, padded, step,
                )  # fmt: skip
                lap(laps, layer, STAGES)

        if shared.put_rows != 0:
            call(shared.put_rows, one, shared.record, order, start, count, 0)
            lap(laps, first, LOAD)

        if not training:
            store_result(shared, outputs, start, count)
            changed = 0
            start += count
            continue

        if member == 0:
            batch_loss, batch_correct = loss_gradient(
                one, shared, targets, order, start, count, padded
            )
            loss += batch_loss
            correct += batch_correct
            lap(laps, layer, LOSS)
        transposed_already = False
        # a block is updated in the turn after its own, when its input gradient no longer needs its
        # weights as they were; so there is a turn more than blocks, number -1, for the first one's
        # update alone: a call behind the loop would be compiled once more
        for number in range(last, first_dense - 2, -1):
            layer = record_at(tables, layers + max(number, 0))
            own = layer.stop_column - layer.first_column
            if number >= 0 and layer.lowest_stage != layer.stop_stage and own != 0:
                call(
                    shared.backward_stages, one, shared.stages, parameters,
                    first_state, second_state,
                    layer.lowest_stage, layer.stop_stage, layer.first_column, layer.stop_column,
                    count, step, step_rates,
                )  # fmt: skip
                lap(laps, layer, STAGES)
            if number >= 0 and layer.mask_gradient != 0:
                mask_by_sign(
                    one, submatrix(layer.gradient, 0, layer.first_column, count, own),
                    submatrix(layer.outputs, 0, layer.first_column, count, own),
                )  # fmt: skip
                lap(laps, layer, MASK)
            if team is not None and members > 1 and number >= first_dense:
                if number == first_dense and member == 0:
                    consider_parting(signals, start + 1)
                transfer(one, layer.gradient_out, members, padded)
                meeting = arrive(signals, member, meeting)
                lap(laps, layer, MEETING)
            if number < last:
                # a team does it while messages are on their way
                above = record_at(tables, layers + number + 1)
                update(
                    one, shared, above, parameters, first_state, second_state,
                    step_rates + RATE_BYTES * above.learned, count, padded, laps,
                )  # fmt: skip
            if team is not None and members > 1 and number >= first_dense:
                wait(signals, members, meeting)
                transfer(one, layer.gradient_in, members, padded)
                lap(laps, layer, MEETING)
            if number >= first_dense and layer.gradient_by != NO_GRADIENT:
                below = record_at(tables, layers + number - 1)
                if layer.gradient_by == BY_COLUMNS:
                    transpose_gradient(one, layer, padded, transposed_already)
                    lap(laps, layer, TURN)
                transposed_already = leaves_transposed(layer, below)
                if layer.gradient_by == BY_PAIRS:
                    call(layer.input_gradient_in_pairs, one, below.record, count, padded)
                    lap(laps, layer, INPUT_GRADIENT)
                else:
                    input_gradient(
                        one, layer, below, parameters, step_rates + RATE_BYTES * layer.learned,
                        count, padded, laps,
                    )  # fmt: skip
        if shared.clip != 0:
            if team is not None and members > 1:
                meeting = meet(signals, member, members, meeting)
            call(
                shared.clip, one, record_at(tables, layers).parts_to_clip,
                parameters, first_state, second_state, step_rates,
            )  # fmt: skip
            lap(laps, first, OPTIMIZER)
        if shared.add_penalties != 0:
            if team is not None and members > 1:
                meeting = meet(signals, member, members, meeting)
            call(
                shared.add_penalties, one, shared.layers, last + 1, shared.chunks, step_rates,
                shared.penalty,
            )  # fmt: skip
            weight = float(count)
            if shared.sample_weights != 0:
                weight = real_at(0.0, shared.batch_weight)
            loss += weight * real_at(0.0, shared.penalty)
        changed = 0 if shared.clip == 0 else 1
        if team is not None:
            if members == 1:
                if count == shared.batch_size:
                    note_alone(signals, clock() - began)
            elif parted(signals, start + 1):
                # from here on the caller changes everybody's weights
                meeting = meet(signals, member, members, meeting)
                members = 1
                changed = 1
        start += count
        if member == 0 and before + count == epoch:
            put_real(loss, totals)
            put_integer(correct, totals + 8)
            if start < total:
                totals += TOTALS_BYTES
                loss = real_at(0.0, totals)
                correct = integer_at(totals + 8)
        lap(laps, first, REST)
    if one_by_one:
        # the last update, with a product that nobody reads
        first = record_at(tables, 0)
        call(first.update_and_multiply, one, shared.layers, parameters, shared.itemsize)
        lap(laps, first, UPDATE)


def entry_for(dtype: np.dtype, team: bool, laps: bool = False) -> Callable[..., int]:
    """Return `run_batches` as Python calls it, compiled or read from the cache."""
    whole = np.dtype(np.int64)
    kinds = dtype, SHARED, LAYER, *[whole] * 13, MEMBER if team else None, whole if laps else None
    return run_batches.entry(kinds)
