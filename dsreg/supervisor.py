"""All nodes of a cluster as child processes of this one: `dsreg up` and the embedded cluster.

A node that dies is started again, after a pause that grows while it keeps dying. What the nodes print
comes out line by line through one function, with the rank. When the supervisor stops, so do they, in the
order of their ranks; when it is killed, the kernel tells them (see `dsreg node --supervisor-pid`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

import dsreg
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.constants import DRAIN_S
from dsreg.errors import ConfigError, StartFailed
from dsreg.logs import for_children, pass_on, text_of
from dsreg.register.quorum import majority_of, mask
from dsreg.storage import OsFiles
from dsreg.storage.opening import Seen, look

# A node that dies at once must not cost a core; one that died of a passing fault must be back soon.
RESTART_FIRST_S = 0.2
RESTART_MAX_S = 10.0
# The pauses of a node that has never listened, where the supervisor gives up (see `supervise`): what keeps a node
# from its first start is mostly for a person to mend. Their sum is above DRAIN_S, the time for which the nodes of a
# supervisor that was killed may still have the ports and the directories.
START_PAUSES_S = (0.2, 0.8, 4.0)
# A node that ran this long had started well: its next pause is the first one again.
STEADY_S = 30.0
# The next node is told to stop when the one before has, or after this long: with a majority still up a
# node drains at once; without one it waits for its deadline, and N deadlines in a row are too long.
STOP_STAGGER_S = 1.0
# Above a node's own deadline, so that SIGKILL meets only one that hangs.
STOP_GRACE_S = DRAIN_S + 2.0
# The wait for the last output of a process that has ended; it is normally there at once.
OUTPUT_GRACE_S = 1.0
# A longer line is passed on in pieces, so that a node which prints no newline costs no memory.
MAX_LINE_BYTES = 64 * 1024
EXIT_CONFIG = 2  # the exit code of `dsreg node` for what no restart can mend

Command = Callable[[NodeAddress], Sequence[str]]
Log = Callable[[int, str], None]


class NodeProcess:
    """One node and the process that runs it now, if any. `restarts` counts from 0.

    `gives_up`: after len(START_PAUSES_S) restarts without ever having listened there is no other; `failure` says why.
    """

    def __init__(self, node: NodeAddress, arguments: Sequence[str], log: Log, *, gives_up: bool = False) -> None:
        self.rank = node.rank
        self.restarts = 0
        self.listening = trio.Event()  # set for good once the node has listened for the first time
        self.gone = trio.Event()  # set while no process runs
        self.gone.set()
        self.refused = False  # the node exited with EXIT_CONFIG
        self.failure = ""  # why it was given up
        self._gives_up = gives_up
        self._last_line = ""  # of the process that runs or ran last
        self._arguments = list(arguments)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = trio.Event()

    @property
    def pid(self) -> int | None:
        """The process id of the running process, None between two of them."""
        return self._process.pid if self._process else None

    def terminate(self) -> None:
        """Tell the process to stop, and start no other."""
        self._stopping.set()
        if self._process:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process:
            self._log(self.rank, f"does not stop within {STOP_GRACE_S:g} s; killed")
            self._process.kill()

    async def keep_running(self) -> None:
        """Run the node again and again until `terminate`, or until it refuses its configuration or is given up."""
        pause_s = RESTART_FIRST_S
        while not self._stopping.is_set():
            started_s = trio.current_time()
            try:
                # Shielded: the process outlives a cancellation until it has been stopped in order.
                with trio.CancelScope(shield=True):
                    code = await self._run_once()
                ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            except OSError as error:
                code, ending = -1, f"cannot be started: {error.strerror}"
            if self._stopping.is_set():
                return
            if code == EXIT_CONFIG:
                self.refused = True
                return
            if trio.current_time() - started_s >= STEADY_S:
                pause_s = RESTART_FIRST_S
            if self._gives_up and not self.listening.is_set():
                if self.restarts == len(START_PAUSES_S):
                    self.failure = text_of(self._last_line) or ending
                    return
                await self._pause(ending, START_PAUSES_S[self.restarts])
            else:
                await self._pause(ending, pause_s)
                pause_s = min(2 * pause_s, RESTART_MAX_S)
            self.restarts += 1

    async def _pause(self, ending: str, pause_s: float) -> None:
        self._log(self.rank, f"{ending}; starts again in {pause_s:g} s")
        with trio.move_on_after(pause_s):
            await self._stopping.wait()

    async def _run_once(self) -> int:
        """Start the process, pass on what it prints, return its exit code (-n for signal n)."""
        self._last_line = ""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind("")  # the kernel picks an abstract name
            process, output = self._spawn("@" + notify.getsockname()[1:].decode("ascii"))
            self._process, self.gone = process, trio.Event()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._wait_listening, notify)
                    async with output, trio.open_nursery() as readers:
                        readers.start_soon(self._pass_on, output)
                        await _wait_exit(process)
                        # What it printed last is in the pipe; only a process it left behind could hold that open.
                        readers.cancel_scope.deadline = trio.current_time() + OUTPUT_GRACE_S
                    nursery.cancel_scope.cancel()
            finally:
                process.kill()  # does nothing unless an exception brought us here and nobody watches it any more
                process.wait()
                self._process = None
                self.gone.set()
        return process.returncode

    def _spawn(self, notify_name: str) -> tuple[subprocess.Popen[bytes], trio.lowlevel.FdStream]:
        # Popen in this very thread, not in a worker: the kernel's parent-death signal is sent when the
        # thread that created the child ends, and trio's idle workers end after ten seconds.
        reader, writer = os.pipe()
        # The children run the very code that this process runs, installed or not.
        paths = [str(Path(dsreg.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **for_children(), "NOTIFY_SOCKET": notify_name,
                       "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        try:
            process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment,
                process_group=0,  # Ctrl-C at the terminal is for the supervisor, which stops them in order
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return process, trio.lowlevel.FdStream(reader)

    async def _wait_listening(self, notify: socket.socket) -> None:
        """Return once the process has sent READY=1, as it would to systemd."""
        channel = trio.socket.from_stdlib_socket(notify)
        while b"READY=1" not in (await channel.recv(4096)).split(b"\n"):
            pass
        self.listening.set()

    async def _pass_on(self, output: trio.lowlevel.FdStream) -> None:
        """Log every line of `output` until its end."""
        pending = b""
        async for chunk in output:
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            for line in lines:
                self._pass_line(line)
        if pending:
            self._pass_line(pending)

    def _pass_line(self, line: bytes) -> None:
        self._last_line = line.decode("utf-8", "backslashreplace")
        self._log(self.rank, self._last_line)


async def supervise(
    config: ClusterConfig,
    *,
    command: Command | None = None,
    log: Log | None = None,
    stop: trio.Event | None = None,
    gives_up: bool = False,
    task_status: trio.TaskStatus[tuple[NodeProcess, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run all nodes of `config` on this host until `stop` is set or the caller cancels; then stop them and return.

    A node whose directory is gone rejoins by itself: whoever starts all nodes sees all directories. If too many are
    gone for that, none is started: StartFailed.

    `command(node)` gives the arguments of a node's process, `node_command(config)` by default. The process says
    that it listens by sending READY=1 to $NOTIFY_SOCKET. `log(rank, line)` gets every line that a node prints, and
    what happens to its process; by default it writes to stderr. `task_status.started` is called, with the
    processes by rank, once all nodes listen. Raises ConfigError when a node refuses its configuration and, with
    `gives_up`, StartFailed when one dies len(START_PAUSES_S) + 1 times without ever having listened: a port in use,
    a directory that is locked or not its own. The other nodes are stopped then. Without `gives_up`, and once it
    has listened, a node is started again for ever.
    """
    command = command or node_command(config)
    log = log or print_line
    stop = trio.Event() if stop is None else stop
    check_directories(config)
    nodes = tuple(NodeProcess(node, command(node), log, gives_up=gives_up) for node in config.nodes)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(_run_node, node, stop)
        try:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(_report_listening, nodes, task_status)
                await stop.wait()
                waiting.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _stop_in_order(nodes)
    if refused := [node for node in nodes if node.refused]:
        raise ConfigError([f"node {node.rank} does not start with this configuration; see its log" for node in refused])
    if failed := [node for node in nodes if node.failure]:
        ranks = ", ".join(str(node.rank) for node in failed)
        raise StartFailed(f"node {ranks}: not started in {len(START_PAUSES_S) + 1} tries, all nodes are stopped; "
                          "fix the cause, or stop the process that already runs these nodes, and start again: "
                          f"{failed[0].failure}")


def check_directories(config: ClusterConfig) -> None:
    """Raise StartFailed if those that are gone are more than may be missing: what the others have may be old."""
    seen: dict[int, Seen] = {}
    for node in config.nodes:
        if node.storage.is_dir():
            with contextlib.closing(OsFiles(node.storage)) as files:
                directory = look(files)
            if directory is not None:
                seen[node.rank] = directory
    begun = [directory for directory in seen.values() if directory.begun]
    left = config.recovered.ranks if config.recovered is not None else ()
    lost = sorted({
        rank for directory in begun for rank, life in directory.known.items()
        if rank not in seen or not seen[rank].begun and seen[rank].store != life.store
    } | {rank for rank in left if rank not in seen})
    quorum = majority_of(node.rank for node in config.nodes)
    if lost and not quorum.blocks(mask(directory.rank for directory in begun)):
        nodes = " and ".join(f"node {rank}" for rank in lost)
        raise StartFailed(f"the directories of {nodes} are gone, though they were there before: too many to learn from "
                          "the rest what was written. Put them back (are their file systems mounted?). If they are "
                          'lost for good: dsreg recover (runbook, "A majority of the directories is lost")')


def node_command(config: ClusterConfig, *, extra: Sequence[str] = ()) -> Command:
    """The arguments that run a node as a child of this process: `dsreg node ...` and `extra` options."""
    program = [sys.executable, "-P", "-m", "dsreg", "node", "--supervisor-pid", str(os.getpid())]

    def command(node: NodeAddress) -> list[str]:
        return [*program, "--config", str(config.path.absolute()), "--rank", str(node.rank),
                "--storage", str(node.storage.absolute()), "--rejoin", *extra]

    return command


def print_line(rank: int, line: str) -> None:
    """The one log, on stderr. Where nobody reads stderr any more the nodes run on."""
    pass_on(f"node-{rank}", rank, "dsreg.supervisor", line)


async def _run_node(node: NodeProcess, stop: trio.Event) -> None:
    await node.keep_running()
    if node.refused or node.failure:
        stop.set()


async def _report_listening(
    nodes: Sequence[NodeProcess], task_status: trio.TaskStatus[tuple[NodeProcess, ...]]
) -> None:
    for node in nodes:
        await node.listening.wait()
    task_status.started(tuple(nodes))


async def _stop_in_order(nodes: Sequence[NodeProcess]) -> None:
    for node in nodes:
        node.terminate()
        with trio.move_on_after(STOP_STAGGER_S):
            await node.gone.wait()
    with trio.move_on_after(STOP_GRACE_S):
        for node in nodes:
            await node.gone.wait()
    for node in nodes:
        node.kill()
    for node in nodes:
        await node.gone.wait()


async def _wait_exit(process: subprocess.Popen[bytes]) -> None:
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.wait()  # has exited: this only collects the code
