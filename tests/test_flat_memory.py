"""A step of the compiled epoch allocates nothing; many steps leave memory, files and threads alone.

A million steps, measured in the same way: `python tests/million_steps.py`.
"""

from __future__ import annotations

import sys
import tracemalloc

import million_steps
import numpy as np
import pytest

from fastnn import backends, guards
from fastnn.backends.numba_backend import jit

ALLOCATORS = b"PyMem_", b"NRT_", b"malloc", b"calloc"
"""Parts of the names of functions that allocate."""


def called(code: bytes) -> set[bytes]:
    """Return which allocators machine code has the names of."""
    return {name for name in ALLOCATORS if b"\0" + name in code}


def test_no_compiled_function_of_the_epoch_can_allocate():
    """None names an allocator: neither run_batches, nor an operation, nor a kernel."""
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 150), np.float32), rng.integers(0, 3, 40)
    million_steps.network_of(150, 120, 3, clip_norm=1.0).fit(X, y, batch_size=8)
    backends.load("numba").dense_forward(X, X[:30].T.copy(), X[0, :30].copy())
    codes = {name: found.code for name, found in jit._objects.items() if found is not None}
    assert any("run_batches" in name for name in codes)
    assert len(codes) > 5
    for name, code in codes.items():
        # what does allocate, by its own account: the products of the layer path
        assert bool(called(code)) == ("dense.product." in name), name


@pytest.mark.skipif(guards.CHECKED, reason="looks after each call whether memory is in order")
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_of_a_call_does_not_depend_on_its_steps(threads):
    rng = np.random.default_rng(0)
    network = million_steps.network_of(150, 120, 3, clip_norm=1.0)
    X, y = rng.random((400, 150), np.float32), rng.integers(0, 3, 400)
    network.fit(X, y, batch_size=4, threads=threads)
    program = network._programs._training[1]
    vector, states = network._parameters.vector, network._parameters.states

    def peak(steps: int) -> int:
        order = np.arange(4 * steps) % len(X)
        rates = np.ones((1, len(program._structure.learned), 4))
        run = program.prepare(X, y, order, vector, rates * 1e-3, states, None, threads=threads)
        run()
        tracemalloc.start()
        try:
            run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # the least of several, as members may leave and come back, where others want the processor
    few = min(peak(20) for _ in range(3))
    many: list[int] = []
    while len(many) < 8 and (not many or many[-1] >= few + 1000):  # half a byte a step
        many.append(peak(2000))
    assert min(many) < few + 1000


@pytest.mark.skipif(
    guards.CHECKED, reason="each buffer has pages, and is noted, until a collection"
)
def test_steps_by_layers_keep_nothing():
    """`train_step` and `predict` allocate what they return and compute with; all of it goes.

    What kernels allocate is traced as well, since they ask Python for it.
    """
    rng = np.random.default_rng(0)
    network = million_steps.network_of(6, 5, 3)
    X, y = rng.random((7, 6), np.float32), rng.integers(0, 3, 7)

    def take(steps: int) -> None:
        for _ in range(steps):
            network.train_step(X, y)
            network.predict(X)

    take(50)
    tracemalloc.start()
    try:
        take(50)
        kept = tracemalloc.get_traced_memory()[0]
        take(500)
        assert tracemalloc.get_traced_memory()[0] <= kept + 2000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_twenty_thousand_steps():
    """Fewer files and threads there may be, as those of tests before end late."""
    first: dict[str, million_steps.Held] = {}
    for name, _, held in million_steps.watched(20_000):
        before = first.setdefault(name, held)
        assert held.files <= before.files, name
        assert held.threads <= before.threads, name
        assert held.memory <= before.memory + 2 * million_steps.SLACK, name
    assert len(first) == len(million_steps.WAYS)
