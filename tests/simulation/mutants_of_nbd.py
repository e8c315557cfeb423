"""Seeded bugs of the NBD server: what a client is told, when, and which client has the disk."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_ATTACHMENT = "nbd_frontend.attachment"
_CODEC = "nbd_frontend.codec"
_COMMANDS = "nbd_frontend.commands"
_CONNECTION = "nbd_frontend.connection"
_NEGOTIATION = "nbd_frontend.negotiation"
_TEST_CODEC = "tests/nbd/test_codec.py"
_TEST_COMMANDS = "tests/nbd/test_commands.py"
_TEST_CONNECTION = "tests/nbd/test_connection.py"
_TEST_NEGOTIATION = "tests/nbd/test_negotiation.py"

NBD = (
    # Who has the disk.
    Mutant("successor_has_no_newer_epoch", _ATTACHMENT, "attempt.enter_async_context(connect(self._options))",
           "attempt.enter_async_context(connect(VolumeOptions(self._options.config)))",
           test=f"{_TEST_CONNECTION}::test_each_client_has_a_newer_epoch"),
    Mutant("successor_begins_beside_the_first", _ATTACHMENT,
           "return self._is_multi_conn and not attachment.released.is_set()", "return True",
           test=f"{_TEST_CONNECTION}::test_a_second_client_waits_and_is_refused"),
    Mutant("cache_goes_with_its_client", _ATTACHMENT, "            attachment.volume.abandon()\n",
           "            attachment.scope.cancel()\n",
           test=f"{_TEST_CONNECTION}::test_what_is_in_the_cache_is_there_for_the_next_client"),
    Mutant("disk_is_kept_by_who_is_gone", _ATTACHMENT, "            if not attachment.users:\n",
           "            if False:\n",
           test=f"{_TEST_CONNECTION}::test_a_second_client_gets_the_disk_once_the_first_is_gone"),
    # What a reply means.
    Mutant("fua_write_answered_before_it_is_durable", _COMMANDS,
           "Write(request.offset, request.data, bool(request.flags & _FUA))", "Write(request.offset, request.data)",
           test=_TEST_COMMANDS),
    Mutant("fua_zeros_answered_before_they_are_durable", _COMMANDS, "request.length, bool(request.flags & _FUA))",
           "request.length)", test=_TEST_COMMANDS),
    Mutant("fua_trim_answered_before_it_is_durable", _COMMANDS,
           "must_flush = request.flags & _FUA and self._volume.is_cached", "must_flush = False", test=_TEST_COMMANDS),
    Mutant("flush_answered_without_one", _COMMANDS,
           "        self._volume.submit(Flush(), partial(self._answer, request.cookie, 0))",
           "        self._answer(request.cookie, 0, b\"\", 0)", test=_TEST_COMMANDS),
    Mutant("failed_read_answered_with_data", _COMMANDS,
           "        if code:\n            self._fail(cookie, _of(code))\n        elif not self._terms.structured:\n",
           "        if not self._terms.structured:\n", test=_TEST_COMMANDS),
    Mutant("trim_past_the_end", _COMMANDS, "if offset + length > self._volume.size:",
           "if offset > self._volume.size:", test=_TEST_COMMANDS),
    Mutant("read_only_disk_is_trimmed", _COMMANDS,
           "frozenset({CommandType.WRITE, CommandType.TRIM, CommandType.WRITE_ZEROES})",
           "frozenset({CommandType.WRITE, CommandType.WRITE_ZEROES})", test=_TEST_COMMANDS),
    Mutant("command_counted_for_ever", _COMMANDS, "        self.in_flight -= 1\n", "", test=_TEST_COMMANDS),
    Mutant("no_bound_on_bytes_in_flight", _COMMANDS,
           "and (not held or held + _cost(request) <= MAX_IN_FLIGHT_BYTES)", "", test=_TEST_COMMANDS),
    # Bytes.
    Mutant("structured_reply_with_a_wrong_offset", _CODEC, "Chunk.OFFSET_DATA, cookie, size, offset)",
           "Chunk.OFFSET_DATA, cookie, size, 0)", test=_TEST_CODEC),
    Mutant("structured_reply_of_a_wrong_length", _CODEC, "    size = length + 8\n", "    size = length\n",
           test=_TEST_CODEC),
    Mutant("large_payload_is_kept", _CODEC, "self._begin(length, keep=length <= MAX_PAYLOAD_BYTES)",
           "self._begin(length, keep=True)", test=_TEST_CODEC),
    Mutant("payload_of_a_refused_write_is_taken_for_requests", _CODEC, "            if kind != _WRITE:\n",
           "            if kind != _WRITE or length > MAX_PAYLOAD_BYTES:\n", test=_TEST_CODEC),
    # Before the first command, and after the last.
    Mutant("export_without_tls", _NEGOTIATION,
           "if self._is_encrypted or self._tls in (Tls.NONE, Tls.OFFERED):",
           "if self._is_encrypted or self._tls is not Tls.FORCED:", test=_TEST_NEGOTIATION),
    Mutant("allocation_of_another_export", _NEGOTIATION, "self._allocation_for == name)",
           "self._allocation_for is not None)", test=_TEST_NEGOTIATION),
    Mutant("what_was_said_in_clear_text_holds_with_tls", _CONNECTION,
           "                decoder = OptionDecoder(decoder.flags)\n                negotiation = None\n", "",
           test="tests/nbd/test_tls.py"),
    Mutant("disconnect_drops_what_is_in_flight", _CONNECTION,
           "                    await self._finish(commands)\n                    return \"\"\n",
           "                    return \"\"\n", test=_TEST_CONNECTION),
)
