"""2. A row kernel: A = X W + b, with loops in the order in which memory lies.

Given: X of shape [n, k], W of shape [k, m], b of shape [m], all float32, rows one after another in
memory; and A of shape [n, m], float32, in which there is anything, NaN too. Write A.

Count before you run: n k m multiply-adds, 16 at a time with AVX-512. But a multiply-add into a row
of A loads two vectors and stores one, and one store begins in a cycle.

Hints, one at a time:

1. Three loops in the order n, m, k are the definition, and each sum waits for itself; see
   benchmarks/ladder/r05_plain_loops.py.
2. What lies side by side? Rows of W, and rows of A. So the innermost loop runs along m.
3. Then a row of A is the bias first, and each k adds X[n, k] times row k of W to it.
4. `@njit(fastmath={"contract"})` allows LLVM to join a product and a sum, which rounds once.

The solution: `forward` in benchmarks/ladder/r06_row_kernels.py.
"""

from numba import njit


@njit
def row_forward(X, W, b, A):
    raise NotImplementedError
