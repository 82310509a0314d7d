"""11. The whole epoch in one call: `Network.fit`, as a user calls it.

What changed: Python is out of the loop. `run_batches` takes all batches, through any network, as
records say; and it counts losses and right answers, which the rungs below leave out.

Count before you run: a call from Python with two addresses is 2 us, of some 40. What else a step
gains is little, as its kernels are those of the rung below; what it pays for serving any network
is little, too. So expect a few per cent.

Tried and lost: code that is generated for each network. A table of records serves them all at the
same speed, and a first fit has nothing to compile; see docs/compiled-epoch.md.
"""

from itertools import pairwise

import numpy as np

import fastnn

DTYPE = np.float32
THREADS = 1


def prepare(layers, batch_size, threads=THREADS):
    """Return a network with these parameters, and what `fit` is told."""
    units = [len(layers[0][0]), *(len(b) for _, b in layers)]
    network = fastnn.Network(backend="numba", dtype=layers[0][0].dtype, optimizer=fastnn.SGD(0.0))
    for i, ((inputs, outputs), (W, b)) in enumerate(zip(pairwise(units), layers, strict=True)):
        if i:
            network.add(fastnn.ReLU())
        network.add(fastnn.Dense(inputs, outputs))
        network.layers[-1].weights, network.layers[-1].biases = W, b
    return network, {"batch_size": batch_size, "threads": threads, "shuffle": False}


def layers(state):
    network, _ = state
    return [(layer.weights, layer.biases) for layer in network.layers[::2]]


def train(state, X, y, rate):
    """Take as many steps as there are batches, in one call."""
    network, options = state
    network.optimizer.learning_rate = rate
    network.fit(X, y, **options)
