"""The interactive picture of cache blocking, in a real browser, beside the same cache in Python."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from itertools import product

import pytest
from conftest import ROOT
from test_page import browser  # noqa: F401

FILE = ROOT / "docs" / "figures" / "cache-blocking.html"
LINE = 4
ORDERS = ("ijk", "ikj", "jik", "jki", "kij", "kji")


def misses(
    side: int, order: str, lines: int, blocks: dict[str, int], most: float = math.inf
) -> list[int]:
    """Return the misses of A, B and C in a cache whose least recently used line goes first.

    Where they are more than `most`, not all of them are counted.
    """
    held: OrderedDict[tuple[int, int, int], None] = OrderedDict()
    found = [0, 0, 0]
    starts = [range(0, side, blocks[name]) for name in order]
    for block in product(*starts):
        ranges = [
            range(start, min(start + blocks[name], side))
            for start, name in zip(block, order, strict=True)
        ]
        if sum(found) > most:
            break
        for values in product(*ranges):
            at = dict(zip(order, values, strict=True))
            for matrix, (row, column) in enumerate(("ik", "kj", "ij")):
                line = matrix, at[row], at[column] // LINE
                if line in held:
                    held.move_to_end(line)
                    continue
                found[matrix] += 1
                held[line] = None
                if len(held) > lines:
                    held.popitem(last=False)
    return found


@pytest.fixture
def opened(browser):  # noqa: F811
    """Return the browser with the picture, on a telephone."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(FILE.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def options(side, order, lines, i, k, j):
    return {"side": side, "order": order, "lines": lines, "blocks": {"i": i, "k": k, "j": j}}


def press(opened, name: str) -> None:
    opened.find_element("id", name).click()


def said(opened, name: str) -> str:
    return opened.find_element("id", name).text


def choose(opened, **values) -> None:
    from selenium.webdriver.support.select import Select

    for name, value in values.items():
        Select(opened.find_element("id", name)).select_by_visible_text(str(value))


CASES = [
    *(options(8, order, lines, 8, 8, 8) for order in ORDERS for lines in (8, 16, 64)),
    *(options(16, order, lines, 4, 4, 4) for order in ORDERS for lines in (8, 16, 32)),
    *(options(16, "ikj", 32, i, k, j) for i, k, j in product((2, 16), (4, 8), (2, 8))),
    options(24, "kij", 16, 8, 4, 24),
]


def test_misses_are_those_of_a_cache_that_drops_the_least_recently_used(opened):
    found = opened.execute_script("return arguments[0].map(simulate)", CASES)
    for case, counts in zip(CASES, found, strict=True):
        assert counts == misses(**case), case


def test_no_order_beats_the_bounds(opened):
    limits = opened.execute_script("return arguments[0].map(bounds)", CASES)
    found = opened.execute_script("return arguments[0].map(simulate)", CASES)
    for case, limit, counts in zip(CASES, limits, found, strict=True):
        assert limit["once"] == 3 * case["side"] ** 2 / LINE <= limit["best"]
        assert sum(counts) >= limit["best"]
    # a cache that holds everything misses each line once
    assert sum(misses(8, "jki", 64, {"i": 8, "k": 8, "j": 8})) == 3 * 8**2 / LINE


def test_it_is_used_by_its_buttons(opened):
    choose(opened, side=8, order="ikj", lines=8, i=4, k=4, j=4)
    press(opened, "step")
    assert said(opened, "done") == "1 of 512"
    assert said(opened, "misses") == "3"
    press(opened, "end")
    total = sum(misses(8, "ikj", 8, {"i": 4, "k": 4, "j": 4}))
    assert said(opened, "done") == "512 of 512"
    assert said(opened, "misses") == f"{total:,}"
    assert f"{total:,} misses" in said(opened, "said")
    assert "8 a side, ikj, blocks i 4, k 4, j 4, 8 lines" in said(opened, "runs")
    # whatever is chosen next begins anew
    choose(opened, order="ijk")
    assert said(opened, "misses") == "0"


def test_it_runs_and_stops(opened):
    from selenium.webdriver.support.wait import WebDriverWait

    choose(opened, side=24)
    press(opened, "run")
    WebDriverWait(opened, 60).until(lambda _: not said(opened, "done").startswith("0 "))
    press(opened, "run")
    assert said(opened, "run") == "Run"
    done = int(said(opened, "done").partition(" ")[0].replace(",", ""))
    assert 0 < done <= 24**3
    # what is shown is where the same touches lead
    where = "const p = new Product(options()); while (p.done < arguments[0]) p.step(); return p.all"
    assert said(opened, "misses") == f"{opened.execute_script(where, done):,}"


def test_it_needs_no_mouse(opened):
    from selenium.webdriver import Keys

    choose(opened, side=8)
    opened.find_element("id", "end").send_keys(Keys.ENTER)
    assert said(opened, "done") == "512 of 512"


def test_who_wants_no_motion_gets_the_end(opened):
    feature = {"name": "prefers-reduced-motion", "value": "reduce"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    choose(opened, side=8)
    press(opened, "run")
    assert said(opened, "done") == "512 of 512"


def test_it_fits_a_telephone_and_follows_the_theme(opened):
    assert opened.execute_script("return document.scrollingElement.scrollWidth") <= 390
    colors = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        opened.refresh()
        colors.append(opened.execute_script("return getComputedStyle(document.body).color"))
        assert opened.execute_script("return document.documentElement.dataset.theme") == scheme
    assert colors[0] != colors[1]


def test_it_is_short_and_needs_no_connection():
    text = FILE.read_text("utf-8")
    assert len(text.splitlines()) < 300
    assert "http" not in text


def test_the_page_tells_what_is_counted():
    page = (ROOT / "docs" / "ladder" / "cache-blocking.md").read_text("utf-8")
    rows = re.findall(r"^\| ([ijk]{3}) \| ([\w, ]+) \| (\d+) \| ([\d,]+) \|$", page, re.M)
    assert len(rows) == 10
    for order, sizes, lines, said in rows:
        blocks = [16 if size == "all" else int(size) for size in sizes.split(", ")]
        found = misses(16, order, int(lines), dict(zip("ikj", blocks, strict=True)))
        assert f"{sum(found):,}" == said, (order, sizes, lines)
    sides = product((2, 4, 8, 16), repeat=3)
    every = (
        misses(16, of, 16, dict(zip("ikj", b, strict=True)), most=448)
        for of, b in product(ORDERS, sides)
    )
    assert min(map(sum, every)) == 448
