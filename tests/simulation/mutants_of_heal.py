"""Seeded bugs of healing: what a node compares, takes and stores without anybody having asked for it."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_HEAL = "dsreg.register.heal"
_WORK = "dsreg.register.heal_work"
_DIGESTS = "dsreg.register.digests"
_COMPARING = "dsreg.register.comparing"
_THROTTLE = "dsreg.register.throttle"
_PLAYS = "tests/register/test_heal.py"
_TEST_DIGESTS = "tests/register/test_digests.py"
_TEST_THROTTLE = "tests/register/test_throttle.py"

HEAL = (
    # Caught by seeds: in the end not all have the same, or one tag stands for two values, or something is left over.
    Mutant("heal_mixes_values", _HEAL, "self._adopt(run, value.rid, value.tags, value.data)",
           "self._adopt(run, value.rid, value.tags, bytes(value.data)[4096:] + bytes(value.data)[:4096])"),
    Mutant("heal_is_answered_and_does_not_hear_it", "dsreg.register.assembly", "return bool(rid & _RIDS_OF_HEAL)",
           "return False"),
    Mutant("heal_never_finishes", _HEAL, "        if not chunk.runs:\n", "        if chunk.runs < 0:\n"),
    Mutant("heal_keeps_a_digest_of_what_was", _DIGESTS, "page.states[begin:end] = bytes(end - begin)", "pass"),
    # Caught by their tests.
    Mutant("heal_passes_over_what_is_not_here_at_all", _COMPARING,
           "if digest not in (UNKNOWN, own.get(chunk))", "if digest not in (UNKNOWN, own.get(chunk, digest))",
           test=_PLAYS),
    Mutant("heal_forgets_what_was_not_answered", _HEAL, "        chunk.failed |= not ok\n", "", test=_PLAYS),
    Mutant("heal_restamps", _HEAL, "        self._epochs.accepted(tags)\n",
           "        tags = b''.join(self._epochs.durable.to_bytes(3) + tag[3:] for tag in iter_tags(tags))\n",
           test=_PLAYS),
    Mutant("digest_misses_a_tag", _DIGESTS, "hashlib.blake2b(tags,", "hashlib.blake2b(tags[16:],", test=_TEST_DIGESTS),
    Mutant("digest_says_unwritten_of_what_is_lost", _DIGESTS, "            return UNKNOWN\n        return",
           "            return b''\n        return", test=_TEST_DIGESTS),
    Mutant("heal_takes_a_lower_tag", "dsreg.register.lacking", "(newest > tag or", "(newest != tag or",
           test="tests/register/test_lacking.py"),
    Mutant("heal_takes_a_lower_tag_of_a_whole_run", "dsreg.register.lacking", "if best > own else []",
           "if best != own else []", test="tests/register/test_lacking.py"),
    Mutant("heal_takes_a_whole_run_that_is_unknown", "dsreg.register.lacking", "if not lost and not unknown and",
           "if", test="tests/register/test_lacking.py"),
    Mutant("heal_takes_from_whom_nobody_counts", _HEAL,
           "question.is_answered_by(message) or not self.counts(message.rank)\n", "question.is_answered_by(message)\n",
           test=_PLAYS),
    Mutant("heal_takes_any_answer", _HEAL, "question is None or not question.is_answered_by(message) or",
           "question is None or", test=_PLAYS),
    Mutant("heal_stores_in_what_is_lost", _HEAL, "data, rid, run.chunk.learns)", "data, rid, True)", test=_PLAYS),
    Mutant("heal_learns_from_too_few", _HEAL,
           "chunk.learns = bool(unknown) and enough", "chunk.learns = bool(unknown)", test=_PLAYS),
    Mutant("heal_learns_less_than_it_was_told", _WORK, "return all(map(", "return any(map(", test=_PLAYS),
    Mutant("heal_mixes_the_tags_of_a_run_in_two_parts", _WORK, "tags[count * TAG_SIZE:])", "tags[:-count * TAG_SIZE])",
           test="tests/register/test_lacking.py"),
    Mutant("heal_learns_and_chooses_again_what_it_had_chosen", _HEAL, "        self._allocator.forget()\n", "",
           test=_PLAYS),
    Mutant("heal_does_not_promise", _HEAL, "return [epochs.fence(value.epoch)]", "return []", test=_PLAYS),
    Mutant("heal_believes_every_epoch", _WORK,
           "value.epoch == epoch and highest_epoch(value.tags) <= value.epoch", "True", test=_PLAYS),
    Mutant("heal_believes_every_tag", _WORK, "and are_plausible(value.tags, now.unix_s)", "", test=_PLAYS),
    Mutant("heal_waits_for_a_broken_link", _HEAL,
           "            self._give_up(question, now)\n        self._differing",
           "            pass\n        self._differing", test=_PLAYS),
    Mutant("heal_stands_still_when_a_link_breaks", _HEAL,
           "        return self._pump(now)  # what waited for its answer goes on without that\n",
           "        return []\n", test=_PLAYS),
    Mutant("heal_does_not_wait_for_room", _HEAL, "self._paused_until_s = now + RETRY_S", "run.chunk.failed = False",
           test=_PLAYS),
    Mutant("heal_fetches_what_is_on_its_way", _HEAL, "if lacks and not chunk.settled and not missing and",
           "if False and", test=_PLAYS),
    Mutant("in_sync_before_it_is_stored", _HEAL, "return self._differing.is_empty and not self._open",
           "return self._differing.is_empty", test=_PLAYS),
    Mutant("what_was_missed_before_there_was_a_link_stays_missed", _COMPARING,
           "return is_new and rank in self._peers", "return False", test="tests/register/test_comparing_again.py"),
    Mutant("each_question_for_digests_begins_a_comparison", _COMPARING,
           "return is_new and rank in self._peers", "return rank in self._peers",
           test="tests/register/test_comparing_again.py"),
    Mutant("compared_once_and_never_again", _COMPARING, "min(peer.again_s, now + self._interval_s)", "math.inf",
           test=_PLAYS),
    Mutant("heal_does_not_give_way", _THROTTLE, "return 0 if under_way else BUSY_SECTORS", "return BUSY_SECTORS",
           test=_TEST_THROTTLE),
    Mutant("heal_sleeps_when_its_rate_would_allow_more", _THROTTLE,
           "if now < self._free_s or self.room(under_way, now) else", "if now < self._free_s else",
           test=_TEST_THROTTLE),
    Mutant("heal_takes_more_than_its_rate", _THROTTLE, "        if now < self._free_s:\n            return 0\n", "",
           test=_TEST_THROTTLE),
)
