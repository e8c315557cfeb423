"""Bytes to messages: the receiving end of one stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from dsreg.chunks import number_of_chunks
from dsreg.constants import HMAC_SIZE, MAGIC, MAX_RANK, MAX_RUN_SECTORS, TAG_SIZE
from dsreg.protocol import frames
from dsreg.protocol.bounds import Bounds, Side
from dsreg.protocol.frames import CONTRACT_KINDS, RUN_KINDS
from dsreg.protocol.messages import (
    Accepted,
    Ack,
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    Fenced,
    Hello,
    Message,
    PeerMessage,
    ReadProc,
    Receipt,
    RefusedCommand,
    Seal,
    Status,
    Sums,
    SumsQuery,
    Value,
    WriteProc,
)
from dsreg.protocol.tags import (
    ATTACHED,
    MAX_EPOCH,
    Tag,
    epoch_of,
    is_restamped,
    is_uniform,
    iter_tags,
    pack_tag,
    unpack_tag,
)
from dsreg.protocol.wire import (
    ALWAYS_KNOWN,
    ANSWER,
    BARE_PEER_SIZE,
    BARE_RESPONSE_SIZE,
    COMMAND,
    EXTENSION,
    FIRST_EXTENSION,
    FLAG_ALONE,
    FLAG_VALUES,
    FLAG_ZEROS,
    GREETING,
    PEER,
    PREFIX_SIZE,
    READ_SIZE,
    RECEIPT,
    RECEIPT_SIZE,
    RECEIPTED,
    TAG,
    TYPE_OFFSET,
    VALUE_SIZE,
    WRITE_SIZE,
    Keys,
    Mac,
    Type,
    extension_size,
    macs,
    read_response_size,
    tags_and_data,
)

# Takes the buffer and where the frame starts; gives the bytes in all, 0 where no length can be trusted.
_Measure = Callable[[memoryview, int], int]
# Takes an authentic frame, without its HMAC; gives None where a field is out of range.
_Decode = Callable[[memoryview], Message | None]
# Takes a frame with a wrong HMAC, without that; gives what answers it.
_Refuse = Callable[[memoryview], RefusedCommand]


class _Rule(NamedTuple):
    """What is done with one message type."""

    size: int  # bytes in all, or, with `measure`, the bytes that it needs to see
    mac: Mac
    decode: _Decode
    measure: _Measure | None = None
    refuse: _Refuse | None = None  # None: dropped


# A magic number cut off by the end of what has arrived may be up to this long.
_MAGIC_TAIL: Final = len(MAGIC) - 1


# Members of enumerations that each frame needs: see dsreg.protocol.messages.
_GET, _PUT, _TAG, _ATTACH = CommandKind.GET, CommandKind.PUT, CommandKind.TAG, CommandKind.ATTACH
_ZERO, _MAP = CommandKind.ZERO, CommandKind.MAP


class Decoder:
    """Cuts a byte stream into messages by the rules of the contract: it slides over garbage, drops what is
    faulty and never gives up. What it delivers depends on the bytes alone, not on how they were split.

    `counters` (of a stream's whole life) has these keys:
    skipped_bytes  bytes that belonged to no frame
    unknown_type   magic numbers followed by a type that is not known here (now)
    bad_header     extension headers with a wrong check or length; the frame is skipped like an unknown type
    bad_mac        frames with a wrong HMAC, including commands that are delivered as refused for it
    bad_field      authentic frames dropped because a rank, sector, run, tag or status is out of range
    """

    def __init__(self, keys: Keys, *, bounds: Bounds, side: Side, extended: bool = False) -> None:
        """`bounds`: of what is taken; Side.CLIENT needs none."""
        client, system = macs(keys)
        self.keys = keys
        self._bounds = bounds
        if side is Side.CLIENT:
            self._all_rules = self._client_rules(client)
        else:
            assert system is not None and bounds.sectors >= 1
            assert bounds.ranks and all(1 <= rank <= MAX_RANK for rank in bounds.ranks)
            self._all_rules = self._node_rules(client, system)
        self.counters: Counter[str] = Counter()
        self._buffer = bytearray()
        self.extended = extended

    @property
    def extended(self) -> bool:
        """Whether extension frames are decoded; greetings are in any case."""
        return self._extended

    @extended.setter
    def extended(self, extended: bool) -> None:
        self._extended = extended
        self._rules = {
            type_: rule
            for type_, rule in self._all_rules.items()
            if extended or type_ < FIRST_EXTENSION or type_ in ALWAYS_KNOWN
        }
        self._needed = 0  # bytes in the buffer below which there is certainly nothing new to see

    @property
    def buffered(self) -> int:
        """Bytes kept for later: less than one frame, so less than MAX_FRAME_SIZE."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Takes the next bytes of the stream; gives the messages they complete, in order.

        A command that must be answered with a failure comes as a RefusedCommand. Time is linear in the length
        of the stream, however it is split.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        if len(buffer) < self._needed:
            return messages
        with memoryview(buffer) as view:
            consumed = self._decode_all(buffer, view, messages)
        del buffer[:consumed]
        return messages

    def _decode_all(self, buffer: bytearray, view: memoryview, messages: list[Message]) -> int:
        """Appends every complete message to `messages`; gives the bytes that are done with."""
        rules, counters, end = self._rules, self.counters, len(buffer)
        position = 0
        while True:
            start = buffer.find(MAGIC, position)
            if start < 0:
                start = max(position, end - _MAGIC_TAIL)
            if start != position:
                counters["skipped_bytes"] += start - position
                position = start
            if end - position < PREFIX_SIZE:
                self._needed = len(MAGIC) if end - position < len(MAGIC) else PREFIX_SIZE
                return position
            rule = rules.get(view[position + TYPE_OFFSET])
            if rule is None:
                counters["unknown_type"] += 1
                counters["skipped_bytes"] += PREFIX_SIZE
                position += PREFIX_SIZE
                continue
            size = rule.size
            if rule.measure is not None and end - position >= size:
                size = rule.measure(view, position)
                if size == 0:
                    counters["bad_header"] += 1
                    counters["skipped_bytes"] += PREFIX_SIZE
                    position += PREFIX_SIZE
                    continue
            if end - position < size:
                self._needed = size
                return position
            message = self._message(rule, view[position : position + size])
            position += size
            if message is not None:
                messages.append(message)
                if isinstance(message, Seal):
                    return position  # what follows is not ours to read: see dsreg.protocol.unsealing

    def _message(self, rule: _Rule, frame: memoryview) -> Message | None:
        body = frame[:-HMAC_SIZE]
        if not rule.mac.verify(frame[-HMAC_SIZE:], body) and not self._find_key(rule.mac, frame):
            self.counters["bad_mac"] += 1
            return rule.refuse(body) if rule.refuse is not None else None
        message = rule.decode(body)
        if message is None:
            self.counters["bad_field"] += 1
        return message

    def _find_key(self, mac: Mac, frame: memoryview) -> bool:
        """Whether `mac` is of another key from now on under which the frame is good: see UnsealingDecoder."""
        return False

    # --- which types are known ----------------------------------------------------------------
    def _client_rules(self, client: Mac) -> dict[int, _Rule]:
        def extension(decode: _Decode) -> _Rule:
            return _Rule(EXTENSION.size, client, decode, extension_size)

        return {
            Type.READ_ANSWER: _Rule(PREFIX_SIZE, client, frames.response, read_response_size),
            Type.WRITE_ANSWER: _Rule(BARE_RESPONSE_SIZE, client, frames.response),
            **{type_ + ANSWER: extension(frames.run_response) for type_ in RUN_KINDS},
            Type.STATUS_ANSWER: extension(frames.status_report),
            Type.SCRUB_ANSWER: extension(frames.scrub_begun),
            Type.HELLO_CLIENT_ANSWER: extension(self._hello),
            Type.LIVES_CLIENT: extension(frames.lives),
            Type.ADDRESSES_CLIENT: extension(frames.addresses),
            Type.CONFIGURATION_CLIENT_ANSWER: extension(frames.configuration),
            Type.PROPOSE_ANSWER: extension(frames.answered),
        }

    def _node_rules(self, client: Mac, system: Mac) -> dict[int, _Rule]:
        def extension(mac: Mac, decode: _Decode, refuse: _Refuse | None = None) -> _Rule:
            return _Rule(EXTENSION.size, mac, decode, extension_size, refuse)

        rules: dict[int, _Rule] = {
            Type.READ: _Rule(READ_SIZE, client, self._command, refuse=frames.unauthentic_command),
            Type.WRITE: _Rule(WRITE_SIZE, client, self._command, refuse=frames.unauthentic_command),
            Type.READ_PROC: _Rule(BARE_PEER_SIZE, system, self._peer),
            Type.VALUE: _Rule(VALUE_SIZE, system, self._peer),
            Type.WRITE_PROC: _Rule(VALUE_SIZE, system, self._peer),
            Type.ACK: _Rule(BARE_PEER_SIZE, system, self._peer),
            Type.HELLO_CLIENT: extension(client, self._hello),
            Type.HELLO_NODE: extension(system, self._hello),
            Type.HELLO_NODE_ANSWER: extension(system, self._hello),
            Type.STATUS: extension(client, frames.status_request),
            Type.SCRUB: extension(client, frames.scrub_request),
            Type.CONFIGURATION_CLIENT: extension(client, frames.configuration),
            Type.PROPOSE: extension(client, frames.proposed),
        }
        for type_ in RECEIPTED:
            rules[type_ + ANSWER] = _Rule(RECEIPT_SIZE, system, self._receipt)
        for type_ in RUN_KINDS:
            rules[type_] = extension(client, self._run_command, frames.unauthentic_run_command)
        rules.update(dict.fromkeys(frames.REPORTS, extension(system, self._report)))
        rules[Type.ACCEPTED] = extension(system, self._accepted)
        for type_ in (Type.DIGESTS, Type.DIGESTS_ANSWER):
            rules[type_] = extension(system, self._digest_message)
        for type_ in (Type.SUMS, Type.SUMS_ANSWER):
            rules[type_] = extension(system, self._sums_message)
        for type_ in (Type.READ_PROC_RUN, Type.WRITE_PROC_RUN, Type.VALUE_RUN, Type.ACK_RUN):
            rules[type_] = extension(system, self._peer_run)
        return rules

    # --- checks -------------------------------------------------------------------------------
    def _run_is_good(self, first: int, count: int) -> bool:
        return 1 <= count <= MAX_RUN_SECTORS and first + count <= self._bounds.sectors

    def _tag_is_good(self, tag: Tag, unwritten: bool) -> bool:
        ts, wr, life, _ = tag
        if not ts:
            return unwritten and wr == life == 0
        return wr in self._bounds.ranks or wr == ATTACHED and epoch_of(ts) > 0

    def _tags_are_good(self, tags: bytes, *, unwritten: bool) -> bool:
        """Whether each tag is of a ts >= 1 and a node's rank or ATTACHED, or, if `unwritten`, of no write at all."""
        if is_uniform(tags):
            return self._tag_is_good(unpack_tag(tags[:TAG_SIZE]), unwritten)
        return all(self._tag_is_good(unpack_tag(tag), unwritten) for tag in iter_tags(tags))

    # --- frames whose fields depend on the cluster ----------------------------------------------
    def _command(self, frame: memoryview) -> Command | RefusedCommand:
        _, type_, request, sector = COMMAND.unpack_from(frame)
        kind = CONTRACT_KINDS[type_]
        if sector >= self._bounds.sectors:
            return RefusedCommand(Status.INVALID_SECTOR_INDEX, kind, request)
        return Command(kind, request, sector, 1, b"", bytes(frame[COMMAND.size :]))

    def _run_command(self, frame: memoryview) -> Command | RefusedCommand:
        _, _, _, type_, request, first, count, flags, length, epoch, _ = EXTENSION.unpack_from(frame)
        kind = RUN_KINDS[type_]
        if epoch > MAX_EPOCH:
            return RefusedCommand(Status.INVALID_SECTOR_INDEX, kind, request, True)
        if kind is _ATTACH:
            return Command.attach(request, epoch, bytes(frame[EXTENSION.size :]))
        if of_chunks := kind is _ZERO or kind is _MAP:
            command = frames.chunk_command(frame, kind, self._bounds.sectors)
            if command is not None and (kind is _MAP or self._tags_are_good(command.tags, unwritten=False)):
                return command
        if of_chunks or not self._run_is_good(first, count):
            return RefusedCommand(Status.INVALID_SECTOR_INDEX, kind, request, True)
        if length == 0:
            values = kind is _GET and bool(flags & FLAG_VALUES)
            alone = kind is _TAG and bool(flags & FLAG_ALONE)
            return Command(kind, request, first, count, b"", b"", True, epoch, values, alone=alone)
        tags, data = tags_and_data(frame, 1 if kind is _PUT else count, count if flags & FLAG_ZEROS else 0)
        # No node names such tags. (0, 0) is the tag of what was never written: nothing is stored under it, but by an
        # attachment that restamps what it has read.
        restamps = epoch > 0 and is_restamped(tags, epoch)
        good = self._tags_are_good(tags, unwritten=restamps)
        if kind is _PUT:
            good = good and restamps
            tags *= count
        if not good:
            return RefusedCommand(Status.INVALID_SECTOR_INDEX, kind, request, True)
        return Command(kind, request, first, count, tags, data, True, epoch)

    def _hello(self, frame: memoryview) -> Hello | None:
        _, _, rank, type_, _, sectors, _, _, length, _, _ = EXTENSION.unpack_from(frame)
        answer = type_ in (Type.HELLO_CLIENT_ANSWER, Type.HELLO_NODE_ANSWER)
        from_node = type_ in (Type.HELLO_NODE, Type.HELLO_NODE_ANSWER)
        # One that is to become a member is greeted, and told who decides. What else it says counts once it is known.
        if length == 0 or (from_node and not 1 <= rank <= MAX_RANK):
            return None
        version, features, cluster, incarnation = GREETING.unpack_from(frame, EXTENSION.size)
        return Hello(rank if from_node else 0, answer, cluster, incarnation, sectors, features, version)

    def _report(self, frame: memoryview) -> Message | None:
        report = frames.REPORTS[frame[TYPE_OFFSET]](frame)
        # It may tell of nodes that this one is yet to hear of: they have become members since.
        return report if report is not None and report.rank in self._bounds.ranks else None

    def _accepted(self, frame: memoryview) -> Accepted | None:
        message = frames.accepted(frame)
        return message if message is not None and self._bounds.ranks >= {message.rank, message.claimant} else None

    def _digest_message(self, frame: memoryview) -> DigestQuery | Digests | None:
        message = frames.digest_message(frame, number_of_chunks(self._bounds.sectors))
        return message if message is not None and message.rank in self._bounds.ranks else None

    def _sums_message(self, frame: memoryview) -> SumsQuery | Sums | None:
        _, status, rank, type_, rid, first, count, *_ = EXTENSION.unpack_from(frame)
        if status != Status.OK or rank not in self._bounds.ranks or not self._run_is_good(first, count):
            return None
        if type_ == Type.SUMS:
            return SumsQuery(rank, rid, first, count)
        tags, crcs = tags_and_data(frame, count)
        return Sums(rank, rid, first, count, tags, bytes(crcs)) if self._tags_are_good(tags, unwritten=True) else None

    def _peer(self, frame: memoryview) -> ReadProc | Value | WriteProc | Ack | None:
        _, rank, type_, uuid, rid, sector = PEER.unpack_from(frame)
        if rank not in self._bounds.ranks or sector >= self._bounds.sectors:
            return None
        if type_ == Type.READ_PROC:
            return ReadProc(rank, rid, sector, 1, True, uuid)
        if type_ == Type.ACK:
            return Ack(rank, rid, sector, 1, uuid)
        ts, wr = TAG.unpack_from(frame, PEER.size)
        if not (wr in self._bounds.ranks if ts else wr == 0):
            return None
        tag = pack_tag(ts, wr)
        data = bytes(frame[PEER.size + TAG_SIZE :])
        if type_ == Type.VALUE:
            return Value(rank, rid, sector, 1, tag, data, uuid)
        return WriteProc(rank, rid, sector, 1, tag, data, uuid)

    def _receipt(self, frame: memoryview) -> Receipt | None:
        _, rank, type_, uuid = RECEIPT.unpack_from(frame)
        return Receipt(rank, type_ - ANSWER, uuid) if rank in self._bounds.ranks else None

    def _peer_run(self, frame: memoryview) -> PeerMessage | None:
        _, status, rank, type_, rid, first, count, flags, _, epoch, _ = EXTENSION.unpack_from(frame)
        if rank not in self._bounds.ranks or not self._run_is_good(first, count) or epoch > MAX_EPOCH:
            return None
        if type_ == Type.READ_PROC_RUN:
            return ReadProc(rank, rid, first, count, bool(flags & FLAG_VALUES), epoch=epoch)
        if type_ == Type.ACK_RUN and status == Status.FENCED:
            return Fenced(rank, rid, first, count, epoch)
        if type_ == Type.ACK_RUN and status in (Status.OK, Status.OVERTAKEN):
            return Ack(rank, rid, first, count, overtaken=status == Status.OVERTAKEN)
        if type_ != Type.WRITE_PROC_RUN and status != Status.OK:
            return None
        tags, data = tags_and_data(frame, count, count if flags & FLAG_ZEROS else 0)
        if not self._tags_are_good(tags, unwritten=True):
            return None
        if type_ == Type.WRITE_PROC_RUN:
            return WriteProc(rank, rid, first, count, tags, data) if is_restamped(tags, epoch) else None
        return Value(rank, rid, first, count, tags, data if flags & FLAG_VALUES else None, epoch=epoch)
