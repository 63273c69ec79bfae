"""The page in a real browser: nothing sticks out, and nothing is asked of the network."""

import pytest
from browser import PROGRAM, Browser

from sdsnn_lightning.cli import main

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
# What is not in a box with its own scroll bar must end within the window.
STICKING_OUT = """[...document.querySelectorAll("body *")].filter(
    e => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + 1).length"""


@pytest.fixture(scope="module")
def browser(folders, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    main(["report", *map(str, folders), "--output", str(path)])
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.open(path.as_uri())
        yield browser
    finally:
        browser.close()


def test_nothing_is_asked_of_the_network(browser):
    assert browser.requests[0].endswith("report.html")
    assert all(url.startswith("data:") for url in browser.requests[1:])
    pictures = browser.value("document.images.length")
    assert pictures > 10
    assert browser.value("[...document.images].filter(i => i.complete && i.naturalWidth > 50).length") == pictures


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window(browser, width, scheme):
    browser.look(width, scheme)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(STICKING_OUT) == 0


def test_dark_scheme_has_light_ink_on_dark_paper_and_print_has_not(browser):
    ink = "getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    browser.look(1280, "light")
    assert browser.value(ink) < 150
    browser.look(1280, "dark")
    assert browser.value(ink) > 600
    browser.look(720, "dark", "print")
    assert browser.value(ink) == 0
    assert browser.value("getComputedStyle(document.images[0]).filter") == "none"
    assert browser.value("document.documentElement.scrollWidth") <= 720
