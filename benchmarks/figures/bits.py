"""A digit's pixels as sets of bits, and the bits of a batch by sample and by pixel."""

from __future__ import annotations

import numpy as np

import fastnn
from fastnn import plotting
from fastnn.plotting import BLUE, GREY

from . import INCHES

BATCH_SIZE = 32
WORD = 64
"""Bits of a word."""
DIGIT = 7
"""Place of the one that is shown in its batch."""


def words_of(lit):
    """Return rows of booleans as [..., words, bits of a word], filled up with unset ones."""
    missing = -lit.shape[-1] % WORD
    padding = [(0, 0)] * (lit.ndim - 1) + [(0, missing)]
    return np.pad(lit, padding).reshape(*lit.shape[:-1], -1, WORD)


def draw():
    """Return the figure."""
    X, *_ = fastnn.load_dataset(dtype=np.float32)
    batch = X[:BATCH_SIZE]
    lit = batch.reshape(BATCH_SIZE, -1) != 0
    words = words_of(lit)
    chosen = int(words[DIGIT].sum(axis=1).argmax())
    figure = plotting.new_figure((INCHES, 8.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["pixels", "bits"], ["words", "words"], ["by sample", "by pixel"]],
        height_ratios=[1, 0.95, 1.15],
    )
    axes["pixels"].imshow(batch[DIGIT], cmap="gray_r")
    axes["pixels"].set_title("28 × 28 pixels", fontsize="medium")
    axes["bits"].set_title("28 × 28 bits", fontsize="medium")
    _bits(axes["bits"], lit[DIGIT].reshape(batch.shape[1:]))
    _bits(axes["words"], words[DIGIT], aspect="auto")
    visits, looked = int(lit[DIGIT].sum()), lit.shape[1]
    axes["words"].set_title(
        f"in {len(words[DIGIT])} words of {WORD} bits: {visits} visits in place of {looked}",
        fontsize="medium",
    )
    for place, word in enumerate(words[DIGIT]):
        axes["words"].text(WORD, place, f"{word.sum()}", va="center", fontsize="small", color=GREY)
    axes["words"].set_ylabel("word")
    axes["words"].set_yticks(range(0, len(words[DIGIT]), 4))
    axes["words"].set_xticks([0, 16, 32, 48, 63])
    of_batch = words[:, chosen]
    for name, bits, across, down in (
        ("by sample", of_batch, "pixel", "sample"),
        ("by pixel", of_batch.T, "sample", "pixel"),
    ):
        _bits(axes[name], bits, aspect="auto")
        axes[name].set_title(f"word {chosen}, {name}", fontsize="medium")
        axes[name].set_xlabel(across)
        axes[name].set_ylabel(down)
        axes[name].set_xticks([0, bits.shape[1] - 1])
        axes[name].set_yticks([0, bits.shape[0] - 1])
    for name in ("pixels", "bits"):
        axes[name].set_xticks([])
        axes[name].set_yticks([])
    return figure


def _bits(axes, bits, **options) -> None:
    from matplotlib.colors import ListedColormap

    axes.imshow(bits, cmap=ListedColormap(["#eef2f6", BLUE]), vmin=0, vmax=1,
                interpolation="nearest", **options)  # fmt: skip
