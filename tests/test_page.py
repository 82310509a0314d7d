"""The page, in a real browser: what it computes, and what it does with a drawing."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import math
import os
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, perceptron
from drawing import strokes
from elementwise import ROWS

import fastnn
from fastnn import images, page
from fastnn.layers import BUILT_IN, Dense, Elementwise, Elsewhere

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAD = 280
"""The side of the pad, in its own pixels."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a Chromium of 1280 by 900 pixels."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for option in (*OPTIONS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(option)
    log = os.fspath(profile / "driver.log")
    service = webdriver.ChromeService(DRIVER, log_output=log)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens the page of a network, and returns the browser."""

    def show(network: fastnn.Network, width: int = 1280, height: int = 900):
        page.write(network, tmp_path / "page.html", "a </script> of <b>mine</b>")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((tmp_path / "page.html").as_uri())
        return browser

    yield show
    assert browser.get_log("browser") == []


def draw(browser, digit: int, kind: str = "mouse") -> None:
    """Draw a digit on the pad with a pointer."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.by import By

    pad = browser.find_element(By.ID, "pad")
    chain = ActionChains(browser, duration=0, devices=[PointerInput(kind, kind)])
    height = 0.7 * pad.size["width"]
    for stroke in strokes(digit, height, (0, 0)):
        pen = None
        for point in stroke:
            # the page is drawn anew at each of them, and those of arcs lie closer than they need to
            if pen and point != stroke[-1] and math.dist(pen, point) < height / 10:
                continue
            chain.move_to_element_with_offset(pad, *map(round, point))
            if pen is None:
                chain.click_and_hold()
            pen = point
        chain.release()
    chain.perform()


def array(browser, expression: str) -> np.ndarray:
    """Return an array of the page as float64; as text, which a driver is slow to hand over."""
    script = f"""
        const bytes = new Uint8Array(Float64Array.from({expression}).buffer);
        return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));"""
    return np.frombuffer(base64.b64decode(browser.execute_script(script)), "<f8")


def probabilities(browser, X: np.ndarray) -> np.ndarray:
    """Return what the page computes for pixels from 0 to 1."""
    script = "return arguments[0].map((x) => Array.from(softmax(forward(model, x).at(-1))))"
    return np.array(browser.execute_script(script, X.tolist()))


SAMPLES = {
    "Layer": fastnn.Layer,
    "Dense": lambda: fastnn.Dense(12, 12),
    "Dropout": lambda: fastnn.Dropout(0.5),
    "BatchNorm": lambda: fastnn.BatchNorm(12),
    **{type(row.layer).__name__: lambda row=row: row.layer for row in ROWS},
}
"""A layer of each kind that fastnn has, of 12 units where it has a width."""

IN_A_PAGE = [
    kind
    for kind in BUILT_IN
    if kind is not fastnn.Activation
    and (not issubclass(kind, Elementwise) or kind._elsewhere.javascript)
]
"""All but those for which the page has no formula, as functions in Python."""

PREDICTIONS = itertools.cycle([("numba", np.float32), ("numpy", np.float64)])
"""One for each layer: the page has the same numbers of both."""


@pytest.mark.parametrize(
    ("kind", "backend", "dtype"),
    [(kind, *next(PREDICTIONS)) for kind in IN_A_PAGE],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_layer_is_computed_as_in_prediction(kind, opened, backend, dtype, rng, digits):
    def sample():
        layer = copy.deepcopy(SAMPLES[kind.__name__]())
        assert type(layer) is kind
        return layer

    # inside a network, behind a dense layer; and behind a function, in which nothing can be folded
    first, last = fastnn.Dense(784, 12), fastnn.Dense(12, 10)
    network = fastnn.Network(
        [first, sample(), fastnn.Tanh(), sample(), last], backend=backend, dtype=dtype, seed=3
    )
    for layer in network:
        if isinstance(layer, fastnn.BatchNorm):
            layer.scale, layer.shift = rng.uniform(-2, 2, (2, 12))
            layer.running_mean, layer.running_variance = rng.uniform(0.1, 3, (2, 12))
    first.biases, last.biases = rng.normal(size=12), rng.normal(size=10)
    last.weights = 2 * rng.normal(size=(12, 10))
    X = np.concatenate([digits[0][:6], rng.uniform(size=(1, 784)), np.zeros((1, 784))])
    expected = network.predict_proba(X.astype(dtype))
    assert np.ptp(expected) > 0.3
    browser = opened(network)
    np.testing.assert_allclose(probabilities(browser, X), expected, rtol=0, atol=1e-5)


def test_activations_are_those_of_forward(opened, digits):
    network = fastnn.Network(
        [
            fastnn.Rescaling(1 / 255),
            fastnn.Dense(784, 30),
            fastnn.BatchNorm(30),
            fastnn.ReLU(),
            fastnn.Dropout(0.2),
            fastnn.Dense(30, 20),
            fastnn.Sigmoid(),
            fastnn.Dense(20, 10),
        ],
        seed=1,
    )
    X, y, _, _ = digits
    network.fit(np.rint(255 * X).astype(np.uint8), y, epochs=3)
    browser = opened(network)
    draw(browser, 5)
    stages = browser.execute_script(
        "return stages.map((s) => [s.layers, Array.from(state.outputs[s.last])])"
    )
    assert [names for names, _ in stages] == [
        ["Dense", "BatchNorm", "ReLU"],
        ["Dense", "Sigmoid"],
        ["Dense"],
    ]
    activations = network.forward(255 * array(browser, "state.pixels")[np.newaxis])
    for (_, shown), layer in zip(stages, (3, 6, 7), strict=True):
        expected = activations[layer][0]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-5 * max(1, scale))


def test_a_function_without_a_formula_is_refused(tmp_path, monkeypatch):
    network = fastnn.Network([fastnn.Dense(784, 5), fastnn.Tanh(), fastnn.Dense(5, 10)])
    monkeypatch.setattr(fastnn.Tanh, "_elsewhere", Elsewhere())
    with pytest.raises(
        TypeError, match=r"can't write Tanh\(\) into a page: expected one of ReLU, "
    ):
        page.write(network, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_layer_without_a_step_is_refused(tmp_path, monkeypatch):
    network = fastnn.Network([fastnn.Dense(784, 10), fastnn.BatchNorm(10)])
    monkeypatch.delitem(page._STEPS, "batch_norm")
    with pytest.raises(
        TypeError, match=r"can't write BatchNorm\(10, .*\) into a page: expected one of dense, "
    ):
        page.write(network, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("width", "kind", "which"),
    [
        (1280, "mouse", range(10)),
        (1280, "touch", (4,)),
        (390, "mouse", (4,)),
        (390, "touch", (4, 7)),
    ],
)
def test_drawn_digits(opened, reader, width, kind, which, tmp_path):
    """All of them in one form, and in the others one of two strokes and those that are fast."""
    from PIL import Image
    from selenium.webdriver.common.by import By

    browser = opened(reader, width)
    said = "document.querySelectorAll('#bars li span:last-child')"
    bars = f"return Array.from({said}, (bar) => bar.innerText)"
    for digit in which:
        draw(browser, digit, kind)
        ink = array(browser, "ink()").reshape(PAD, PAD)
        pixels = array(browser, "state.pixels")
        # the same picture, found and centred by the page and by Python
        np.testing.assert_allclose(pixels, images.centred(ink).ravel(), rtol=0, atol=1e-12)
        expected = reader.predict_proba(pixels[np.newaxis])[0]
        shown = array(browser, "state.probabilities")
        np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-5)
        assert shown.argmax() == digit
        assert (
            browser.find_element(By.ID, "verdict").text.split()
            == f"{digit} is the most likely".split()
        )
        assert [float(bar.rstrip(" %")) for bar in browser.execute_script(bars)] == pytest.approx(
            100 * expected, abs=0.06
        )
        # what one sees on the pad, saved and read as any picture is
        content = browser.execute_script("return pad.toDataURL().split(',')[1]")
        visible = Image.open(io.BytesIO(base64.b64decode(content)))
        visible.save(tmp_path / "drawn.png")
        assert reader.predict(images.read(tmp_path / "drawn.png").reshape(1, -1))[0] == digit
        browser.find_element(By.ID, "clear").click()
        assert not browser.execute_script("return ink().some((amount) => amount > 0)")
        assert browser.find_element(By.ID, "verdict").text == "Nothing is drawn yet."
        assert set(browser.execute_script(bars)) == {"-"}


def test_keyboard_and_fit(opened, reader):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    for width in (1280, 700, 390, 320):
        browser = opened(reader, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    draw(browser, 2)
    assert not browser.find_element(By.ID, "hint").is_displayed()
    keys = ActionChains(browser)
    keys.send_keys(Keys.TAB).send_keys(Keys.SPACE).perform()
    assert browser.switch_to.active_element.get_attribute("id") == "clear"
    assert array(browser, "strokes").size == 0
    draw(browser, 2)
    clear = browser.find_element(By.ID, "clear")
    browser.execute_script("arguments[0].focus()", clear)
    ActionChains(browser).send_keys(Keys.TAB, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    note = browser.find_element(By.CSS_SELECTOR, ".layer p").text
    unit = array(browser, "state.outputs[stages[0].last]")[1]
    assert note == f"unit 1: {unit:.2f}".replace("-", "\N{MINUS SIGN}")
    assert browser.find_element(By.ID, "seen-title").text == "What unit 1 looks for"


def test_nothing_is_loaded_from_elsewhere(opened, reader):
    browser = opened(reader)
    draw(browser, 8)
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    about = browser.execute_script("return document.getElementById('about').textContent")
    assert about == "a </script> of <b>mine</b>: 784-100-50-10, 84,060 parameters."
    text = (ROOT / "fastnn" / "page.html").read_text()
    assert not re.findall(r"https?:|\bimport\b|fetch\(|src=", text)


def test_steps_are_folded():
    norm = fastnn.BatchNorm(3)
    network = fastnn.Network(
        [fastnn.Dense(784, 3), fastnn.Dropout(0.5), norm, fastnn.ReLU(), fastnn.BatchNorm(3)]
    )
    steps = page.steps(network)
    assert [(step["kind"], step["layers"]) for step in steps] == [
        ("dense", ["Dense", "BatchNorm"]),
        ("elementwise", ["ReLU"]),
        ("scale", ["BatchNorm"]),
    ]


class Doubled(Dense):
    """A layer of a user's own."""


def test_what_a_page_can_not_compute_is_refused(tmp_path):
    path = tmp_path / "page.html"

    def refused(error, message, *layers, **options):
        with pytest.raises(error, match=message):
            page.write(fastnn.Network(layers, **options), path)
        assert not path.exists()

    refused(ValueError, "expected a network of 784 inputs.*got one of 64", fastnn.Dense(64, 10))
    refused(ValueError, "expected a network with a dense layer", fastnn.ReLU())
    refused(TypeError, "not one of fastnn's own", Doubled(784, 10))
    refused(
        TypeError,
        "not one of fastnn's own",
        fastnn.Dense(784, 10),
        fastnn.Activation(np.sin, np.cos),
    )
    refused(TypeError, "expected a network with the loss", fastnn.Dense(784, 10), loss="mse")
    replaced = fastnn.Dense(784, 10)
    replaced.forward = np.sin
    refused(TypeError, "not one of fastnn's own", replaced)
    for number in (np.nan, 1e300):
        broken = fastnn.Dense(784, 10)
        broken.biases = np.full(10, number)
        refused(ValueError, "expected a network of finite parameters", broken, dtype=np.float64)


def test_the_model_in_the_page(tmp_path):
    network = perceptron(784, 5, 10, seed=0)
    page.write(network, tmp_path / "page.html", "</script>")
    text = (tmp_path / "page.html").read_text()
    assert text.count("</script>") == 2
    model = json.loads(re.search(r'id="model">(.*?)</script>', text)[1])
    weights = np.frombuffer(base64.b64decode(model["steps"][0]["weights"]), "<f4")
    np.testing.assert_array_equal(weights.reshape(784, 5), network[0].weights)
