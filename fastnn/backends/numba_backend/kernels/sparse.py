"""Products that skip zeros: the sparse operand is a matrix and the set of its non-zeros.

A row of the sparse operand comes as its values, zeros and all, and as a set of 64 bits that
says which of 64 neighbouring values are not zero. A loop over the bits that are set finds the
next one in two instructions, and nothing has to be compressed, sorted or allocated.
"""

from __future__ import annotations

import itertools

from ..language import Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel


@microkernel
def scatter(
    k: Kernel, alpha: Real, V: Matrix, bits: Matrix, M: Matrix, C: Matrix, rows_at_once: Int
) -> None:
    """C[i, :] += alpha * V[r, i] M[r, :] for every row r and every i for which V[r, i] is not zero.

    Shapes: V [rows, up to 64], bits [rows, 1 word], M [rows, columns], C [up to 64, columns];
    columns are at most MACHINE.scatter_vectors whole vectors. `rows_at_once` is 1 or 2: rows are
    taken alone or, if their number is even, in pairs, with i running over the union of their sets;
    in pairs V is the transpose of rows, whose numbers are side by side.
    The forward pass of the first layer in large batches (r an input unit, i a sample, M the
    weights): each row of the weights, the largest operand, is read once for all samples and held
    in registers, while C lies in the first-level cache. And the update from a batch of very few
    samples (r a sample, i an input unit, M the gradient of the output, C the weights).
    Why it is fast: neighbouring pixels light up together, so a pair takes few more visits
    than one row, and loads and stores of C and the mispredicted ends of loops halve.
    Tried and lost: groups of four (their union is too large).
    """
    scale = k.broadcast(alpha)
    for size in k.cases(rows_at_once, (1, 2)):
        for width in k.cases(k.vectors(M), range(1, k.machine.scatter_vectors + 1)):
            with k.loop(0, V.rows, size) as r:
                union = _union(k, bits, r, size)
                with k.when(union.differs(0)):
                    row = M.shifted(r * M.row_stride)
                    held = {
                        (p, j): scale * k.load(row.row(p) + j * k.vector_bytes)
                        for p in range(size)
                        for j in range(width)
                    }
                    with k.each_bit(union) as i:
                        factors = _factors(k, V, r, i, size)
                        for j in range(width):
                            address = C.row(i) + j * k.vector_bytes
                            total = k.load(address)
                            for p in range(size):
                                total = k.fma(factors[p], held[p, j], total)
                            k.store(total, address)


@microkernel
def gather(
    k: Kernel,
    alpha: Real,
    V: Matrix,
    bits: Matrix,
    M: Matrix,
    C: Matrix,
    rows_at_once: Int,
    keep: Int,
    later: Matrix,
) -> None:
    """C[r, :] = keep C[r, :] + alpha * sum of V[r, i] M[i, :] over the i with V[r, i] not zero.

    Shapes: V [rows, up to 64], bits [rows, 1 word], M [up to 64, columns], C [rows, columns]; with
    single rows there may be 2 words, of up to 128 numbers. `keep` is 0 or 1. `rows_at_once` is 1 or
    2, as in `scatter`; columns are whole vectors, at most MACHINE.gather_vectors with single rows,
    MACHINE.scatter_vectors with pairs.
    `later` has rows of as many columns, which are needed soon; with each row of C one is asked for.
    The update of every layer (r an input unit, i a sample, M the gradient of the output), and
    the forward pass (r a sample, i an input unit, M the weights).
    Why it is fast: rows of C stay in registers, M in the first-level cache. A load and a
    multiply-add for each non-zero is what the dense product does for every number. Pairs, for rows
    whose zeros fall together, halve the loads of M and the mispredicted ends of loops.
    """
    scale = k.broadcast(alpha)
    most = {1: k.machine.gather_vectors, 2: k.machine.scatter_vectors}
    # where there is no second word, the first one is read again, and no bit of it is taken
    two = bits.columns.equals(2)
    further_place = k.where(two, bits.column_stride, k.integer(0))
    further_bits = k.where(two, k.integer(-1), k.integer(0))
    for size in k.cases(rows_at_once, (1, 2)):
        for width in k.cases(k.vectors(M), range(1, most[size] + 1)):
            with k.loop(0, V.rows, size) as r:
                union = _union(k, bits, r, size)
                further = None
                if size == 1:
                    further = k.load_integer(bits.row(r) + further_place) & further_bits
                with k.when(r < later.rows):
                    for p, j in itertools.product(range(size), range(width)):
                        k.prefetch(later.row(r + p) + j * k.vector_bytes)
                some = union if further is None else union | further
                with k.when((some | (1 - keep)).differs(0)):
                    total = k.variables(k.zero(), size, width)
                    with k.each_bit(union, further) as i:
                        factors = _factors(k, V, r, i, size)
                        for j in range(width):
                            term = k.load(M.row(i) + j * k.vector_bytes)
                            for p in range(size):
                                total[p, j] = k.fma(factors[p], term, total[p, j])
                    for kept in k.cases(keep, (0, 1)):
                        for p, j in itertools.product(range(size), range(width)):
                            address = C.row(r + p) + j * k.vector_bytes
                            if kept:
                                value = k.fma(scale, total[p, j], k.load(address))
                            else:
                                value = scale * total[p, j]
                            k.store(value, address)


@microkernel
def backward_by_unit(
    k: Kernel,
    alpha: Real,
    A: Matrix,
    bits: Matrix,
    G: Matrix,
    W: Matrix,
    dX: Matrix,
    dots: Matrix,
    keep: Int,
) -> None:
    """dX[i, s] = keep dX[i, s] + W[i, :] . G[s, :] where A[i, s] > 0, else 0; W += alpha A G.

    The backward pass of a layer behind a ReLU: A holds its inputs and dX the gradient by them, both
    transposed, W the weights and G the gradient by its outputs.
    Shapes: A and dX [units, up to 64 samples], bits [units, 1 word], G [samples, columns], W
    [units, columns], dots [samples, one vector]; samples and columns are whole vectors. `keep` is 0
    or 1: of a W that has others too these are some columns, whose G stays in the cache.
    Why it is fast: a row of W and its sums stay in registers, and each load of G serves two
    multiply-adds. What ReLU would mask is not computed. The lanes of dot products are added for a
    whole vector of samples together.
    """
    scale, most = k.broadcast(alpha), k.machine.backward_vectors
    vectors = k.vectors(W)
    tiles = (vectors + (most - 1)) // most
    tile = (vectors + (tiles - 1)) // tiles
    with k.loop(0, W.rows) as row:
        with k.loop(0, vectors, tile) as first:
            start, begins = W.row(row) + first * k.vector_bytes, first.equals(0)
            gradient = G.shifted(first * k.vector_bytes)
            for width in k.cases(k.minimum(tile, vectors - first), range(1, most + 1)):
                weights = [k.load(start + j * k.vector_bytes) for j in range(width)]
                total = k.variables(k.zero(), width)
                with k.each_bit(k.load_integer(bits.row(row))) as s:
                    (factor,) = _factors(k, A, row, s, 1)
                    # two sums, of the even and the odd vectors: half the latency of an addition
                    dot = [k.where(begins, k.zero(), k.load(dots.row(s))), k.zero()]
                    for j in range(width):
                        term = k.load(gradient.row(s) + j * k.vector_bytes)
                        total[j] = k.fma(factor, term, total[j])
                        dot[j % 2] = k.fma(weights[j], term, dot[j % 2])
                    # NaN, which is no zero, has no gradient either
                    k.store(k.where(factor > 0.0, dot[0] + dot[1], k.zero()), dots.row(s))
                for j in range(width):
                    moved = k.fma(scale, total[j], weights[j])
                    k.store(moved, start + j * k.vector_bytes)
        with k.loop(0, k.vectors(dX)) as block:
            offset = block * k.vector_bytes
            of_block = dots.shifted(block * k.lanes * dots.row_stride)
            sums = k.lane_sums([k.load(of_block.row(i)) for i in range(k.lanes)])
            address = dX.row(row) + offset
            before = k.where(keep.equals(1), k.load(address), k.zero())
            # of a sample that was not visited the sum is an old one
            active = k.lanes_of(k.load_integer(bits.row(row)), block * k.lanes)
            k.store(before + k.where(active, sums, k.zero()), address)


def _union(k: Kernel, bits: Matrix, row: Int, size: int) -> Int:
    """The bits that are set in any of `size` rows."""
    union = k.load_integer(bits.row(row))
    for p in range(1, size):
        union = union | k.load_integer(bits.row(row + p))
    return union


def _factors(k: Kernel, V: Matrix, row: Int, i: Int, size: int) -> list[Vector]:
    """The values at i of `size` rows, each in every lane of a vector.

    Of pairs of rows, those of one i lie side by side. To say so saves registers for addresses, and
    with them 2 % of the steps of 784-100-200-10 in batches of 32.
    """
    row_stride = V.row_stride if size == 1 else k.element_bytes
    first = V.address + row * row_stride + i * V.column_stride
    return [k.broadcast(k.load_real(first + p * row_stride)) for p in range(size)]
