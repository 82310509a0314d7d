"""The sheet of `fastnn show`."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from conftest import perceptron

import fastnn
from fastnn import sheet


@pytest.fixture
def some_images():
    X, y, *_ = fastnn.load_dataset(dtype=np.uint8)
    return X[:300], y[:300]


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def images_of(figure) -> list:
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_class_report():
    labels = [0, 0, 0, 1, 1, 2]
    report = sheet.class_report(labels, [0, 1, 1, 1, 0, 0], classes=4)
    np.testing.assert_array_equal(
        report.confusion, [[1, 2, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(report.mistakes.diagonal(), 0)
    assert report.mistakes.sum() == 4
    np.testing.assert_allclose(report.precision, [1 / 3, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(report.recall, [1 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(report.f1, [1 / 3, 2 / 5, 0, np.nan])


def test_class_report_as_scikit_learn_has_it(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, answers = rng.integers(5, size=(2, 200))
    report = sheet.class_report(labels, answers, 5)
    expected = metrics.precision_recall_fscore_support(labels, answers)
    for ours, theirs in zip((report.precision, report.recall, report.f1), expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(report.confusion, metrics.confusion_matrix(labels, answers))


@pytest.mark.parametrize(
    ("labels", "answers", "message"),
    [
        ([0, 3], [0, 1], "labels: expected class ids from 0 to 2, got 3"),
        ([0, 1], [0, -1], "answers: expected class ids from 0 to 2, got -1"),
        ([0, 1], [0], "answers: expected 2 class ids, one a row, got 1"),
        ([], [], "labels: expected at least one number"),
    ],
)
def test_class_report_of_what_is_no_class(labels, answers, message):
    with pytest.raises(ValueError, match=message):
        sheet.class_report(labels, answers, 3)


def test_worst_mistakes():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.01, 0.99]])
    labels = np.array([1, 0, 1, 0, 0])
    assert sheet.worst_mistakes(labels, p, 5).tolist() == [4, 0, 1]
    assert sheet.worst_mistakes(labels, p, 2).tolist() == [4, 0]


@pytest.mark.parametrize(("backend", "scaled"), [("numba", True), ("numpy", False)])
def test_sheet(some_images, backend, scaled, tmp_path):
    pytest.importorskip("matplotlib")
    X, y = some_images
    layers = [fastnn.Dense(784, 70), fastnn.ReLU(), fastnn.Dense(70, 10)]
    if not scaled:
        layers.insert(0, fastnn.Rescaling(1 / 255))
    network = fastnn.Network(layers, seed=0, backend=backend)
    rows = X.reshape(-1, 784) / np.float32(255) if scaled else X.reshape(-1, 784)
    network.fit(rows[:150], y[:150], epochs=5)
    figure = sheet.draw(network, X, y, tmp_path / "sheet.png", "m.safetensors")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    shown = texts(figure)
    assert f"m.safetensors: {network.evaluate(rows, y).accuracy:.2%} of 300 images right" in shown
    for heading in ("Confusion", "Classes", "Worst mistakes", "Weights of the first layer"):
        assert heading in shown
    probabilities = network.predict_proba(rows)
    answers = probabilities.argmax(axis=1)
    report = sheet.class_report(y, answers, 10)
    for recall in report.recall:
        assert f"{recall:.4f}" in shown
    confusion, *pictures = images_of(figure)
    np.testing.assert_allclose(confusion, np.sqrt(report.mistakes))
    worst = sheet.worst_mistakes(y, probabilities, sheet.MISTAKES)
    assert len(worst) == sheet.MISTAKES
    for picture, place in zip(pictures, worst, strict=False):
        np.testing.assert_array_equal(picture, X[place])
    first = worst[0]
    assert f"{y[first]} → {answers[first]}  {probabilities[first].max():.0%}" in shown
    weights = network[0 if scaled else 1].weights
    norms = np.linalg.norm(weights, axis=0)
    strongest = set(np.argsort(norms)[-sheet.UNITS :])
    drawn = pictures[sheet.MISTAKES :]
    assert len(drawn) == sheet.UNITS
    for picture, unit in zip(drawn, sorted(strongest), strict=True):
        np.testing.assert_array_equal(picture.ravel(), weights[:, unit])
    assert_nothing_overlaps_and_nothing_is_cut_off(figure)


def assert_nothing_overlaps_and_nothing_is_cut_off(figure) -> None:
    figure.canvas.draw()
    page = figure.bbox
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
        for other in boxes[:i]:
            overlap = box.intersection(box, other)
            # labels of neighbours may share a pixel
            assert overlap is None or math.prod(overlap.size) < 10


def test_sheet_without_mistakes_or_weights(some_images):
    pytest.importorskip("matplotlib")
    X, y = some_images
    network = perceptron(784, 10, seed=0)
    right = network.predict(X.reshape(-1, 784) / np.float32(255)) == y
    figure = sheet.draw(network, X[right], y[right], None)
    assert "None: every answer is right" in texts(figure)
    assert "100.00%" in " ".join(texts(figure))
    classes = fastnn.Network([fastnn.ReLU()])
    figure = sheet.draw(classes, X[:20, :3, :4], y[:20], None)
    assert any(text.startswith("0 units") for text in texts(figure))


def test_what_can_not_be_drawn_is_refused(some_images, monkeypatch):
    pytest.importorskip("matplotlib")
    X, y = some_images
    with pytest.raises(ValueError, match=r"expected images of 64 pixels.*got images of 28 by 28"):
        sheet.draw(perceptron(64, 10), X, y, None)
    with pytest.raises(ValueError, match=r"labels: expected class ids from 0 to 2"):
        sheet.draw(perceptron(784, 3), X, y, None)
    with pytest.raises(TypeError, match=r"expected a network with the loss"):
        sheet.draw(fastnn.Network([fastnn.Dense(784, 10)], loss="mse"), X, y, None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        sheet.draw(perceptron(784, 10), X, y, None)
