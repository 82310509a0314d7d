"""4. Skipping zeros: A = X W + b, where four of five numbers of X are zero.

Given: X of shape [n, k], W of shape [k, m], b of shape [m] and A of shape [n, m], all float32, as
in exercise 2. What is timed has 784 numbers in a row, of which some 157 are not zero: about as many
as of a digit's pixels, but at any place. What is checked may be anything: rows of zeros alone, rows
without one, negative numbers.

Count before you run: a fifth of the multiply-adds of exercise 2. And each of n k numbers has to be
looked at.

Hints, one at a time:

1. `if x == 0: continue` is right. The processor guesses where a branch goes, and wherever a number
   is not zero it guesses wrongly: about 30 cycles each time.
2. So list first, then compute: walk along a row of X and note the places of what is not zero.
3. Without a branch: write each place to the end of the list, and move the end on by the truth of
   `x != 0`, which is 0 or 1. What is not counted is written over.
4. The list needs room for k places, once, not for each row.

The solution: `list_nonzeros` and `forward` in benchmarks/ladder/r08_skipping_zeros.py; by sets of
bits `gather` in fastnn/backends/numba_backend/kernels/sparse.py.
"""

from numba import njit


@njit
def sparse_forward(X, W, b, A):
    raise NotImplementedError
