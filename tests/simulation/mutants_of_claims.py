"""Seeded bugs in how a node takes the next life of its rank, and how others accept it: docs/lives.md, rules 9 to 17."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_CLAIM = "dsreg.register.claim"
_CLAIMING = "dsreg.node.claiming"
_LIVES = "dsreg.register.lives"
_MEMBERS = "dsreg.node.members"
_INTERPRETER = "dsreg.node.interpreter"
_BY_PLAYS = "tests/register/test_claim.py"
_BY_LIVES = "tests/register/test_lives.py"
_BY_NODES = "tests/node/test_rejoin.py"

CLAIMS = (
    # Who claims.
    Mutant("claim_is_not_durable", _CLAIMING, "            self._file.claim(number)\n",
           "            self._file.own, self._file.claimed = self._file.own._replace(number=number), True\n",
           test=_BY_NODES),
    Mutant("told_by_too_few", _CLAIM,
           "self._quorum.blocks(mask(heard)) and not self.without_lives()", "heard and not self.without_lives()",
           test=_BY_PLAYS),
    Mutant("told_by_who_may_have_forgotten", _CLAIM, "if told.stage is Stage.STARTED and self._is_current",
           "if self._is_current", test=_BY_PLAYS),
    Mutant("told_by_a_lost_directory", _CLAIM, "Stage.STARTED and self._is_current(rank, told.own)", "Stage.STARTED",
           test=_BY_PLAYS),
    Mutant("accepted_by_too_few", _CLAIM, "or self.due() or not self._quorum.blocks(mask(accepted)):",
           "or self.due() or not accepted:", test=_BY_PLAYS),
    Mutant("acceptance_of_a_lost_directory_counts", _CLAIM,
           "for rank, each in self._accepted.items() if self._is_current(rank, each.own)",
           "for rank, each in self._accepted.items()", test=_BY_PLAYS),
    Mutant("acceptance_of_another_life_counts", _CLAIM, "message.life == self.own and ", "", test=_BY_PLAYS),
    Mutant("acceptance_of_the_number_of_before_counts", _CLAIM, "        self._accepted.clear()\n", "", test=_BY_PLAYS),
    Mutant("acceptors_lives_are_not_merged", _CLAIM, " and not self._lives.fault(rank)\n", "\n", test=_BY_PLAYS),
    Mutant("number_is_not_above_what_others_know", _CLAIM, "max([self.own.number, *(life.number for life in known)])",
           "self.own.number", test=_BY_PLAYS),
    Mutant("number_of_another_directory_is_kept", _CLAIM, "if any(supersedes(life, self.own) for life in known):",
           "if False:", test=_BY_PLAYS),
    Mutant("rejoins_beside_who_keeps_no_lives", _CLAIM, " and not self.without_lives() else 0", " else 0",
           test=_BY_PLAYS),
    Mutant("epoch_is_not_adopted", _CLAIM,
           "adopted_promise(self._promise, [(each.epoch, each.owner) for each in accepted.values()])",
           "self._promise", test=_BY_PLAYS),
    Mutant("two_owners_of_one_epoch", _CLAIM,
           "owners.pop() if len(owners) == 1 else NO_OWNER_ANY_MORE if owners else NO_OWNER",
           "owners.pop() if owners else NO_OWNER", test=_BY_PLAYS),
    Mutant("epoch_without_owners_is_attached", "dsreg.register.epochs", "        elif owner == NO_OWNER_ANY_MORE:\n",
           "        elif False:\n", test=_BY_NODES),
    Mutant("starts_are_not_adopted", _INTERPRETER, "self.storage.fence(epoch, owner, incarnation + 1)",
           "self.storage.fence(epoch, owner)", test=_BY_NODES),
    Mutant("acknowledges_before_it_has_promised", _CLAIMING, "self._interpreter.adopt(adopted, self._adopted)",
           "self._interpreter.adopt(adopted, lambda: None), self._adopted()", test=_BY_NODES),
    Mutant("promise_of_who_is_lost_meanwhile", _CLAIMING, "        if self.claim.adopted() != adopted:",
           "        if False:", test=_BY_NODES),
    Mutant("begins_a_later_life_without_a_record", _CLAIMING, "        self._file.begin()\n", "", test=_BY_NODES),
    Mutant("asks_before_it_is_accepted", _MEMBERS, "interpreter.held.asks = not self._may_rejoin",
           "interpreter.held.asks = True", test=_BY_NODES),
    Mutant("rejoins_without_being_told_to", _MEMBERS, "(rejoin or file.claimed) and not file.begun",
           "not file.begun", test=_BY_NODES),
    Mutant("claim_is_forgotten_by_a_restart", "dsreg.storage.lives", "self.known.get(identity.rank, claimed or",
           "self.known.get(identity.rank, None or", test=_BY_NODES),
    # Its names.
    Mutant("lost_directory_named_the_same", "dsreg.register.tag_allocator",
           "self._bits if epoch or self._is_later else 0", "self._bits if epoch else 0",
           test="tests/register/test_tag_allocator.py"),
    Mutant("lost_directory_chose_the_same", "dsreg.register.execution", "allocator.life_in(0))", "0)",
           test="tests/register/test_claimed_names.py"),
    Mutant("write_without_an_epoch_has_no_life", "dsreg.register.atomic_register", "self.epoch else bare_life",
           "self.epoch else 0", test="tests/register/test_claimed_names.py"),
    Mutant("later_life_has_the_names_of_the_first", _MEMBERS,
           "        self._interpreter.replica.allocator.be(own.number, storage.incarnation)\n", "", test=_BY_NODES),
    Mutant("life_is_not_apart_from_the_first", _CLAIM, "for number in numbers if is_apart(number, incarnation)",
           "for number in numbers", test=_BY_PLAYS),
    Mutant("starts_of_others_are_forgotten", _MEMBERS, "            self._note_start(rank)\n", "            pass\n",
           test=_BY_NODES),
    # Who accepts.
    Mutant("accepts_without_a_fence", _CLAIMING, "self._interpreter.fenced(partial(self._fenced, *claim))",
           "self._fenced(*claim)", test=_BY_NODES),
    Mutant("fence_does_not_wait_for_promises", _INTERPRETER, "self.storage.fence(*self.replica.epochs.promise), call",
           "self.storage.fence(self.storage.epoch, self.storage.owner), call", test=_BY_NODES),
    Mutant("who_has_not_started_accepts", _MEMBERS,
           "            if self.stage is Stage.STARTED:\n                self._acceptances",
           "            if True:\n                self._acceptances", test=_BY_NODES),
    Mutant("lower_life_is_accepted", _LIVES, "        if supersedes(self.known.get(rank), life):\n",
           "        if False:\n", test=_BY_LIVES),
    Mutant("accepts_what_it_has_not_recorded", _CLAIMING, "heard is None or not self._record(heard, connection)",
           "heard is None", test=_BY_NODES),
    Mutant("acceptance_is_told_to_nobody_else", _CLAIMING, "        if heard.lives:\n            self._tell_all()\n",
           "", test=_BY_NODES),
    Mutant("claim_is_taken_for_accepted", _LIVES, "if stage is not Stage.ASKING and not claims else known",
           "if stage is not Stage.ASKING else known", test=_BY_LIVES),
    Mutant("answers_who_knows_no_lives_after_a_claim", _INTERPRETER,
           "if self.may_count is not None and not self.may_count(connection.transport):", "if False:",
           test=_BY_NODES),
    Mutant("learns_from_who_has_not_accepted", _LIVES,
           "told.known.get(self._own_rank) == own and self.counts(rank)", "self.counts(rank)", test=_BY_LIVES),
)
