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


@pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="there is no chromium, or no chromedriver")
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('<img src="pixel.svg">', None),
        ('<img src="gone.svg">', "no picture"),
        (f'{FAR_BELOW}<img src="pixel.svg" loading="lazy">', None),
        (f'{FAR_BELOW}<img src="gone.svg" loading="lazy">', "no picture"),
        ('<div style="width: 380px">wide</div>', None),
        ('<div style="width: 800px">wider than a phone</div>', "wide: <div"),
        (f'{MATHJAX}<span class="math"><mjx-container></mjx-container></span>', None),
        (f'{MATHJAX}<span class="math">x^2</span>', "not set: x^2"),
        ("<script>throw new Error('of mine')</script>", "of mine"),
    ],
)
def test_what_a_reader_sees(check, site, content, fault):
    pytest.importorskip("selenium")
    faults = [*check.seen(site(content))]
    if fault is None:
        assert faults == []
    else:
        assert any(fault in found for found in faults)
        assert all(found.startswith("index.html, ") for found in faults)
