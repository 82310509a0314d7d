"""1. The gradient of the loss: G = (softmax(Z) - onehot(y)) / n, in one loop over rows.

Given: Z of shape [n, c], float32, the logits; y of shape [n], int64, the classes; and G of shape
[n, c], float32, in which there is anything, NaN too. Write G. Z and y stay as they are, and no
other array is made.

    softmax(Z)[i, j] = exp(Z[i, j]) / sum over c of exp(Z[i, c])

Logits may be as large as 10,000: exp of that is infinity in float32.

Count before you run: n c exponentials, some 3 to 10 ns each where they are taken one by one.

Hints, one at a time:

1. softmax doesn't change where a number is taken from all logits of a row.
2. Take the largest one: then no exponent is above 0, and one of them is 0, so no sum is below 1.
3. Three loops over a row: the largest; exponentials, into G, and their sum; the division.
4. A division takes as long as several multiplications, and all of a row divide by the same.

The solution: `softmax_gradient` in benchmarks/ladder/beforehand.py; by vectors, a class of many
samples at a time, fastnn/backends/numba_backend/kernels/softmax.py.
"""

from numba import njit


@njit
def loss_gradient(Z, y, G):
    raise NotImplementedError
