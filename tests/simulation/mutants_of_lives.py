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
    Mutant("who_has_heard_is_overruled", _LIVES, "                self.denied = teller, life\n",
           "                pass\n", test=_BY_PLAYS),
    Mutant("answer_taken_for_a_memory", _LIVES, "self._remember &= ~bit(teller)", "self._remember |= bit(teller)",
           test=_BY_PLAYS),
    Mutant("changed_directory_counts", _LIVES,
           "if told is not None and told.stage is Stage.STARTED and supersedes(told.own, life):", "if False:",
           test=_BY_PLAYS),
    Mutant("disagreement_ignored", _LIVES, "            if supersedes(known, life):", "            if False:",
           test=_BY_PLAYS),
    Mutant("counts_before_it_has_started", _LIVES, "told.stage is Stage.STARTED and not self.fault(rank)",
           "not self.fault(rank)", test=_BY_PLAYS),
    Mutant("last_directory_is_taken_for_the_first", _LIVES, "known is None or life.number > known.number",
           "known != life", test=_BY_PLAYS),
    Mutant("asking_is_remembered", _LIVES, "if stage is not Stage.ASKING and not claims else known",
           "if not claims else known", test=_BY_PLAYS),
    Mutant("told_before_it_is_durable", _MEMBERS, "            self._file.remember(heard)\n", "            pass\n",
           test=_BY_NODES),
    Mutant("begins_without_a_record", _MEMBERS, "                self._file.begin()\n", "                pass\n",
           test=_BY_NODES),
    Mutant("serves_who_has_not_shown_it", _MEMBERS,
           "return rank == connection.shown or not self.lives.keeps_lives(rank)", "return True", test=_BY_NODES),
    Mutant("waits_and_stores", "dsreg.register.held", "if self.asks and command.kind in _ASKING and not command.epoch:",
           "if True:",
           test=_BY_NODES),
    # Later lives of a rank.
    Mutant("later_life_is_ignored", _LIVES, "known is None or life.number > known.number", "known is None",
           test=_BY_PLAYS),
    Mutant("earlier_life_counts", _LIVES, "if told is None or told.own != self.known.get(rank):", "if told is None:",
           test=_BY_PLAYS),
    Mutant("client_that_knows_no_lives_counts", _MEMBERS,
           " or self._file.own.number == 1 and not self.lives.is_any_later", " or True", test=_BY_NODES),
    Mutant("older_knowledge_puts_a_later_life_out", _LIVES, "            if supersedes(known, life):",
           "            if True:", test=_BY_PLAYS),
    Mutant("older_knowledge_ends_a_later_life", _LIVES, "            if life.number >= self._own.number:",
           "            if True:", test=_BY_PLAYS),
    Mutant("earlier_life_is_counted_without_room", _LIVES, "            self._unwritten.add(rank)\n",
           "            self._unwritten.update([rank] if rank not in self._before else [])\n", test=_BY_PLAYS),
    Mutant("earlier_life_is_forgotten_without_room", _LIVES, "                self.known[rank] = before\n",
           "                del self.known[rank]\n", test=_BY_PLAYS),
    Mutant("acknowledgement_of_an_earlier_life_counts", _MEMBERS,
           "        self._interpreter.discount(rank)\n        for", "        for", test=_BY_NODES),
    Mutant("later_life_is_not_told_what_the_earlier_has_stored", "dsreg.register.coordinator",
           "        self._links.discount(rank)\n", "", test=_BY_NODES),
    Mutant("question_that_was_not_for_it_is_sent_again", "dsreg.register.links", "bit(rank) & entry.asked", "bit(rank)",
           test="tests/register/test_links.py"),
    Mutant("connection_of_an_earlier_life_stays", _MEMBERS,
           "            connection.shown = self._shown[connection] = 0\n            connection.transport.close()\n",
           "            pass\n", test=_BY_NODES),
    Mutant("link_of_an_earlier_life_stays", _MEMBERS, "        self.on_superseded(rank)\n", "", test=_BY_NODES),
    Mutant("link_that_is_made_anew_stays", "dsreg.link.node_line",
           "        self._second.greet_soon()\n        return self._close()\n\n    def redial",
           "        return []\n\n    def redial",
           test="tests/link/test_node_line.py"),
    Mutant("client_counts_an_earlier_life", "dsreg.client.members", " or node.rank in heard.superseded:", ":",
           test="tests/client/test_members.py"),
    Mutant("what_is_not_recorded_is_told_again_and_again", "dsreg.node.members",
           "if not self._advance() and is_recorded:", "if not self._advance() and heard:", test=_BY_NODES),
    Mutant("silence_is_evidence", "dsreg.register.foreign", "        if heard_s is None or rank", "        if rank",
           test=_BY_NODES),
)
