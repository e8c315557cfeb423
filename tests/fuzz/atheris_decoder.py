"""`python -m tests.fuzz.atheris_decoder [CORPUS] [-runs=N]`: the decoder, guided by coverage.

Needs the package atheris, which is not among what the tests install; says so where it is missing.
"""

from __future__ import annotations

import importlib
import random
import sys


def main() -> int:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError as error:
        print(f"{error}: `pip install atheris` first, or use `python -m tests.fuzz.run decoder`", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["dsreg.protocol"]):
        codec = importlib.import_module("dsreg.protocol.codec")
        test_decoder = importlib.import_module("tests.fuzz.test_decoder")

    def one_input(data: bytes) -> None:
        """The first byte is the side, the second the seed of how the rest is split."""
        if len(data) >= 2:
            side = codec.Side.NODE if data[0] & 1 else codec.Side.CLIENT
            test_decoder.check(side, data[2:], random.Random(data[1]))

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
