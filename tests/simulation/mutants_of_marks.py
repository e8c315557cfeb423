"""Seeded bugs in how a node notices that its directory is an older state of itself: docs/lives.md, rule 18."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_MARKS = "dsreg.register.marks"
_MARKING = "dsreg.node.marking"
_MEMBERS = "dsreg.node.members"
_OLDER = "dsreg.storage.older"
_STATE = "dsreg.storage.state"
_BY_PLAYS = "tests/register/test_marks.py"
_BY_NODES = "tests/node/test_marking.py"
_BY_STORAGE = "tests/storage/test_older.py"

MARKS = (
    # Caught by the simulator.
    Mutant("serves_before_it_is_told_of_marks", _MARKING, "self.waits = file.begun and not self.check.is_passed",
           "self.waits = False"),
    Mutant("marks_are_not_compared", _MARKS, "return self.highest > self.mark", "return False"),
    Mutant("own_mark_is_taken_for_a_later_one", _MARKS, "self.highest > self.mark", "self.highest >= self.mark"),
    Mutant("mark_is_told_before_it_is_durable", _MARKING,
           "urgent=urgent), self._raised)\n",
           "urgent=urgent), self._raised)\n        self.check.mark = self._raising\n        self._tell_nodes()\n"),
    # Caught by plays.
    Mutant("too_few_are_asked_for_marks", _MARKS, "self._quorum.decided(self._counted | bit(self._rank))",
           "self._counted > 0 or self._quorum.size == 1", test=_BY_PLAYS),
    Mutant("who_has_forgotten_marks_is_asked", _MARKS, "report.stage is not Stage.CLAIMING and is_kept and",
           "report.stage is not Stage.CLAIMING and", test=_BY_PLAYS),
    Mutant("who_waits_for_marks_is_not_asked", _MARKS, "report.stage is not Stage.CLAIMING", "report.stage is "
           "Stage.STARTED", test=_BY_PLAYS),
    Mutant("marks_of_another_life_are_compared", _MARKS, "if report.known.get(self._rank) == self._own:", "if True:",
           test=_BY_PLAYS),
    Mutant("version_without_marks_takes_the_mark_back", _STATE, "return self.mark or first_mark(self.incarnation)",
           "return self.mark", test=_BY_NODES),
    Mutant("start_that_does_not_serve_raises_the_mark", "dsreg.storage.recovery", "mark=state.own_mark,",
           "mark=max(state.own_mark, state_file.first_mark(state.incarnation)),", test=_BY_NODES),
    Mutant("marks_forget_the_starts", _MARKING, ", first_mark(promises.state.incarnation)) + 1", ") + 1",
           test=_BY_NODES),
    Mutant("empty_directory_tells_a_mark", _MARKING, "return self.check.mark if self._file.begun else 0",
           "return self.check.mark", test=_BY_NODES),
    Mutant("marks_of_a_lost_life_are_told", _MARKS, "return mark if known == life else 0", "return mark",
           test=_BY_PLAYS),
    Mutant("tells_that_it_has_started_while_it_waits", _MEMBERS,
           "Stage.ASKING if self.marking.waits else self.first_start.stage", "self.first_start.stage",
           test=_BY_NODES),
    Mutant("mark_is_never_raised_again", _MARKING,
           "            self._raise_s = self._interpreter.clock() + self.mark_after_s\n", "            pass\n",
           test=_BY_NODES),
    Mutant("mark_needs_a_commit_of_its_own", "dsreg.storage.promises",
           "return is_promised or self._is_urgent and self.marks", "return is_promised or self.marks",
           test=_BY_NODES),
    Mutant("mark_is_forgotten_by_a_commit", "dsreg.storage.promises", "            mark=self._mark,\n", "",
           test=_BY_NODES),
    Mutant("marks_heard_are_not_kept", _MARKING, "self._interpreter.storage.marks.write(heard)", "True",
           test=_BY_NODES),
    Mutant("lives_heard_raise_no_mark", _MEMBERS, "            self.marking.raise_mark(urgent=True)  # an older",
           "            pass  # an older", test=_BY_NODES),
    Mutant("answer_counts_before_the_configuration_is_known", _MARKS, "self._answers & self._configured & ",
           "self._answers & ", test=_BY_PLAYS),
    Mutant("nodes_that_are_no_members_are_asked_for_marks", _MARKS, "self._configured & self._quorum.members",
           "self._configured", test=_BY_PLAYS),
    Mutant("vote_raises_no_mark", "dsreg.node.configuring", "            self.on_promised()\n", "", test=_BY_NODES),
    Mutant("configuration_heard_raises_no_mark", _MARKING,
           "        if self._interpreter.started:\n            self.raise_mark(urgent=True)\n", "", test=_BY_NODES),
    Mutant("marks_are_asked_of_the_members_of_before", _MARKING, "        self.check.reconfigured(quorum)\n", "",
           test=_BY_NODES),
    Mutant("older_directory_keeps_its_id", _OLDER, "lives_file.give_up(files, identity, new_store())",
           "lives_file.give_up(files, identity, directory.recorded.store)", test=_BY_STORAGE),
    Mutant("older_directory_is_known", _OLDER, ", learning=new_store())", ")", test=_BY_STORAGE),
    Mutant("older_directory_is_half_given_up", _OLDER, "if given_up is not None and given_up.store",
           "if anew and given_up is not None and given_up.store", test=_BY_STORAGE),
    Mutant("older_directory_goes_on_with_its_life", _MEMBERS, "        if file.claimed or file.given_up or was_left",
           "        if file.claimed or was_left", test=_BY_NODES),
    Mutant("life_that_was_given_up_is_lost_by_a_restart", "dsreg.storage.lives", "claimed or given_up or",
           "claimed or", test=_BY_STORAGE),
)
