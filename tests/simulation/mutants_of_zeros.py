"""Seeded bugs of zeros that are kept without data: docs/storage.md, "Zeros", by the number of the scenario there."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_COMMIT = "dsreg.storage.commit"
_PLACING = "dsreg.storage.placing"
_TABLE = "dsreg.storage.slot_table"
_FILE = "dsreg.storage.tags_file"
_PERSISTS = "dsreg.storage.persists"
_JOURNAL = "dsreg.storage.journal"
_RECOVERY = "dsreg.storage.recovery"
_ZEROS = "tests/storage/test_zeros.py::test_"
_AT_START = "tests/storage/test_zeros_at_start.py::test_"
_UPGRADE = "tests/storage/test_upgrade.py"
_ENCODE_ONCE, _WIRE, _FRAMES = "dsreg.protocol.encode_once", "dsreg.protocol.wire", "dsreg.protocol.frames"
_CODEC = "tests/protocol/test_codec_zeros.py"
_PUNCHED = "    _punch(directory, table, zeros)  # first, as values may need the room\n"
_WRITTEN = "    for entry in entries:\n        _write_home(directory, table, entry)\n"
_FULL_OF_OTHERS = _AT_START + "a_start_on_a_disk_that_is_full_of_what_came_in_place_of_trimmed_values"

ZEROS = (
    Mutant("zeros_punched_before_they_are_durable", _COMMIT,
           "        if self.tags_wanted:\n            self._claim_tags()\n",
           "        if self.tags_wanted:\n            self._claim_tags()\n        for record in self.records:\n"
           "            for start, stop in record.punched:\n"
           "                self._directory.home.punch((record.first + start) * 4096, (stop - start) * 4096)\n",
           test=_ZEROS + "a_crash_at_every_step_leaves_the_old_value_or_zeros"),  # 1
    Mutant("zeros_punch_what_the_same_commit_stores", _PLACING, " and before[sector] == stored[sector]", "",
           test=_ZEROS + "stores_of_one_commit_in_any_order"),  # 3
    Mutant("zeros_leave_what_the_same_commit_has_stored", _PLACING, "if (held[index] or before[sector]) and",
           "if held[index] and", test=_ZEROS + "stores_of_one_commit_in_any_order"),
    Mutant("zeros_overwritten_without_room", _PLACING, "            if not table.holds(record.first):\n",
           "            if not table.tag(record.first)[-1]:\n",
           test=_ZEROS + "overwriting_zeros_on_a_full_disk_is_refused_and_loses_nothing"),  # 4
    Mutant("runs_over_zeros_written_without_room", _PLACING,
           "    held = table.held(first, count)\n    if not table.damaged and not any(held):\n",
           "    held = table.tags(first, count)[15::16]\n    if not table.damaged and not any(held):\n",
           test=_ZEROS + "overwriting_zeros_on_a_full_disk_is_refused_and_loses_nothing"),
    Mutant("home_of_zeros_read", "dsreg.storage.stable", ", table.held(first, count)  #",
           ", table.tags(first, count)[15::16]  #",
           test=_ZEROS + "one_sector_of_a_chunk_of_zeros_is_stored"),  # 5, 6
    Mutant("zeros_not_punched_by_the_recovery", _RECOVERY, _PUNCHED, "",
           test=_FULL_OF_OTHERS),
    Mutant("recovery_punches_what_a_later_record_stores", _RECOVERY,
           "            kept.add(begin, until)\n", "            pass\n",
           test=_AT_START + "a_start_punches_the_home_of_no_value"),  # 2
    Mutant("recovery_writes_what_was_trimmed_since", _RECOVERY, "has_value and entry.tag(index) ==",
           "True or entry.tag(index) ==", test=_FULL_OF_OTHERS),  # 13
    Mutant("recovery_punches_once_homes_are_written", _RECOVERY, _PUNCHED + _WRITTEN, _WRITTEN + _PUNCHED,
           test=_FULL_OF_OTHERS),  # 14
    Mutant("slot_of_a_chunk_of_zeros_without_marks", _TABLE, "zeros=_ALL_MARKED)", "zeros=0)",
           test=_ZEROS + "one_sector_of_a_chunk_of_zeros_is_stored"),  # 7
    Mutant("mark_of_one_sector_stays", _TABLE, "            page[base + ZEROS_AT] = marks & ~(1 << index)\n", "",
           test=_ZEROS + "data_over_a_mark"),  # 8
    Mutant("marks_of_a_run_stay", _TABLE, "marks | some if zeros else marks & ~some",
           "marks | some if zeros else marks",
           test=_ZEROS + "stores_of_one_commit_in_any_order"),
    Mutant("counter_of_zeros_forgotten", _TABLE, "        self.note(tag)\n", "",
           test=_ZEROS + "the_highest_counter_of_an_attachment_is_known_after_a_start"),  # 9
    Mutant("counter_of_a_chunk_of_zeros_forgotten_by_a_start", _FILE,
           "    table.note(found.tags)\n    if not is_chunk(key):\n",
           "    if not is_chunk(key):\n        table.note(found.tags)\n",
           test=_ZEROS + "the_highest_counter_of_an_attachment_is_known_after_a_start"),
    Mutant("read_of_what_is_punched_stands", _PLACING,
           "        storing.update(sector for sector, has_value in zip(run, held, strict=True) if has_value)\n", "",
           test=_ZEROS + "a_read_under_way_when_its_home_is_punched_is_made_again"),  # 10
    Mutant("directory_of_before_keeps_its_format", "dsreg.storage.upgrade", "if recorded.format == FORMAT:",
           "if recorded.format >= 3:", test=_UPGRADE),  # 12
    Mutant("configuration_of_an_older_format_forgotten", "dsreg.storage.identity",
           "format_ == _CONFIGURED_FORMAT and not joining", "False", test=_UPGRADE),
    Mutant("zeros_journaled_as_never_written", _JOURNAL, "    if tag[-1]:\n        raw =",
           "    if False:\n        raw =",
           test=_ZEROS + "stores_of_one_commit_in_any_order"),
    Mutant("data_that_begins_with_zeros_is_zeros", "dsreg.protocol.zeros", "return _ZEROS.startswith(data)",
           "return _ZEROS.startswith(data[:64])", test=_ZEROS + "zeros_are_told_from_data"),
    Mutant("directory_of_zeros_is_empty", "dsreg.node.process", "and storage.next_chunk(0) is None",
           "and storage.sectors_written == 0", test="tests/node/test_process.py"),
    # On the wire: docs/protocol.md, part 9.
    Mutant("data_left_out_for_who_does_not_know_it", _ENCODE_ONCE,
           "        return self._all[sealed, features & FEATURE_ZEROS != 0].encoder",
           "        return self._all[sealed, True].encoder", test=_CODEC),
    Mutant("data_left_out_towards_an_older_node", _ENCODE_ONCE,
           "        return self._all[sealed, features & FEATURE_ZEROS != 0]\n",
           "        return self._all[sealed, True]\n",
           test="tests/client/test_connection.py"),
    Mutant("data_left_out_is_not_put_back", _WIRE,
           "zeros(sectors) if sectors else content_from(frame, middle)", "content_from(frame, middle)", test=_CODEC),
    Mutant("many_sectors_of_zeros_from_one_small_frame", _WIRE, "fixed + each * count and bounded",
           "fixed + each * count", test=_CODEC),
    Mutant("tags_of_a_node_become_values", _FRAMES,
           "kind is _GET and flags & FLAG_VALUES)", "kind is _GET)",
           test=_CODEC),
    Mutant("read_of_zeros_not_answered", _FRAMES, "length == zeros == 0", "length == 0", test=_CODEC),
    Mutant("accepted_connection_does_not_know_what_its_client_can", "dsreg.link.accepted_line",
           "[Put(LINE, (answer,)), Features(LINE, hello.features)]", "[Put(LINE, (answer,))]",
           test="tests/link/test_accepted_line.py"),
    Mutant("client_does_not_know_what_its_node_can", "dsreg.link.client_line",
           "[Features(greeting.line, greeting.answer.features)]", "[]", test="tests/link/test_client_line.py"),
    Mutant("link_does_not_know_what_its_node_can", "dsreg.link.node_greeting",
           "        effects.append(Features(greeting.line, features))\n", "", test="tests/link/test_node_line.py"),
    Mutant("zeros_of_several_writes_get_one_tag", _PERSISTS, "tag[-1] and before[-1] and not zeros:",
           "tag[-1] and before[-1]:", test=_ZEROS + "any_runs_against_a_model"),
    Mutant("zeros_of_a_chunk_have_another_checksum", _TABLE, "return ZERO_CRC if tag[-1] else bytes(size)",
           "return bytes(size)", test=_ZEROS + "any_runs_against_a_model"),
    Mutant("chunk_says_of_all_groups_what_it_says_of_some", "dsreg.storage.chunks",
           "return highest.tag if not groups & ~highest.cover else None", "return highest.tag",
           test=_ZEROS + "any_runs_against_a_model"),
    Mutant("chunk_says_it_of_groups_that_have_slots", _TABLE, " or self._has_slots(chunk):", ":",
           test=_ZEROS + "any_runs_against_a_model"),
    Mutant("zeros_leave_what_was_stored_before_in_the_commit", _PLACING, "if not before and not any(held):",
           "if not any(held):", test=_ZEROS + "stores_of_one_commit_in_any_order"),
)
