"""Networks drawn at random live the same life on both backends; `long_fuzz.py` goes on."""

from __future__ import annotations

import numpy as np
import pytest
import random_networks
import rounding
from lives import Counts, compare
from random_networks import STEPS

pytestmark = pytest.mark.usefixtures("programs_handed_on")

SEED, NETWORKS, PARTS = 2026, 240, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_backends_agree(part):
    """Each part has as many networks, so that several processes can share the work."""
    counts = Counts()
    for number in range(part, NETWORKS, PARTS):
        plan, steps = random_networks.life([SEED, number])
        compare(plan, steps, counts)
    assert counts.networks == NETWORKS // PARTS
    assert counts.actions.keys() == STEPS.keys()
    # A comparison in which rounding explains everything, or a step that is refused, tells nothing.
    assert np.mean(np.array(counts.digits) < 2) < 0.15
    assert sum(counts.refused.values()) < 0.02 * counts.steps


def test_a_life_is_the_same_again():
    assert random_networks.life([SEED, 5]) == random_networks.life([SEED, 5])


@pytest.mark.parametrize("number", [554, 693, 3682, 5007, 6358])
def test_networks_that_parted(number):
    """A rate near the largest number, the smallest normal one, and terms that cancel exactly.

    Of 20,000 networks of a seed these did.
    """
    compare(*random_networks.life([13, number]))


@pytest.mark.parametrize("function", rounding.ENDING)
def test_where_kernels_end(function, dtype, numba_backend):
    """A network that rounds otherwise has a 0 where the kernels have one, and NumPy has not."""
    x = np.linspace(-1.1, -0.9, 401, dtype=dtype)[np.newaxis] * -np.log(np.finfo(dtype).tiny)
    x = x if function != "gelu" else -np.sqrt(-2 * x)
    arguments = (1.0,) if function == "elu" else ()
    backend = rounding.Rounding()
    for number, same in ((0, True), (1, False)):
        backend.manner = rounding.manner(number)
        backend.manner.rng = np.random.default_rng(0)
        differ = np.zeros(x.shape, bool)
        for name, operands in (
            ("elementwise_forward", (x,)), ("elementwise_backward", (x, np.ones_like(x)))
        ):  # fmt: skip
            expected = getattr(numba_backend, name)(function, *operands, *arguments)
            found = getattr(backend, name)(function, *operands, *arguments)
            assert found.dtype == dtype
            differ |= (expected == 0) != (found == 0)
        assert (np.count_nonzero(differ) <= 1) == same


def test_a_sum_that_cancels(dtype):
    """Two rows are mirror images behind a batch norm, where each operation is rounded once."""
    backend, gradients = rounding.Rounding(), []
    rng = np.random.default_rng(0)
    X, W = rng.normal(size=(2, 9)).astype(dtype), rng.normal(size=(9, 4)).astype(dtype)
    G = np.array([[1], [-1]], dtype) * rng.normal(size=4).astype(dtype)
    scale, shift = np.ones(4, dtype), np.zeros(4, dtype)
    for number in range(3):
        backend.manner = rounding.manner(number)
        Y, _, _ = backend.batch_norm_forward(backend.dense_forward(X, W, shift), scale, shift, 0.1)
        Z = backend.elementwise_forward("tanh", Y)
        through = backend.elementwise_backward("tanh", Z, G)
        gradients.append(np.empty_like(shift))
        backend.batch_norm_backward(Y, through, scale, 0.1, np.empty_like(shift), gradients[-1])
        assert Y.dtype == Z.dtype == through.dtype == dtype
    assert gradients[0].any()
    assert gradients[1].any()
    assert not gradients[2].any()
