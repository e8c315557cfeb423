"""From the greeting to the first command: what each option is answered with. Pure; the connection carries it out.

One export; the empty name, the protocol's default, stands for it as well. Whether a client gets it is decided by
whoever has the disk: `Enter` is answered with `entered` or `refused`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from nbd_frontend import codec
from nbd_frontend.codec import Option
from nbd_frontend.numbers import ALLOCATION_CONTEXT, ExportFlag, HandshakeFlag, Info, OptionType, Reply

# Below that of a sector the block device reads what stands around; a sector; what a request may carry.
MINIMUM_BLOCK, PREFERRED_BLOCK = 512, 4096
ALLOCATION_ID: Final = 1


class Tls(enum.Enum):
    """By the names of the protocol: NOTLS; SELECTIVETLS, with an export that anybody gets, or needs TLS; FORCEDTLS."""

    NONE = enum.auto()
    OFFERED = enum.auto()
    REQUIRED = enum.auto()  # other options are answered without it
    FORCED = enum.auto()  # nothing is


class Export(NamedTuple):
    """What is served. `size` in bytes, as far as is known before somebody has it: it may grow."""

    name: str
    size: int
    description: str = ""
    is_read_only: bool = False
    is_multi_conn: bool = False

    def is_named(self, name: str) -> bool:
        return name in ("", self.name)


class Terms(NamedTuple):
    """What has been agreed on for the commands."""

    structured: bool
    has_allocation: bool  # base:allocation is selected


class Answer(NamedTuple):
    data: bytes


class StartTls(NamedTuple):
    """Send `data`, then nothing but TLS."""

    data: bytes


class Enter(NamedTuple):
    """The client wants the export, by the option `number`."""

    number: int
    infos: frozenset[int]
    terms: Terms


class End(NamedTuple):
    """Send `data`, and close the connection, for this reason; "": as the client wanted."""

    data: bytes
    reason: str = ""


Step = Answer | StartTls | Enter | End


class Negotiation:
    """`flags`: what the client has said first. `is_encrypted`: by TLS, already: what was agreed on before is void."""

    def __init__(self, export: Export, flags: HandshakeFlag, tls: Tls, is_encrypted: bool = False) -> None:
        self._export = export
        self._flags = flags
        self._tls = tls
        self._is_encrypted = is_encrypted
        self._structured = False
        self._allocation_for: str | None = None  # base:allocation is selected for the export of this name
        self._handlers: dict[int, Callable[[bytes], Step]] = {
            OptionType.EXPORT_NAME: self._export_name,
            OptionType.ABORT: lambda data: End(self._reply(OptionType.ABORT, Reply.ACK)),
            OptionType.LIST: self._list,
            OptionType.STARTTLS: self._start_tls,
            OptionType.INFO: self._info,
            OptionType.GO: self._go,
            OptionType.STRUCTURED_REPLY: self._structured_reply,
            OptionType.LIST_META_CONTEXT: lambda data: self._contexts(OptionType.LIST_META_CONTEXT, data),
            OptionType.SET_META_CONTEXT: lambda data: self._contexts(OptionType.SET_META_CONTEXT, data),
        }

    def step(self, option: Option) -> Step:
        number, data = option
        if number != OptionType.EXPORT_NAME and not self._flags & HandshakeFlag.FIXED_NEWSTYLE:
            return End(b"", "an option from a client that does not speak fixed newstyle")
        if self._lacks_tls(number):
            if number == OptionType.EXPORT_NAME:
                return End(b"", "a client without TLS")
            return Answer(self._refusal(number, Reply.ERR_TLS_REQD, "TLS is required"))
        handler = self._handlers.get(number)
        if handler is None:
            return Answer(self._refusal(number, Reply.ERR_UNSUP, f"option {number} is not known here"))
        if data is None and number != OptionType.EXPORT_NAME:
            text = f"more than {codec.MAX_OPTION_BYTES} bytes of data"
            return Answer(self._refusal(number, Reply.ERR_TOO_BIG, text))
        return handler(data or b"") if data is not None else End(b"", "an export name that is too long")

    def entered(self, enter: Enter, size: int) -> bytes:
        """The client has the export, of `size` bytes."""
        flags, self._export = self._export_flags(enter.terms), self._export._replace(size=size)
        export = self._export
        if enter.number == OptionType.EXPORT_NAME:
            return codec.export_name_answer(export.size, flags, bool(self._flags & HandshakeFlag.NO_ZEROES))
        return self._infos(OptionType.GO, enter.infos, enter.terms) + self._reply(OptionType.GO, Reply.ACK)

    def refused(self, enter: Enter, reply: Reply, text: str) -> Answer | End:
        """It does not get it."""
        if enter.number == OptionType.EXPORT_NAME:
            return End(b"", text)  # for which there is no error
        return Answer(self._refusal(enter.number, reply, text))

    # --- options --------------------------------------------------------------------------------
    def _export_name(self, data: bytes) -> Step:
        name = codec.name_in(data)
        if name is None or not self._export.is_named(name):
            return End(b"", "an export of another name was asked for")
        return Enter(OptionType.EXPORT_NAME, frozenset(), self._terms(name))

    def _list(self, data: bytes) -> Step:
        if data:
            return self._invalid(OptionType.LIST, "LIST has no data")
        server = self._reply(OptionType.LIST, Reply.SERVER, codec.server_data(self._export.name))
        return Answer(server + self._reply(OptionType.LIST, Reply.ACK))

    def _start_tls(self, data: bytes) -> Step:
        if self._tls is Tls.NONE:
            return Answer(self._refusal(OptionType.STARTTLS, Reply.ERR_POLICY, "TLS is not set up here"))
        if data or self._is_encrypted:
            return self._invalid(OptionType.STARTTLS, "TLS is in use already" if self._is_encrypted else "data")
        return StartTls(self._reply(OptionType.STARTTLS, Reply.ACK))

    def _info(self, data: bytes) -> Step:
        asked = self._asked(OptionType.INFO, data)
        if not isinstance(asked, codec.GoData):
            return asked
        infos = self._infos(OptionType.INFO, asked.infos, self._terms(asked.name))
        return Answer(infos + self._reply(OptionType.INFO, Reply.ACK))

    def _go(self, data: bytes) -> Step:
        asked = self._asked(OptionType.GO, data)
        if not isinstance(asked, codec.GoData):
            return asked
        return Enter(OptionType.GO, asked.infos, self._terms(asked.name))

    def _asked(self, number: OptionType, data: bytes) -> codec.GoData | Answer:
        asked = codec.go_in(data)
        if asked is None:
            return self._invalid(number, f"the data of {number.name} is malformed")
        if not self._export.is_named(asked.name):
            return self._unknown(number)
        return asked

    def _structured_reply(self, data: bytes) -> Step:
        if data:
            return self._invalid(OptionType.STRUCTURED_REPLY, "STRUCTURED_REPLY has no data")
        self._structured = True
        return Answer(self._reply(OptionType.STRUCTURED_REPLY, Reply.ACK))

    def _contexts(self, number: OptionType, data: bytes) -> Step:
        is_choice = number == OptionType.SET_META_CONTEXT
        if is_choice:
            self._allocation_for = None
        asked = codec.contexts_in(data)
        if asked is None or not self._structured:
            return self._invalid(number, "malformed data" if asked is None else "structured replies come first")
        if not self._export.is_named(asked.name):
            return self._unknown(number)
        wanted = {ALLOCATION_CONTEXT} if is_choice else {ALLOCATION_CONTEXT, "base:"}
        found = bool(wanted & set(asked.queries)) or (not is_choice and not asked.queries)
        if is_choice and found:
            self._allocation_for = asked.name
        context = codec.context_data(ALLOCATION_ID if is_choice else 0, ALLOCATION_CONTEXT)
        told = self._reply(number, Reply.META_CONTEXT, context) if found else b""
        return Answer(told + self._reply(number, Reply.ACK))

    # --- parts ----------------------------------------------------------------------------------
    def _lacks_tls(self, number: int) -> bool:
        if self._is_encrypted or self._tls in (Tls.NONE, Tls.OFFERED):
            return False
        if self._tls is Tls.FORCED:
            return number not in (OptionType.STARTTLS, OptionType.ABORT)
        return number in (OptionType.EXPORT_NAME, OptionType.INFO, OptionType.GO)

    def _terms(self, name: str) -> Terms:
        return Terms(self._structured, self._allocation_for == name)

    def _export_flags(self, terms: Terms) -> ExportFlag:
        flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_CACHE
        if self._export.is_read_only:
            flags |= ExportFlag.READ_ONLY
        else:
            flags |= ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_FAST_ZERO
        if self._export.is_multi_conn:
            flags |= ExportFlag.CAN_MULTI_CONN
        return flags | ExportFlag.SEND_DF if terms.structured else flags

    def _infos(self, number: OptionType, asked: frozenset[int], terms: Terms) -> bytes:
        export = self._export
        infos = [
            codec.export_data(export.size, self._export_flags(terms)),
            codec.block_size_data(MINIMUM_BLOCK, PREFERRED_BLOCK, codec.MAX_PAYLOAD_BYTES),
        ]
        if Info.NAME in asked:
            infos.append(codec.text_data(Info.NAME, export.name))
        if Info.DESCRIPTION in asked and export.description:
            infos.append(codec.text_data(Info.DESCRIPTION, export.description))
        return b"".join(self._reply(number, Reply.INFO, info) for info in infos)

    def _invalid(self, number: OptionType, text: str) -> Answer:
        return Answer(self._refusal(number, Reply.ERR_INVALID, text))

    def _unknown(self, number: OptionType) -> Answer:
        return Answer(self._refusal(number, Reply.ERR_UNKNOWN, "there is no export of this name"))

    @staticmethod
    def _reply(number: int, kind: Reply, data: bytes = b"") -> bytes:
        return codec.option_reply(number, kind, data)

    @staticmethod
    def _refusal(number: int, kind: Reply, text: str) -> bytes:
        return codec.option_reply(number, kind, text.encode())
