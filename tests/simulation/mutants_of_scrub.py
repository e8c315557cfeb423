"""Seeded bugs of scrubbing: what is verified, what counts as damage, what is put in its place, what is told."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_SCRUB = "dsreg.register.scrub"
_DAMAGE = "dsreg.register.damage"
_VERIFY = "dsreg.storage.verify"
_PERSISTS = "dsreg.storage.persists"
_PLAYS = "tests/register/test_scrub.py"
_TEST_VERIFY = "tests/storage/test_verify.py"

SCRUB = (
    # Caught by seeds: damage is found where none was done.
    Mutant("scrub_counts_what_was_never_written", "dsreg.storage.load",
           "                without.append(index)\n                continue\n",
           "                without.append(index)\n"),
    Mutant("scrub_takes_what_was_stored_meanwhile_for_damage", "dsreg.storage.stable",
           "            if changed or sector in self._storing:\n",
           "            if False:\n"),
    # Caught by their tests.
    Mutant("scrub_never_looks_at_values", "dsreg.storage.load",
           "        self._verify()\n        if not was_there and", "        if not was_there and", test=_TEST_VERIFY),
    Mutant("scrub_misses_the_last_chunk", _SCRUB, "if found is not None and found < end:",
           "if found is not None and found < end - 1:", test=_PLAYS),
    Mutant("scrub_hurries_over_what_is_empty", _SCRUB, "            if not of.number and now < (due_s :=",
           "            if passed < self._chunks and not of.number and now < (due_s :=", test=_PLAYS),
    Mutant("scrub_sleeps_over_what_is_written", _SCRUB, "min(due_s, now + LOOK_S)", "due_s", test=_PLAYS),
    Mutant("scrub_is_sure_of_what_was_being_stored", _SCRUB, "if not is_sure and of.tries < MAX_TRIES:", "if False:",
           test=_PLAYS),
    Mutant("scrub_looks_at_what_is_stored_all_the_time_for_ever", _SCRUB, "not is_sure and of.tries < MAX_TRIES:",
           "not is_sure:", test=_PLAYS),
    Mutant("scrub_does_not_give_way", _SCRUB, "BUSY_SECTORS if self._throttle.is_busy(now) else MAX_RUN_SECTORS",
           "MAX_RUN_SECTORS", test=_PLAYS),
    Mutant("scrub_repairs_nothing", _SCRUB, "return [Repair(tuple(sorted(lost)))] if lost else []", "return []",
           test=_PLAYS),
    Mutant("scrub_repairs_once_and_never_again", _SCRUB, "            effects.append(Repair(tuple(lost)))\n",
           "            pass\n", test=_PLAYS),
    Mutant("damage_is_counted_whenever_it_is_met", _DAMAGE, "            if key in self._open:\n",
           "            if False:\n", test=_PLAYS),
    Mutant("damage_is_never_repaired", _DAMAGE, "if not self._is_open(damage):", "if False:", test=_PLAYS),
    Mutant("contradiction_is_not_told", _SCRUB, "if own_crcs[at] != other.crcs[at]:", "if False:", test=_PLAYS),
    Mutant("contradiction_by_the_whole_tag", _SCRUB, "own[EPOCH_SIZE:] != tag[EPOCH_SIZE:]:", "own != tag:",
           test=_PLAYS),
    Mutant("another_write_is_a_contradiction", _SCRUB, "if not own[-1] or own[EPOCH_SIZE:] != tag[EPOCH_SIZE:]:",
           "if not own[-1]:", test=_PLAYS),
    Mutant("contradiction_of_what_was_never_written", _SCRUB, "if not own[-1] or own[EPOCH", "if own[EPOCH",
           test=_PLAYS),
    Mutant("scrub_believes_whom_nobody_counts", _SCRUB, "if message.rank in self.compares():", "if True:", test=_PLAYS),
    Mutant("scrub_takes_any_answer", _SCRUB, "if asked != (message.rank, message.first, message.count):",
           "if asked is None:", test=_PLAYS),
    Mutant("scrub_asks_once", _SCRUB, "if question.times < MAX_TIMES_ASKED and", "if False and", test=_PLAYS),
    Mutant("scrub_asks_for_ever", _SCRUB, "if question.times < MAX_TIMES_ASKED and", "if", test=_PLAYS),
    Mutant("scrub_asks_who_left", _SCRUB, "MAX_TIMES_ASKED and question.rank in self.compares():", "MAX_TIMES_ASKED:",
           test=_PLAYS),
    Mutant("scrub_ends_before_it_is_compared", _SCRUB, "            return bool(self._questions)\n",
           "            return False\n", test=_PLAYS),
    Mutant("who_asks_gets_what_was_verified_before", _SCRUB, "self._wanted = under_way.number + 1", "pass",
           test=_PLAYS),
    Mutant("scrub_takes_half_a_write_for_a_damaged_slot", _VERIFY, "if job.bad and job.writes != pages.writes:",
           "if False:", test=_TEST_VERIFY),
    Mutant("scrub_reads_slots_that_are_being_written", "dsreg.storage.pages",
           "return slot not in self.dirty and slot // PAGE_SLOTS not in self._writing", "return slot not in self.dirty",
           test=_TEST_VERIFY),
    Mutant("a_slot_that_is_damaged_in_the_file_stays_so", _VERIFY, "                pages.dirty.add(slot)\n", "",
           test=_TEST_VERIFY),
    Mutant("who_rewrites_a_slot_frees_the_journal", "dsreg.storage.stable",
           "        if self._sealed is None or not checkpoint.frees:\n", "        if self._sealed is None:\n",
           test=_TEST_VERIFY),
    Mutant("a_value_is_replaced_by_another_one_under_its_tag", _PERSISTS,
           "if lacking and not is_bare(tags, index) and not _is_the_value(", "if False and not _is_the_value(",
           test=_TEST_VERIFY),
    Mutant("heal_does_not_hear_what_a_scrub_has_found", "dsreg.register.heal",
           "for sector in sectors}, mask(self._comparing.ranks))", "for sector in sectors}, 0)",
           test="tests/register/test_heal_repair.py"),
    Mutant("scrub_reads_the_page_cache", "dsreg.storage.files",
           "        os.posix_fadvise(self._fd, start,", "        return; os.posix_fadvise(self._fd, start,",
           test="tests/storage/test_files.py"),
)
