"""What options are answered with, as plays: an option, then the step that is expected."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbd_frontend.codec import MAX_PAYLOAD_BYTES, Option
from nbd_frontend.negotiation import Answer, End, Enter, Export, Negotiation, StartTls, Step, Terms, Tls
from nbd_frontend.numbers import ALLOCATION_CONTEXT, ExportFlag, HandshakeFlag, Info, OptionType, Reply
from tests.nbd.client import OptionReply, contexts_data, go_data, option_replies, string

SIZE = 1 << 30
EXPORT = Export("disk", SIZE, "a disk of 1GiB")
BOTH = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
READ_WRITE = (ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_TRIM
              | ExportFlag.SEND_WRITE_ZEROES | ExportFlag.SEND_CACHE | ExportFlag.SEND_FAST_ZERO)
READ_ONLY = (ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA
             | ExportFlag.SEND_CACHE)


def begun(export: Export = EXPORT, flags: HandshakeFlag = BOTH, tls: Tls = Tls.NONE, is_encrypted: bool = False
          ) -> Negotiation:
    return Negotiation(export, flags, tls, is_encrypted)


def replies(step: Step) -> list[OptionReply]:
    assert isinstance(step, Answer), step
    return option_replies(step.data)


def kinds(negotiation: Negotiation, number: int, data: bytes | None = b"") -> list[Reply]:
    found = replies(negotiation.step(Option(number, data)))
    assert {reply.option for reply in found} == {number}
    return [reply.kind for reply in found]


def infos(data: bytes) -> dict[int, bytes]:
    """Of the replies to INFO or GO, without the last one, which is an ACK."""
    *found, last = option_replies(data)
    assert (last.kind, last.data) == (Reply.ACK, b"")
    assert all(reply.kind == Reply.INFO for reply in found)
    return {struct.unpack_from(">H", reply.data)[0]: reply.data[2:] for reply in found}


# --- the export -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", "disk"])
def test_info_tells_the_size_what_it_can_and_the_block_sizes(name: str) -> None:
    step = begun().step(Option(OptionType.INFO, go_data(name)))
    assert isinstance(step, Answer)
    assert infos(step.data) == {
        Info.EXPORT: struct.pack(">QH", SIZE, READ_WRITE),
        Info.BLOCK_SIZE: struct.pack(">III", 512, 4096, MAX_PAYLOAD_BYTES),
    }


def test_info_tells_name_and_description_to_those_who_ask() -> None:
    step = begun().step(Option(OptionType.INFO, go_data("", [Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, 77])))
    assert isinstance(step, Answer)
    found = infos(step.data)
    assert (found[Info.NAME], found[Info.DESCRIPTION]) == (b"disk", b"a disk of 1GiB")
    assert set(found) == {Info.EXPORT, Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION}


def test_go_is_the_same_and_enters() -> None:
    negotiation = begun()
    told = negotiation.step(Option(OptionType.INFO, go_data("disk")))
    enter = negotiation.step(Option(OptionType.GO, go_data("disk")))
    assert isinstance(told, Answer) and isinstance(enter, Enter)
    assert enter.terms == Terms(structured=False, has_allocation=False)
    assert infos(negotiation.entered(enter, SIZE)) == infos(told.data)


def test_go_that_is_refused_says_why_and_the_client_may_try_again() -> None:
    negotiation = begun()
    enter = negotiation.step(Option(OptionType.GO, go_data("disk")))
    assert isinstance(enter, Enter)
    refused = negotiation.refused(enter, Reply.ERR_POLICY, "somebody has it")
    assert replies(refused) == [OptionReply(OptionType.GO, Reply.ERR_POLICY, b"somebody has it")]
    assert isinstance(negotiation.step(Option(OptionType.GO, go_data("disk"))), Enter)


@pytest.mark.parametrize("number", [OptionType.INFO, OptionType.GO])
def test_another_name_is_unknown_and_malformed_data_is_invalid(number: OptionType) -> None:
    assert kinds(begun(), number, go_data("other")) == [Reply.ERR_UNKNOWN]
    for bad in (b"", b"\0\0\0\1", go_data("disk") + b"x", go_data("disk")[:-1], string("a\0b") + b"\0\0"):
        assert kinds(begun(), number, bad) == [Reply.ERR_INVALID]


@pytest.mark.parametrize(("export", "flags"), [
    (EXPORT, READ_WRITE),
    (EXPORT._replace(is_read_only=True), READ_ONLY),
    (EXPORT._replace(is_multi_conn=True), READ_WRITE | ExportFlag.CAN_MULTI_CONN),
])
@pytest.mark.parametrize("no_zeroes", [False, True])
def test_export_name(export: Export, flags: ExportFlag, no_zeroes: bool) -> None:
    said = BOTH if no_zeroes else HandshakeFlag.FIXED_NEWSTYLE
    negotiation = begun(export, said)
    enter = negotiation.step(Option(OptionType.EXPORT_NAME, b"disk"))
    assert isinstance(enter, Enter)
    assert negotiation.entered(enter, SIZE) == struct.pack(">QH", SIZE, flags) + bytes(0 if no_zeroes else 124)


def test_export_name_has_no_error_but_the_end() -> None:
    for data in (b"other", b"\xff", None):
        step = begun().step(Option(OptionType.EXPORT_NAME, data))
        assert isinstance(step, End) and step.data == b"" and step.reason
    negotiation = begun()
    enter = negotiation.step(Option(OptionType.EXPORT_NAME, b""))
    assert isinstance(enter, Enter)
    assert negotiation.refused(enter, Reply.ERR_POLICY, "somebody has it") == End(b"", "somebody has it")


def test_list() -> None:
    [server, ack] = replies(begun().step(Option(OptionType.LIST, b"")))
    assert (server.kind, server.data, ack.kind) == (Reply.SERVER, string("disk"), Reply.ACK)
    assert kinds(begun(), OptionType.LIST, b"x") == [Reply.ERR_INVALID]


def test_abort() -> None:
    step = begun().step(Option(OptionType.ABORT, b""))
    assert isinstance(step, End) and option_replies(step.data) == [OptionReply(OptionType.ABORT, Reply.ACK, b"")]


def test_unknown_options_and_too_much_data() -> None:
    for number in (4, 11, 99, 1 << 31):
        assert kinds(begun(), number, b"whatever") == [Reply.ERR_UNSUP]
        assert kinds(begun(), number, None) == [Reply.ERR_UNSUP]
    for number in (OptionType.INFO, OptionType.GO, OptionType.LIST, OptionType.SET_META_CONTEXT):
        assert kinds(begun(), number, None) == [Reply.ERR_TOO_BIG]


def test_a_client_of_the_old_style_has_one_option() -> None:
    negotiation = begun(flags=HandshakeFlag(0))
    assert isinstance(negotiation.step(Option(OptionType.GO, go_data())), End)
    assert isinstance(negotiation.step(Option(OptionType.EXPORT_NAME, b"")), Enter)


# --- structured replies and contexts ----------------------------------------------------------------
def terms(negotiation: Negotiation, name: str = "disk") -> Terms:
    enter = negotiation.step(Option(OptionType.GO, go_data(name)))
    assert isinstance(enter, Enter)
    return enter.terms


def test_structured_replies_bring_df() -> None:
    negotiation = begun()
    assert kinds(negotiation, OptionType.STRUCTURED_REPLY, b"x") == [Reply.ERR_INVALID]
    assert not terms(negotiation).structured
    assert kinds(negotiation, OptionType.STRUCTURED_REPLY) == [Reply.ACK]
    assert terms(negotiation) == Terms(structured=True, has_allocation=False)
    step = negotiation.step(Option(OptionType.INFO, go_data()))
    assert isinstance(step, Answer)
    assert infos(step.data)[Info.EXPORT] == struct.pack(">QH", SIZE, READ_WRITE | ExportFlag.SEND_DF)


@pytest.mark.parametrize("number", [OptionType.LIST_META_CONTEXT, OptionType.SET_META_CONTEXT])
def test_contexts_need_structured_replies_the_name_and_good_data(number: OptionType) -> None:
    negotiation = begun()
    assert kinds(negotiation, number, contexts_data("disk")) == [Reply.ERR_INVALID]
    negotiation.step(Option(OptionType.STRUCTURED_REPLY, b""))
    assert kinds(negotiation, number, contexts_data("other", ALLOCATION_CONTEXT)) == [Reply.ERR_UNKNOWN]
    assert kinds(negotiation, number, contexts_data("disk", ALLOCATION_CONTEXT)[:-1]) == [Reply.ERR_INVALID]
    assert not terms(negotiation).has_allocation


@pytest.mark.parametrize(("number", "queries", "is_found"), [
    (OptionType.LIST_META_CONTEXT, (), True),
    (OptionType.LIST_META_CONTEXT, ("base:",), True),
    (OptionType.LIST_META_CONTEXT, ("qemu:", ALLOCATION_CONTEXT), True),
    (OptionType.LIST_META_CONTEXT, ("qemu:",), False),
    (OptionType.SET_META_CONTEXT, (), False),
    (OptionType.SET_META_CONTEXT, ("base:",), False),
    (OptionType.SET_META_CONTEXT, ("x-y:z", ALLOCATION_CONTEXT), True),
    (OptionType.SET_META_CONTEXT, ("base:allocation2",), False),
])
def test_contexts(number: OptionType, queries: tuple[str, ...], is_found: bool) -> None:
    negotiation = begun()
    negotiation.step(Option(OptionType.STRUCTURED_REPLY, b""))
    *contexts, ack = replies(negotiation.step(Option(number, contexts_data("disk", *queries))))
    is_choice = number == OptionType.SET_META_CONTEXT
    told = struct.pack(">I", 1 if is_choice else 0) + ALLOCATION_CONTEXT.encode()
    assert [(reply.kind, reply.data) for reply in contexts] == [(Reply.META_CONTEXT, told)] * is_found
    assert ack.kind == Reply.ACK
    assert terms(negotiation).has_allocation == (is_choice and is_found)


def test_the_last_choice_of_contexts_counts_and_only_for_the_name_that_it_was_made_for() -> None:
    negotiation = begun()
    negotiation.step(Option(OptionType.STRUCTURED_REPLY, b""))
    chosen = Option(OptionType.SET_META_CONTEXT, contexts_data("disk", ALLOCATION_CONTEXT))
    negotiation.step(chosen)
    assert terms(negotiation, "disk").has_allocation and not terms(negotiation, "").has_allocation
    for undoing in (contexts_data("disk"), contexts_data("other", ALLOCATION_CONTEXT), b"malformed"):
        negotiation.step(chosen)
        negotiation.step(Option(OptionType.SET_META_CONTEXT, undoing))
        assert not terms(negotiation).has_allocation


# --- TLS --------------------------------------------------------------------------------------------
ALL = list(OptionType)


def enters_or_answers(tls: Tls, number: OptionType, is_encrypted: bool = False) -> Step:
    data = {OptionType.INFO: go_data(), OptionType.GO: go_data()}.get(number, b"")
    return begun(tls=tls, is_encrypted=is_encrypted).step(Option(number, data))


def test_tls_that_is_not_set_up_is_refused() -> None:
    assert kinds(begun(), OptionType.STARTTLS) == [Reply.ERR_POLICY]


@pytest.mark.parametrize("tls", [Tls.OFFERED, Tls.REQUIRED, Tls.FORCED])
def test_tls_begins_once_and_without_data(tls: Tls) -> None:
    step = begun(tls=tls).step(Option(OptionType.STARTTLS, b""))
    assert isinstance(step, StartTls)
    assert option_replies(step.data) == [OptionReply(OptionType.STARTTLS, Reply.ACK, b"")]
    assert kinds(begun(tls=tls), OptionType.STARTTLS, b"x") == [Reply.ERR_INVALID]
    assert kinds(begun(tls=tls, is_encrypted=True), OptionType.STARTTLS) == [Reply.ERR_INVALID]


def needs_tls(step: Step) -> bool:
    if isinstance(step, End):
        return step.reason == "a client without TLS"
    return isinstance(step, Answer) and option_replies(step.data)[0].kind == Reply.ERR_TLS_REQD


@pytest.mark.parametrize(("tls", "without"), [
    (Tls.OFFERED, set(ALL)),
    (Tls.REQUIRED, set(ALL) - {OptionType.EXPORT_NAME, OptionType.INFO, OptionType.GO}),
    (Tls.FORCED, {OptionType.STARTTLS, OptionType.ABORT}),
])
def test_which_options_need_tls(tls: Tls, without: set[OptionType]) -> None:
    assert {number for number in ALL if not needs_tls(enters_or_answers(tls, number))} == without
    assert not [number for number in ALL if needs_tls(enters_or_answers(tls, number, is_encrypted=True))]


def test_unknown_options_need_tls_where_all_do() -> None:
    assert kinds(begun(tls=Tls.FORCED), 99) == [Reply.ERR_TLS_REQD]


# --- anything ---------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.binary(max_size=60)))),
       st.sampled_from(Tls), st.booleans(), st.integers(0, 3))
def test_any_options_get_whole_answers(
    options: list[tuple[int, bytes | None]], tls: Tls, is_encrypted: bool, flags: int
) -> None:
    """Each gets one last reply, or enters, or ends it."""
    negotiation = begun(flags=HandshakeFlag(flags), tls=tls, is_encrypted=is_encrypted)
    for number, data in options:
        step = negotiation.step(Option(number, data))
        if isinstance(step, Answer):
            *others, last = option_replies(step.data)
            assert last.kind == Reply.ACK or last.kind & 1 << 31
            assert all(reply.kind in (Reply.SERVER, Reply.INFO, Reply.META_CONTEXT) for reply in others)
        elif isinstance(step, Enter):
            assert number in (OptionType.GO, OptionType.EXPORT_NAME)
            assert is_encrypted or tls in (Tls.NONE, Tls.OFFERED)
