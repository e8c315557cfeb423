"""python -m tests.simulation --seed N | --seeds A..B"""

from __future__ import annotations

from tests.simulation.cli import main

if __name__ == "__main__":
    main()
