"""Small programs that are handed on from one network to another of its kind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import bits, perceptron

import fastnn
from fastnn import paths
from fastnn.backends.numba_backend.epoch.program import Program

NETWORKS = {
    "plain": {},
    "float64": {"dtype": "f8"},
    "bfloat16": {"matmul_precision": "bfloat16"},
    "clipped": {"clip_norm": 0.1},
    "another loss": {"loss": "mse"},
    "smoothed": {"loss": fastnn.SoftmaxCrossEntropy(label_smoothing=0.1)},
    "Adam": {"optimizer": "adam"},
}
FITS = {
    "plain": {},
    "other batches": {"batch_size": 9},
    "weighted": {"sample_weight": np.arange(50) % 3},
    "on two threads": {"threads": 2},
}


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """An empty list of idle programs; for other tests it stays so."""
    monkeypatch.setattr(paths, "IDLE_BYTES", 1 << 18)
    monkeypatch.setattr(paths, "_idle", paths._IdlePrograms())
    return paths._idle._programs


@pytest.fixture
def made(monkeypatch):
    """A list that gets each program that is made."""
    found = []
    make = Program.__init__

    def noting(program, *args, **kwargs):
        found.append(program)
        make(program, *args, **kwargs)

    monkeypatch.setattr(Program, "__init__", noting)
    return found


def samples(dtype="f4"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 6)).astype(dtype), rng.integers(0, 3, 50)


def trained(seed=0, rate=0.1, network=None, units=8, **options):
    X, y = samples()
    network = network or {}
    learning = {} if "optimizer" in network else {"learning_rate": rate}
    new = perceptron(6, units, 3, backend="numba", seed=seed, **learning, **network)
    new.fit(X, y, **{"epochs": 3, "batch_size": 8} | options)
    return bits(new)


def test_the_next_network_of_its_kind_takes_it_over(idle, made):
    alone = [trained(seed, rate) for seed, rate in ((0, 0.1), (1, 0.5)) if not idle.clear()]
    assert len(made) == 2
    idle.clear()
    made.clear()
    assert [trained(0, 0.1), trained(1, 0.5)] == alone
    assert len(made) == 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("network", NETWORKS)
def test_others_have_their_own(idle, network, fit):
    """Whatever is left by networks of other kinds, the bits are those of one that is alone."""
    options = {"network": NETWORKS[network], **FITS[fit]}
    alone = trained(**options)
    idle.clear()
    for other in NETWORKS.values():
        for way in FITS.values():
            trained(network=other, **way)
    trained(units=9)
    assert trained(**options) == alone
    kinds = [kind for kind, _ in idle]
    assert len(set(kinds)) == len(kinds) == paths.IDLE_PROGRAMS  # of 27, those used last


def test_a_layer_that_was_changed(idle, made):
    """What is handed on is found by the layers that it was left with."""
    X, y = samples()
    network = perceptron(6, 8, 3, backend="numba", seed=0)
    network.fit(X, y)
    network[0]._l2 = 0.1
    network.fit(X, y)
    del network
    made.clear()
    trained(batch_size=32)
    assert len(made) == 1


def test_a_network_keeps_its_own(made):
    X, y = samples()
    networks = [perceptron(6, units, 3, backend="numba") for units in range(1, 30)]
    for _ in range(2):
        for network in networks:
            network.fit(X, y)
    assert len(made) == len(networks)


def test_nobody_has_use_for_the_keys_of_dropout(idle):
    X, y = samples()
    network = perceptron(6, 8, 3, backend="numba")
    network.add(fastnn.Dropout(0.5))
    network.fit(X, y)
    del network
    assert not idle


def test_kernels_for_other_samples(idle, made):
    """Samples with many zeros are multiplied by other kernels."""
    X, y = samples()
    for inputs in (X, X * (np.arange(6) == 0)):
        perceptron(6, 8, 3, backend="numba").fit(inputs, y)
    assert len(made) == len(idle) == 2


def test_large_ones_stay_with_their_network(idle, made):
    X = np.zeros((600, 300), np.float32)
    network = perceptron(300, 200, 3, backend="numba")
    for _ in range(2):
        network.fit(X, np.arange(600) % 3, batch_size=600)
    assert not idle
    assert len(made) == 1


def test_many_threads(idle):
    alone = [trained(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(trained, range(40))) == alone


def test_not_after_an_exception(idle):
    X, y = samples()

    def interrupted(network, history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perceptron(6, 8, 3, backend="numba").fit(X, y, callbacks=interrupted)
    assert not idle


def test_all_networks_together_keep_no_more_than_there_is_room_for(made, monkeypatch):
    X, y = np.zeros((600, 300), np.float32), np.arange(600) % 3
    networks = [perceptron(300, 200, 3, backend="numba") for _ in range(3)]

    def fitted(number):
        made.clear()
        networks[number].fit(X, y, batch_size=600)
        return len(made)

    assert [fitted(number) for number in (0, 1, 2, 0, 1, 2)] == [1, 1, 1, 0, 0, 0]
    nbytes = networks[0]._programs._training[1].workspace_bytes
    monkeypatch.setattr(paths, "KEPT_BYTES", 2 * nbytes)
    assert fitted(0) == 0  # and 1, trained longest ago, forgets
    assert [fitted(number) for number in (2, 0, 1)] == [0, 0, 1]
    assert [network._programs.keeps_none for network in networks] == [False, False, True]
    del networks[0]  # what is gone takes no room
    assert [fitted(number) for number in (1, 0, 1)] == [1, 0, 0]
