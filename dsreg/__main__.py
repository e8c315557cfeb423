"""`python -m dsreg`: the command line, for where the script is not installed (and for the supervisor's children)."""

from __future__ import annotations

from dsreg.cli import main

if __name__ == "__main__":
    main()
