"""The page of real nodes in a real browser: wide and narrow, light and dark, as a cluster goes through its troubles.

Pictures are kept in the directory $DSREG_PICTURES, if it is set.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsreg.client import Attach, BlockingClient
from tests.processes.cluster import TIMEOUT_S, Address, Cluster, free_addresses, until
from tests.system.browser import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="needs a browser: make test-system"),
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="chromedriver is not installed"),
]

HOSTILE = "<script>alert(1)</script>"
MIB = 1 << 20
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
# Text is dark on a light page, and the other way round.
_BRIGHTNESS = "return getComputedStyle(document.body).%s.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => +a + +b, 0)"

# How far the copy of node 3 is, as it is drawn.
_BAR = "return document.querySelector('[aria-label=\"copy of node 3\"]')?.position ?? 0"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "cluster", sectors=64 * MIB // 4096)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def in_use(cluster: Cluster) -> Iterator[None]:
    """Somebody has attached the disk, and writes and reads it; by a name that no page should take for its own."""
    over = threading.Event()

    def use(client: BlockingClient) -> None:
        number = 0
        while not over.is_set():
            number += 1
            client.write(number % 1000, bytes([number % 255 + 1]) * 4096)
            client.read(number * 7 % 1000)

    with BlockingClient(cluster.config, TIMEOUT_S, attach=Attach(name=HOSTILE)) as client:
        thread = threading.Thread(target=use, args=(client,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Looked:
    """A browser at the page of node 1."""

    def __init__(self, browser: Browser, address: Address, pictures: Path) -> None:
        self._browser, self._pictures = browser, pictures
        self._url = f"http://{address[0]}:{address[1]}/"

    def until(self, holds: Callable[[str], bool], what: str) -> None:
        """The browser asks again by itself."""
        self._browser.go(self._url)
        until(lambda: holds(self._browser.text), what)

    def on_all_screens(self, name: str, *parts: str) -> None:
        for width, scheme in SCREENS:
            self._browser.as_on(width, scheme)
            self._browser.go(self._url)
            text = self._browser.text
            assert not [part for part in parts if part not in text], text
            assert self._browser.complaints() == []
            assert self._browser.run("return document.documentElement.scrollWidth") <= width, "nothing sticks out"
            dark = self._browser.run(_BRIGHTNESS % "color") > self._browser.run(_BRIGHTNESS % "backgroundColor")
            assert dark == (scheme == "dark")
            self._browser.picture(self._pictures / f"{name}-{width}-{scheme}.png")


@pytest.mark.allow_logs
def test_a_cluster_and_its_troubles(cluster: Cluster, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("DSREG_PICTURES", tmp_path))
    (address,) = free_addresses(1)
    cluster.start(1, options=("--metrics", "{}:{}".format(*address)))
    cluster.start(2, 3)
    with Browser() as browser:
        page = Looked(browser, address, pictures)
        with in_use(cluster):
            well = ("1 more node may be lost", HOSTILE, "has attached the disk", "Requests per second")
            page.until(lambda text: all(part in text for part in (*well, " ms / ")), "rates and plots, by itself")
            page.on_all_screens("well", *well)
            cluster.kill(3)
            page.until(lambda text: "Degraded" in text, "the node is missed")
            page.on_all_screens("down", "2 of 3 nodes answer", "start node 3, with its directory", "connection refused")
        with BlockingClient(cluster.config, TIMEOUT_S) as client:
            for number in range(48):
                client.write(256 * number, os.urandom(MIB))
        cluster.start(3, options=("--heal-rate", "2MiB"))
        page.until(lambda text: "left" in text and "missing" in text, "it catches up")
        page.on_all_screens("healing", "Degraded", "behind", "missing", "No node may be lost now")
        until(lambda: browser.run(_BAR) > 0, "its bar grows")
        cluster.kill(2, 3)
        page.until(lambda text: "Critical" in text, "no quorum")
        page.on_all_screens("no-quorum", "No quorum: 1 of 3 nodes answer", "Nothing is lost by waiting")
