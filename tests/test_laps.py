"""Laps: cycles by layer and part of a step. They change no bit, and are left out unless wanted."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from itertools import pairwise

import numpy as np
import pytest

import fastnn
from fastnn import Adam, BatchNorm, Dense, Dropout, Network, ReLU, Sigmoid
from fastnn.backends.numba_backend.compiling.joining import joined
from fastnn.backends.numba_backend.epoch import laps as module
from fastnn.backends.numba_backend.epoch import step
from fastnn.backends.numba_backend.epoch.laps import PARTS
from fastnn.backends.numba_backend.epoch.meetings import MOST_MEMBERS
from fastnn.bench import limits
from fastnn.paths import CompiledPath

pytestmark = pytest.mark.skipif(
    "numba" not in fastnn.available_backends(), reason="the compiled epoch is Numba's"
)

PLAIN = {"load", "forward", "activation", "loss", "biases", "rest"}

NETWORKS = {
    "sparse": ([70, 65, 10], {}, 0.2, 32, PLAIN | {"prepare", "backward", "turn", "update"}),
    "dense": ([70, 40, 10], {}, 1.0, 64, PLAIN | {"prepare", "backward", "turn", "update"}),
    "wide": ([30, 70, 40], {}, 1.0, 128, PLAIN | {"input gradient", "mask", "turn", "update"}),
    "few": ([30, 20, 10], {}, 1.0, 2, PLAIN | {"input gradient", "mask", "prepare", "update"}),
    "one": ([30, 20, 10], {}, 1.0, 1, PLAIN | {"input gradient", "mask", "prepare", "update"}),
    "Adam": ([30, 20, 10], {"optimizer": Adam()}, 1.0, 16, PLAIN | {"update", "optimizer"}),
    "pairs": ([70, 40, 10], {"matmul_precision": "bfloat16"}, 1.0, 32, PLAIN | {"update"}),
    "clipped": ([30, 20, 10], {"clip_norm": 0.1}, 1.0, 8, PLAIN | {"update", "optimizer"}),
}
"""Units, options, share of non-zeros, batch size, and some parts that are there."""


def network(units, dtype, stages=False, **options) -> Network:
    layers: list[fastnn.Layer] = []
    for inputs, outputs in pairwise(units):
        layers += [Dense(inputs, outputs), ReLU()]
        if stages:
            layers += [BatchNorm(outputs), Sigmoid(), Dropout(0.1)]
    return Network(layers[:-4] if stages else layers[:-1], seed=0, dtype=dtype, **options)


def trained(made: Network, X, y, batch_size, counted, threads=1):
    """Train an epoch; return all parameters, and the cycles of each thread."""
    with made._programs.for_training(made, X, batch_size, False) as program:
        path = CompiledPath(made, X, y, program, threads)
        laps = program.counting_laps() if counted else nullcontext(())
        path.start()
        with laps as found:
            path.train(np.arange(len(X)))
        members = program.members(threads)
    return made._parameters.vector.copy(), [of.cycles for of in found[:members]]


def samples(units, density, dtype, rng):
    X = rng.normal(size=(200, units[0])).astype(dtype)
    X[rng.random(X.shape) >= density] = 0
    return X, rng.integers(0, units[-1], 200)


def names(cycles: np.ndarray) -> set[str]:
    return {PARTS[part] for part in np.nonzero(cycles.sum(axis=0))[0]}


@pytest.mark.parametrize("name", NETWORKS)
def test_laps_change_no_bit(name, dtype, rng):
    units, options, density, batch_size, expected = NETWORKS[name]
    if name == "pairs" and dtype != np.float32:
        pytest.skip("bfloat16 is rounded from float32")
    X, y = samples(units, density, dtype, rng)
    plain, nothing = trained(network(units, dtype, **options), X, y, batch_size, False)
    counted, (cycles,) = trained(network(units, dtype, **options), X, y, batch_size, True)
    assert plain.tobytes() == counted.tobytes()
    assert nothing == []
    assert (cycles >= 0).all()
    # which parts there are depends on the lanes too
    assert len(expected - names(cycles)) <= 3
    assert names(cycles) >= PLAIN


def test_stages_have_laps_of_their_own(rng):
    units = [30, 20, 10]
    X, y = samples(units, 1.0, np.float32, rng)
    plain, _ = trained(network(units, np.float32, stages=True), X, y, 16, False)
    counted, (cycles,) = trained(network(units, np.float32, stages=True), X, y, 16, True)
    assert plain.tobytes() == counted.tobytes()
    stages = cycles[:, PARTS.index("stages")]
    assert stages[0] > 0
    assert stages[-1] == 0


def test_each_member_of_a_team_counts(rng):
    units = [300, 200, 10]
    X, y = samples(units, 1.0, np.float32, rng)
    plain, _ = trained(network(units, np.float32), X, y, 16, False)
    counted, cycles = trained(network(units, np.float32), X, y, 16, True, threads=2)
    assert plain.tobytes() == counted.tobytes()
    assert len(cycles) == 2
    assert "meeting" in names(cycles[0])


def test_no_lap_is_counted_when_that_has_ended(rng):
    """Whatever has ended it."""
    X, y = samples([30, 10], 1.0, np.float32, rng)
    made = network([30, 10], np.float32)
    with made._programs.for_training(made, X, 16, False) as program:
        path = CompiledPath(made, X, y, program, 1)
        with suppress(RuntimeError), program.counting_laps() as laps:
            raise RuntimeError
        path.start()
        path.train(np.arange(len(X)))
        assert len(laps) == MOST_MEMBERS
        assert not any(of.cycles.any() for of in laps)


def test_laps_make_up_the_whole(rng):
    """From one look at the counter to the next everything belongs to one lap, and to no other."""
    units = [70, 65, 10]
    X, y = samples(units, 1.0, np.float32, rng)
    said = np.zeros(2, np.int64)
    counter = limits._called("counter", np.dtype(np.float32))
    made = network(units, np.float32)
    trained(made, X, y, 32, True)  # all is compiled then
    counter(said.ctypes.data, 0, 0)
    _, (cycles,) = trained(made, X, y, 32, True)
    counter(said.ctypes.data + 8, 0, 0)
    assert 0 < cycles.sum() <= said[1] - said[0]


def test_nothing_of_them_is_left_where_they_are_none():
    given = {"team": None, "laps": None}
    code = joined(step.run_batches.function, given).__code__
    used = {*code.co_names, *code.co_varnames}
    assert not used & {"laps", "lap", "add_lap", "begin_lap"}
    counted = joined(step.run_batches.function, {"team": None}).__code__
    assert {"add_lap", "begin_lap"} <= set(counted.co_names)


def test_every_part_has_a_number():
    numbers = {name: value for name, value in vars(module).items() if name.isupper()}
    assert [numbers[part.upper().replace(" ", "_")] for part in PARTS] == list(range(len(PARTS)))
