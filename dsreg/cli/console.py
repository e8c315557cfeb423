"""Consoles for tables and progress bars: their width, and whether they have colours."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Without a terminal there is no width to ask for; this holds our tables without wrapping.
_PIPE_WIDTH = 160


def new_console(*, stderr: bool = False) -> Console:
    """With $NO_COLOR set there is no bold either: whoever sets it wants plain text."""
    from rich.console import Console  # takes longer to import than most commands run

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH,
                   color_system=None if os.environ.get("NO_COLOR") else "auto")
