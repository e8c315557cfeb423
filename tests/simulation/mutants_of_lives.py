"""Seeded bugs in what nodes make of each other's directories."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_LIVES = "dsreg.register.lives"
_MEMBERS = "dsreg.node.members"
_BY_PLAYS = "tests/register/test_lives.py"
_BY_NODES = "tests/node/test_members.py"

# The rules of docs/lives.md, each left out.
LIVES = (
    Mutant("empty_directory_does_not_wait", _LIVES,
           "if not self._are_enough(answers) and now < self._patience_until_s:", "if False:", test=_BY_PLAYS),
    Mutant("who_has_heard_is_overruled", _LIVES, "            self.denied = teller, life\n            return\n",
           "            return\n", test=_BY_PLAYS),
    Mutant("answer_taken_for_a_memory", _LIVES, "self._remember &= ~bit(teller)", "self._remember |= bit(teller)",
           test=_BY_PLAYS),
    Mutant("changed_directory_counts", _LIVES, "if told is not None and told.own != life:", "if False:",
           test=_BY_PLAYS),
    Mutant("disagreement_ignored", _LIVES, "if other != rank and report.known.get(rank, life) != life:", "if False:",
           test=_BY_PLAYS),
    Mutant("counts_before_it_has_started", _LIVES, "told.stage is Stage.STARTED and not self.fault(rank)",
           "not self.fault(rank)", test=_BY_PLAYS),
    Mutant("last_directory_is_taken_for_the_first", _LIVES, "if other not in self.known and other !=", "if other !=",
           test=_BY_PLAYS),
    Mutant("asking_is_remembered", _LIVES, "heard = {rank: own} if stage is not Stage.ASKING else {}",
           "heard = {rank: own}", test=_BY_PLAYS),
    Mutant("told_before_it_is_durable", _MEMBERS, "            self._file.remember(heard)\n", "            pass\n",
           test=_BY_NODES),
    Mutant("begins_without_a_record", _MEMBERS, "                self._file.begin()\n", "                pass\n",
           test=_BY_NODES),
    Mutant("serves_who_has_not_shown_it", _MEMBERS,
           "return rank == connection.shown or not self.lives.keeps_lives(rank)", "return True", test=_BY_NODES),
    Mutant("waits_and_stores", "dsreg.register.held", "if command.kind in _ASKING and not command.epoch:", "if True:",
           test=_BY_NODES),
    Mutant("silence_is_evidence", "dsreg.register.foreign", "        if heard_s is None or rank", "        if rank",
           test=_BY_NODES),
)
