"""A file on the file system that all other systems keep theirs on: what the machine gives at most."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.shell import attach_loop, call, make_image
from bench.systems.base import System


class Plain(System):
    tools = ("losetup",)
    packages = ("mount",)

    def __init__(self) -> None:
        super().__init__("plain", "plain file", "written past the page cache, no replica; durable on fsync")

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        image = directory / "disk.img"
        make_image(image, size, allocate=True)
        self.device = attach_loop(image, stack)

    def roots(self) -> Sequence[int]:
        return ()

    def version(self) -> str:
        return call("losetup", "--version").strip()
