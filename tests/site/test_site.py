"""The built site: `nox -s site`. Links, names, and browser errors.

Tests that need a browser are skipped if no chromium is installed.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from rumus.tensor import Backend
from rumus.tensor.memory.recording import Capturing

SITE: Final = Path(__file__).parents[2] / ".nox" / "pages"
PACKAGES: Final = (
    *("tensor", "nn", "nn.initialization", "nn.names", "optim", "optim.rules"),
    *("train", "train.metrics", "train.images", "gpu", "distributed"),
)
PAGES: Final = sorted(SITE.rglob("*.html"))
PROTOCOLS: Final = Backend, Capturing  # which explain what backends have
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """The links of a page, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.places.add(value)


def test_the_site_was_built() -> None:
    assert len(PAGES) > 15, "run mkdocs build first"


def test_every_link_works() -> None:
    pages = {path: Page(path) for path in PAGES}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the server's root
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = pages.get(target)
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif found and parts.fragment and unquote(parts.fragment) not in found.places:
                broken.append(f"{path.name}: {link} (no such place)")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img)[^>]*src="https?:[^"]*"', text) == [], path.name
        assert re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="https?:', text) == [], path.name


def documented(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of rumus defines itself."""
    for name, member in vars(kind).items():
        bare = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if not name.startswith("_") and (inspect.isroutine(bare) or isinstance(bare, property)):
            yield name, bare


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_explained(package: str) -> None:
    """In the reference, with a docstring; a protocol's methods are explained once, there."""
    module = importlib.import_module(f"rumus.{package}")
    places = Page(SITE / "reference" / f"{package}.html").places
    silent = []
    for name in module.__all__:
        thing = getattr(module, name)
        assert name in places, name
        is_told = inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
        if is_told and not inspect.getdoc(thing):
            silent.append(name)
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for own, member in documented(thing):
                inherited = any(own in vars(base) for base in (*thing.__mro__[1:], *PROTOCOLS))
                if not inspect.getdoc(member) and not inherited:
                    silent.append(f"{name}.{own}")
    assert silent == []


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address at which the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


LOOKS: Final = [(1280, "light"), (1280, "dark"), (390, "light")]
SEVERAL: Final = ["index.html", "training.html", "examples.html", "reference/nn.html"]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_pages_in_a_browser(browser: Any, address: str, width: int, scheme: str) -> None:
    """No console errors, nothing wider than the window, in light and dark mode, and on a phone."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in SEVERAL:
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        is_dark = page.evaluate("document.body.dataset.mdColorScheme") == "slate"
        assert is_dark == (scheme == "dark")
    assert said == []
    page.close()


def test_the_search_finds_a_class(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/index.html")
    page.click(".md-search__input")
    page.keyboard.type("AdamW")
    page.wait_for_selector(".md-search-result__item a", timeout=20_000)
    links = [a.get_attribute("href") for a in page.locator(".md-search-result__item a").all()]
    assert any("reference/optim.html" in link for link in links)
    page.close()
