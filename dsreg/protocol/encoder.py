"""Messages to bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsreg.constants import (
    CRC_SIZE,
    DIGEST_SIZE,
    MAGIC,
    MAX_DIGESTS,
    MAX_RANK,
    MAX_RUN_SECTORS,
    OWNER_SIZE,
    SECTOR_SIZE,
    TAG_SIZE,
    UUID_SIZE,
)
from dsreg.protocol.address import pack_addresses
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed, pack_answer, pack_question
from dsreg.protocol.configuration import pack_configuration, pack_record
from dsreg.protocol.extents import EXTENT_SIZE, can_be_mapped
from dsreg.protocol.frames import RUN_KINDS
from dsreg.protocol.hello import hello_bytes
from dsreg.protocol.messages import (
    Accepted,
    Ack,
    AddressReport,
    Buffer,
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    Fenced,
    Hello,
    LivesReport,
    Message,
    PeerMessage,
    ReadProc,
    Receipt,
    RefusedCommand,
    Response,
    ScrubBegun,
    ScrubMessage,
    ScrubRequest,
    Seal,
    Status,
    StatusReport,
    StatusRequest,
    Sums,
    SumsQuery,
    Value,
    WriteProc,
    is_of_contract,
)
from dsreg.protocol.tags import highest_epoch, unpack_tag
from dsreg.protocol.wire import (
    ANSWER,
    ATTACHED_FLAGS,
    ATTACHED_STATE,
    COMMAND,
    FLAG_ALONE,
    FLAG_TAGS,
    FLAG_VALUES,
    FLAG_ZEROS,
    FOLLOWING,
    LIFE,
    MARK_BITS,
    MARKED_LIFE,
    MAX_STATUS_BYTES,
    PEER,
    PROMISED,
    RECEIPT,
    RECEIPTED,
    RESPONSE,
    SCRUB_PASS,
    SEAL_CONTENT,
    TAG,
    Keys,
    Mac,
    NoMac,
    Type,
    extension_header,
    macs,
)
from dsreg.protocol.zeros import are_chunks, is_zeros

_RUN_TYPE: Final = {kind: type_ for type_, kind in RUN_KINDS.items()}
_TAGGED: Final = (CommandKind.STORE, CommandKind.PUT)
_STORING: Final = (CommandKind.WRITE, *_TAGGED)
# Members of enumerations that each frame needs: see dsreg.protocol.messages.
_READ, _TAG, _ATTACH, _OK = CommandKind.READ, CommandKind.TAG, CommandKind.ATTACH, Status.OK
_GET, _PUT, _ZERO, _MAP = CommandKind.GET, CommandKind.PUT, CommandKind.ZERO, CommandKind.MAP
_CONTRACT_TYPE: Final = {CommandKind.READ: Type.READ, CommandKind.WRITE: Type.WRITE}


class Encoder:
    """Signs and lays out messages. Holds nothing but the prepared keys, so one serves any number of streams.

    A message that does not fit its layout (a wrong length, rank or count, a WRITE as a run command, a node
    message without a system key, ...) is a bug of the caller and fails an assertion.
    """

    def __init__(self, keys: Keys | None, *, zeros: bool = False) -> None:
        """`keys`: None for frames that are to be sealed, which have no HMAC. `zeros`: whether data that is all zeros is
        left out, which the other side has to understand."""
        self._leaves_zeros_out = zeros
        self._client, self._system = macs(keys) if keys is not None else (NoMac(), NoMac())
        self._encoders: dict[type, Callable[[Any], list[Buffer]]] = {
            Command: self._command,
            RefusedCommand: self._refused,
            Response: self._response,
            ReadProc: self._read_proc,
            Value: self._value,
            WriteProc: self._write_proc,
            Ack: self._ack,
            Fenced: self._fenced,
            DigestQuery: lambda message: self._about_chunks(Type.DIGESTS, message),
            Digests: self._digests,
            SumsQuery: self._sums_query,
            Sums: self._sums,
            Receipt: self._receipt,
            Hello: self._hello,
            Seal: self._seal,
            LivesReport: self._lives,
            Accepted: self._accepted,
            AddressReport: self._addresses,
            ConfigurationReport: self._configuration,
            Proposed: self._proposed,
            Answered: self._answered,
            StatusRequest: self._status_request,
            StatusReport: self._status_report,
            ScrubRequest: self._scrub_request,
            ScrubBegun: self._scrub_begun,
        }

    def encode(self, message: Message) -> list[Buffer]:
        """The frame of `message` in pieces, to be sent in order: header, contents if any, HMAC.

        The contents are the message's own `tags` and `data`, not copies: they must not change until they are
        sent. Any `data` is contiguous and of bytes. A RefusedCommand gives the answer that refuses it.
        """
        return self._encoders[type(message)](message)

    def _unless_zeros(self, data: Buffer) -> tuple[Buffer, int]:
        """What goes out of the data of sectors in a frame of the extension, and the flag that says so."""
        if self._leaves_zeros_out and data and is_zeros(data):
            return b"", FLAG_ZEROS
        return data, 0

    # --- client frames ------------------------------------------------------------------------
    def _command(self, message: Command) -> list[Buffer]:
        kind, request, first, count, tags, data, extended, epoch, values, owner, alone = message
        if kind is _ATTACH:
            assert first == count == 0 and len(owner) == OWNER_SIZE
            return _signed(self._client, extension_header(Type.ATTACH, request, length=OWNER_SIZE, epoch=epoch), owner)
        if kind is _ZERO or kind is _MAP:
            assert (are_chunks if kind is _ZERO else can_be_mapped)(first, count) and not data
            assert len(tags) == (TAG_SIZE if kind is _ZERO else 0)
            run = {"first": first // MAX_RUN_SECTORS, "count": count // MAX_RUN_SECTORS}
            header = extension_header(_RUN_TYPE[kind], request, **run, length=len(tags), epoch=epoch)
            return _signed(self._client, header, tags)
        assert len(tags) == (count * TAG_SIZE if kind in _TAGGED else 0)
        assert len(data) == (count * SECTOR_SIZE if kind in _STORING else 0)
        if extended:
            assert 1 <= count <= MAX_RUN_SECTORS
            if kind is _PUT:
                tags = tags[:TAG_SIZE]
            data, flags = self._unless_zeros(data)
            length = len(tags) + len(data)
            flags |= FLAG_VALUES if values else FLAG_ALONE if alone else 0
            header = extension_header(
                _RUN_TYPE[kind], request, first=first, count=count, flags=flags, length=length, epoch=epoch
            )
            return _signed(self._client, header, tags, data)
        assert count == 1 and not epoch
        return _signed(self._client, COMMAND.pack(MAGIC, _CONTRACT_TYPE[kind], request, first), data)

    def _refused(self, message: RefusedCommand) -> list[Buffer]:
        assert message.status != Status.OK
        return self._response(Response(message.status, message.kind, message.request, extended=message.extended))

    def _response(self, message: Response) -> list[Buffer]:
        status, kind, request, tags, data, extended, epoch, *_ = message
        ok = status == _OK
        if not extended:
            assert status < Status.STOPPING and not tags
            assert len(data) == (SECTOR_SIZE if ok and kind is CommandKind.READ else 0)
            return _signed(self._client, RESPONSE.pack(MAGIC, status, _CONTRACT_TYPE[kind] + ANSWER, request), data)
        if kind is _MAP and ok:
            return self._of_client(Type.MAP_CHUNKS_ANSWER, request, data, len(data) // EXTENT_SIZE, epoch)
        count, flags = len(tags) // TAG_SIZE or len(data) // SECTOR_SIZE, 0
        if kind is _GET and data:
            flags = FLAG_VALUES
        elif kind is _READ and tags:
            flags = FLAG_TAGS
        elif kind is _ATTACH and ok:
            count, flags, data = 0, *_attached(message)
        assert len(tags) in (0, count * TAG_SIZE) and not ((tags or data) and kind in _STORING)
        missing = not data and kind is not _READ  # the tags of a READ are those of what it has read
        assert kind is _ATTACH or missing or len(data) == count * SECTOR_SIZE
        if kind is not _ATTACH:
            data, left_out = self._unless_zeros(data)
            flags |= left_out
        assert not (data and kind is _TAG)
        assert count <= MAX_RUN_SECTORS and (ok or not tags and not data)
        header = extension_header(
            _RUN_TYPE[kind] + ANSWER, request, status=status, count=count, flags=flags, length=len(tags) + len(data),
            epoch=epoch,
        )
        return _signed(self._client, header, tags, data)

    def _status_request(self, message: StatusRequest) -> list[Buffer]:
        return _signed(self._client, extension_header(Type.STATUS, message.request))

    def _status_report(self, message: StatusReport) -> list[Buffer]:
        assert len(message.body) <= MAX_STATUS_BYTES
        return self._of_client(Type.STATUS_ANSWER, message.request, message.body)

    def _scrub_request(self, message: ScrubRequest) -> list[Buffer]:
        return _signed(self._client, extension_header(Type.SCRUB, message.request))

    def _scrub_begun(self, message: ScrubBegun) -> list[Buffer]:
        return self._of_client(Type.SCRUB_ANSWER, message.request, SCRUB_PASS.pack(message.number))

    def _of_client(self, type_: Type, request: int, content: Buffer, count: int = 0, epoch: int = 0) -> list[Buffer]:
        """From or to a client, about no run."""
        header = extension_header(type_, request, count=count, length=len(content), epoch=epoch)
        return _signed(self._client, header, content)

    # --- either -------------------------------------------------------------------------------
    def _hello(self, message: Hello) -> list[Buffer]:
        return _signed(self._system if message.rank else self._client, hello_bytes(message))

    def _seal(self, message: Seal) -> list[Buffer]:
        type_ = (Type.SEAL_NODE if message.rank else Type.SEAL_CLIENT) + (ANSWER if message.answer else 0)
        assert len(message.content) == SEAL_CONTENT[Type(type_)]
        header = extension_header(type_, 0, rank=message.rank, length=len(message.content))
        return _signed(self._system if message.rank else self._client, header, message.content)

    def _lives(self, message: LivesReport) -> list[Buffer]:
        rank, answer, stage, own, known, mark, marks = message
        assert answer or rank, "no client tells of lives"
        entries = [(stage, mark, own), *((other, marks.get(other, 0), life) for other, life in sorted(known.items()))]
        content = b"".join(MARKED_LIFE.pack(head << MARK_BITS | mark, *life) for head, mark, life in entries)
        return self._report(message, (Type.LIVES_NODE, Type.LIVES_CLIENT), content, len(known))

    def _report(
        self, message: LivesReport | AddressReport | ConfigurationReport, types: tuple[Type, Type], content: bytes,
        count: int = 0, epoch: int = 0,
    ) -> list[Buffer]:
        """`types`: between nodes, for the opener of the connection; to or from a client."""
        rank = message.rank
        type_ = types[0] + (ANSWER if message.answer else 0) if rank else types[1]
        header = extension_header(type_, 0, rank=rank, count=count, length=len(content), epoch=epoch)
        return _signed(self._system if rank else self._client, header, content)

    def _accepted(self, message: Accepted) -> list[Buffer]:
        rank, claimant, life, own, epoch, owner, incarnation, record = message
        content = LIFE.pack(claimant, *life) + LIFE.pack(rank, *own) + PROMISED.pack(owner, incarnation)
        content += pack_record(record) if record is not None else b""
        count = int(record is not None)
        header = extension_header(Type.ACCEPTED, 0, rank=rank, count=count, length=len(content), epoch=epoch)
        return _signed(self._system, header, content)

    def _addresses(self, message: AddressReport) -> list[Buffer]:
        rank, answer, addresses = message
        assert answer or rank, "no client tells of addresses"
        types = Type.ADDRESSES_NODE, Type.ADDRESSES_CLIENT
        return self._report(message, types, pack_addresses(addresses), len(addresses))

    def _configuration(self, message: ConfigurationReport) -> list[Buffer]:
        of_client = Type.CONFIGURATION_CLIENT_ANSWER if message.answer else Type.CONFIGURATION_CLIENT
        content = pack_configuration(message.configuration) + (message.owner if message.rank else b"")
        return self._report(message, (Type.CONFIGURATION_NODE, of_client), content, epoch=message.epoch)

    def _proposed(self, message: Proposed) -> list[Buffer]:
        content, count = pack_question(message.question), len(message.question) - 2
        return self._of_client(Type.PROPOSE, message.request, content, count)

    def _answered(self, message: Answered) -> list[Buffer]:
        return self._of_client(Type.PROPOSE_ANSWER, message.request, pack_answer(message.answer))

    # --- node frames --------------------------------------------------------------------------
    def _read_proc(self, message: ReadProc) -> list[Buffer]:
        if is_of_contract(message):
            assert message.values
            return self._contract_peer(Type.READ_PROC, message)
        flags = FLAG_VALUES if message.values else 0
        return self._peer_run(Type.READ_PROC_RUN, message, flags, message.epoch)

    def _value(self, message: Value) -> list[Buffer]:
        tags, data, count = message.tags, message.data, message.count
        assert len(tags) == count * TAG_SIZE
        assert data is None or len(data) == count * SECTOR_SIZE
        if is_of_contract(message):
            assert data is not None
            return self._contract_peer(Type.VALUE, message, _contract_tag(tags), data)
        if data is None:
            return self._peer_run(Type.VALUE_RUN, message, 0, message.epoch, tags)
        data, flags = self._unless_zeros(data)
        return self._peer_run(Type.VALUE_RUN, message, FLAG_VALUES | flags, message.epoch, tags, data)

    def _write_proc(self, message: WriteProc) -> list[Buffer]:
        tags, data, count = message.tags, message.data, message.count
        assert len(tags) == count * TAG_SIZE and len(data) == count * SECTOR_SIZE
        if is_of_contract(message):
            return self._contract_peer(Type.WRITE_PROC, message, _contract_tag(tags), data)
        data, flags = self._unless_zeros(data)
        return self._peer_run(Type.WRITE_PROC_RUN, message, flags, highest_epoch(tags), tags, data)

    def _ack(self, message: Ack) -> list[Buffer]:
        if is_of_contract(message):
            return self._contract_peer(Type.ACK, message)
        return self._peer_run(Type.ACK_RUN, message, 0, 0, status=Status.OVERTAKEN if message.overtaken else Status.OK)

    def _fenced(self, message: Fenced) -> list[Buffer]:
        return self._peer_run(Type.ACK_RUN, message, 0, message.epoch, status=Status.FENCED)

    def _digests(self, message: Digests) -> list[Buffer]:
        first, count, digests = message.first, message.count, sorted(message.digests.items())
        assert message.following >= first + count
        bits = 0
        for chunk, digest in digests:
            assert first <= chunk < first + count and len(digest) == DIGEST_SIZE
            bits |= 1 << count - 1 - (chunk - first)
        bitmap = (bits << -count % 8).to_bytes((count + 7) // 8)
        content = FOLLOWING.pack(message.following) + bitmap + b"".join(digest for _, digest in digests)
        return self._about_chunks(Type.DIGESTS_ANSWER, message, content)

    def _about_chunks(self, type_: Type, message: DigestQuery | Digests, content: bytes = b"") -> list[Buffer]:
        rank, rid, first, count, *_ = message
        assert 1 <= rank <= MAX_RANK and 1 <= count <= MAX_DIGESTS
        header = extension_header(type_, rid, rank=rank, first=first, count=count, length=len(content))
        return _signed(self._system, header, content)

    def _sums_query(self, message: SumsQuery) -> list[Buffer]:
        return self._peer_run(Type.SUMS, message, 0, 0)

    def _sums(self, message: Sums) -> list[Buffer]:
        assert len(message.tags) == message.count * TAG_SIZE and len(message.crcs) == message.count * CRC_SIZE
        return self._peer_run(Type.SUMS_ANSWER, message, 0, 0, message.tags, message.crcs)

    def _receipt(self, message: Receipt) -> list[Buffer]:
        assert 1 <= message.rank <= MAX_RANK
        assert message.type in RECEIPTED
        assert len(message.uuid) == UUID_SIZE
        return _signed(self._system, RECEIPT.pack(MAGIC, message.rank, message.type + ANSWER, message.uuid))

    def _contract_peer(
        self, type_: Type, message: ReadProc | Value | WriteProc | Ack, *contents: Buffer
    ) -> list[Buffer]:
        assert 1 <= message.rank <= MAX_RANK
        assert message.count == 1
        assert len(message.uuid) == UUID_SIZE
        header = PEER.pack(MAGIC, message.rank, type_, message.uuid, message.rid, message.first)
        return _signed(self._system, header, *contents)

    def _peer_run(
        self, type_: Type, message: PeerMessage | ScrubMessage, flags: int, epoch: int, *contents: Buffer,
        status: int = 0,
    ) -> list[Buffer]:
        assert 1 <= message.rank <= MAX_RANK
        assert 1 <= message.count <= MAX_RUN_SECTORS
        header = extension_header(
            type_,
            message.rid,
            status=status,
            rank=message.rank,
            first=message.first,
            count=message.count,
            flags=flags,
            length=sum(map(len, contents)),
            epoch=epoch,
        )
        return _signed(self._system, header, *contents)


def _contract_tag(tag: bytes) -> bytes:
    """As the contract has it: it knows no epochs."""
    ts, wr, life, epoch = unpack_tag(tag)
    assert not life and not epoch
    return TAG.pack(ts, wr)


def _attached(message: Response) -> tuple[int, bytes]:
    """Flags and content of a good answer to ATTACH."""
    assert len(message.owner) == OWNER_SIZE
    said = (message.alive, message.unsure, message.mixed)
    flags = sum(flag for flag, is_so in zip(ATTACHED_FLAGS, said, strict=True) if is_so)
    return flags, ATTACHED_STATE.pack(message.owner, message.counter, message.believed)


def _signed(mac: Mac | None, header: bytes, *contents: Buffer) -> list[Buffer]:
    assert mac is not None, "a node message, and no system key"
    frame: list[Buffer] = [header, *filter(len, contents)]
    if type(mac) is not NoMac:
        frame.append(mac.sign(*frame))
    return frame
