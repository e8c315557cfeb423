"""Bytes, messages and files that nobody honest makes: the node must not crash, hang, grow, or freeze a register.

    streams     garbage, and valid streams with damage in them
    hostile     authentic messages with hostile content
    damage      what can happen to the files of a storage directory

Each runs for a while in the tests; `python -m tests.fuzz.run NAME --minutes 10` goes on with fresh seeds, and
`python -m tests.fuzz.atheris_decoder` is guided by coverage where the package atheris is installed.
"""
