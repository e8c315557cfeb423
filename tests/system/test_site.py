"""The site builds without a warning, its links lead somewhere, and it fetches nothing: make test-system."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.tables import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="fetches mkdocs: make test-system"),
]
SITE = ROOT / "build" / "site"
OUTSIDE = re.compile(r"(?:https?:)?//")
# In the attributes of these a browser finds what it fetches by itself.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data",
           "embed": "src"}


class Page(HTMLParser):
    """Where its links lead, which anchors it has, what it has a browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if FETCHED.get(tag) in found:
            self.fetched.append(found[FETCHED[tag]])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    done = subprocess.run(["make", "site"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return {path: Page(path.read_text()) for path in SITE.rglob("*.html")}


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    checked = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are from the root of a server
            continue
        for link in page.links:
            if OUTSIDE.match(link) or link.startswith("mailto:"):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(SITE)}: {link}"
            assert not anchor or target not in pages or unquote(anchor) in pages[target].anchors, \
                f"{path.relative_to(SITE)}: {link}"
            checked += 1
    assert checked > 1000


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    fetched = {what for page in pages.values() for what in page.fetched}
    styles = [path.read_text() for path in SITE.rglob("*.css")]
    fetched |= {found for text in styles for found in re.findall(r"""(?:url\(|@import\s)\s*["']?([^)"'\s]+)""", text)}
    assert any(what.endswith(".js") for what in fetched) and any(what.endswith(".css") for what in fetched)
    assert not [what for what in fetched if OUTSIDE.match(what)]
