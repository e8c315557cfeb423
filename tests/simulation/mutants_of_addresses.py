"""Seeded bugs in what nodes and clients make of addresses: the rules of docs/addresses.md, each left out."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_ADDRESSES = "dsreg.register.addresses"
_DESTINATIONS = "dsreg.link.destinations"
_ADDRESSING = "dsreg.node.addressing"
_BY_PLAYS = "tests/register/test_addresses.py"
_BY_NODES = "tests/node/test_members_addresses.py"
_BY_CHOICE = "tests/link/test_destinations.py"

ADDRESSES = (
    Mutant("older_address_overwrites_a_newer", _ADDRESSES, "address.sequence > known.sequence",
           "address.sequence != known.sequence", test=_BY_PLAYS),
    Mutant("newer_address_is_ignored", _ADDRESSES, "address.sequence > known.sequence", "False", test=_BY_PLAYS),
    Mutant("address_of_an_impostor_is_believed", _ADDRESSES, "address.life == lives.get(rank) and ", "",
           test=_BY_PLAYS),
    Mutant("address_of_an_earlier_life_stays", _ADDRESSES, "known.life != address.life or ", "", test=_BY_PLAYS),
    Mutant("others_say_where_this_node_is", _ADDRESSES, "rank != self._own_rank and ", "", test=_BY_PLAYS),
    Mutant("moved_under_the_same_sequence", _ADDRESSES, "Address(life, before.sequence + 1, place)",
           "Address(life, before.sequence, place)", test=_BY_PLAYS),
    Mutant("put_back_directory_is_silent", _ADDRESSES, "heard == own or heard.sequence < own.sequence", "True",
           test=_BY_PLAYS),
    Mutant("copies_outbid_each_other_for_ever", _ADDRESSES, "if self._corrections == MAX_CORRECTIONS:", "if False:",
           test=_BY_PLAYS),
    Mutant("address_is_not_durable", _ADDRESSING, "            self._file.locate(self._addresses.known)\n",
           "            pass\n", test=_BY_NODES),
    Mutant("addresses_of_others_are_never_written", _ADDRESSING,
           "        if self._interpreter.clock() >= self.next_due:\n", "        if False:\n", test=_BY_NODES),
    Mutant("addresses_are_written_again_and_again", _ADDRESSING, "        self.next_due = math.inf\n        try:\n",
           "        try:\n", test=_BY_NODES),
    Mutant("address_is_not_passed_on", _ADDRESSING,
           "                self.tell(transport)\n", "                pass\n", test=_BY_NODES),
    Mutant("news_is_not_followed", _ADDRESSING, "            self.on_moved(rank, moved)\n", "            pass\n",
           test=_BY_NODES),
    Mutant("never_falls_back_to_the_file", _DESTINATIONS, "self._attempts % 2 == 1", "False", test=_BY_CHOICE),
    Mutant("what_was_learned_is_not_tried", _DESTINATIONS, "configured if learned is None else learned", "configured",
           test=_BY_CHOICE),
    Mutant("tunnel_is_left_for_the_first_word", _DESTINATIONS, "if is_first and self._works:", "if False:",
           test=_BY_CHOICE),
    Mutant("attempt_at_the_old_address_goes_on", _DESTINATIONS, "return self.current != place", "return False",
           test=_BY_CHOICE),
    Mutant("pause_before_the_new_address", "dsreg.link.client_line",
           "            return self.start(now)\n        if self.phase is Phase.UP:",
           "            return []\n        if self.phase is Phase.UP:", test="tests/link/test_client_line.py"),
    Mutant("link_pauses_before_the_new_address", "dsreg.link.node_line",
           "        if self.phase is Phase.PAUSED:\n            return self.start(now)\n        if self.phase not in",
           "        if self.phase not in", test="tests/link/test_node_line.py"),
    Mutant("client_follows_an_impostor", "dsreg.client.members",
           "self._addresses.take(report.addresses, self._lives.known)",
           "self._addresses.take(report.addresses, {r: a.life for r, a in report.addresses.items()})",
           test="tests/client/test_members.py"),
)
