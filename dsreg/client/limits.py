"""The fixed numbers of the client, each with the reason for its value. Times in seconds."""

from __future__ import annotations

from typing import Final

from dsreg.constants import MAX_COMMAND_BYTES_PER_CONNECTION, MAX_COMMANDS_PER_CONNECTION, MAX_RUN_BYTES

# Before any time.
NEVER: Final = float("-inf")

# A node stops reading from a connection that has its limit of unfinished work. The client stays below that
# limit, so that a node always reads the STATUS that asks whether it is alive. No operation is outstanding
# twice on one connection (but after RESEND_S), so what holds for the client holds for each connection.
MAX_OPERATIONS: Final = MAX_COMMANDS_PER_CONNECTION - 16
MAX_OPERATION_BYTES: Final = MAX_COMMAND_BYTES_PER_CONNECTION - MAX_RUN_BYTES
# Runs of one read() or write() that are under way at once: what MAX_OPERATION_BYTES lets through, in whole runs.
MAX_RUNS_PER_CALL: Final = MAX_OPERATION_BYTES // MAX_RUN_BYTES

# A healthy answer takes some ms, some hundred under full load: a second is a fault or a stall worth a hedge.
# It doubles, so that a cluster that is slow as a whole is not asked again and again.
ATTEMPT_FIRST_S: Final = 1.0
ATTEMPT_MAX_S: Final = 8.0
# A command goes to one node a second time, over the same connection, only when it seems lost on the way: the
# node has answered others since and ATTEMPT_MAX_S have passed, or all is silent and this long has passed
# (doubling: an outage of an hour costs seven repeats).
RESEND_S: Final = 30.0
# What the client asks of a majority itself is answered without waiting for other nodes: after this long it is left to
# a node to find out.
GET_ATTEMPT_S: Final = 0.25
PUT_ATTEMPT_S: Final = 1.0  # and of a MAP: what has not answered by then is left out
# A node gives back up to 1 GiB for it, and several may wait for each other; what follows costs it far more.
ZERO_ATTEMPT_S: Final = ATTEMPT_MAX_S
# A node may be so far behind with writes that a majority has. What goes beyond is not sent to it; once it has caught up
# with the rest it is asked to compare its copy with those of the others, and while it does not, this often.
MAX_LAGGING: Final = MAX_COMMANDS_PER_CONNECTION
MAX_LAGGING_BYTES: Final = MAX_COMMAND_BYTES_PER_CONNECTION
COMPARE_AGAIN_S: Final = 10.0
# A node that did not answer in time is tried last for this long, doubling up to the second figure: each time
# that it is tried again costs some operations a second.
AVOID_FIRST_S: Final = 5.0
AVOID_MAX_S: Final = 60.0
# With answers owed and nothing heard: ask for the status, which a node answers without a majority; then give
# the connection up. A host that vanished is not noticed by TCP for many minutes.
PROBE_S: Final = 5.0
SILENCE_S: Final = 15.0
# A client that has not attached the disk asks no more often than this whether somebody has: one small question to each
# node. Nodes tell of a new attachment by themselves, with the next write; this is for an owner that was cut off and is
# back.
CLEARED_S: Final = 1.0
# A client that has just closed is reported as alive by nodes that have not read the ends of its connections yet. So
# long it is asked for again, this often, before attaching, or a write, is refused.
LEAVES_S: Final = 2.0
LEAVES_AGAIN_S: Final = 0.2
# A node that has said so has no room for this long. While an operation waits its nodes are asked again at each of its
# deadlines, which are ATTEMPT_MAX_S apart at most.
FULL_S: Final = ATTEMPT_MAX_S + 2.0
# An AUTH_FAILURE after a good HELLO means a frame damaged on the way. More than this for one step is no accident.
MAX_REFUSALS: Final = 3
# What the attaching waits for is said again this often, if it goes on.
SAY_AGAIN_S: Final = 60.0
# A node that does not take the epoch of the attachment is told again whose the disk is, no more often than this.
TELL_AGAIN_S: Final = 1.0
# How exact the times above are. A tick goes through the operations in flight, and happens only while there are any.
TICK_S: Final = 0.1
