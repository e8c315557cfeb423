"""Seeded bugs of a cluster that was made of what another one has left: docs/recover.md."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_TEACHERS = "dsreg.register.teachers"
_MOVE = "dsreg.storage.new_cluster"
_SECTION = "dsreg.config.recovered"
_PLAYS = "tests/register/test_teachers.py"
_TEST_MOVE = "tests/storage/test_new_cluster.py"
_TEST_SECTION = "tests/test_config_recovered.py"
_KNOWN, _TEST_KNOWN = "dsreg.cli.last_known", "tests/cli/test_last_known.py"

RECOVERY = (
    Mutant("recovered_learns_from_one_of_those_left", _TEACHERS, "not stayed & ~answers",
           "bool(stayed & answers)", test=_PLAYS),
    Mutant("recovered_learns_from_nobody", _TEACHERS, "stayed != 0 and", "", test=_PLAYS),
    Mutant("recovered_learns_so_in_a_later_life", _TEACHERS, "if self._life() > 1 or", "if", test=_PLAYS),
    Mutant("recovered_learns_from_who_has_left", _TEACHERS, "self._sources & self._quorum.members", "self._sources",
           test=_PLAYS),
    Mutant("recovered_learns_what_is_damaged_from_those_left", "dsreg.register.heal",
           " or missing and not enough:", ":", test=_PLAYS),
    Mutant("recovered_keeps_the_id_of_the_directory", _MOVE, "            store = new_store()\n",
           "            store = recorded.store\n", test=_TEST_MOVE),
    Mutant("recovered_keeps_whom_it_knew", _MOVE, "            lives_file.write(files, {}, identity.salt)\n",
           "            pass\n", test=_TEST_MOVE),
    Mutant("recovered_second_does_not_learn", _MOVE, "learning=new_store() if learns else b\"\"", "learning=b\"\"",
           test=_TEST_MOVE),
    Mutant("recovered_goes_on_with_the_epoch", _MOVE, "        storage.fence(epoch, NO_OWNER)\n", "        pass\n",
           test=_TEST_MOVE),
    Mutant("recovered_begins_before_damage_is_given_up", _MOVE,
           "    for first, count in runs_of(damaged):\n",
           "    storage.lives.begin()\n    for first, count in runs_of(damaged):\n", test=_TEST_MOVE),
    Mutant("recovered_zeros_take_the_name_of_what_is_lost", _MOVE,
           "successors(tag, storage.lives.rank, epoch=epoch, life=life)", "epoch.to_bytes(3) + tag[3:]",
           test=_TEST_MOVE),
    Mutant("recovered_new_directory_has_no_epoch", "dsreg.storage.directory", "State(seq=1, epoch=epoch)",
           "State(seq=1)", test=_TEST_MOVE),
    Mutant("recovered_section_is_not_part_of_the_key", _SECTION,
           "return hmac.digest(system_key, content, hashlib.sha512)", "return system_key", test=_TEST_SECTION),
    Mutant("recovered_key_does_without_the_section", "dsreg.config.keys", "if marked != recovered:",
           "if recovered and not marked:", test=_TEST_SECTION),
    Mutant("recovered_file_is_staged_before_its_keys", _SECTION,
           "    _put(_beside(client, _NEW)", "    _put(_beside(path, _NEW), new, path)\n    _put(_beside(client, _NEW)",
           test=_TEST_SECTION),
    Mutant("recovered_file_is_put_before_its_keys", _SECTION,
           "    files = (*_key_files(path, text), path)\n", "    files = (path, *_key_files(path, text))\n",
           test=_TEST_SECTION),
    Mutant("recovered_nodes_are_not_part_of_the_key", _SECTION, "        if self.nodes:\n", "        if False:\n",
           test=_TEST_SECTION),
    Mutant("recovered_goes_on_with_the_configuration", _MOVE, "not recorded.configured and files.exists(CONFIGURATION)",
           "False", test=_TEST_MOVE),
    Mutant("recovered_has_the_earlier_set", _KNOWN, "in (latest.joining, latest.ranks)",
           "in (latest.ranks, latest.joining)",
           test=_TEST_KNOWN),
    Mutant("recovered_from_more_than_meet_every_majority", _KNOWN,
           " and left.bit_count() <= Majority(members).needed_to_cover", "", test=_TEST_KNOWN),
    Mutant("recovered_from_one_that_has_left", _KNOWN, "if not known.latest.members & bit(rank):",
           "if not known.latest.used & bit(rank):", test=_TEST_KNOWN),
    Mutant("recovered_though_nothing_is_lost", _KNOWN, "quorum_of(known.latest).decided(mask(left))", "False",
           test=_TEST_KNOWN),
    Mutant("recovered_with_the_size_of_the_file", _KNOWN, "known.sectors if known.latest.number > 1",
           "config.sectors if True",
           test=_TEST_KNOWN),
)
