"""The documents as a site, in build/site: python -m scripts.site (make site). Needs the extra `docs`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "site-pages"
# What is a page, and what pages show or lead to. They keep their places, so that the links between them hold.
SOURCES = ("README.md", "CHANGELOG.md", "bench/README.md", "docs/**/*.md", "docs/*.svg", "docs/*.png", "docs/*.json",
           "deploy/runbook.md")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def gather() -> None:
    """Put all sources into PAGES, with the files of other kinds that they have links to."""
    shutil.rmtree(PAGES, ignore_errors=True)
    sources = [path for pattern in SOURCES for path in sorted(ROOT.glob(pattern))]
    linked = [found for page in sources if page.suffix == ".md" for found in linked_from(page)]
    for path in (*sources, *linked):
        target = PAGES / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def linked_from(page: Path) -> list[Path]:
    """The files that `page` has links to."""
    found = [(page.parent / target).resolve() for target in _LINK.findall(page.read_text(encoding="utf-8"))]
    return [path for path in found if path.is_file()]


def main() -> None:
    gather()
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--clean"]
    # mkdocs-material has an announcement about its successor at each start.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
