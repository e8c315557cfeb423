"""Seeded bugs of the link machines: of greetings, pauses, and of when a connection may be used."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_CLIENT = "dsreg.link.client_line"
_NODE = "dsreg.link.node_line"
_SECOND = "dsreg.link.second_line"
_GREETINGS = "dsreg.link.node_greeting"
_GREETING = "dsreg.link.greeting_line"
_ACCEPTED = "dsreg.link.accepted_line"

_TEST_CLIENT = "tests/link/test_client_line.py"
_TEST_NODE = "tests/link/test_node_line.py"
_TEST_SECOND = "tests/link/test_second_line.py"
_TEST_ACCEPTED = "tests/link/test_accepted_line.py"

LINKS = (
    # --- of a client ---
    Mutant("greeting_of_a_client_never_times_out", _CLIENT, "self.next_due = now + self._hello_s",
           "self.next_due = math.inf", test=_TEST_CLIENT),
    Mutant("one_damaged_byte_is_believed", _CLIENT, "if ending in DOUBTFUL and ending is not self._suspected:",
           "if False:", test=_TEST_CLIENT),
    Mutant("two_different_doubts_are_believed", _CLIENT, "and ending is not self._suspected:",
           "and self._suspected not in DOUBTFUL:", test=_TEST_CLIENT),
    Mutant("silence_gets_no_more_time", _CLIENT, "min(2 * self._hello_s, HELLO_MAX_S)", "HELLO_S",
           test=_TEST_CLIENT),
    Mutant("withheld_handshake_is_silence", _CLIENT,
           "        if self._greeting.answer is not None:\n            return Ending.CHANGED",
           "        if False:\n            return Ending.CHANGED", test=_TEST_CLIENT),
    Mutant("clear_text_will_do_for_a_client", _CLIENT, "if verdict is Verdict.PLAIN and self._seals.required:",
           "if False:", test=_TEST_CLIENT),
    Mutant("node_is_asked_before_it_has_told_of_lives", _CLIENT,
           "        if self._greeting.shows_lives and not told:\n", "        if False:\n", test=_TEST_CLIENT),
    Mutant("lives_are_waited_for_for_ever", _CLIENT, "        self.next_due = now + HELLO_S\n",
           "        self.next_due = math.inf\n", test=_TEST_CLIENT),
    Mutant("old_connection_still_answers", _CLIENT,
           "data: bytes, now: float) -> list[Effect]:\n        if line != self._line:\n",
           "data: bytes, now: float) -> list[Effect]:\n        if line > self._line:\n", test=_TEST_CLIENT),
    Mutant("waits_grow_for_ever", _CLIENT, "            self._pauses.was_of_use()\n", "", test=_TEST_CLIENT),
    Mutant("recorded_handshake_of_a_client_is_no_worse", _CLIENT, "greeting.seal(self._records, KEY_QUESTION)",
           "greeting.seal(self._records)", test=_TEST_CLIENT),
    Mutant("corrupted_stream_is_read_on", _CLIENT,
           "        if self._decoder.broken:\n            effects += ", "        if False:\n            effects += ",
           test=_TEST_CLIENT),
    Mutant("what_comes_behind_a_greeting_is_lost", _GREETING, "                self.behind = messages[index + 1 :]\n",
           "", test=_TEST_CLIENT),
    # --- of a node ---
    Mutant("contract_is_spoken_to_a_peer_that_has_sealed", _NODE, "        elif now < self._awaited_until_s:\n",
           "        elif False:\n", test=_TEST_NODE),
    Mutant("contract_is_spoken_before_the_greeting_can_be_answered", _NODE,
           "        if not self._second.is_hopeful:\n", "        if True:\n", test=_TEST_SECOND),
    Mutant("greeting_of_a_node_never_times_out", _SECOND, "        self._due = now + GREETING_S\n",
           "        self._due = math.inf\n", test=_TEST_SECOND),
    Mutant("silence_proves_that_it_speaks_the_contract", _SECOND,
           "speaks_contract=self._heard_s() > self._greeted_s", "speaks_contract=True", test=_TEST_SECOND),
    Mutant("hang_up_is_taken_for_silence", _SECOND, "        if self._is_late:\n", "        if True:\n",
           test=_TEST_SECOND),
    Mutant("peer_that_can_be_greeted_waits", _SECOND,
           "        self._times = GreetingTimes()\n        self._relinked = True\n", "        self._relinked = True\n",
           test=_TEST_SECOND),
    Mutant("link_counts_before_the_directory_is_shown", _NODE,
           "good = self._lives.counts(self._rank) if self._used.shows_lives else not self._keeps_lives", "good = True",
           test=_TEST_NODE),
    Mutant("link_with_another_directory_stays", _NODE,
           "        if self._lives.fault(self._rank):\n            return self._close()\n", "", test=_TEST_NODE),
    Mutant("what_comes_behind_lives_is_lost", _NODE, "self._rest = messages[index + 1 :]", "self._rest = ()",
           test=_TEST_NODE),
    Mutant("lives_are_told_once", _NODE,
           "            self._tell_due = now + LIVES_AGAIN_S\n            effects.append(Tell",
           "            self._tell_due = math.inf\n            effects.append(Tell", test=_TEST_NODE),
    Mutant("lives_are_told_to_a_dead_connection", _NODE,
           "        used = self._used\n        self._tell_due = math.inf\n", "        used = self._used\n",
           test=_TEST_NODE),
    Mutant("contract_link_stays_beside_the_greeted_one", _NODE, "return [*effects, *self._leave(), *self._use(",
           "return [*effects, *self._use(", test=_TEST_SECOND),
    Mutant("pauses_between_links_grow_for_ever", _NODE, "            self._was_of_use = True\n", "", test=_TEST_NODE),
    Mutant("corrupted_link_is_kept", _NODE, "if self._used.decoder.broken and self.phase is Phase.SERVING:",
           "if False:", test=_TEST_NODE),
    Mutant("records_stay_long_on_a_bad_line", _NODE, "            self._greetings.records.broke(largest_record)\n", "",
           test=_TEST_NODE),
    Mutant("clear_text_will_do_for_a_node", _GREETINGS,
           "if verdict is Verdict.BROKEN or verdict is Verdict.PLAIN and self.seals.required:",
           "if verdict is Verdict.BROKEN:", test=_TEST_NODE),
    Mutant("recorded_handshake_of_a_node_is_no_worse", _GREETINGS, "(Ack(self._hello.rank, 0, 0, 1),)", "()",
           test="tests/link/test_second_line.py"),
    Mutant("patience_with_a_silent_peer_does_not_grow", _GREETINGS, "        self.patience.silent()\n", "",
           test=_TEST_NODE),
    # --- of who is connected to ---
    Mutant("handshake_may_take_for_ever", _ACCEPTED, "            self.next_due = now + HANDSHAKE_S\n", "",
           test=_TEST_ACCEPTED),
    Mutant("recorded_handshake_makes_fresh", _ACCEPTED, "if self.is_fresh or not self.decoder.proven:",
           "if self.is_fresh or not self.is_sealed:", test=_TEST_ACCEPTED),
    Mutant("offer_to_seal_opens_the_door", _ACCEPTED, "not self.is_sealed and not isinstance(message, _UNSEALED):",
           "self._greeting is None and not isinstance(message, _UNSEALED):", test=_TEST_ACCEPTED),
    Mutant("lives_are_told_in_clear_text", _ACCEPTED, "        if self._greeting is None:\n", "        if True:\n",
           test=_TEST_ACCEPTED),
    Mutant("lost_seal_is_waited_for", _ACCEPTED, "if self.decoder.broken or is_seal_lost:", "if self.decoder.broken:",
           test=_TEST_ACCEPTED),
    Mutant("broken_record_keeps_its_connection", _ACCEPTED, "if self.decoder.broken or is_seal_lost:",
           "if is_seal_lost:", test=_TEST_ACCEPTED),
)
