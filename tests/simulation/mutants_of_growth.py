"""Seeded bugs in a disk that grows: docs/configurations.md, "A larger disk"."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_NODE = "dsreg.node.configuring"
_PROCESS = "dsreg.node.process"
_LEARNED = "dsreg.storage.learned"
_BY_NODES = "tests/node/test_growing.py"
_BY_PROCESS = "tests/node/test_process.py::test_a_disk_that_grows_is_there_over_connections_of_before"
_BY_PLAYS = "tests/register/test_growth.py"
_BY_SCRUB = "tests/register/test_scrub.py"
_BY_STORAGE = "tests/storage/test_growing.py"
_BY_CLIENTS = "tests/client/test_configurations.py"

GROWTH = (
    # At a node.
    Mutant("node_answers_for_the_old_size", _NODE,
           "        if self.current.sectors != self._interpreter.storage.sectors:\n", "        if False:\n",
           test=_BY_NODES),
    Mutant("node_votes_for_a_disk_that_it_has_no_room_for", _NODE,
           "if fault := self._file.why_not(question.following.sectors):", "if fault := \"\":", test=_BY_NODES),
    Mutant("disk_is_recorded_that_there_is_no_room_for", "dsreg.storage.configuration",
           "if fault := self.why_not(record.current.sectors):", "if fault := \"\":", test=_BY_NODES),
    Mutant("node_refuses_what_is_new", _PROCESS, "bounds.sectors, bounds.ranks = later.sectors, {",
           "_, bounds.ranks = later.sectors, {", test=_BY_PROCESS),
    Mutant("node_greets_with_the_old_size", _PROCESS,
           "            self.server.greeting = greeting._replace(sectors=later.sectors)\n", "", test=_BY_PROCESS),
    # In its directory.
    Mutant("size_is_not_durable", "dsreg.storage.opening", "sectors = configuration.record.current.sectors",
           "sectors = identity.sectors", test=_BY_STORAGE),
    Mutant("what_was_stored_beyond_the_recorded_size_is_given_up", "dsreg.storage.opening",
           "recover(directory, max(sectors, recorded.identity.sectors))", "recover(directory, sectors)",
           test=_BY_STORAGE),
    Mutant("chunk_at_the_old_end_is_compared_as_before", "dsreg.storage.stable",
           "        self.on_stored(self.sectors - 1, 1)  #", "        #", test=_BY_STORAGE),
    # Healing and learning.
    Mutant("digests_end_where_the_disk_did", "dsreg.register.digests",
           "        return number_of_chunks(self._storage.sectors)\n",
           "        return self.__dict__.setdefault(\"\", number_of_chunks(self._storage.sectors))\n", test=_BY_PLAYS),
    Mutant("learner_ends_where_the_disk_did", _LEARNED, "        self.sectors = sectors\n        if self.left:\n",
           "        if self.left:\n", test=_BY_PLAYS),
    Mutant("learner_takes_what_is_new_for_never_written", _LEARNED,
           "        self.sectors = sectors\n        if self.left:\n            self.left",
           "        self._known.add(self.sectors, sectors)\n        self.sectors = sectors\n        if self.left:\n"
           "            self.left", test=_BY_PLAYS),
    Mutant("pass_of_scrub_begins_again_where_the_disk_grows", "dsreg.register.scrub",
           "return (of.start + of.passed) % of.chunks",
           "return (of.start + of.passed) % number_of_chunks(self._storage.sectors)", test=_BY_SCRUB),
    # At a client.
    Mutant("client_takes_the_size_of_whoever_told_last", "dsreg.client.node_selector", "        if is_later:\n",
           "        if True:\n", test=_BY_CLIENTS),
    Mutant("client_is_told_the_size_once", "dsreg.client.core",
           "        if before is None or latest.sectors != before.sectors:\n", "        if before is None:\n",
           test=_BY_CLIENTS),
    Mutant("other_disk_is_used", "dsreg.link.client_line",
           "self.node_sectors != self._hello.sectors and not tells_size:", "False:",
           test="tests/link/test_client_line.py"),
    Mutant("larger_disk_is_another_disk", "dsreg.link.client_line",
           "self.node_sectors != self._hello.sectors and not tells_size:", "self.node_sectors != self._hello.sectors:",
           test="tests/link/test_client_line.py"),
)
