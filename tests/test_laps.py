"""Laps: cycles by layer and part of a step. They change no bit, and are left out unless wanted."""

from __future__ import annotations

import platform
from contextlib import nullcontext, suppress
from itertools import pairwise

import numpy as np
import pytest

import fastnn
from fastnn import Adam, BatchNorm, Dense, Dropout, Network, ReLU, Sigmoid
from fastnn.backends.numba_backend.compiling.joining import joined
from fastnn.backends.numba_backend.epoch import laps as module
from fastnn.backends.numba_backend.epoch import records, step
from fastnn.backends.numba_backend.epoch.laps import PARTS
from fastnn.backends.numba_backend.epoch.meetings import MOST_MEMBERS
from fastnn.backends.numba_backend.epoch.program import Program
from fastnn.bench import limits
from fastnn.paths import CompiledPath

pytestmark = pytest.mark.skipif(
    "numba" not in fastnn.available_backends(), reason="the compiled epoch is Numba's"
)

NETWORKS = {
    "sparse": ([70, 65, 70, 10], {}, 0.2, 32),
    "dense": ([70, 40, 3], {}, 1.0, 64),
    "wide": ([30, 70, 40], {}, 1.0, 128),
    "few": ([30, 20, 10], {}, 1.0, 2),
    "one": ([30, 20, 10], {}, 1.0, 1),
    "Adam": ([30, 20, 10], {"optimizer": Adam()}, 1.0, 16),
    "pairs": ([70, 40, 10], {"matmul_precision": "bfloat16"}, 1.0, 32),
    "rounded": ([70, 40, 10], {"matmul_precision": "bfloat16"}, 0.1, 32),
    "clipped": ([30, 20, 10], {"clip_norm": 0.1}, 1.0, 8),
}
"""Units, options, share of non-zeros, batch size."""


def expected(program: Program) -> set[tuple[int, str]]:
    """Return layers and their parts that a step on one thread has, as the table says."""
    layers = program.training.layers
    found = {(0, "load"), (0, "rest"), (len(layers) - 1, "loss")}
    if program.training.shared[0]["clip"]:
        found.add((0, "optimizer"))
    for number, layer in enumerate(layers):
        names = {"forward", "activation", "biases"}
        if number > 0 or layer["round_weights"]:
            names.add("prepare")
        if layer["mask_gradient"]:
            names.add("mask")
        by = layer["gradient_by"]
        if by == records.WITH_UPDATE:
            names |= {"backward", "turn"} if layer["update_by"] == records.BY_UNIT else {"backward"}
        else:
            names.add("update")
            if by != records.NO_GRADIENT:
                names.add("input gradient")
            if by == records.BY_COLUMNS:
                names.add("turn")
            if by == records.BY_ROWS or (by == records.BY_COLUMNS and layer["mask_inputs"]):
                names.add("mask")
        if layer["move"]:
            names.add("optimizer")
        if layer["first_stage"] != layer["stop_stage"]:
            names.add("stages")
        found |= {(number, name) for name in names}
    return found


def network(units, dtype, stages=False, **options) -> Network:
    layers: list[fastnn.Layer] = []
    for inputs, outputs in pairwise(units):
        layers += [Dense(inputs, outputs), ReLU()]
        if stages:
            layers += [BatchNorm(outputs), Sigmoid(), Dropout(0.1)]
    return Network(layers[:-4] if stages else layers[:-1], seed=0, dtype=dtype, **options)


def trained(made: Network, X, y, batch_size, counted, threads=1):
    """Train an epoch; return all parameters, the cycles of each thread, and what is `expected`."""
    with made._programs.for_training(made, X, batch_size, False) as program:
        path = CompiledPath(made, X, y, program, threads)
        laps = program.counting_laps() if counted else nullcontext(())
        path.start()
        with laps as found:
            path.train(np.arange(len(X)))
        members, parts = program.members(threads), expected(program)
    return made._parameters.vector.copy(), [of.cycles for of in found[:members]], parts


def samples(units, density, dtype, rng):
    X = rng.normal(size=(200, units[0])).astype(dtype)
    X[rng.random(X.shape) >= density] = 0
    return X, rng.integers(0, units[-1], 200)


def names(cycles: np.ndarray) -> set[tuple[int, str]]:
    """Return layers and their parts that took any time."""
    return {(int(layer), PARTS[part]) for layer, part in zip(*np.nonzero(cycles), strict=True)}


def counted_as_expected(cycles: np.ndarray, parts: set[tuple[int, str]]) -> bool:
    """Say whether just these parts took time; a clock of nanoseconds may not see the shortest."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return names(cycles) <= parts
    return names(cycles) == parts


@pytest.mark.parametrize("name", NETWORKS)
def test_laps_change_no_bit(name, dtype, rng):
    units, options, density, batch_size = NETWORKS[name]
    if "matmul_precision" in options and dtype != np.float32:
        pytest.skip("bfloat16 is rounded from float32")
    X, y = samples(units, density, dtype, rng)
    plain, nothing, _ = trained(network(units, dtype, **options), X, y, batch_size, False)
    counted, (cycles,), parts = trained(network(units, dtype, **options), X, y, batch_size, True)
    assert plain.tobytes() == counted.tobytes()
    assert nothing == []
    assert (cycles >= 0).all()
    assert counted_as_expected(cycles, parts)


def test_networks_have_every_part(rng):
    """But stages, and what members of a team tell each other: these are seen below."""
    found = set()
    for units, options, density, batch_size in NETWORKS.values():
        X, y = samples(units, density, np.float32, rng)
        *_, parts = trained(network(units, np.float32, **options), X, y, batch_size, False)
        found |= {name for _, name in parts}
    assert found == {*PARTS} - {"stages", "meeting"}


def test_stages_have_laps_of_their_own(rng):
    units = [30, 20, 10]
    X, y = samples(units, 1.0, np.float32, rng)
    plain, *_ = trained(network(units, np.float32, stages=True), X, y, 16, False)
    counted, (cycles,), parts = trained(network(units, np.float32, stages=True), X, y, 16, True)
    assert plain.tobytes() == counted.tobytes()
    assert counted_as_expected(cycles, parts)
    assert {layer for layer, name in parts if name == "stages"} == {0}


def test_each_member_of_a_team_counts(rng):
    units = [300, 200, 10]
    X, y = samples(units, 1.0, np.float32, rng)
    plain, *_ = trained(network(units, np.float32), X, y, 16, False)
    counted, cycles, parts = trained(network(units, np.float32), X, y, 16, True, threads=2)
    assert plain.tobytes() == counted.tobytes()
    assert len(cycles) == 2
    assert (0, "meeting") in names(cycles[0]) - parts


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
    _, (cycles,), _ = trained(made, X, y, 32, True)
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
