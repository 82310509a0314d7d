"""Networks drawn at random live the same life on both backends; `long_fuzz.py` goes on."""

from __future__ import annotations

import numpy as np
import pytest
import random_networks
from lives import Counts, compare
from random_networks import STEPS

SEED, NETWORKS, PARTS = 2026, 2000, 8


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
