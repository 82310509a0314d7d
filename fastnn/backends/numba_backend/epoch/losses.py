"""Losses of the compiled epoch that are operations, label smoothing, and samples with weights."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import Operation, jit_part, operation, record_at
from ..kernels.binary_cross_entropy import loss_and_derivative
from ..kernels.loading import load_row, sample_at
from ..kernels.poisson import loss_and_derivative as poisson_formula
from ..kernels.rows import clear, integer_at, logarithm, put_integer, put_real, real_at
from ..kernels.softmax import first_largest, softmax_cross_entropy
from ..language import Address, Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel, submatrix

CLASS_IDS = -1
"""What `target_code` holds for targets that are class ids; otherwise the code of their type."""


@microkernel
def squared_error(
    k: Kernel, scale: Real, Y: Matrix, T: Matrix, G: Matrix, sums: Address, predictions: Address
) -> None:
    """G = scale * (Y - T), and of each row the sum of (Y - T)^2 and where the largest output is.

    Shapes: outputs Y, targets T and gradient G [rows, units], all zero in the padding of a row;
    sums [rows], predictions [rows] 64-bit integers, -1 where NaN leaves no largest output.
    """
    vectors = k.vectors(Y)
    minus_infinity = k.constant(float("-inf"))
    factor = k.broadcast(scale)
    with k.loop(0, Y.rows) as row:
        y, t, g = Y.row(row), T.row(row), G.row(row)

        def output(j: Int, y=y) -> Vector:
            inside = k.lane_before(Y.columns - j * k.lanes)
            return k.where(inside, k.load(y + j * k.vector_bytes), minus_infinity)

        total = k.variable(k.zero())
        with k.loop(0, vectors) as j:
            offset = j * k.vector_bytes
            error = k.load(y + offset) - k.load(t + offset)
            k.store(factor * error, g + offset)
            total[0] = k.fma(error, error, total[0])
        k.store_real(k.lane_sum(total[0]), sums + row * k.element_bytes)
        _, first = first_largest(k, output, Y)
        k.store_integer(first, predictions + row * 8)


@microkernel
def binary_cross_entropy_rows(
    k: Kernel,
    scale: Real,
    smoothing: Real,
    Z: Matrix,
    T: Matrix,
    G: Matrix,
    sums: Address,
    wrong: Address,
) -> None:
    """G = scale * (σ(Z) - T'), and of each row the sum of losses and the number of wrong answers.

    T' = T + smoothing * (1/2 - T). Shapes: logits Z, targets T and gradient G [rows, units], all
    zero in the padding of a row; sums [rows], wrong [rows], the number in the type of the kernel.
    An answer is 1 where z > 0, 0 elsewhere and neither for NaN; it is right where it is the target.
    """
    one, factor, smooth = k.constant(1.0), k.broadcast(scale), k.broadcast(smoothing)
    with k.loop(0, Z.rows) as row:
        z, t, g = Z.row(row), T.row(row), G.row(row)
        total, mistakes = k.variable(k.zero()), k.variable(k.zero())
        with k.loop(0, k.vectors(Z)) as j:
            offset = j * k.vector_bytes
            logit, target = k.load(z + offset), k.load(t + offset)
            inside = k.lane_before(Z.columns - j * k.lanes)
            smoothed = k.fma(smooth, k.constant(0.5) - target, target)
            loss, derivative = loss_and_derivative(k, logit, smoothed)
            total[0] = total[0] + k.where(inside, loss, k.zero())
            k.store(k.where(inside, factor * derivative, k.zero()), g + offset)
            answer = k.where(logit > 0.0, one, k.where(logit.differs(logit), logit, k.zero()))
            mistakes[0] = mistakes[0] + k.where(answer.equals(target), k.zero(), one)
        k.store_real(k.lane_sum(total[0]), sums + row * k.element_bytes)
        k.store_real(k.lane_sum(mistakes[0]), wrong + row * k.element_bytes)


@microkernel
def poisson_rows(k: Kernel, scale: Real, Z: Matrix, T: Matrix, G: Matrix, sums: Address) -> None:
    """G = scale * (exp(Z) - T), and of each row the sum of losses.

    Shapes: logarithms of rates Z, targets T and gradient G [rows, units], all zero in the padding
    of a row; sums [rows].
    """
    factor = k.broadcast(scale)
    with k.loop(0, Z.rows) as row:
        z, t, g = Z.row(row), T.row(row), G.row(row)
        total = k.variable(k.zero())
        with k.loop(0, k.vectors(Z)) as j:
            offset = j * k.vector_bytes
            inside = k.lane_before(Z.columns - j * k.lanes)
            loss, derivative = poisson_formula(k, k.load(z + offset), k.load(t + offset))
            total[0] = total[0] + k.where(inside, loss, k.zero())
            k.store(k.where(inside, factor * derivative, k.zero()), g + offset)
        k.store_real(k.lane_sum(total[0]), sums + row * k.element_bytes)


@microkernel
def smooth_labels(
    k: Kernel,
    scale: Real,
    smoothing: Real,
    share: Real,
    Z: Matrix,
    G: Matrix,
    labels: Address,
    predictions: Address,
    margins: Address,
) -> None:
    """Smooth the labels, after `softmax_cross_entropy`, of which the arguments are.

    G = scale * (softmax(Z) - t), with t = share + (1 - smoothing) * onehot, share that of a class;
    margin = (1 - smoothing) * margin + share * sum(max(Z) - Z).
    """
    # products before the loop, as in it they would be fused with sums
    lost, left, most = k.broadcast(scale * share), scale * smoothing, smoothing * -1.0 + 1.0
    with k.loop(0, Z.rows) as row:
        z, g, margin = Z.row(row), G.row(row), margins + row * k.element_bytes
        # without a largest one there is NaN, and so in the sum
        prediction = k.load_integer(predictions + row * 8)
        place = k.where(prediction < 0, k.integer(0), prediction)
        maxima = k.broadcast(k.load_real(z + place * k.element_bytes))
        total = k.variable(k.zero())
        with k.loop(0, k.vectors(Z)) as j:
            offset = j * k.vector_bytes
            inside = k.lane_before(Z.columns - j * k.lanes)
            total[0] = total[0] + k.where(inside, maxima - k.load(z + offset), k.zero())
            k.store(k.where(inside, k.load(g + offset) - lost, k.zero()), g + offset)
        at_label = g + k.load_integer(labels + row * 8) * k.element_bytes
        k.store_real(k.load_real(at_label) + left, at_label)
        kept = most * k.load_real(margin)
        k.store_real(k.fma(share, k.lane_sum(total[0]), kept), margin)


@microkernel
def scale_row(k: Kernel, factor: Real, row: Address, vectors: Int) -> None:
    """row *= factor, an aligned row of whole vectors."""
    factors = k.broadcast(factor)
    with k.loop(0, vectors) as j:
        address = row + j * k.vector_bytes
        k.store(factors * k.load(address), address)


@jit_part
def weigh(one, shared, losses, order, start, count):
    """Make the mean of the batch a weighted one; return the weighted sum of losses.

    The losses of the samples lie at an address. The gradient of sample n of N is multiplied by
    w_n N / sum(w); where all weights of a batch are 0 there is none.
    """
    total = 0.0
    for i in range(count):
        total += real_at(0.0, shared.sample_weights + 8 * sample_at(order, start + i))
    loss, G = 0.0, shared.result_gradient
    for i in range(count):
        weight = real_at(0.0, shared.sample_weights + 8 * sample_at(order, start + i))
        loss += weight * real_at(one, losses + i * shared.itemsize)
        factor = weight * count / total if total > 0.0 else 0.0
        scale_row(type(one)(factor), G.address + i * G.row_stride, G.columns // shared.lanes)
    put_real(total, shared.batch_weight)
    return loss


@jit_part
def load_labels(shared, labels, order, start, count):
    """Put the labels of the batch in a row."""
    for i in range(count):
        label = integer_at(labels + 8 * sample_at(order, start + i))
        put_integer(label, shared.labels + 8 * i)


@jit_part
def softmax_of_batch(one, shared, targets, order, start, count, each):
    """Gradient of the mean softmax cross-entropy; returns the sum of losses and the right answers.

    Unless `each` is None, labels are smoothed where they are to be, and the loss of each sample
    takes the place of its margin. Else the sum of their logarithms is that of a product.
    """
    load_labels(shared, targets, order, start, count)
    softmax_cross_entropy(
        one / type(one)(count), submatrix(shared.result, 0, 0, count, shared.output_units),
        shared.result_gradient, shared.labels, shared.predictions, shared.margins, shared.sums,
    )  # fmt: skip
    if each is not None and shared.smoothing != 0:
        real = type(one)
        smooth_labels(
            one / real(count), real(shared.smoothing),
            real(shared.smoothing / shared.output_units),
            submatrix(shared.result, 0, 0, count, shared.output_units),
            shared.result_gradient, shared.labels, shared.predictions, shared.margins,
        )  # fmt: skip
    loss, correct, product = 0.0, 0, 1.0
    for i in range(count):
        margin, total = shared.margins + i * shared.itemsize, shared.sums + i * shared.itemsize
        if each is not None:
            put_real(real_at(one, margin) + logarithm(real_at(one, total)), margin)
        loss += real_at(one, margin)
        if each is None:  # one logarithm for dozens of samples
            product *= real_at(one, total)
            if product > 1e100:  # a sum is at most the number of classes
                loss += logarithm(product)
                product = 1.0
        label = integer_at(shared.labels + 8 * i)
        correct += integer_at(shared.predictions + 8 * i) == label
    if each is None:
        loss += logarithm(product)
    return loss, correct


@operation
def softmax_cross_entropy_of_batch(one, record, targets, order, start, count):
    """Softmax cross-entropy of smoothed labels, of samples with weights, or both.

    That without is in `step.loss_gradient`.
    """
    shared = record_at(record, 0)
    loss, correct = softmax_of_batch(one, shared, targets, order, start, count, 1)
    if shared.sample_weights != 0:
        loss = weigh(one, shared, shared.margins, order, start, count)
    put_real(loss, shared.batch_loss)
    put_integer(correct, shared.batch_correct)


@jit_part
def squared_errors(one, record, targets, order, start, count, share):
    """Gradient of the mean loss by the outputs; the batch's loss and right answers to the record.

    The loss of a sample is `share` times the sum over the outputs. Targets are class ids, which
    stand for rows of zeros with a one, or rows of numbers; there are no right answers then.
    """
    shared = record_at(record, 0)
    units, T = shared.output_units, shared.targets
    by_class = shared.target_code == CLASS_IDS
    for i in range(count):
        sample, row = sample_at(order, start + i), T.address + i * T.row_stride
        if by_class:
            label = integer_at(targets + 8 * sample)
            put_integer(label, shared.labels + 8 * i)
            clear(one, submatrix(T, i, 0, 1, units))
            put_real(one, row + label * shared.itemsize)
        else:
            source = targets + sample * units * shared.itemsize
            load_row(one, source, shared.target_code, units, row)
    real = type(one)
    squared_error(
        real(2 * share / count), submatrix(shared.result, 0, 0, count, units), T,
        shared.result_gradient, shared.sums, shared.predictions,
    )  # fmt: skip
    loss, correct = 0.0, 0
    for i in range(count):
        loss += real_at(one, shared.sums + i * shared.itemsize)
        if by_class:
            label = integer_at(shared.labels + 8 * i)
            correct += integer_at(shared.predictions + 8 * i) == label
    if shared.sample_weights != 0:
        loss = weigh(one, shared, shared.sums, order, start, count)
    put_real(loss * share, shared.batch_loss)
    put_integer(correct, shared.batch_correct)


@operation
def mean_squared_error(one, record, targets, order, start, count):
    """See `squared_errors`: the loss of a sample is the mean over the outputs."""
    units = record_at(record, 0).output_units
    squared_errors(one, record, targets, order, start, count, 1.0 / units)


@operation
def half_squared_error(one, record, targets, order, start, count):
    """See `squared_errors`: the loss of a sample is half the sum over the outputs."""
    squared_errors(one, record, targets, order, start, count, 0.5)


@operation
def binary_cross_entropy(one, record, targets, order, start, count):
    """Gradient of the mean loss by the outputs; the batch's loss and right answers to the record.

    The loss of a sample is the sum over the outputs. Its answer is right if that of each output is.
    """
    shared = record_at(record, 0)
    units, T = shared.output_units, shared.targets
    for i in range(count):
        source = targets + sample_at(order, start + i) * units * shared.itemsize
        load_row(one, source, shared.target_code, units, T.address + i * T.row_stride)
    binary_cross_entropy_rows(
        one / type(one)(count), type(one)(shared.smoothing),
        submatrix(shared.result, 0, 0, count, units), T,
        shared.result_gradient, shared.sums, shared.margins,
    )  # fmt: skip
    loss, correct = 0.0, 0
    for i in range(count):
        loss += real_at(one, shared.sums + i * shared.itemsize)
        correct += real_at(one, shared.margins + i * shared.itemsize) == 0
    if shared.sample_weights != 0:
        loss = weigh(one, shared, shared.sums, order, start, count)
    put_real(loss, shared.batch_loss)
    put_integer(correct, shared.batch_correct)


@operation
def poisson_loss(one, record, targets, order, start, count):
    """Gradient of the mean loss by the outputs; the batch's loss to the record.

    The loss of a sample is the sum over the outputs. There are no right answers.
    """
    shared = record_at(record, 0)
    units, T = shared.output_units, shared.targets
    for i in range(count):
        source = targets + sample_at(order, start + i) * units * shared.itemsize
        load_row(one, source, shared.target_code, units, T.address + i * T.row_stride)
    poisson_rows(
        one / type(one)(count), submatrix(shared.result, 0, 0, count, units), T,
        shared.result_gradient, shared.sums,
    )  # fmt: skip
    loss = 0.0
    for i in range(count):
        loss += real_at(one, shared.sums + i * shared.itemsize)
    if shared.sample_weights != 0:
        loss = weigh(one, shared, shared.sums, order, start, count)
    put_real(loss, shared.batch_loss)
    put_integer(0, shared.batch_correct)


class CompiledLoss(NamedTuple):
    """A loss of the compiled epoch.

    Its operation, None where it is a part of `step.run_batches`; that for samples with weights and
    smoothed labels; and whether targets may be class ids, and whether rows of numbers.
    """

    operation: Operation | None
    general: Operation
    class_ids: bool
    numeric_targets: bool


LOSSES = {
    "softmax_cross_entropy": CompiledLoss(
        None, softmax_cross_entropy_of_batch, class_ids=True, numeric_targets=False
    ),
    "binary_cross_entropy": CompiledLoss(
        binary_cross_entropy, binary_cross_entropy, class_ids=False, numeric_targets=True
    ),
    "poisson": CompiledLoss(poisson_loss, poisson_loss, class_ids=False, numeric_targets=True),
    "mse": CompiledLoss(
        mean_squared_error, mean_squared_error, class_ids=True, numeric_targets=True
    ),
    "half_squared_error": CompiledLoss(
        half_squared_error, half_squared_error, class_ids=True, numeric_targets=True
    ),
}
"""Each loss by the name that it has in `fastnn/losses.py`."""
