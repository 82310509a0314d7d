"""The records by which the compiled epoch knows a network; `table.py` writes them.

A network is an array of records LAYER, one for each block: a Dense layer, or the input itself where
something comes before the first Dense layer, a ReLU right after it, and the stages after that. A
record holds sizes, where parameters lie in the flat vector, where buffers lie in the workspace,
and which of the kernels are used.
"""

from __future__ import annotations

import numpy as np

from ..language import MATRIX

GROUP_SAMPLES = 64
"""Samples that the first layer loads and uses together; as many as a word has bits."""

EVERY_NUMBER, BY_UNIT, BY_SAMPLE, ONE_SAMPLE, IN_PAIRS = 0, 1, 2, 3, 4
"""How a layer multiplies: every number, or the non-zeros of each input unit or of each sample; or
every number of one sample, after the update that has waited for it, see `one_sample.py`; or every
number in bfloat16, see `in_pairs.py`."""

BY_COLUMNS, BY_ROWS, NO_GRADIENT, WITH_UPDATE, BY_PAIRS = 0, 1, 2, 3, 4
"""How the input gradient is computed, see `input_gradient`; not where nothing below learns."""

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "number", "input_units", "output_units",
            # parameters: bytes from the start of the flat vector; and see `weights` below
            "biases",
            # whether its ReLU is applied to its sums, and to the gradient that arrives here; and
            # whether the ReLU of the layer below is applied to the gradient that leaves
            "activation", "mask_gradient", "mask_inputs",
            # its stages, and the lowest of them that the gradient goes through
            "first_stage", "stop_stage", "lowest_stage",
            # what is this thread's own: chunks of the input units, which begin where a list at an
            # address says, so units, and columns of the output; whether it multiplies all units by
            # these columns alone; and the terms of their sums, TERMs at an address
            "first_chunk", "stop_chunk", "chunk_units", "first_unit", "stop_unit",
            "first_column", "stop_column", "by_outputs", "terms", "term_count",
            # messages to the other members of a team, and from them
            "products_out", "gradient_out", "gradient_in",
            # which kernels, how many columns they take at a time, and how many rows of the weights
            # ahead of the one that changes the update asks for; none of small weights
            "forward_by", "update_by", "gradient_by", "update_rows", "update_tile",
            "scatter_tile", "gather_tile", "gather_units", "backward_tile", "chunk_words",
            "rows_ahead",
            # how it moves; see `optimizers.py`
            "learned", "move", "rows_at_once", "weights_region", "biases_region",
            "decay", "squares_of_rows", "squares", "penalty_squares",
            # of the first block, where gradients are clipped: address of this thread's PARTs
            "parts_to_clip",
            # from a slot to the next
            "slot_bytes",
            # ONE_SAMPLE: its operation, and minus the rate of the update that waits
            "update_and_multiply", "waiting_factor",
            # the first layer, where it multiplies samples as they lie: where the addresses of those
            # of the batch are, and kernels; else 0
            "sources", "multiply_samples", "multiply_samples_turned",
            # IN_PAIRS: address of this record, and operations
            "record", "multiply_in_pairs", "input_gradient_in_pairs", "gradient_in_pairs",
            "pack_weights",
            # BY_UNIT, where operands are rounded to bfloat16: operations, or 0, see `rounding.py`
            "round_inputs", "round_weights", "round_gradient",
        )
    ]
    + [
        (name, MATRIX)
        for name in (
            # [units, columns]; its address counts from the start of the flat vector
            "weights",
            # some rows of the gradient of the weights
            "gradient_rows",
            # [samples, units] or [units, samples]
            "inputs", "inputs_transposed", "outputs", "gradient", "gradient_transposed",
            # [units, samples]: the transposed copy if there is one, or rows read by columns
            "inputs_by_unit",
            # one after the other, each [samples, columns]
            "slots",
            # words of 64 bits, [units, samples / 64] and [samples, words], for each chunk of units
            # as many; those of a column side by side
            "bits_by_unit", "bits_by_sample",
            # ONE_SAMPLE: the sample whose update waits, [1, units]
            "waiting",
            # WITH_UPDATE: [samples, a vector]
            "dots",
            # IN_PAIRS: words of two bfloat16 numbers, [samples, units / 2] and [samples / 2, units]
            "packed_inputs", "paired_inputs",
            # [units, columns / 2] and [units / 2, columns]
            "packed_weights", "paired_weights",
            # [columns / 2, units], transposed; and [samples, columns / 2], [samples / 2, columns]
            "turned_weights", "packed_gradient", "paired_gradient",
            # BY_UNIT: what is multiplied in the update, `gradient` or a copy that is rounded to
            # bfloat16; and such a copy of the weights
            "multiplied_gradient", "rounded_weights",
        )
    ]
)  # fmt: skip
"""A block, called a layer in the code below. `outputs` are those of Dense and ReLU, before the
stages. `gradient` is that of the loss by the block's result, then by what each stage took in, at
last by the sums of Dense, and stays so until the next step's backward pass. Matrices have as many
rows as a batch has samples, padded, and as many columns as fill whole vectors."""

SHARED = np.dtype(
    [
        (name, np.int64)
        for name in (
            "batch_size", "itemsize", "lanes", "chunks",
            "input_code", "input_itemsize", "input_row_bytes",
            # samples that are CSR: the operation that puts those of a batch where they are read as
            # others are, or 0; addresses of CSR's three arrays, and of these rows, zero in between
            "put_rows", "row_starts", "columns", "values", "dense_rows",
            # addresses: of this record, of the blocks' and of what stages need, 0 without stages
            "record", "layers", "stages", "forward_stages", "backward_stages",
            # the first block, where it is the input itself: the operation that loads it, or 0
            "load_input", "input_units",
            # the first layer, where it multiplies in pairs: the operation that loads its input
            "load_in_pairs",
            # the loss: 0 for softmax cross-entropy, or an operation; what it reads and writes
            "loss", "output_units",
            "target_code", "labels", "predictions", "margins", "sums",
            "batch_loss", "batch_correct",
            # float64 weights of all samples, or 0; and the sum of those of the batch
            "sample_weights", "batch_weight",
            # penalties: 0, or the operation that adds them up, and the sum
            "add_penalties", "penalty",
            # clipping: 0, or the operation
            "clip",
            # for samples in pairs: a sample of zeros, and room for the last numbers of two
            "zeros", "tails", "tail_stride",
        )
    ]
    + [(name, MATRIX) for name in ("input_rows", "result", "result_gradient", "targets")]
    # of labels
    + [("smoothing", np.float64)]
)  # fmt: skip
"""What the blocks have in common. Matrices are [samples, columns], padded as those of a block."""

TOTALS = np.dtype([("loss", np.float64), ("correct", np.int64)])
"""Sums over the samples of an epoch, of losses and of right answers."""
TOTALS_BYTES = TOTALS.itemsize
