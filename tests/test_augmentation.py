"""Images moved at random: where each pixel goes, and what a network is trained on."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastnn
from fastnn import augmentation


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return images moved pixel by pixel."""
    _, height, width = images.shape
    result = np.zeros_like(images)
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                result[:, i, j] = images[:, i - down, j - right]
    return result


@pytest.mark.parametrize("chunk_bytes", [1, 200, 1 << 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize(("pixels", "height", "width"), [(1, 4, 5), (2, 5, 3), (3, 4, 4)])
def test_each_image_is_moved_and_all_moves_occur(
    pixels, height, width, dtype, chunk_bytes, rng, monkeypatch
):
    monkeypatch.setattr(augmentation, "_CHUNK_BYTES", chunk_bytes)
    images = rng.integers(1, 256, (1000, height, width)).astype(dtype)  # no zero but at the edges
    before = images.copy()
    found = fastnn.random_shift(images, pixels, rng=rng)
    assert found.dtype == dtype
    assert found.shape == images.shape
    np.testing.assert_array_equal(images, before)
    moves = list(product(range(-pixels, pixels + 1), repeat=2))
    same = np.array([(moved(images, *move) == found).all(axis=(1, 2)) for move in moves])
    assert (same.sum(axis=0) == 1).all()
    counts, expected = same.sum(axis=1), len(images) / len(moves)
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_rows_of_pixels_are_square_images(rng):
    images = rng.random((50, 6, 6))
    found = fastnn.random_shift(images, 2, rng=np.random.default_rng(3))
    rows = fastnn.random_shift(images.reshape(50, 36), 2, rng=np.random.default_rng(3))
    assert rows.shape == (50, 36)
    np.testing.assert_array_equal(rows.reshape(found.shape), found)


def test_the_generator_decides():
    images = np.ones((100, 5, 5))
    rng = np.random.default_rng(7)
    first, second = (fastnn.random_shift(images, rng=rng) for _ in range(2))
    again = fastnn.random_shift(images, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(fastnn.random_shift(images), fastnn.random_shift(images))


def test_a_network_trains_on_other_images_in_each_epoch(digits):
    X, y, *_ = digits
    X, y = X[:300], y[:300]

    def network():
        layers = [fastnn.Dense(784, 20), fastnn.ReLU(), fastnn.Dense(20, 10)]
        return fastnn.Network(layers, seed=0)

    rng = np.random.default_rng(1)

    def epoch():
        yield fastnn.random_shift(X, rng=rng), y

    streamed, by_hand = network(), network()
    history = streamed.fit_blocks(epoch, epochs=3, shuffle=False)
    rng = np.random.default_rng(1)
    for number in range(3):
        shifted = fastnn.random_shift(X, rng=rng)
        assert by_hand.fit(shifted, y, shuffle=False).loss == [history.loss[number]]
    for ours, theirs in zip(streamed.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("images", "pixels", "message"),
    [
        (np.ones((3, 5)), 1, r"images: expected .* square images, got \(3, 5\)"),
        (np.ones(4), 1, "images: expected shape"),
        (np.ones((2, 3, 4, 1)), 1, "images: expected shape"),
        (np.ones((2, 3, 4)), 3, "pixels: expected less than height and width .*, 3 and 4, got 3"),
        (np.ones((0, 3, 4)), 1, "images: expected at least one number"),
    ],
)
def test_what_can_not_be_moved_is_refused(images, pixels, message):
    with pytest.raises(ValueError, match=message):
        fastnn.random_shift(images, pixels)
