"""5. A register tile: A = X W + b once more, dense, and each number that is loaded used often.

Given: X of shape [n, k], W of shape [k, m], b of shape [m] and A of shape [n, m], all float32, as
in exercise 2. n may be 1, and no size need be a multiple of anything.

Count before you run: a multiply-add of exercise 2 loads two vectors and stores one. With p rows of
X and q rows of W at once, p q multiply-adds load q vectors of W and p of A, and store p. With p = q
= 4 that is 12 for 16 in place of 48.

Hints, one at a time:

1. Take four rows of A at once: a vector of W that is loaded then serves four multiply-adds.
2. Take four rows of W at once: a vector of A then is loaded and stored once for four.
3. In the innermost loop, along m, write all 16 products as four assignments of four products each.
   Keep the 16 numbers of X in variables before that loop.
4. What is left over of rows, and of k, goes through a loop as in exercise 2.
5. The package keeps a tile of A, 8 rows by 3 vectors, in registers while k runs to its end. Numba's
   loops can't say that; the language of the package's microkernels can.

The solution: `product_panel` in fastnn/backends/numba_backend/layerwise/dense.py, with
`register_tile` in kernels/matmul.py beside it.
"""

from numba import njit


@njit
def tiled_forward(X, W, b, A):
    raise NotImplementedError
