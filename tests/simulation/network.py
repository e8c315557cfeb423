"""Simulated connections: byte streams in order, with delays, cuts, partitions and a meddler in the middle.

TCP neither loses, doubles nor reorders bytes; a proxy or a bad memory bank may. So what goes over a connection is
meddled with frame by frame as well: dropped, doubled, swapped with the next, corrupted, and recorded to be sent
again later. Two kinds of frame are never doubled, as the contract cannot bear it: commands of contract clients
(a WRITE that is executed again is another write) and what goes between them and a node.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence

from dsreg.protocol.messages import Buffer
from dsreg.protocol.sealed import MAX_RECORD_BYTES, Sealer
from tests.simulation.loop import Loop
from tests.simulation.options import Options

# Frames kept for replay, per pair of hosts: enough to reach back into an earlier life of a node.
MAX_RECORDED = 200
# TCP gives up on a peer that does not answer after minutes; nobody here waits that long.
CONNECT_TIMEOUT_S = 5.0

Host = int  # a rank, or CLIENTS + the number of a client
CLIENTS = 1000
_DELIVERED, _ENDED = 1, 2


class SimTransport:
    """One end of a connection; stands in for dsreg.transport.Transport. `doubles`: frames may be sent twice."""

    def __init__(self, network: Network, host: Host, peer_host: Host, doubles: bool) -> None:
        self.network = network
        self.host = host
        self.peer_host = peer_host
        self.doubles = doubles
        self.serial = network.new_serial()
        self.peer = f"{host}-{peer_host}#{self.serial}"
        self.outgoing_bytes = 0
        self.closed = False
        self.was_closed_here = False
        self.other: SimTransport
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_end: Callable[[], None] = lambda: None
        self.frames: list[bytes] = []
        self.features = 0
        self._sealer: Sealer | None = None
        self._to_seal: list[Buffer] = []  # at the next flush
        self.record_bytes = MAX_RECORD_BYTES
        self.largest_record = 0
        self.last_arrival_s = 0.0
        self.held: deque[bytes | None] = deque()  # sent into a partition; None: the end

    def __hash__(self) -> int:
        # Ports stand in sets, whose order must not depend on addresses in memory.
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other

    def seal(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.network.sealed(self)

    @property
    def is_sealed(self) -> bool:
        return self._sealer is not None

    def put(self, buffers: Sequence[Buffer]) -> None:
        """Queue one frame."""
        if self.closed:
            return
        if self._sealer is None:
            self.frames.append(b"".join(buffers))
        else:
            if sum(map(len, self._to_seal)) + sum(map(len, buffers)) > self.record_bytes:
                self._seal_frames()
            self._to_seal.extend(buffers)

    def _seal_frames(self) -> None:
        """A record is for the network one frame."""
        if self._to_seal and self._sealer is not None:
            self.frames.append(b"".join(self._sealer.seal(self._to_seal)))
            self._to_seal.clear()

    def flush(self) -> None:
        self._seal_frames()
        if self.frames and not self.closed:
            frames, self.frames = self.frames, []
            self.network.send(self, frames)

    def close(self) -> None:
        """This side is done; the other side sees the end after all that was sent."""
        if not self.closed:
            self.closed = self.was_closed_here = True
            self.network.send_end(self)

    def abandon(self) -> None:
        """As close, but what is under way from here is lost, and the end is seen when it pleases the network."""
        if not self.closed:
            self.closed = True
            self.network.vanish(self)


class Network:
    """`accept(rank)` gives what takes a new connection to that node, None if it does not listen."""

    def __init__(
        self, loop: Loop, options: Options, accept: Callable[[int], Callable[[SimTransport], None] | None]
    ) -> None:
        self.meddles = True
        self.blocked: set[tuple[Host, Host]] = set()
        self.slow: dict[Host, float] = {}  # seconds more for whatever comes from or goes to the host
        self.transports: dict[SimTransport, None] = {}
        self.frames_sent = 0
        self._loop = loop
        self._options = options
        self._accept = accept
        self._shares = [(name, share) for name, share in options.frames]
        self._recorded: dict[tuple[Host, Host], deque[bytes]] = {}
        self._skews: dict[tuple[Host, Host], float] = {}
        self._places: dict[Host, float] = {}  # on a line from 0 to 1
        self._serial = 0

    def sealed(self, transport: SimTransport) -> None:
        self._loop.fault("sealed", transport.peer)

    def new_serial(self) -> int:
        self._serial += 1
        return self._serial

    # --- connecting -----------------------------------------------------------------------------
    def connect(
        self, host: Host, rank: int, doubles: bool, done: Callable[[SimTransport | None], None]
    ) -> None:
        """Calls `done` later, with this side's transport or, if that fails, None."""
        if (host, rank) in self.blocked or (rank, host) in self.blocked:
            self._loop.after(CONNECT_TIMEOUT_S, done, None)
            return
        self._loop.after(self.latency(host, rank), self._arrive, host, rank, doubles, done)

    def _arrive(self, host: Host, rank: int, doubles: bool, done: Callable[[SimTransport | None], None]) -> None:
        accept = self._accept(rank)
        if accept is None:
            self._loop.after(self.latency(rank, host), done, None)
            return
        near, far = SimTransport(self, host, rank, doubles), SimTransport(self, rank, host, doubles)
        near.other, far.other = far, near
        self.transports[near] = self.transports[far] = None
        accept(far)
        self._loop.after(self.latency(rank, host), self._connected, near, done)

    def _connected(self, transport: SimTransport, done: Callable[[SimTransport | None], None]) -> None:
        done(None if transport.closed else transport)

    def latency(self, one: Host, other: Host) -> float:
        options, loop = self._options, self._loop
        latency_s = options.latency_s * (0.5 + loop.rng.random())
        if options.skew != 1.0 and self.meddles:
            latency_s *= self._skew(one, other)
        if options.spread != 1.0 and self.meddles:
            latency_s *= options.spread ** abs(self._place(one) - self._place(other))
        if self.meddles and options.tail and loop.rng.random() < options.tail:
            latency_s += options.tail_s * loop.rng.random()
        if self.slow:
            latency_s += self.slow.get(one, 0.0) + self.slow.get(other, 0.0)
        return latency_s

    def _skew(self, one: Host, other: Host) -> float:
        """Some directions are slow, and stay so: a message to one node is there long before that to another."""
        skew = self._skews.get((one, other))
        if skew is None:
            skew = self._skews[one, other] = self._options.skew if self._loop.chance(0.3) else 1.0
        return skew

    def _place(self, host: Host) -> float:
        place = self._places.get(host)
        if place is None:
            place = self._places[host] = self._loop.rng.random()
        return place

    # --- sending --------------------------------------------------------------------------------
    def send(self, transport: SimTransport, frames: list[bytes]) -> None:
        self.frames_sent += len(frames)
        if self.meddles:
            frames = self._meddle(transport, frames)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self.meddles and self._loop.chance(self._options.split) and len(data) > 1:
            at = self._loop.rng.randrange(1, len(data))
            self._schedule(transport, data[:at])
            self._schedule(transport, data[at:])
        elif data:
            self._schedule(transport, data)

    def send_end(self, transport: SimTransport) -> None:
        self.transports.pop(transport, None)
        self._schedule(transport, None)

    def vanish(self, transport: SimTransport) -> None:
        self.transports.pop(transport, None)
        transport.held.clear()
        transport.last_arrival_s = -1.0  # what is under way is lost
        delay_s = self.latency(transport.host, transport.peer_host) + self._loop.between(0, 1.0)
        self._loop.after(delay_s, self._end, transport)

    def cut(self, transport: SimTransport) -> None:
        """The connection breaks; each side notices in its own time."""
        for side in (transport, transport.other):
            self.transports.pop(side, None)
            side.held.clear()
            side.last_arrival_s = -1.0
            self._loop.after(self._loop.between(0, 0.5), self._end, side)

    def heal(self) -> None:
        """No partition any more; what was held back arrives."""
        self.blocked.clear()
        self._release()

    def unblock(self, pairs: set[tuple[Host, Host]]) -> None:
        self.blocked -= pairs
        self._release()

    def _release(self) -> None:
        for transport in list(self.transports):
            if transport.held and (transport.host, transport.peer_host) not in self.blocked:
                held, transport.held = transport.held, deque()
                for data in held:
                    self._schedule(transport, data)

    def _schedule(self, transport: SimTransport, data: bytes | None) -> None:
        """`data`: None for the end."""
        if self.blocked and (transport.host, transport.peer_host) in self.blocked:
            if data is None:
                self._loop.after(CONNECT_TIMEOUT_S, self._end, transport)
            else:
                transport.held.append(data)
            return
        if transport.last_arrival_s < 0:
            return
        arrival_s = self._loop.now_s + self.latency(transport.host, transport.peer_host)
        if arrival_s < transport.last_arrival_s:
            arrival_s = transport.last_arrival_s
        transport.last_arrival_s = arrival_s
        if data is None:
            self._loop.at(arrival_s, self._end, transport)
        else:
            self._loop.at(arrival_s, self._deliver, transport, data)

    def _deliver(self, transport: SimTransport, data: bytes) -> None:
        receiver = transport.other
        if transport.last_arrival_s < 0 or receiver.closed:
            return
        self._loop.note(_DELIVERED, transport.serial, len(data), zlib.crc32(data))
        receiver.on_data(data)

    def _end(self, transport: SimTransport) -> None:
        """The other side of `transport` learns that the connection is over."""
        receiver = transport.other
        if not receiver.closed:
            self._loop.note(_ENDED, transport.serial, 0, 0)
            receiver.closed = True
            self.transports.pop(receiver, None)
            receiver.on_end()

    # --- meddling -------------------------------------------------------------------------------
    def _meddle(self, transport: SimTransport, frames: list[bytes]) -> list[bytes]:
        loop = self._loop
        between_nodes = transport.host < CLIENTS and transport.peer_host < CLIENTS
        if between_nodes and "replay" in self._options.faults:
            recorded = self._recorded.setdefault((transport.host, transport.peer_host), deque(maxlen=MAX_RECORDED))
            recorded.extend(frames)
        for name, share in self._shares:
            if loop.rng.random() < share * len(frames):
                frames = self._hurt(transport, name, list(frames))
        return frames

    def _hurt(self, transport: SimTransport, name: str, frames: list[bytes]) -> list[bytes]:
        if not frames or (name == "duplicate" and not transport.doubles) or (name == "swap" and len(frames) < 2):
            return frames
        rng = self._loop.rng
        at = rng.randrange(len(frames))
        if name == "drop":
            del frames[at]
        elif name == "duplicate":
            frames.insert(rng.randrange(at, len(frames)) + 1, frames[at])
        elif name == "swap":
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        else:
            frames[at] = self._corrupt(frames[at])
        self._loop.fault(f"frame_{name}", transport.peer)
        return frames

    def _corrupt(self, frame: bytes) -> bytes:
        """Flip a bit, overwrite a range, lose a range, or have some bytes come from nowhere."""
        rng = self._loop.rng
        data = bytearray(frame)
        at = rng.randrange(min(len(data), rng.choice((8, 40, len(data)))))
        match rng.randrange(4):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 16] = rng.randbytes(len(data[at : at + 16]))
            case 2:
                del data[at : at + rng.randrange(1, 64)]
            case _:
                data[at:at] = rng.choice((rng.randbytes(rng.randrange(1, 64)), frame[:8], frame[:40]))
        return bytes(data)

    def replay_to(self, rank: int) -> bool:
        """Send recorded frames to the node once more; False if there is nothing to send or to send it on."""
        rng = self._loop.rng
        sent = False
        for transport in [one for one in self.transports if one.peer_host == rank and not one.closed]:
            recorded = self._recorded.get((transport.host, rank))
            if recorded:
                self._schedule(transport, b"".join(rng.sample(recorded, rng.randint(1, len(recorded)))))
                sent = True
        return sent
