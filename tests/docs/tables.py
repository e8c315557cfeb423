"""Tables in our pages."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


def rows(page: Path, section: str) -> dict[str, list[str]]:
    """The rows of the tables in `## section` by the name in their first column, each of which has its own."""
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no section {section!r}"
    table: dict[str, list[str]] = {}
    for line in re.findall(r"^\| `.*\|$", found[1], re.MULTILINE):
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert name.strip("`") not in table, name
        table[name.strip("`")] = cells
    return table
