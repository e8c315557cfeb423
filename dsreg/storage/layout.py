"""Names, sizes and limits of the files in a storage directory. The byte layouts stand beside the code
that reads and writes them: identity.py, lives.py, configuration.py, learning.py, state.py,
marks.py, journal.py, slots.py, zeros_file.py.
"""

from __future__ import annotations

IDENTITY = "identity.toml"
IDENTITY_TMP = "identity.toml.tmp"
STATE = "state"
LIVES = "lives"
LIVES_TMP = "lives.tmp"
CONFIGURATION = "configuration"
CONFIGURATION_TMP = "configuration.tmp"
MARKS = "marks"
MARKS_TMP = "marks.tmp"
LOCK = "lock"
JOURNALS = ("journal.0", "journal.1")
TAGS = "tags"
SECTORS = "sectors"
ZEROS = "zeros"
INDEX = "index"
INDEX_TMP = "index.tmp"
LEARNED = "learned"
LEARNED_TMP = "learned.tmp"
OUR_NAMES = frozenset({
    IDENTITY, IDENTITY_TMP, STATE, LIVES, LIVES_TMP, LOCK, *JOURNALS, TAGS, SECTORS, INDEX, INDEX_TMP, LEARNED,
    LEARNED_TMP, CONFIGURATION, CONFIGURATION_TMP, MARKS, MARKS_TMP, ZEROS,
})
# What to do where LIVES, CONFIGURATION or ZEROS is gone or damaged.
RESTORE_ADVICE = 'restore it from its disk; else treat the directory as lost (runbook, "A node\'s directory is lost")'

# One commit takes at most this much: it bounds how long one sync, and so one acknowledgement, takes.
MAX_COMMIT_BYTES = 8 * 1024 * 1024
# Persists waiting for a commit. Beyond it they are refused, and the sender sends again: with slower
# disks than senders the queue would otherwise take all memory. Eight full commits.
MAX_QUEUED_BYTES = 8 * MAX_COMMIT_BYTES

# One slot of `tags` covers this many consecutive sectors. A sector written far from all others has a slot to itself:
# 256 bytes keep that at 6 % of the sector, within the tenth that the contract allows for everything but the values.
GROUP_SECTORS = 8
SLOT_SIZE = 256
# The tag file grows ahead of need in such steps, by allocation, so that no checkpoint runs out of space.
TAGS_STEP_BYTES = 64 * 1024
# Allocated beyond what is in use, if there is room, so that what was never written can be restamped on a full disk,
# which takes 32 bytes a chunk (8 GiB of the disk). Less where the disk has fewer chunks.
TAGS_AHEAD_BYTES = 256 * 1024

# The unit that a disk writes whole or not at all. Headers and state slots stay within one, and the
# two copies of each lie this far apart, in different pages, so that one bad page leaves the other.
ATOMIC_BYTES = 512
COPY_DISTANCE = 4096
