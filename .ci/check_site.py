"""Look at a built site as its readers will: `python .ci/check_site.py SITE`.

Every link within it must lead to a file, and its anchor be there. In Chromium, where there is one,
each page is opened on a phone, whose window then grows to that of a desk: nothing is wrong on the
console, pictures are there, formulas are set, and no page is wider than the window. What a page
does once, when it is loaded, it does on the phone.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOWS = {"phone": (390, 844), "desk": (1280, 900)}
FAULTS = """
const [width, done] = arguments;
const formulas = [...document.querySelectorAll(".math")];
const formulasAreSet = async () => {
  if (!formulas.length) return;
  while (!window.MathJax?.startup?.promise) await new Promise(turn => setTimeout(turn, 20));
  await MathJax.startup.promise;
};
const windowHasItsSize = async () => {
  const size = matchMedia(`(width: ${width}px)`);  // a page that sets another is found too wide
  for (let turns = 50; turns && !size.matches; turns--)
    await new Promise(turn => setTimeout(turn, 20));
  await new Promise(requestAnimationFrame);  // the page has heard of it
};
const wrong = [];
const picture = async image => {
  image.loading = "eager";  // those far below are not asked for by themselves
  await image.decode().catch(() => wrong.push(`no picture ${image.src}`));
};
const pictures = [...document.images].map(picture);
Promise.all([windowHasItsSize(), formulasAreSet(), ...pictures]).then(() => {
  for (const formula of formulas)
    if (!formula.querySelector("mjx-container")) wrong.push(`not set: ${formula.textContent}`);
  for (const error of document.querySelectorAll("mjx-merror"))
    wrong.push(`not understood: ${error.closest(".math").textContent}`);
  const page = document.scrollingElement;
  if (page.scrollWidth > width) {
    const widest = [...document.querySelectorAll("article *")]
      .filter(element => element.getBoundingClientRect().right > width + 1);
    wrong.push(`${page.scrollWidth} pixels wide: ${widest[0]?.outerHTML.slice(0, 200)}`);
  }
  done(wrong);
});
"""


class Page(HTMLParser):
    """The links of a page, and the names that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names = {"", "top"}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for attribute, value in attrs:
            if attribute in ("href", "src") and value:
                self.links.append(value)
            elif attribute == "id" or (tag == "a" and attribute == "name"):
                self.names.add(value or "")


def broken_links(site: Path) -> Iterator[str]:
    """Yield what each link that leads nowhere says."""
    pages = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if goal.is_dir():
                goal /= "index.html"
            there = goal.exists() and unquote(parts.fragment) in (
                pages[goal].names if goal in pages else {unquote(parts.fragment)}
            )
            if not there:
                yield f"{path.relative_to(site)}: nothing at {link}"


def seen(site: Path) -> Iterator[str]:
    """Yield what is wrong with each page in a browser; nothing where there is none."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        print("There is no Chromium with its driver: pages are not looked at.")
        return
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    with ThreadPoolExecutor() as pool:
        for wrong in pool.map(partial(seen_of, site, browser, driver), (pages[::2], pages[1::2])):
            yield from wrong


def seen_of(site: Path, browser: str, driver: str, pages: list[Path]) -> list[str]:
    """Return what is wrong with some pages, in a browser of their own."""
    from selenium import webdriver

    found: list[str] = []
    if not pages:
        return found
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    with tempfile.TemporaryDirectory() as profile:
        for option in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
            options.add_argument(option)
        service = webdriver.ChromeService(driver, log_output=os.devnull)
        window = webdriver.Chrome(options=options, service=service)
        try:
            for path in pages:
                for number, (name, (width, height)) in enumerate(WINDOWS.items()):
                    size = {"width": width, "height": height, "deviceScaleFactor": 1}
                    size["mobile"] = width < 600
                    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    if number == 0:
                        window.get(path.as_uri())
                    wrong = window.execute_async_script(FAULTS, width)
                    wrong += [entry["message"] for entry in window.get_log("browser")]
                    found += [f"{path.relative_to(site)}, {name}: {what}" for what in wrong]
        finally:
            window.quit()
    return found


def main() -> int:
    """Print what is wrong; return whether anything is."""
    site = Path(sys.argv[1]).resolve()
    count = len(list(site.rglob("*.html")))
    if not count:
        print(f"There are no pages in {site}.")
        return 1
    wrong = [*broken_links(site), *seen(site)]
    print(*wrong, f"{count} pages, {len(wrong)} faults", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
