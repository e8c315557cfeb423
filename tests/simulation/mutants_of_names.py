"""Seeded bugs of tags that nodes name without asking others, for a client that counts their answers."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_COORDINATOR, _NAMING = "dsreg.register.coordinator", "dsreg.client.naming"
_PLAYS, _CLIENT = "tests/register/test_names_alone.py", "tests/client/test_naming.py"

NAMES = (
    Mutant("names_out_of_turn", _COORDINATOR, "        if self._queue.add(execution, command.first, command.count):\n",
           "        if self._queue.add(execution, command.first, command.count) or command.alone:\n",
           test=_PLAYS),
    Mutant("names_above_nothing", _COORDINATOR, "Return(self._storage.tags(command.first, command.count), b\"\")",
           "Return(bytes(16), b\"\")", test=_PLAYS),
    Mutant("names_above_a_copy_that_is_lost", _COORDINATOR,
           "        if self._storage.unknown(command.first, command.count):\n            self._repairs",
           "        if False:\n            self._repairs", test=_PLAYS),
    Mutant("names_before_it_serves", "dsreg.register.held", " and not command.alone", "", test=_PLAYS),
    Mutant("names_are_counted_by_who_must_not", "dsreg.register.execution", "return command.alone or command.kind in",
           "return command.kind in", test=_PLAYS),
    Mutant("named_by_one_node", _NAMING, "        if quorum.decided(answered):\n", "        if answered:\n"),
    Mutant("lowest_name_is_taken", _NAMING, "highest([self.tags, answer.tags]) if self.tags", "self.tags if self.tags",
           test=_CLIENT),
    Mutant("names_of_two_epochs", _NAMING, "        if not self.agree:\n", "        if False:\n", test=_CLIENT),
)
