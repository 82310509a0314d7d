"""The look at a built site finds what its readers would stumble over."""

from __future__ import annotations

import importlib.util

import pytest
from conftest import ROOT
from test_page import CHROMIUM, DRIVER

PIXEL = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>"
PAGE = '<!doctype html><meta name="viewport" content="width=device-width"><article>{}</article>'
FAR_BELOW = '<div style="height: 99999px"></div>'
MATHJAX = """<script>
window.MathJax = {startup: {promise: Promise.resolve()}};
</script>"""


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_site", ROOT / ".ci" / "check_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path):
    (tmp_path / "pixel.svg").write_text(PIXEL)
    (tmp_path / "other.html").write_text(PAGE.format('<h2 id="here">Here</h2>'))

    def write(content: str):
        (tmp_path / "index.html").write_text(PAGE.format(content))
        return tmp_path

    return write


@pytest.mark.parametrize(
    "link", ["other.html", "other.html#here", "#", "./", "https://example.org/gone", "pixel.svg"]
)
def test_links_that_lead_somewhere(check, site, link):
    assert [*check.broken_links(site(f'<a href="{link}">there</a>'))] == []


@pytest.mark.parametrize("link", ["another.html", "other.html#there", "#here", "folder/"])
def test_links_that_lead_nowhere(check, site, link):
    (fault,) = check.broken_links(site(f'<a href="{link}">there</a>'))
    assert fault == f"index.html: nothing at {link}"


SEEN = {
    "a picture": ('<img src="pixel.svg">', {}),
    "no picture": ('<img src="gone.svg">', {"phone": "no picture", "desk": "no picture"}),
    "a picture far below": (f'{FAR_BELOW}<img src="pixel.svg" loading="lazy">', {}),
    "none far below": (
        f'{FAR_BELOW}<img src="gone.svg" loading="lazy">',
        {"phone": "no picture", "desk": "no picture"},
    ),
    "wide": ('<div style="width: 380px">wide</div>', {}),
    "wider than a phone": (
        '<div style="width: 800px">wider than a phone</div>',
        {"phone": "pixels wide: <div"},
    ),
    "wider than a desk": (
        "<style>@media (min-width: 1000px) {div {width: 1500px}}</style><div>wider</div>",
        {"desk": "pixels wide: <div"},
    ),
    "a formula": (f'{MATHJAX}<span class="math"><mjx-container></mjx-container></span>', {}),
    "no formula": (
        f'{MATHJAX}<span class="math">x^2</span>',
        {"phone": "not set: x^2", "desk": "not set: x^2"},
    ),
    "an error": ("<script>throw new Error('of mine')</script>", {"phone": "of mine"}),
    "an error of a desk": (
        "<script>onresize = () => {if (innerWidth > 1000) throw new Error('of mine')}</script>",
        {"desk": "of mine"},
    ),
}
"""What pages hold, and what is found of them in each window."""


@pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="there is no chromium, or no chromedriver")
def test_what_a_reader_sees(check, tmp_path):
    """Of all pages at once, as starting a browser takes longer than any of them."""
    pytest.importorskip("selenium")
    (tmp_path / "pixel.svg").write_text(PIXEL)
    for name, (content, _) in SEEN.items():
        (tmp_path / f"{name}.html").write_text(PAGE.format(content))
    faults = [*check.seen(tmp_path)]
    for name, (_, expected) in SEEN.items():
        for window in ("phone", "desk"):
            start = f"{name}.html, {window}: "
            found = [fault for fault in faults if fault.startswith(start)]
            assert bool(found) == (window in expected), (start, found)
            assert not found or any(expected[window] in fault for fault in found), found
            faults = [fault for fault in faults if fault not in found]
    assert faults == []
