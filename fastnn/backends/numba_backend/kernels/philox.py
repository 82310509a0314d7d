"""Philox4x64-10, the counter-based generator behind dropout masks.

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC 2011. The words are those of `np.random.Philox(key=key, counter=[0, step, 0, 0])`, which
counts up before its first block. Any block is found from its number alone, so masks do not depend
on who computes which part of them, and the layer path's backward pass makes them again.
"""

from __future__ import annotations

from llvmlite import ir

from ..language import INT64, Address, Int, Kernel
from ..microkernel import microkernel

BLOCK_WORDS = 8
"""32-bit words in a block."""

ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@microkernel
def random_words(k: Kernel, key: Int, step: Int, first: Int, blocks: Int, target: Address) -> None:
    """Write blocks `first`, `first + 1`, ... of step `step` to `target`.

    Shapes: target [blocks * BLOCK_WORDS] 32-bit words, at any address.
    Why it is fast: a CPU multiplies 64 by 64 bits in one instruction, one a cycle, and overlaps the
    chains of neighbouring blocks, as they don't wait for each other.
    Tried and lost: two to four blocks side by side in the text; they run out of registers. Vectors
    have no such product; put together from four of 32 bits it is as many instructions for a word.
    """
    zero = ir.Constant(INT64, 0)
    with k.loop(0, blocks) as i:
        state = [(first + i + 1).code, step.code, zero, zero]
        keys = [key.code, zero]
        for _ in range(ROUNDS):
            high_0, low_0 = _product(k, state[0], MULTIPLIERS[0])
            high_1, low_1 = _product(k, state[2], MULTIPLIERS[1])
            state = [_exclusive_or(k, high_1, state[1], keys[0]), low_1,
                     _exclusive_or(k, high_0, state[3], keys[1]), low_0]  # fmt: skip
            keys = [
                k.builder.add(word, ir.Constant(INT64, number))
                for word, number in zip(keys, KEY_STEPS, strict=True)
            ]
        for j, word in enumerate(state):
            k.store_as(word, target + i * (4 * BLOCK_WORDS) + 8 * j, 1)


def _exclusive_or(k: Kernel, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return k.builder.xor(k.builder.xor(a, b), c)


def _product(k: Kernel, a: ir.Value, b: int) -> tuple[ir.Value, ir.Value]:
    """Write the product of 64 by 64 bits; return its higher and its lower half."""
    wide = ir.IntType(128)
    product = k.builder.mul(k.builder.zext(a, wide), ir.Constant(wide, b))
    high = k.builder.lshr(product, ir.Constant(wide, 64))
    return k.builder.trunc(high, INT64), k.builder.trunc(product, INT64)
