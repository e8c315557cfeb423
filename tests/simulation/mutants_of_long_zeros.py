"""Seeded bugs of zeros over many chunks: docs/storage.md, "Long runs of zeros", by the number of the scenario there."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_RUNS, _ZEROING, _TAGS = "dsreg.storage.zero_runs", "dsreg.storage.zeroing", "dsreg.storage.tags"
_CHECKPOINT, _RECOVERY, _FILE = "dsreg.storage.checkpoint", "dsreg.storage.recovery", "dsreg.storage.zeros_file"
_TEST = "tests/storage/test_long_zeros.py::test_"
_PUNCHING = "tests/storage/test_punching.py::test_"
_CODEC = "tests/protocol/test_codec_zero_chunks.py"
_CLIENT, _PIECES = "tests/client/test_zeroing.py", "dsreg.client.pieces"
_WRITTEN = (
    "            if self._zeros:\n"
    "                zeros_file.write(self._directory.zeros, self._zeros, self._directory.salt)\n"
)
_FREED = "            if self._header is not None:\n                self._free(self._header)\n"

LONG_ZEROS = (
    Mutant("counters_of_runs_are_forgotten_behind_a_checkpoint", "dsreg.storage.recovery", "    if len(table.runs):\n",
           "    if False:\n", test="tests/storage/test_long_zeros.py"),
    Mutant("pieces_whose_time_is_over_unlock_their_sectors", "dsreg.client.engine",
           "                done(b\"\", error)\n\n        def over() -> None:\n",
           "                done(b\"\", error)\n            over()\n\n        def over() -> None:\n",
           test="tests/client/test_zeroing.py"),
    Mutant("late_run_over_a_newer_run", _RUNS, "            if run.tag >= tag:\n", "            if False:\n",
           test="tests/storage/test_zero_runs.py"),
    Mutant("run_hides_newer_values", _RUNS, "[(begin, until)] if some[:TAG_SIZE] < run.tag else []",
           "[(begin, until)]", test=_TEST + "late_zeros_leave_what_is_newer"),  # 1
    Mutant("run_punches_newer_values", _ZEROING, "if record.tags < self._table.newest:", "if False:",
           test=_TEST + "late_zeros_leave_what_is_newer"),
    Mutant("run_punches_what_its_commit_stores", _ZEROING,
           "                kept.add(other.first, other.first + other.count)\n", "                pass\n",
           test=_TEST + "a_value_and_zeros_in_one_commit"),  # 2
    Mutant("run_punches_what_its_commit_has_stored_under_a_higher_tag", _ZEROING, "if is_after or any(",
           "if is_after or False and any(", test=_TEST + "a_value_and_zeros_in_one_commit"),
    Mutant("older_value_keeps_room_under_a_run", "dsreg.storage.stable",
           "            spans = self._zeroing.joined(first, tags, spans, ticket)\n", "            pass\n",
           test=_TEST + "a_value_and_zeros_in_one_commit"),  # 3
    Mutant("segment_free_before_its_runs_are_in_the_file", _CHECKPOINT, _WRITTEN + _FREED, _FREED + _WRITTEN,
           test=_TEST + "a_crash_while_the_file_is_written"),  # 5
    Mutant("runs_never_written", _CHECKPOINT, "            if self._zeros:\n", "            if False:\n",
           test=_TEST + "a_crash_while_the_file_is_written"),
    Mutant("one_copy_of_the_runs", _FILE, "    for place in sorted(_PLACES, key=newest.__eq__):\n",
           "    for place in _PLACES[:1]:\n", test=_TEST + "one_copy_of_the_file_is_enough"),  # 6
    Mutant("run_answers_for_a_lost_tag", _TAGS, "        if over is field or not self.damaged:\n",
           "        if True:\n", test=_TEST + "a_sector_whose_tag_is_lost_is_unknown_under_a_run_too"),  # 7
    Mutant("run_over_what_is_damaged", _ZEROING, "if table.damaged and table.is_damaged_in(first, first + count):",
           "if False:", test=_TEST + "what_is_damaged_is_not_zeroed_from_here"),  # 8
    Mutant("highest_tag_of_an_old_directory_is_none", _RECOVERY,
           "    table.newest = max(told.newest, table.newest)\n", "",
           test=_TEST + "a_start_by_the_index_knows_that_there_is_something_newer"),  # 9
    Mutant("read_of_what_a_run_punches_stands", "dsreg.storage.stable",
           "            if changed or sector in self._storing:\n", "            if sector in self._storing:\n",
           test=_TEST + "a_read_under_way_when_its_home_is_punched_is_made_again"),  # 10
    Mutant("sector_under_a_run_written_without_room", _TAGS,
           "        return not self.runs.starts or self.runs.tag_of(sector // CHUNK_SECTORS) < super().tag(sector)\n",
           "        return True\n", test=_TEST + "overwriting_a_run_on_a_full_disk_is_refused_and_loses_nothing"),  # 11
    Mutant("counter_of_a_run_forgotten", _TAGS, "        self.note(tag)\n", "",
           test=_TEST + "counters_of_an_attachment_are_known_after_a_start"),  # 12
    Mutant("run_without_room_in_the_file", "dsreg.storage.commit",
           "                record.refused = record.refused or record.is_of_chunks\n", "                pass\n",
           test=_TEST + "no_room_for_more_runs_refuses_them_alone"),  # 13
    Mutant("runs_of_the_journal_are_not_replayed", _RECOVERY,
           "        table.put_zeros(first, count, entry.tags)\n", "",
           test=_TEST + "a_crash_at_every_step_leaves_the_old_values_or_zeros"),
    # Room that is given back later.
    Mutant("late_punch_hits_a_newer_value", _ZEROING,
           "                    self.punching.keep(record.first, record.first + record.count)\n",
           "                    pass\n", test=_PUNCHING + "what_is_stored_meanwhile_is_not_punched"),  # 1
    Mutant("segment_free_before_its_room_is_given_back", "dsreg.storage.stable",
           "if self._checkpoint is not None or not self.punching.is_over:", "if self._checkpoint is not None:",
           test=_PUNCHING + "a_crash_before_the_room_is_given_back"),  # 2
    Mutant("full_journal_keeps_room_from_being_given_back", "dsreg.storage.stable",
           "            if punches and not self.punching.is_over:\n",
           "            if punches and not self._queue and not self.punching.is_over:\n",
           test=_PUNCHING + "a_full_journal_is_free_again_once_the_room_is_given_back"),  # 3
    Mutant("store_refused_beside_room_that_is_to_be_given_back", "dsreg.storage.commit",
           "            punching.punch_all()\n", "            pass\n",
           test=_PUNCHING + "a_store_that_finds_no_room_has_it_given_back"),  # 4
    Mutant("what_is_to_be_punched_has_no_bound", "dsreg.storage.stable", " and not self.punching.is_full", "",
           test=_PUNCHING + "with_too_much_to_punch_nothing_is_stored_first"),  # 5
    Mutant("punched_for_ever", _ZEROING, "        for first, stop in commit.piece:\n",
           "        for first, stop in commit.piece[:0]:\n", test=_PUNCHING + "a_store_between_two_pieces"),
    Mutant("quick_disk_gives_no_room_back", "dsreg.node.disk",
           "            self._commit.set()  # that is for the thread\n", "            pass\n",
           test="tests/node/test_disk.py"),
    Mutant("run_beyond_the_disk", "dsreg.protocol.frames", "    if first + count > sectors:\n", "    if False:\n",
           test=_CODEC),  # 15
    Mutant("run_for_a_node_that_does_not_know_it", "dsreg.client.counting",
           " or op.zero and not all(node.zeroes for node in usable)", "", test=_CLIENT),  # 16
    Mutant("zeroing_done_by_one_node", "dsreg.client.quorum", "kind is _PUT or kind is _ZERO", "kind is _PUT",
           test=_CLIENT),
    Mutant("zeroing_is_over_while_pieces_are_under_way", _PIECES,
           "        if not self._under_way and not self._is_over:\n", "        if not self._is_over:\n", test=_CLIENT),
    Mutant("failed_piece_did_not_happen", _PIECES, "            self._is_exposed = True\n", "            pass\n",
           test=_CLIENT),
)
