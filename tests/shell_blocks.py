"""The shell in our pages, as whoever reads them would type it."""

from __future__ import annotations

import re
from pathlib import Path


def shell_blocks(page: Path, section: str) -> list[str]:
    """The indented blocks of `## section`, one string each."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no section {section!r}"
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", found[1], re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() + "\n" for block in blocks if block.strip()]


def commands(page: Path) -> set[str]:
    """What the page quotes within its text, and the lines of its indented blocks."""
    text = page.read_text(encoding="utf-8")
    quoted = {" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)}
    return quoted | {line.strip() for line in re.findall(r"^(?: {4}.+)$", text, re.MULTILINE)}
