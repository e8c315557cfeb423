"""Everything that a power cut may leave of a storage directory, and a recovery from each of it.

    workload    a seeded life of a storage directory: stores, commits, checkpoints, full disks, restarts, power cuts
    image       a directory after so many operations, what of it is not synced, and what of that may survive
    check       one state: recover, compare with what was acknowledged, use it, recover again
    explore     states of workloads until there are enough

`python -m tests.crash_states --states 100000 --seed 1` explores many; a failure prints the command that replays it.
"""
