"""Seeded bugs of ordered records: docs/storage.md, "Ordered records", by the number of the scenario there."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_COMMIT = "dsreg.storage.commit"
_PLACING = "dsreg.storage.placing"
_ORDERED = "dsreg.storage.ordered"
_RECOVERY = "dsreg.storage.recovery"
_STABLE = "dsreg.storage.stable"
_JOURNAL = "dsreg.storage.journal"
_TEST = "tests/storage/test_ordered.py::test_"
_SYNC = "            if self.ordered_bytes:\n                self._directory.home.fdatasync()\n"
_WRITE = '            doing = "writing the journal"\n            self._write_journal(kept)\n'

ORDERED = (
    Mutant("ordered_home_not_synced", _COMMIT, _SYNC, "", test=_TEST + "the_journal_has_no_data_of_what_held_nothing"),
    Mutant("ordered_home_synced_after_the_record", _COMMIT, _SYNC + _WRITE, _WRITE + _SYNC,
           test=_TEST + "a_crash_at_every_step"),  # 1
    Mutant("ordered_over_a_live_value", _ORDERED, "record.count >= MIN_SECTORS and _is_all_first(record)",
           "record.count >= MIN_SECTORS", test=_TEST + "what_has_a_value_is_not_written_first"),  # 2
    Mutant("home_first_over_a_live_value", _PLACING, "    if not table.damaged and not any(held):\n",
           "    if not table.damaged:\n", test=_TEST + "what_has_a_value_is_not_written_first"),
    Mutant("home_of_an_older_directory_counts_as_empty", _PLACING,
           "    held = table.held(first, count)\n    if not table.damaged and not any(held):\n",
           "    held = bytes(count)\n    if not table.damaged and not any(held):\n",
           test=_TEST + "an_older_directory_stays_a_source"),  # 3
    Mutant("replay_over_the_home_of_an_ordered_record", _RECOVERY, "has_value and entry.tag(index) ==",
           "has_value or entry.tag(index) ==", test=_TEST + "records_of_before_and_after_in_one_journal"),  # 4
    Mutant("replay_leaves_the_home_to_an_earlier_ordered_record", _RECOVERY,
           "    for entry in entries:\n        _write_home(",
           "    ordered = (at for at, each in enumerate(entries) if each.crcs and not each.data)\n"
           "    for entry in entries[:next(ordered, None)]:\n"
           "        _write_home(",
           test=_TEST + "records_of_before_and_after_in_one_journal"),  # 5
    Mutant("ordered_over_another_record_of_the_commit", _ORDERED, "record.ordered = record in alone",
           "record.ordered = True", test=_TEST + "a_refused_record_of_the_same_commit"),  # 7
    Mutant("ordered_beside_one_that_ends_late", _ORDERED, "        if record.first + record.count > end:\n",
           "        if True:\n", test=_TEST + "records_that_share_sectors"),
    Mutant("ordered_without_end", _STABLE, " - self._ordering.spoken\n", "\n",
           test=_TEST + "a_segment_is_full_when_it_speaks_of_as_much_as_it_could_hold"),
    Mutant("sync_for_ordered_brings_anything_along", _ORDERED, "max(MIN_BYTES, self._unsynced)", "MIN_BYTES",
           test=_TEST + "the_sync_brings_no_more_along_than_it_is_for"),
    Mutant("ordered_record_read_as_one_with_data", _JOURNAL,
           "size = RECORD_BYTES[count] if magic == _RECORD_MAGIC else _head_size(count)", "size = RECORD_BYTES[count]",
           test=_TEST + "the_journal_has_no_data_of_what_held_nothing"),
    Mutant("ordered_record_without_checksums", _COMMIT, "record.crcs = crcs = journal.checksums(record.data, count)",
           "record.crcs = crcs = bytes(4 * count) if record.ordered else journal.checksums(record.data, count)",
           test=_TEST + "a_home_that_is_damaged_later_is_found"),  # 9
)
