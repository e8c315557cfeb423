"""A decoder of a node, and an accepted connection, while two keys are good: docs/keys.md."""

from __future__ import annotations

import pytest

from dsreg.link.accepted_line import LINE, AcceptedLine
from dsreg.link.effects import AnswerUnder, Put, SealWith, Take
from dsreg.protocol.codec import Bounds, Encoder, Keys, Mac, Side, UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.keyring import Keyring
from dsreg.protocol.messages import Ack, Command, CommandKind, Hello, Message, RefusedCommand, Seal
from dsreg.register.assembly import client_hello, node_hello

OLD, NEW = Keys(b"o" * 32, b"O" * 64), Keys(b"n" * 32, b"N" * 64)
NONE = Keys(b"", b"")
READ = Command(CommandKind.READ, 5, 0, 1)
ACK = Ack(2, 7, 0, 1, b"u" * 16)
SECTORS = 64


def fresh() -> bytes:
    return bytes(range(32))


def signed(keys: Keys, *messages: Message) -> bytes:
    encoder = Encoder(keys)
    return b"".join(bytes(piece) for message in messages for piece in encoder.encode(message))


def new_decoder(ring: Keyring) -> UnsealingDecoder:
    decoder = UnsealingDecoder(ring.used, bounds=Bounds(SECTORS, frozenset((1, 2, 3))), side=Side.NODE)
    decoder.ring = ring
    return decoder


@pytest.mark.parametrize("message", [READ, ACK], ids=["client", "node"])
def test_both_keys_are_good_in_any_order_until_one_is_dropped(message: Message) -> None:
    ring = Keyring(OLD, NEW)
    decoder = new_decoder(ring)
    assert decoder.feed(b"".join(signed(keys, message) for keys in (OLD, NEW, NEW, OLD, NEW))) == [message] * 5
    assert decoder.counters["bad_mac"] == 0 and decoder.counters["other_key"] == 3
    ring.change(NEW, OLD)
    assert decoder.ring_changed() and decoder.feed(signed(OLD, message)) == [message]
    ring.change(NEW, NONE)
    assert decoder.ring_changed()
    [*late] = decoder.feed(signed(OLD, message))
    assert all(isinstance(one, RefusedCommand) for one in late) and decoder.counters["bad_mac"] == 1
    assert decoder.feed(signed(NEW, message)) == [message]
    assert decoder.keys == NEW


def test_the_two_keys_are_changed_each_by_itself() -> None:
    decoder = new_decoder(Keyring(OLD, NEW))
    assert decoder.feed(signed(NEW, READ) + signed(OLD, ACK)) == [READ, ACK]
    assert decoder.keys == Keys(NEW.client, OLD.system)


def test_neither_key_is_good_for_the_other_kind_of_frames() -> None:
    decoder = new_decoder(Keyring(OLD, Keys(NEW.client, b"")))
    assert decoder.feed(signed(NEW, ACK)) == [] and decoder.counters["bad_mac"] == 1


@pytest.mark.parametrize(("other", "keys", "most"), [(NONE, OLD, 10), (NEW, OLD, 10), (NEW, NEW, 12)],
                         ids=["one key", "two, the one in use", "two, the other one"])
def test_a_frame_costs_one_mac(monkeypatch: pytest.MonkeyPatch, other: Keys, keys: Keys, most: int) -> None:
    """But the first one under another key than before."""
    counted = 0
    sign = Mac.sign

    def counting(self: Mac, *parts: bytes) -> bytes:
        nonlocal counted
        counted += 1
        return sign(self, *parts)

    decoder, frames = new_decoder(Keyring(OLD, other)), signed(keys, *[READ] * 10)
    monkeypatch.setattr(Mac, "sign", counting)
    assert len(decoder.feed(frames)) == 10
    assert 10 <= counted <= most


class Opened:
    """A connection that somebody with `keys` has sealed to a node with `ring`."""

    def __init__(self, ring: Keyring, keys: Keys, rank: int) -> None:
        self.line = AcceptedLine(node_hello(1, 3, bytes(16), 1, SECTORS), Seals(ring.used, fresh), new_decoder(ring))
        hello = node_hello(rank, 3, bytes(16), 1, SECTORS) if rank else client_hello(SECTORS)
        greeter = Greeter(hello, 1 if rank else 0, Seals(keys, fresh))
        self.effects = self.line.received(signed(keys, *greeter.messages), 0.0)
        for effect in self.effects:
            for message in effect.messages if isinstance(effect, Put) else ():
                if isinstance(message, (Hello, Seal)):
                    greeter.take(message)
        self.verdict = greeter.verdict


@pytest.mark.parametrize("rank", [0, 2], ids=["client", "node"])
def test_a_sealed_connection_ends_with_its_key(rank: int) -> None:
    ring = Keyring(OLD, NEW)
    old, new = Opened(ring, OLD, rank), Opened(ring, NEW, rank)
    assert old.verdict is new.verdict is Verdict.SEALED
    under = [effect for effect in new.effects if isinstance(effect, AnswerUnder)]
    assert new.effects[0] == under[0] and not any(isinstance(effect, AnswerUnder) for effect in old.effects)
    assert (under[0].keys.system if rank else under[0].keys.client) == (NEW.system if rank else NEW.client)
    ring.change(NEW, OLD)
    assert old.line.decoder.ring_changed() and new.line.decoder.ring_changed()
    ring.change(NEW, NONE)
    assert not old.line.decoder.ring_changed() and new.line.decoder.ring_changed()
    refused = Opened(ring, OLD, rank)
    assert refused.verdict is None and not any(isinstance(effect, SealWith) for effect in refused.effects)


def test_the_other_key_ends_only_what_it_is_the_key_of() -> None:
    ring = Keyring(OLD, Keys(b"", NEW.system))
    client, node = Opened(ring, OLD, 0), Opened(ring, OLD, 2)
    ring.change(Keys(OLD.client, NEW.system), NONE)
    assert client.line.decoder.ring_changed() and not node.line.decoder.ring_changed()


def test_who_speaks_the_contract_is_a_node_by_what_it_says() -> None:
    line = AcceptedLine(node_hello(1, 3, bytes(16), 1, SECTORS), Seals(OLD, fresh), new_decoder(Keyring(OLD, NEW)))
    assert line.received(signed(OLD, READ), 0.0) == [Take(LINE, READ)] and not line.is_node
    assert line.received(signed(NEW, ACK), 0.0) == [AnswerUnder(LINE, Keys(OLD.client, NEW.system)), Take(LINE, ACK)]
    assert line.is_node
