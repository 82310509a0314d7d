"""Pictures of digits, and what becomes of them."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from drawing import as_file, drawn, photo

import fastnn
from fastnn import images, prediction

pytest.importorskip("PIL")

COLOUR = {"dark": (0.1, 0.1, 0.4), "light": (1.0, 0.9, 0.8)}


def transparent(ink, shade: str):
    pixels = np.empty((*ink.shape, 4))
    pixels[..., :3], pixels[..., 3] = COLOUR[shade], ink
    return as_file(pixels)


PICTURES = {
    "dark on light": lambda d, _: as_file(1 - drawn(d)),
    "light on dark": lambda d, _: as_file(drawn(d)),
    "bold": lambda d, _: as_file(1 - drawn(d, pen=26)),
    "hairline": lambda d, _: as_file(1 - drawn(d, pen=1)),
    "faint": lambda d, _: as_file(0.8 - 0.1 * drawn(d)),
    "in a corner": lambda d, _: as_file(1 - drawn(d, height=90, middle=(50, 260), pen=8)),
    "filling its picture": lambda d, _: as_file(
        1 - drawn(d, size=(170, 240), height=218, middle=(85, 120), pen=20)
    ),
    "tiny": lambda d, _: as_file(1 - drawn(d, size=(30, 36), height=24, middle=(14, 17), pen=2)),
    "large": lambda d, _: as_file(
        1 - drawn(d, size=(1300, 1000), height=500, middle=(900, 400), pen=40)
    ),
    "photo": lambda d, rng: photo(drawn(d), rng),
    "noisy photo": lambda d, rng: photo(drawn(d), rng, noise=0.12),
    "transparent, dark": lambda d, _: transparent(drawn(d), "dark"),
    "transparent, light": lambda d, _: transparent(drawn(d), "light"),
}


@pytest.mark.parametrize(("number", "kind"), list(enumerate(PICTURES)))
def test_drawn_digits_are_read(number, kind, reader, rng):
    """They lie where MNIST has them, and a network takes them for what they are."""
    digits = range(number % 2, 10, 2)
    X = np.stack([images.read(PICTURES[kind](digit, rng)) for digit in digits])
    middles = np.arange(28) + 0.5
    for pixels in X:
        assert pixels.shape == (28, 28)
        assert pixels.min() == 0.0
        assert pixels.max() == 1.0
        for axis in (0, 1):
            # MNIST's own centres of mass lie there, counted from the edge of the image
            centre = pixels.sum(axis=1 - axis) @ middles / pixels.sum()
            assert 14 - 0.05 <= centre <= 15 + 0.05
        sides = [np.ptp(np.flatnonzero(pixels.any(axis=axis))) + 1 for axis in (0, 1)]
        assert max(sides) == 20
    assert reader.predict(X.reshape(len(X), -1)).tolist() == list(digits)


def test_mnist_stays_what_it_is():
    X, *_ = fastnn.load_dataset()
    for image in X[:300]:
        # images of MNIST whose largest pixel is not 255 are stretched by 1 or 2 of 255
        np.testing.assert_allclose(images.centred(image), image, rtol=0, atol=2.1 / 255)


@pytest.mark.parametrize("factor", [3, 10])
def test_enlarged_digits_come_back(factor):
    X, *_ = fastnn.load_dataset()
    for image in X[:20]:
        enlarged = np.kron(image, np.ones((factor, factor)))
        np.testing.assert_allclose(images.centred(enlarged), image, rtol=0, atol=2.1 / 255)


def test_clean_ink_stays_what_it_is():
    ink = drawn(5)
    np.testing.assert_allclose(images.ink(ink), ink, rtol=0, atol=1e-9)
    np.testing.assert_allclose(images.ink(1 - ink), ink, rtol=0, atol=1e-9)
    np.testing.assert_allclose(images.ink(0.9 - 0.4 * ink), ink, rtol=0, atol=1e-9)


def test_specks_are_left_out():
    ink = drawn(3)
    dirty = ink.copy()
    dirty[10:13, 230:233] = dirty[310:314, 5:9] = 1
    np.testing.assert_allclose(images.ink(1 - dirty), images.ink(1 - ink), rtol=0, atol=1e-9)
    # what is not small beside the rest belongs to the digit, as the bar of a 5 that stands apart
    dirty[20:50, 180:220] = 1
    np.testing.assert_allclose(images.ink(1 - dirty)[20:50, 180:220], 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel(mode):
    from PIL import Image

    ink = drawn(2)
    scale = {"I;16": 65535, "F": 1.0}.get(mode)
    if scale is None:
        picture = Image.fromarray(np.uint8(255 * (1 - ink))).convert(mode)
    else:
        dtype = np.float32 if mode == "F" else np.uint16
        picture = Image.fromarray((scale * (1 - ink)).astype(dtype))
        assert picture.mode == mode
    file = io.BytesIO()
    picture.save(file, "TIFF")
    file.seek(0)
    expected = images.centred(ink)
    tolerance = 0.5 if mode == "1" else 0.05  # black and white has dithered edges
    assert np.abs(images.read(file) - expected).max() < tolerance


def test_a_photo_is_turned_as_its_camera_says():
    from PIL import Image

    upright = as_file(1 - drawn(7))
    turned = Image.open(upright).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    file.seek(0)
    np.testing.assert_allclose(images.read(file), images.centred(drawn(7)), rtol=0, atol=0.02)


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_an_empty_picture_is_refused(grey, tmp_path, rng):
    for name, pixels in {
        "empty.png": np.full((50, 70), grey),
        "one.png": np.full((1, 1), grey),
        "line.png": np.full((1, 90), grey),
        "noise.png": grey + 0.03 * rng.normal(size=(200, 300)),
        "faint.png": 0.98 * grey + 0.02 * drawn(4),
    }.items():
        (tmp_path / name).write_bytes(as_file(pixels).getvalue())
        with pytest.raises(ValueError, match=f"{name}: expected a picture of a drawn digit"):
            images.read(tmp_path / name)
    with pytest.raises(ValueError, match="no stroke"):
        images.centred(np.zeros((9, 9)))


def test_what_is_no_picture_is_refused(tmp_path):
    path = tmp_path / "x.png"
    for content in (b"", b"no picture", as_file(drawn(1)).getvalue()[:60]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x.png: expected a (whole )?picture"):
            images.read(path)
    path.write_bytes(as_file(1 - drawn(1)).getvalue()[:500])
    with pytest.raises(ValueError, match=r"x.png: expected a whole picture, got .*truncated"):
        images.read(path)
    with pytest.raises(FileNotFoundError, match=r"missing.png"):
        images.read(tmp_path / "missing.png")


def test_a_missing_pillow_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        images.read("x.png")


def test_pictures_as_a_network_takes_them():
    files = [as_file(1 - drawn(digit)) for digit in (3, 8)]
    layers = [fastnn.Dropout(0.2), fastnn.Dense(784, 10)]
    X = prediction.of_pictures(fastnn.Network(layers), files)
    assert X.shape == (2, 784)
    assert X.max() == 1.0
    layers = [fastnn.Rescaling(1 / 255), fastnn.Dense(784, 10)]
    for file in files:
        file.seek(0)
    np.testing.assert_array_equal(prediction.of_pictures(fastnn.Network(layers), files), 255 * X)
    with pytest.raises(ValueError, match=r"expected a network of 784 inputs.*got one of 64"):
        prediction.of_pictures(fastnn.Network([fastnn.Dense(64, 10)]), files)


def test_csv_rows():
    network = fastnn.Network([fastnn.Dense(3, 2)])
    lines = ["a,b,c\n", "1,2.5,-3e1\n", "\n", '" 4",5,6\n']
    np.testing.assert_array_equal(
        prediction.of_csv(network, lines, "x.csv"), [[1, 2.5, -30], [4, 5, 6]]
    )
    for wrong, message in {
        "1,2\n": "x.csv, line 2: expected 3 columns, got 2",
        "1,2,x\n": "x.csv, line 2: expected finite numbers, got 'x' in column 3",
        "1,nan,2\n": "x.csv, line 2: expected finite numbers, got 'nan' in column 2",
        "a,b,c\n": "x.csv, line 2: expected finite numbers, got 'a' in column 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            prediction.of_csv(network, ["1,2,3\n", wrong], "x.csv")
    for nothing in ([], ["\n"], ["a,b,c\n"]):
        with pytest.raises(ValueError, match=r"x.csv: expected at least one row of numbers"):
            prediction.of_csv(network, nothing, "x.csv")
    anything = fastnn.Network([fastnn.ReLU()])
    assert prediction.of_csv(anything, ["1,2\n"], "x.csv").shape == (1, 2)
    marked = prediction.of_csv(anything, ["\ufeff1.5,2\n", "3,4\n"], "x.csv")
    np.testing.assert_array_equal(marked, [[1.5, 2], [3, 4]])


PROBABILITIES = np.array([[0.25, 0.75], [0.99996, 0.00004]])


def test_answers_as_text():
    answers = prediction.Answers(
        "picture", ["a.png", "longer.png"], "answer", ["1", "0"], ["0", "1"], PROBABILITIES
    )
    assert answers.as_text().splitlines() == [
        "            answer       0       1",
        "a.png            1  0.2500  0.7500",
        "longer.png       0  1.0000  0.0000",
    ]
    answers = prediction.Answers.of_rows("price", [1234567.25, 0.5])
    assert answers.as_text().splitlines() == [
        "             price",
        "row 1  1.23457e+06",
        "row 2          0.5",
    ]


def test_answers_as_csv():
    answers = prediction.Answers.of_rows("kind", ["b", "a,c"], ["a,c", "b"], PROBABILITIES)
    assert answers.as_csv({"id": ["007", '8"'], "kind": ["?", "?"]}).splitlines() == [
        'row,id,kind,"probability_a,c",probability_b',
        "1,007,b,0.25,0.75",
        '2,"8""","a,c",0.99996,4e-05',
    ]
    assert answers.as_csv({"row": ["x", "y"]}).splitlines()[1:] == [
        "x,b,0.25,0.75",
        'y,"a,c",0.99996,4e-05',
    ]
    answers = prediction.Answers.of_rows("row", [1234567.25, 1 / 3])
    assert answers.as_csv({}) == "row\n1234567.25\n0.3333333333333333\n"
