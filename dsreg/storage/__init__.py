"""Stable storage: tag and value of every sector of one node, in one directory, through any crash.

    persist -> queue -> Commit.run: journal, fdatasync -> tickets done -> home
                        Checkpoint.run: home and tags durable -> journal segment free
    load    -> home, checked against the checksum that goes with the tag
    open    -> tags, then the journal over them, then a new incarnation

    stable      StableStorage: the queue, the tickets, who may run when; all in one thread
    commit      Record, Ticket, Commit: the batch and the order of its writes (the rules stand there)
    placing     which homes a commit writes before the journal and which after it, and which slots are new
    zeroing     zeros over many chunks by one command, on their way to a commit
    punching    room under such zeros that is given back later
    ordered     which data goes home first, for good, and not to the journal
    checkpoint  Checkpoint
    load        LoadJob, Loaded
    verify      what is on the disk against its checksums, for a scrub
    opening     lock, create or upgrade, recover
    recovery    what open does with what a crash left
    journal     segments and records, replay
    tags        the table: what is known of each sector, runs of zeros included
    slot_table  what slots and chunks say of it
    zero_runs   runs of chunks that one command zeroed; zeros_file: at rest
    extents     which whole chunks have no data
    chunks      what whole chunks say without data
    slots       the byte layout of the file tags
    pages       the slots that are in memory
    index       which slot a key has; index_file: at rest
    persists    what of a persist is to be stored
    state       incarnation and tag reservation
    identity    identity.toml
    lives       by which directory each rank is known
    configuration   which nodes there are, how large the disk is, and how the node has voted about that
    learning    what a directory knows that began with every sector unknown; learned: its pure half
    upgrade     from older formats
    directory   creation, lock, open files
    new_cluster a directory becomes one of another cluster
    failure     the first fatal error
    layout      names, sizes, limits
    numbers     arrays of numbers as files have them
    files       the seam to the operating system

Two kinds of damage. *Missing*: the tag is known, the value is lost (a checksum does not hold): the node still
counts with its tag, and any persist with a tag at least as high heals it. *Unknown*: the tag is lost
as well (a slot of the file tags is damaged): the node must not answer for the sector until a majority
without it has given it one (persist with repair=True). Damage is found again after a restart; what a
checkpoint rewrites carries a mark. Damage to what was acknowledged and cannot be found again, in the journal
or in both copies of the state, is DamagedStorage: the node does not start.

A directory may also begin with every sector to be learned (learning): then the tags are a lower bound, what is stored
is kept, and nothing is answered of a sector until it is learned.

Nothing here awaits; what blocks is called `run`, `open` or `close`, and may be called in a thread.
"""

from __future__ import annotations

from dsreg.storage.checkpoint import Checkpoint
from dsreg.storage.commit import Commit, Refusal, Ticket
from dsreg.storage.directory import Start
from dsreg.storage.files import File, Files, OsFiles
from dsreg.storage.identity import Identity
from dsreg.storage.load import Loaded, LoadJob
from dsreg.storage.stable import StableStorage

__all__ = [
    "Checkpoint",
    "Commit",
    "File",
    "Files",
    "Identity",
    "LoadJob",
    "Loaded",
    "OsFiles",
    "Refusal",
    "StableStorage",
    "Start",
    "Ticket",
]
