"""A connection that somebody else has made, as plays: what comes, then what is to be done about it."""

from __future__ import annotations

import math

import pytest

from dsreg.link.accepted_line import HANDSHAKE_S, LINE, AcceptedLine
from dsreg.link.effects import (
    Close,
    Complain,
    Effect,
    Features,
    Fresh,
    GreetedBy,
    Introduce,
    LimitRecords,
    Put,
    SealedBy,
    SealWith,
    Take,
)
from dsreg.protocol.codec import Bounds, Encoder, Side, UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import (
    FEATURE_LIVES,
    Command,
    CommandKind,
    Hello,
    Message,
    Response,
    Seal,
    Status,
    StatusRequest,
)
from dsreg.protocol.record_bound import FIRST_BOUND, HEARD_AT_FIRST
from dsreg.register.assembly import client_hello, node_hello
from tests.link.parties import CLUSTER, KEYS, NODES, SECTORS, damaged, fresh, kinds, plain

OWN, PEER = 1, 2
NOW = 100.0
READ = Command(CommandKind.READ, 5, 0, 1)
ASK = StatusRequest(7)


def new_line(*, required: bool = False) -> AcceptedLine:
    decoder = UnsealingDecoder(KEYS, bounds=Bounds(SECTORS, frozenset((1, 2, 3))), side=Side.NODE, extended=False)
    hello = node_hello(OWN, NODES, CLUSTER, 1, SECTORS)
    return AcceptedLine(hello, Seals(KEYS, fresh, required=required), decoder)


class Opener:
    """Who has made the connection. `rank`: 0: a client."""

    def __init__(self, rank: int, *, seals: bool = True, lives: bool = False) -> None:
        hello = client_hello(SECTORS, seals=seals)
        if rank:
            hello = node_hello(rank, NODES, CLUSTER, 1, SECTORS, seals=seals)
        self.hello = hello._replace(features=hello.features & ~FEATURE_LIVES | FEATURE_LIVES * lives)
        self.greeter = Greeter(self.hello, OWN if rank else 0, Seals(KEYS, fresh))

    def greeting(self) -> bytes:
        return plain(self.greeter.messages)

    def hear(self, effects: list[Effect]) -> None:
        """The answers among the effects."""
        for effect in effects:
            for message in effect.messages if isinstance(effect, Put) else ():
                if isinstance(message, (Hello, Seal)):
                    self.greeter.take(message)
        assert self.greeter.verdict is Verdict.SEALED

    def say(self, *messages: Message) -> bytes:
        encoder = Encoder(None)
        pieces = [piece for message in messages for piece in encoder.encode(message)]
        return b"".join(bytes(piece) for piece in self.greeter.sealer.seal(pieces))


def sealed(line: AcceptedLine, rank: int = 0, *, lives: bool = False) -> tuple[Opener, list[Effect]]:
    opener = Opener(rank, lives=lives)
    effects = line.received(opener.greeting(), NOW)
    opener.hear(effects)
    return opener, effects


def test_the_contract_needs_no_greeting() -> None:
    line = new_line()
    assert not line.is_known
    assert line.received(plain([READ]), NOW) == [Take(LINE, READ)]
    assert line.is_known and not line.is_fresh and line.next_due == math.inf


def test_a_client_that_does_not_seal_is_answered_and_taken_as_it_is() -> None:
    line, opener = new_line(), Opener(0, seals=False)
    put, features = line.received(opener.greeting(), NOW)
    assert features == Features(LINE, opener.hello.features)
    assert isinstance(put, Put) and kinds(put.messages) == [Hello]
    assert line.next_due == math.inf
    assert line.received(plain([ASK]), NOW) == [Take(LINE, ASK)]


def test_a_client_that_seals_is_fresh_with_its_first_record() -> None:
    line = new_line()
    opener, effects = sealed(line)
    assert kinds(effects) == [Put, Features, Put, SealWith, LimitRecords]
    assert effects[4] == LimitRecords(LINE, FIRST_BOUND)
    assert line.is_sealed and not line.is_fresh and line.next_due == NOW + HANDSHAKE_S
    assert line.received(opener.say(ASK), NOW) == [Fresh(LINE), Take(LINE, ASK)]
    assert line.is_fresh and line.next_due == math.inf
    assert line.received(opener.say(ASK), NOW) == [Take(LINE, ASK)]


def test_a_record_right_behind_the_handshake_is_proof_as_well() -> None:
    """Nobody can make one without the answer, but the answer may have come in an earlier turn of the other side."""
    line = new_line()
    opener = Opener(0)
    hello, seal = opener.greeter.messages
    opener.greeter.take(line.received(plain([hello]), NOW)[0].messages[0])  # type: ignore[union-attr]
    effects = line.received(plain([seal]), NOW)
    opener.hear(effects)
    assert line.received(opener.say(ASK), NOW)[0] == Fresh(LINE)


def test_a_handshake_that_is_not_finished_in_time_ends_the_connection() -> None:
    line = new_line()
    sealed(line)
    assert line.tick(NOW + HANDSHAKE_S - 0.001) == []
    assert line.tick(NOW + HANDSHAKE_S) == [Close(LINE)]
    assert line.next_due == math.inf


def test_a_node_is_known_by_its_greeting_and_by_its_seal() -> None:
    line = new_line()
    _, effects = sealed(line, PEER, lives=True)
    assert kinds(effects) == [Put, Features, GreetedBy, Put, SealWith, LimitRecords, Introduce, SealedBy]
    assert line.rank == PEER and GreetedBy(PEER, 1) in effects and SealedBy(PEER) in effects


def test_lives_are_told_to_those_that_want_it_and_not_in_clear_text_if_it_will_be_sealed() -> None:
    line, opener = new_line(), Opener(PEER, lives=True)
    assert Introduce not in kinds(line.received(plain([opener.hello]), NOW))
    plain_one = Opener(PEER, seals=False, lives=True)
    plainly = new_line().received(plain_one.greeting(), NOW)
    assert plainly[2:] == [GreetedBy(PEER, 1), Introduce(LINE, plain_one.hello.features)]
    assert Introduce not in kinds(sealed(new_line())[1])


def test_where_connections_must_be_sealed_nothing_else_has_an_effect() -> None:
    line = new_line(required=True)
    refusal = Response(Status.AUTH_FAILURE, CommandKind.READ, 5)
    effects = line.received(plain([READ]), NOW)
    assert effects[0] == Put(LINE, (refusal,)) and kinds(effects) == [Put, Complain]
    assert line.decoder.counters["unsealed"] == 1 and not line.is_known
    opener = Opener(0)
    effects = line.received(opener.greeting(), NOW)
    opener.hear(effects)
    assert Take(LINE, ASK) in line.received(opener.say(ASK), NOW)


def test_an_offer_to_seal_opens_no_door_to_what_is_not_sealed() -> None:
    line, opener = new_line(required=True), Opener(0)
    line.received(plain([opener.hello]), NOW)
    assert Take not in kinds(line.received(plain([READ]), NOW))


@pytest.mark.parametrize("rank", [0, PEER])
def test_a_handshake_that_was_not_made_for_this_greeting_ends_the_connection(rank: int) -> None:
    line, opener = new_line(), Opener(rank)
    hello, seal = opener.greeter.messages
    assert isinstance(hello, Hello)
    effects = line.received(plain([hello._replace(incarnation=9), seal]), NOW)
    assert kinds(effects)[-2:] == [Close, Complain] and SealWith not in kinds(effects)
    assert not line.is_sealed and line.decoder.counters["bad_seal"] == 1


def test_a_handshake_without_a_greeting_ends_the_connection() -> None:
    line = new_line()
    assert kinds(line.received(plain([Opener(PEER).greeter.messages[1]]), NOW)) == [Close, Complain]


def test_damage_behind_a_greeting_ends_the_connection() -> None:
    """The other side waits for an answer to a SEAL that never came."""
    line, opener = new_line(), Opener(0)
    hello, seal = opener.greeter.messages
    effects = line.received(plain([hello]) + damaged(plain([seal])), NOW)
    assert kinds(effects) == [Put, Features, Close, Complain]


def test_damage_on_a_connection_of_the_contract_does_not() -> None:
    line = new_line()
    effects = line.received(damaged(plain([READ])) + plain([READ]), NOW)
    assert Close not in kinds(effects) and Take(LINE, READ) in effects


def test_a_record_that_was_changed_ends_the_connection_after_what_came_before() -> None:
    line = new_line()
    opener, _ = sealed(line)
    effects = line.received(opener.say(ASK) + damaged(opener.say(ASK)), NOW)
    assert kinds(effects) == [Fresh, Take, Close, Complain]
    assert Take not in kinds(line.received(opener.say(ASK), NOW))


def test_records_grow_with_what_is_heard() -> None:
    line = new_line()
    opener, _ = sealed(line)
    effects = [effect for _ in range(HEARD_AT_FIRST) for effect in line.received(opener.say(ASK), NOW)]
    assert [effect for effect in effects if isinstance(effect, LimitRecords)] == [LimitRecords(LINE, 2 * FIRST_BOUND)]
