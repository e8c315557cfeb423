"""Seeded bugs in what may follow a configuration, and in choosing that."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_CONFIGURATION = "dsreg.register.configuration"
_PROPOSAL = "dsreg.register.proposal"
_FILE = "dsreg.storage.configuration"
_FILES = "dsreg.storage.files"
_BY_FILES = "tests/storage/test_configuration_file.py"
_REGISTER = "dsreg.register.atomic_register"
_BY_CHANGES = "tests/register/test_reconfigured.py"
_BY_PLAYS = "tests/register/test_configuration.py"

# The rules of docs/configurations.md, each left out.
CONFIGURATIONS = (
    Mutant("joint_counts_the_old_side", "dsreg.register.quorum",
           "return all(quorum.decided(answers) for quorum in self._both)", "return self._both[0].decided(answers)",
           test="tests/register/test_quorum.py"),
    Mutant("joint_counts_either_side", "dsreg.register.quorum",
           "return all(quorum.decided(answers) for quorum in self._both)",
           "return any(quorum.decided(answers) for quorum in self._both)", test="tests/register/test_quorum.py"),
    Mutant("joint_configuration_is_decided_by_the_old", _CONFIGURATION,
           "    if configuration.joining:\n        return Joint(", "    if False:\n        return Joint(",
           test=_BY_PLAYS),
    Mutant("members_change_in_one_step", _CONFIGURATION, "    if following.ranks != configuration.ranks:\n",
           "    if False:\n", test=_BY_PLAYS),
    Mutant("rank_is_used_again", _CONFIGURATION, "if again := ranks_in(new & configuration.used):",
           "if again := ranks_in(0):", test=_BY_PLAYS),
    Mutant("disk_shrinks", _CONFIGURATION, "if following.sectors < configuration.sectors:", "if False:",
           test=_BY_PLAYS),
    Mutant("votes_before_it_has_learned", _CONFIGURATION,
           "if must_learn(record.current, following, self._rank) and not has_learned:", "if False:", test=_BY_PLAYS),
    Mutant("member_of_both_need_not_learn", _CONFIGURATION, "return bool(configuration.joining & bit(rank))",
           "return bool(configuration.joining & ~configuration.ranks & bit(rank))", test=_BY_PLAYS),
    Mutant("votes_in_a_lower_ballot", _CONFIGURATION, "return Outbid(promised) if ballot < promised else None",
           "return None", test=_BY_PLAYS),
    Mutant("promise_of_a_ballot_is_not_kept", _CONFIGURATION,
           "return record._replace(promised=ballot), Promised(record.voted)", "return record, Promised(record.voted)",
           test=_BY_PLAYS),
    Mutant("vote_is_not_told", _CONFIGURATION, "record._replace(promised=ballot), Promised(record.voted)",
           "record._replace(promised=ballot), Promised(None)", test=_BY_PLAYS),
    Mutant("votes_of_another_number_are_kept", _CONFIGURATION, "        return Record(configuration)\n",
           "        return self.record._replace(current=configuration)\n", test=_BY_PLAYS),
    Mutant("stranger_votes", _CONFIGURATION, "        if not self.is_member:\n", "        if False:\n", test=_BY_PLAYS),
    Mutant("own_wish_before_the_votes_of_others", _PROPOSAL,
           "max(self._votes.values()).configuration if self._votes else self._wish", "self._wish", test=_BY_PLAYS),
    Mutant("vote_of_the_lowest_ballot", _PROPOSAL, "max(self._votes.values())", "min(self._votes.values())",
           test=_BY_PLAYS),
    Mutant("promises_count_as_votes", _PROPOSAL, "        self._answered = 0\n        self.objections.clear()",
           "        self.objections.clear()", test=_BY_PLAYS),
    Mutant("vote_of_a_lost_directory_counts", _PROPOSAL, "        self._answered &= ~bit(rank)\n", "", test=_BY_PLAYS),
    Mutant("rejoined_voter_forgets_its_vote", _CONFIGURATION, "max(votes, default=None)", "None", test=_BY_PLAYS),
    Mutant("rejoined_voter_takes_votes_of_before", _CONFIGURATION,
           "[record for record in told if record.current == current]", "told", test=_BY_PLAYS),
    # What a node has promised, and heard.
    Mutant("configuration_is_not_synced", _FILES, "        file.fdatasync()\n", "", test=_BY_FILES),
    Mutant("configuration_is_written_in_place", _FILE, "CONFIGURATION_TMP, NAME, encode", "NAME, NAME, encode",
           test=_BY_FILES),
    Mutant("name_of_the_configuration_is_not_synced", _FILES, "    files.sync_dir()\n", "", test=_BY_FILES),
    Mutant("vote_is_not_kept", _FILE, "if record.voted is not None:", "if False:", test=_BY_FILES),
    Mutant("configuration_that_is_gone_never_was", _FILE, "if not directory.recorded.configured:", "if False:",
           test=_BY_FILES),
    Mutant("configuration_of_another_node_is_taken", "dsreg.storage.checksum", "crc32(body, crc32(salt.to_bytes(8)))",
           "crc32(body)", test=_BY_FILES),
    # Operations under way when another configuration comes into force.
    Mutant("query_keeps_what_was_answered_before", _REGISTER,
           "            return self._ask(phase.values)\n        if phase is None:\n            return []\n        own",
           "            return []\n        if phase is None:\n            return []\n        own", test=_BY_CHANGES),
    Mutant("store_keeps_what_was_acknowledged_before", _REGISTER,
           "            return self._store(own, phase.result)\n        self.phase = Recording(own)",
           "            return []\n        self.phase = Recording(own)", test=_BY_CHANGES),
    Mutant("recording_goes_on_as_before", _REGISTER, "        self.phase = Recording(own)\n        return [own]",
           "        return []", test=_BY_CHANGES),
    Mutant("waiting_operation_keeps_its_quorum", "dsreg.register.coordinator", "(*under_way, *waiting)", "under_way",
           test=_BY_CHANGES),
    Mutant("members_of_before_are_asked", "dsreg.register.links", "        self._all = members\n\n", "        pass\n\n",
           test=_BY_CHANGES),
    Mutant("who_has_left_does_not_ask_itself", "dsreg.register.replica", "quorum.members | bit(self.rank)",
           "quorum.members", test=_BY_CHANGES),
    Mutant("leap_counts_what_was_answered_before", "dsreg.register.attaching",
           "self._ask(_Leap(leap.connection, leap.command, bit(self._rank)), now)\n        return effects",
           "self._ask(leap, now)\n        return effects", test=_BY_CHANGES),
)
