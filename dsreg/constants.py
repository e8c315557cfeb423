"""Every fixed number of the project, each with the reason for its value.

Wire sizes are fixed by the contract (docs/protocol.md); limits are ours and every queue has one.
"""

# --- the contract -----------------------------------------------------------------------------
MAGIC = b"atdd"
SECTOR_SIZE = 4096
HMAC_SIZE = 32
CLIENT_KEY_SIZE = 32
SYSTEM_KEY_SIZE = 64
MAX_RANK = 254  # N < 255: ranks stand in one byte and 255 stays free
UUID_SIZE = 16

# A tag is `epoch u24 | ts u80 | life u16 | wr u8` (dsreg.protocol.tags), which sorts as it ranks; without attachments
# the very bytes of the contract's VALUE and WRITE_PROC, `ts u64 | zero[7] | wr u8`. In memory, in the journal, at rest
# and on the wire it is the same 16 bytes.
TAG_SIZE = 16
ZERO_TAG = bytes(TAG_SIZE)
EPOCH_SIZE = 3
MAX_EPOCH = (1 << 8 * EPOCH_SIZE) - 1
ZERO_SECTOR = bytes(SECTOR_SIZE)

# --- attachments ------------------------------------------------------------------------------
# Who has attached the disk: 16 random bytes, then a name for people (UTF-8, padded with zeros).
OWNER_ID_SIZE = 16
OWNER_NAME_SIZE = 48
OWNER_SIZE = OWNER_ID_SIZE + OWNER_NAME_SIZE
NO_OWNER = bytes(OWNER_SIZE)
# In place of the owner of an epoch that nobody may attach in any more: docs/lives.md, rule 15.
NO_OWNER_ANY_MORE = b"\xff" * OWNER_SIZE

# --- runs -------------------------------------------------------------------------------------
# 256 sectors are 1 MiB: the largest request that the kernel sends through FUSE in one piece.
MAX_RUN_SECTORS = 256
MAX_RUN_BYTES = MAX_RUN_SECTORS * SECTOR_SIZE
# The same, aligned, is a chunk: nodes compare their copies by a digest of the tags of each. 4096 digests to a message
# are 64 KiB, for 4 GiB of disk.
DIGEST_SIZE = 16
# Beside its tag a value has its CRC-32.
CRC_SIZE = 4
MAX_DIGESTS = 4096
# Chunks that one command zeroes, 1 GiB. To give their room back is one system call, for which all of a node waits:
# where all of it had been written 80 ms on a tmpfs, and 300 ms on an ext4, on a busy machine.
MAX_ZERO_CHUNKS = 1024
# Chunks that one command asks about, 32 GiB: what was never written, and what one command zeroed, is said at once
# however much it is, and 1 TiB of that takes 32 commands. And what may stand in the answer: 6 KiB.
MAX_MAP_CHUNKS = 32768
MAX_EXTENTS = MAX_RUN_SECTORS

# --- the journal (each of its two segments) -------------------------------------------------------
# A checkpoint of one segment runs while the other fills: 16 MiB is some hundred milliseconds of writing at
# full speed, several times what a checkpoint takes.
DEFAULT_JOURNAL_BYTES = 16 * 1024 * 1024
# The header area and one record of 256 sectors must fit, with room for others to join its batch.
MIN_JOURNAL_BYTES = 2 * 1024 * 1024
# Recovery reads a segment into memory as a whole.
MAX_JOURNAL_BYTES = 256 * 1024 * 1024

# --- scrub ------------------------------------------------------------------------------------
# What is damaged is to be found while the other copies are whole: disks go bad over months.
DEFAULT_SCRUB_DAYS = 14.0
MAX_SCRUB_DAYS = 3650

# --- limits -----------------------------------------------------------------------------------
# A byte offset into the disk must fit a signed 64-bit off_t, as every kernel interface needs it.
MAX_SECTORS = (1 << 63) // SECTOR_SIZE - 1
# A host, in bytes of UTF-8: its length is one byte where nodes tell each other where they are. A name of the DNS has
# 253 at most, an IPv6 address with its interface fewer.
MAX_HOST_BYTES = 255
# Reading stops when one connection has this much unfinished: deep enough for 256 requests in flight
# (the FUSE maximum that is of use), small enough that a hundred clients cannot exhaust the memory.
MAX_COMMANDS_PER_CONNECTION = 256
MAX_COMMAND_BYTES_PER_CONNECTION = 16 * MAX_RUN_BYTES
# One recv: a third faster on bulk than 1 MiB, which allocates a megabyte for every small message.
RECV_BYTES = 256 * 1024
# Answers kept for a contract peer whose connection is not up yet. It asks again what falls out.
MAX_QUEUED_ANSWERS = 1024
# Message ids remembered per peer to tell a repeat from a new message; a repeat that comes later
# than this many others is executed again, which the algorithm's tags make harmless.
MAX_REMEMBERED_UUIDS = 4096
# Seconds until an unanswered message is sent again; it doubles up to the second figure. The first is
# far above a healthy answer under load (some ms), so that load alone does not double the traffic.
RESEND_FIRST_S = 0.5
RESEND_MAX_S = 8.0
# Seconds that a node may take to finish its work after SIGTERM (the contract with init systems is 5).
DRAIN_S = 4.0
MAX_FILE_DESCRIPTORS = 1024
