"""Seeded bugs of a directory in which every sector is unknown until it is learned: docs/lives.md, rule 14."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_LEARNING = "dsreg.storage.learning"
_LEARNED = "dsreg.storage.learned"
_IDENTITY = "dsreg.storage.identity"
_STABLE = "dsreg.storage.stable"
_DIGESTS = "dsreg.register.digests"
_LEARNER = "dsreg.register.learner"
_HEAL = "dsreg.register.heal"
_STORAGE = "tests/storage/test_learning.py"
_VIEW = "tests/storage/test_heal_view.py"
_TEST_DIGESTS = "tests/register/test_digests.py"
_PLAYS = "tests/register/test_learning.py"

LEARNING = (
    # What the directory says.
    Mutant("learning_is_not_marked_at_creation", "dsreg.storage.directory", "learning=store if all_unknown else b\"\"",
           "learning=b\"\"", test=_STORAGE),
    Mutant("learning_is_forgotten_by_a_crash", _IDENTITY, "min(format_, FORMAT), learning, configured)",
           "min(format_, FORMAT), b\"\", configured)", test=_STORAGE),
    Mutant("learning_looks_like_an_older_format", _IDENTITY,
           "LEARNING_FORMAT if recorded.learning else recorded.format",
           "recorded.format", test=_STORAGE),
    Mutant("learning_mark_without_an_id", _IDENTITY, "if not learning:", "if False:", test=_STORAGE),
    Mutant("learning_mark_goes_too_early", _LEARNING, "if self.left else b\"\")", "if self.left > 1 else b\"\")",
           test=_STORAGE),
    Mutant("learning_mark_never_goes", _LEARNING, "        if not progress.raw:\n", "        if progress is None:\n",
           test=_STORAGE),
    Mutant("learning_does_not_begin_durably", _LEARNING,
           "            identity_file.write(self._directory.files, recorded)\n", "            pass\n", test=_STORAGE),
    Mutant("learning_begins_with_what_was_learned", _LEARNING, "        self.know(Runs())\n", "", test=_STORAGE),
    Mutant("learning_takes_the_record_of_another_beginning", _LEARNING,
           "(magic, version, its_learning) != (MAGIC, VERSION, learning)", "(magic, version) != (MAGIC, VERSION)",
           test=_STORAGE),
    Mutant("learning_takes_a_damaged_record", _LEARNING, "or check != _crc(body, salt)", "", test=_STORAGE),
    Mutant("learning_is_never_recorded", _LEARNING, "self._unsaid += self.left < before", "pass", test=_STORAGE),
    Mutant("learning_forgets_that_there_was_no_room", _LEARNING, "            self._unsaid += 1\n",
           "            pass\n",
           test=_STORAGE),
    Mutant("learning_keeps_a_segment_for_ever", _STABLE, "if self._sealed is None or not checkpoint.frees:",
           "if self._sealed is None:", test=_STORAGE),
    # What is unknown.
    Mutant("learner_answers", _STABLE, "return self.learning.with_left(first, count, unknown)", "return unknown",
           test=_STORAGE),
    Mutant("learner_answers_with_values", _STABLE, "if table.damaged or self.learning.left else []",
           "if table.damaged else []", test=_STORAGE),
    Mutant("learner_takes_no_stores", _STABLE, "and self._table.damaged and self._table.unknown_of(first, count):",
           "and self.unknown(first, count):", test=_STORAGE),
    Mutant("learner_knows_less_than_it_was_told", _LEARNED, "if own != told and any(", "if own != told and all(",
           test=_STORAGE),
    Mutant("learner_misses_a_chunk_that_is_known_in_part", _LEARNED, "(gap[0] // MAX_RUN_SECTORS,",
           "(-(-gap[0] // MAX_RUN_SECTORS),", test=_STORAGE),
    Mutant("learner_forgets_a_disk_that_grew", "dsreg.storage.opening", "Learning(directory, recovered.table,",
           "Learning(directory, type(recovered.table)(recorded.identity.sectors),", test=_STORAGE),
    Mutant("runs_lose_one_between_two", "dsreg.runs", "max(stop, self.stops[high - 1])", "self.stops[high - 1]",
           test=_STORAGE),
    Mutant("runs_know_the_gap", "dsreg.runs", "yield start, min(begin, stop)", "yield start + 1, min(begin, stop)",
           test=_STORAGE),
    # What others are told.
    Mutant("digest_says_unwritten_of_what_is_to_be_learned", _DIGESTS,
           "        if unknown is not None and unknown[0] == first:\n", "        if False:\n", test=_VIEW),
    Mutant("digest_passes_over_what_is_to_be_learned", _DIGESTS, "following if unknown is None else unknown[0], listed",
           "following, listed", test=_VIEW),
    Mutant("digest_says_unwritten_where_a_slot_is_lost", "dsreg.storage.tags", "while self.lost and chunk < stop:",
           "while False:", test=_VIEW),
    Mutant("digest_of_one_unknown_chunk_stands_for_more", _DIGESTS,
           "if end == self.chunks or listed.get(end - 1) == UNKNOWN:", "if end == self.chunks:", test=_TEST_DIGESTS),
    # What is learned, from whom.
    Mutant("learner_takes_what_one_knows", _LEARNER,
           "        if not self._enough.blocks(mask(told)):\n            return\n", "", test=_PLAYS),
    Mutant("learner_asks_who_has_not_accepted_its_life", _HEAL, "if self.counts(rank) and self.may_teach(rank)]",
           "if self.counts(rank)]", test=_PLAYS),
    Mutant("learner_hears_who_has_not_accepted_its_life", _HEAL,
           "            or question.teaches and not self.may_teach(message.rank)\n", "", test=_PLAYS),
    Mutant("learner_keeps_what_a_lost_directory_told_of_a_chunk", _HEAL,
           "if chunk.taught and chunk.told.pop(rank, None) is not None:", "if False:", test=_PLAYS),
    Mutant("learner_keeps_what_a_lost_directory_told_of_digests", _LEARNER, "        self._answers.pop(rank, None)\n",
           "",
           test=_PLAYS),
    Mutant("learner_knows_what_could_not_be_stored", _HEAL, "        if chunk.taught and not failed:\n",
           "        if chunk.taught:\n", test=_PLAYS),
    Mutant("learner_counts_what_is_not_durable", _HEAL, "own = self._storage.tags(first, count)  #",
           "own = self._storage.latest_tags(first, count)  #", test=_PLAYS),
    Mutant("learner_takes_less_than_it_was_told", "dsreg.register.heal_work",
           "if not self.chunk.learns and not self.chunk.taught:", "if not self.chunk.learns:", test=_PLAYS),
    Mutant("learner_passes_over_what_another_one_has", _LEARNER, "                    written.add(chunk)\n",
           "                    pass\n", test=_PLAYS),
    Mutant("learner_learns_past_what_was_answered", _LEARNER,
           "end = min(max(answer.following, answer.first + answer.count) for answer in answers)",
           "end = max(max(answer.following, answer.first + answer.count) for answer in answers)", test=_PLAYS),
    Mutant("learner_does_not_try_again", _LEARNER, "            if idle and not self.found.total:",
           "            if False:",
           test=_PLAYS),
    Mutant("learner_begins_with_the_oldest_hint", _LEARNER, "self._hints.pop() if", "self._hints.popleft() if",
           test=_PLAYS),
    Mutant("learner_says_that_it_is_in_sync", "dsreg.register.heal_report", "not lost and not learning.is_recorded and",
           "not lost and",
           test=_PLAYS),
    Mutant("learner_in_sync_before_it_is_durable", "dsreg.register.heal_report",
           "not learning.is_recorded and", "not learning.left and",
           test=_PLAYS),
    Mutant("learner_compares_nothing_in_the_end", _HEAL, "                self._comparing.link_up(rank)\n", "",
           test=_PLAYS),
    Mutant("learner_is_repaired_by_whom_it_may_not_ask", "dsreg.register.repairs",
           "self._storage.damaged_of(first, count):",
           "self._storage.missing(first, count):", test=_PLAYS),
    Mutant("learner_chooses_a_tag_that_it_has_chosen", "dsreg.register.coordinator",
           "floor = max(self._tags.last, highest_ts(self._storage.latest_tags(first, count)))",
           "floor = self._tags.last", test=_PLAYS),
)
