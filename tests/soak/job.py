"""One job: `python -m tests.soak.job PART SEED SECONDS DIRECTORY` writes DIRECTORY/tally.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.soak.parts import PARTS
from tests.soak.tally import Tally

AT = "at: "


def write(tally: Tally, directory: Path) -> None:
    (directory / "tally.json").write_text(json.dumps(tally.to_json()))


def main() -> None:
    name, seed, seconds, where = sys.argv[1:]
    (part,) = (part for part in PARTS if part.name == name)
    directory = Path(where)
    write(part.run(int(seed), float(seconds), directory, lambda text: print(AT + text, flush=True)), directory)


if __name__ == "__main__":
    main()
