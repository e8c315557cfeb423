"""Seeded bugs in what `dsreg members` asks of the nodes, and in counting by what is in force."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_COURSE, _BY_COURSE = "dsreg.register.course", "tests/register/test_course.py"
_PROPOSING, _CHANGING, _BY_VOTERS = "dsreg.cli.proposing", "dsreg.cli.changing", "tests/cli/test_proposing.py"
_IN_FORCE, _BY_ANSWERS = "dsreg.health.in_force", "tests/cli/test_in_force.py"
_BY_SOCKETS = "tests/client/test_propose.py"
_EDIT, _BY_FILES = "dsreg.config.edit", "tests/test_config_edit.py"

MEMBERS = (
    Mutant("goes_on_upon_what_another_has_chosen", _COURSE, "if step != configuration:", "if False:", test=_BY_COURSE),
    Mutant("takes_any_joint_configuration_for_its_own", _COURSE, "current.joining and wanted != current.joining",
           "False", test=_BY_COURSE),
    Mutant("adds_a_rank_that_was_used", _COURSE, "add & current.used & ~current.members", "0", test=_BY_COURSE),
    Mutant("promises_of_superseded_lives_count", _PROPOSING, "                self._proposal.discount(other)",
           "                pass", test=_BY_VOTERS),
    Mutant("asks_for_votes_before_they_can_decide", _PROPOSING,
           "is_asked and not self._watcher.holds(rank, question.following)", "is_asked", test=_BY_VOTERS),
    Mutant("who_lacks_something_is_not_asked_again", _PROPOSING,
           "is_asked = bool(self._proposal.unanswered & bit(rank))",
           "is_asked = bool(self._proposal.unanswered & bit(rank)) and rank not in self._proposal.objections",
           test=_BY_VOTERS),
    Mutant("does_not_hear_what_another_has_chosen", _PROPOSING, "known.number > question.base.number", "False",
           test=_BY_VOTERS),
    Mutant("takes_who_has_yet_to_learn_for_ready", _CHANGING, 'if told["learned"] or not has_to else 0',
           "if True else 0", test=_BY_VOTERS),
    Mutant("takes_who_knows_another_configuration_for_ready", _CHANGING,
           'told is not None and told["number"] == base.number', "told is not None", test=_BY_VOTERS),
    Mutant("adds_nodes_to_one_of_the_contract", _CHANGING, '_link(other, rank) == "contract"', "False",
           test=_BY_VOTERS),
    Mutant("adds_nodes_to_one_of_before", _CHANGING, '"configuration" not in answer.report', "False", test=_BY_VOTERS),
    Mutant("adds_a_node_with_a_list_of_its_own", _CHANGING, 'mask(told["members"]) != current.ranks', "False",
           test=_BY_VOTERS),
    Mutant("counts_by_an_older_configuration", _IN_FORCE, "return max(told,", "return min(told,", test=_BY_ANSWERS),
    Mutant("a_loss_may_stop_one_of_two_joint_sets", _IN_FORCE,
           "return quorum_of(self)", "from dsreg.register.quorum import Majority; return Majority(self.members)",
           test=_BY_ANSWERS),
    Mutant("misses_who_has_left", _IN_FORCE, "if members & bit(answer.node.rank)]", "if answer]", test=_BY_ANSWERS),
    Mutant("answers_of_a_swapped_directory_count", "dsreg.client.client",
           "return answer if self._core.counts(rank) else None", "return answer", test=_BY_SOCKETS),
    Mutant("tells_nobody_what_was_chosen", "dsreg.client.engine", "            connection.tell(report)\n",
           "            pass\n", test=_BY_SOCKETS),
    Mutant("finishes_what_would_stop_the_disk", _CHANGING, "later & ~current.ranks if new is None else new",
           "later & ~current.ranks", test=_BY_VOTERS),
    Mutant("tells_a_rank_that_has_left_to_rejoin", "dsreg.node.membership",
           "return is_told and not self._begun and teller not in self._tellers", "return False",
           test="tests/node/test_joining.py"),
    Mutant("rejoins_with_a_rank_that_has_left", "dsreg.node.members",
           "self._may_rejoin and not self.membership.has_left and self.first_start",
           "self._may_rejoin and self.first_start",
           test="tests/node/test_joining.py"),
    Mutant("counts_the_first_nodes_anew", _EDIT,
           'if "first_nodes" in document["cluster"] or', "if", test=_BY_FILES),
)
