"""How much is measured: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """`seconds` is for one fio job or TCP load, `stall_s` for one run in which a replica may be killed (after a third
    of it), `tree_files` how many files are copied, `tcp_*` what is tried of block sizes, depths, numbers of nodes."""

    name: str
    size: int
    rounds: int
    seconds: float
    stall_s: float
    tree_files: int
    tcp_seconds: float
    tcp_span: int
    tcp_depths: tuple[int, ...]
    tcp_blocks: tuple[int, ...]
    tcp_nodes: tuple[int, ...]
    tcp_node_depths: tuple[int, ...]


FULL = Settings(
    name="full", size=1024 * MIB, rounds=3, seconds=5.0, stall_s=9.0, tree_files=2000,
    tcp_seconds=3.0, tcp_span=256 * MIB, tcp_depths=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    tcp_blocks=(4096, 16384, 65536, 262144, 1048576), tcp_nodes=(1, 3, 5), tcp_node_depths=(1, 16, 64),
)
# A minute or two for all systems: to see that it works, and the order of magnitude.
QUICK = Settings(
    name="quick", size=128 * MIB, rounds=1, seconds=1.0, stall_s=3.0, tree_files=300,
    tcp_seconds=0.7, tcp_span=32 * MIB, tcp_depths=(1, 16, 64), tcp_blocks=(4096, 65536, 1048576),
    tcp_nodes=(1, 3, 5), tcp_node_depths=(16,),
)
