"""Seeded bugs of the map of holes: what is no read of zeros, and what is passed over all the same."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_MAPPING, _EXTENTS, _ACCEPTOR = "dsreg.client.mapping", "dsreg.storage.extents", "dsreg.register.acceptor"
_CLIENT, _STORAGE = "tests/client/test_mapping.py", "tests/storage/test_extents.py::test_"
_NODE = "tests/register/test_acceptor.py"
_CACHE = "tests/cache/test_map.py"

MAPS = (
    Mutant("hole_of_nodes_that_only_have_no_data", _MAPPING, "agreeing[tag] = agreeing.get(tag, 0) | 1 << rank",
           "agreeing[b''] = agreeing.get(b'', 0) | 1 << rank",
           test=_CLIENT + "::test_zeros_of_one_node_over_data_that_it_has_not_seen"),
    Mutant("hole_of_any_node", _MAPPING, "return any(may_return(self._quorum, nodes, tag, self._epoch) for",
           "return any(nodes for", test=_CLIENT),
    Mutant("hole_of_an_older_attachment", _MAPPING, "may_return(self._quorum, nodes, tag, self._epoch)",
           "may_return(self._quorum, nodes, tag, 0)", test=_CLIENT),
    Mutant("hole_without_a_node_that_has_not_told_of_it", _MAPPING, "known = min((told[-1][0]",
           "known = max((told[-1][0]", test=_CLIENT),
    Mutant("map_of_nodes_that_do_not_know_it", "dsreg.client.counting", "if node.maps and node.avoided_until_s",
           "if node.avoided_until_s", test=_CLIENT),
    Mutant("map_beside_the_attachment", "dsreg.client.access",
           "            op.epoch = attachment.epoch\n        self._counting",
           "            pass\n        self._counting", test=_CLIENT),
    Mutant("map_answered_whatever_is_promised", _ACCEPTOR, "        if not isinstance(verdict, Go):\n",
           "        if command.kind is not _MAP and not isinstance(verdict, Go):\n", test=_NODE),
    Mutant("chunk_is_what_its_first_sector_is", _EXTENTS,
           "is_one = is_uniform(tags) and not any(table.held(first, CHUNK_SECTORS))", "is_one = True",
           test=_STORAGE + "what_one_chunk_may_be"),
    Mutant("values_of_one_tag_are_a_hole", _EXTENTS, " and not any(table.held(first, CHUNK_SECTORS))", "",
           test=_STORAGE + "values_of_one_tag_are_data"),
    Mutant("zeros_of_many_tags_are_a_hole", _EXTENTS, "is_one = is_uniform(tags) and", "is_one =",
           test=_STORAGE + "what_one_chunk_may_be"),
    Mutant("what_is_to_be_learned_is_a_hole", _EXTENTS,
           "if (left := self._learning.chunks(at)) is not None and", "if (left := None) is not None and",
           test=_STORAGE + "what_is_to_be_learned_may_have_data"),
    Mutant("what_is_lost_is_a_hole", _EXTENTS, "        if table.damaged and table.missing_of(first, CHUNK_SECTORS):\n",
           "        if False:\n", test=_STORAGE + "a_chunk_of_which_one_tag_is_unknown_may_have_data"),
    Mutant("what_has_no_slot_while_one_is_lost_is_a_hole", _EXTENTS, "        if table.lost:", "        if False:",
           test=_STORAGE + "what_has_no_slot_may_have_data_while_nobody_knows_of_what_a_slot_told"),
    Mutant("run_over_what_slots_tell", _EXTENTS, "            stop = min(stop, told)\n", "            pass\n",
           test=_STORAGE + "long_zeros_are_one_extent_up_to_what_stands_in_them"),
    Mutant("seek_ends_where_a_map_ends", "fuse_frontend.seeking", "        self._waits = False\n        self.go_on()\n",
           "        self._end(self._offset, 0)\n", test="tests/fuse/test_seek.py"),
    Mutant("seek_in_the_last_piece_fails", "dsreg.block_device", "count = min(stop, self.size // MAX_RUN_BYTES,",
           "count = min(stop,", test="tests/fuse/test_seek.py"),
    Mutant("fast_zeros_of_a_part_of_a_chunk", "nbd_frontend.commands",
           "offset % MAX_RUN_BYTES == length % MAX_RUN_BYTES == 0 and", "", test="tests/nbd/test_commands.py"),
    Mutant("one_extent_is_many", "nbd_frontend.commands",
           "extents[:1] if request.flags & CommandFlag.REQ_ONE else extents", "extents",
           test="tests/nbd/test_commands.py"),
    Mutant("map_of_a_copy_is_asked_for_once", "dsreg.cli.transfer", "if index >= len(self._map):", "if not self._map:",
           test="tests/cli/test_transfer.py"),
    Mutant("copy_skips_what_may_be_data", "dsreg.cli.transfer", "return self._map[index] != 0", "return True",
           test="tests/cli/test_transfer.py"),
    Mutant("what_is_buffered_is_a_hole", "dsreg.cache.writeback", "                    marked[index] = 0\n",
           "                    pass\n", test=_CACHE),
)
