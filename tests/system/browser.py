"""A headless Chromium, driven by chromedriver: WebDriver is HTTP with JSON."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Far more than a page takes.
TIMEOUT_S = 60.0
_OPTIONS = {
    "browserName": "chrome",
    # Without a sandbox, as it is root here that looks at a page of its own.
    "goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]},
    "goog:loggingPrefs": {"browser": "ALL"},
}


class Browser:
    """One window."""

    def __enter__(self) -> Self:
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self._url = f"http://127.0.0.1:{found[1]}/session"
                break
        self._url += f"/{self._ask('', capabilities={'alwaysMatch': _OPTIONS})['sessionId']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, method="DELETE"), timeout=TIMEOUT_S):
                pass
        finally:
            self._driver.terminate()
            self._driver.communicate()

    def _ask(self, path: str, **what: Any) -> Any:
        request = urllib.request.Request(
            self._url + path, json.dumps(what).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())["value"]

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._ask("/goog/cdp/execute", cmd=command, params=parameters)

    def as_on(self, width: int, scheme: str) -> None:
        """A screen so many pixels wide, whose owner wants "light" or "dark"."""
        self._devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                       mobile=width < 600)
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        """Returns when the page is there."""
        self._ask("/url", url=url)

    def run(self, script: str) -> Any:
        """What the script, which runs in the page though the page may have none, returns."""
        return self._ask("/execute/sync", script=script, args=[])

    @property
    def text(self) -> str:
        """What can be read."""
        return str(self.run("return document.body.innerText"))

    def complaints(self) -> list[str]:
        """What the browser has had to say about pages, for their authors, since the last call."""
        return [entry["message"] for entry in self._ask("/se/log", type="browser")]

    def picture(self, path: Path) -> None:
        """The whole page, as PNG."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
