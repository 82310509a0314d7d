"""3. The backward pass of a dense layer, and the update, in one walk over its weights.

Given: X of shape [n, k], the layer's input behind a ReLU; W of shape [k, m] and b of shape [m]; G
of shape [n, m], the gradient of its output; dX of shape [n, k], in which there is anything, NaN
too; and the rate. All are float32. Write, by the weights as they are before the step,

    dX = G W^T where X > 0, else 0

and change in place

    W -= rate X^T G
    b -= rate (sum of the rows of G)

X and G stay as they are.

Count before you run: 2 n k m multiply-adds. A gradient dW of its own would be k m numbers written,
read again and subtracted: with 784 x 100 that is three times 314 kB.

Hints, one at a time:

1. Row k of W needs column k of X and all of G, and gives column k of dX. So the outer loop is k.
2. An outer product is a sum over samples: W[k, :] -= (rate X[n, k]) G[n, :].
3. dX[n, k] is the dot product of G[n, :] and W[k, :]. Take those of all samples before the first
   of them changes the row.
4. A dot product is one sum, which waits for itself; `fastmath={"contract", "reassoc", "nsz"}`
   allows LLVM to split it.
5. Where X[n, k] is 0 there is nothing to do for this n and k, but to write a zero.
6. That is so at every other number, in no order, so the guess at a condition is wrong at every
   other one. List the samples of k first, without a branch: exercise 4 says how.

The solution: `backward` in benchmarks/ladder/r08_skipping_zeros.py, in two walks in r06; with sums
in registers `backward_by_unit` in fastnn/backends/numba_backend/kernels/sparse.py.
"""

from numba import njit


@njit
def fused_backward(X, W, b, G, dX, rate):
    raise NotImplementedError
