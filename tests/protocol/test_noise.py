"""The handshake against the published vectors, against an implementation by others, and against damage."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import NoiseConnection

from dsreg.protocol.noise import OVERHEAD, PROTOCOL_NAME, CipherState, HandshakeState, hkdf, rekeyed

CHECKED = settings(max_examples=40, deadline=None)
keys = st.binary(min_size=32, max_size=32)
# X25519 gives a private key a fixed form; any 32 bytes are one.
handshakes = st.tuples(keys, keys, keys, st.binary(max_size=200))


def side(initiator: bool, prologue: bytes, psk: bytes, ephemeral: bytes) -> HandshakeState:
    return HandshakeState(initiator=initiator, prologue=prologue, psk=psk, ephemeral=ephemeral)


# --- the published vector ------------------------------------------------------------------------------
# Noise_NNpsk0_25519_AESGCM_SHA256 of the vectors of cacophony, a Noise implementation in Haskell; snow and others
# use them as well. Payload and ciphertext of each message, the first two being the handshake.
PROLOGUE = b"John Galt"
PSK = b"This is my Austrian perspective!"
INITIATOR = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
RESPONDER = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
# The vectors call it the handshake's, and it is that after the first message.
FIRST_HASH = bytes.fromhex("29d92c13649b5d28b41afd8dc5d6ce7f46df2348e4061c09f1c354b593e13add")
MESSAGES = [
    (b"Ludwig von Mises",
     "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
     "7c37a89fc17813788d30df2d59501d6066f5f8aecc3406bbd9829f2d24a531b1"),
    (b"Murray Rothbard",
     "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
     "2f29d79368ef9de4e1ae7a362fb05bf0ad668e026bf5714554497b3a720461"),
    (b"F. A. Hayek", "7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6"),
    (b"Carl Menger", "a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0"),
    (b"Jean-Baptiste Say", "6cfc49a3e65472edc2d0152abe5ce950170a8a47c959f30bd48b5f0aacf29adbfd"),
    (bytes.fromhex("457567656e2042f6686d20766f6e2042617765726b"),
     "9bc86e6d974ed21ba04604a94aa68de21677eb409ead070c0cd569b069ee19ba142aa4c1a9"),
]


def test_published_vector() -> None:
    initiator = side(True, PROLOGUE, PSK, INITIATOR)
    responder = side(False, PROLOGUE, PSK, RESPONDER)
    seen = []
    for sender, receiver, (payload, expected) in zip(
        (initiator, responder), (responder, initiator), MESSAGES[:2], strict=True
    ):
        message = sender.write_message(payload)
        assert message.hex() == expected
        assert receiver.read_message(message) == payload
        assert initiator.handshake_hash == responder.handshake_hash
        seen.append(sender.handshake_hash)
    assert seen[0] == FIRST_HASH
    assert initiator.split() == responder.split()
    # The transport messages go on in turn, with a cipher for each direction.
    sending = [CipherState(key) for key in initiator.split()]
    receiving = [CipherState(key) for key in responder.split()]
    for number, (payload, expected) in enumerate(MESSAGES[2:]):
        assert sending[number % 2].encrypt_with_ad(b"", payload).hex() == expected
        assert receiving[number % 2].decrypt_with_ad(b"", bytes.fromhex(expected)) == payload


# --- an implementation by others -----------------------------------------------------------------------
def other(initiator: bool, prologue: bytes, psk: bytes) -> NoiseConnection:
    """With an ephemeral key of its own making."""
    connection = NoiseConnection.from_name(PROTOCOL_NAME)
    connection.set_psks(psk)
    connection.set_prologue(prologue)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection


@CHECKED
@given(handshakes, st.lists(st.binary(max_size=300), min_size=2, max_size=6))
def test_we_open_to_another_implementation(values: tuple[bytes, bytes, bytes, bytes], payloads: list[bytes]) -> None:
    psk, ephemeral, _, prologue = values
    ours, theirs = side(True, prologue, psk, ephemeral), other(False, prologue, psk)
    assert theirs.read_message(ours.write_message(payloads[0])) == payloads[0]
    assert ours.read_message(bytes(theirs.write_message(payloads[1]))) == payloads[1]
    there, back = map(CipherState, ours.split())
    assert ours.handshake_hash == theirs.get_handshake_hash()
    for payload in payloads[2:]:
        assert theirs.decrypt(there.encrypt_with_ad(b"", payload)) == payload
        assert back.decrypt_with_ad(b"", theirs.encrypt(payload)) == payload


@CHECKED
@given(handshakes, st.lists(st.binary(max_size=300), min_size=2, max_size=6))
def test_another_implementation_opens_to_us(values: tuple[bytes, bytes, bytes, bytes], payloads: list[bytes]) -> None:
    psk, ephemeral, _, prologue = values
    ours, theirs = side(False, prologue, psk, ephemeral), other(True, prologue, psk)
    assert ours.read_message(bytes(theirs.write_message(payloads[0]))) == payloads[0]
    assert theirs.read_message(ours.write_message(payloads[1])) == payloads[1]
    there, back = map(CipherState, ours.split())
    assert ours.handshake_hash == theirs.get_handshake_hash()
    for payload in payloads[2:]:
        assert there.decrypt_with_ad(b"", theirs.encrypt(payload)) == payload
        assert theirs.decrypt(back.encrypt_with_ad(b"", payload)) == payload


def test_both_take_the_same_next_key() -> None:
    psk, prologue = bytes(range(32)), b"rekey"
    ours, theirs = side(True, prologue, psk, INITIATOR), other(False, prologue, psk)
    theirs.read_message(ours.write_message())
    ours.read_message(bytes(theirs.write_message()))
    there, back = ours.split()
    theirs.rekey_inbound_cipher()
    theirs.rekey_outbound_cipher()
    assert theirs.decrypt(CipherState(rekeyed(there)).encrypt_with_ad(b"", b"after")) == b"after"
    assert CipherState(rekeyed(back)).decrypt_with_ad(b"", theirs.encrypt(b"after")) == b"after"


@CHECKED
@given(keys, st.binary(max_size=64))
def test_hkdf_is_that_of_rfc_5869(chaining_key: bytes, material: bytes) -> None:
    expected = HKDF(hashes.SHA256(), 96, chaining_key, b"").derive(material)
    assert b"".join(hkdf(chaining_key, material, 3)) == expected
    assert b"".join(hkdf(chaining_key, material, 2)) == expected[:64]


# --- damage --------------------------------------------------------------------------------------------
def test_every_changed_byte_of_the_first_message_is_refused() -> None:
    message = side(True, PROLOGUE, PSK, INITIATOR).write_message(b"hello")
    for index in range(len(message)):
        damaged = bytearray(message)
        damaged[index] ^= 0x40
        assert side(False, PROLOGUE, PSK, RESPONDER).read_message(bytes(damaged)) is None


def test_every_changed_byte_of_the_second_message_is_refused() -> None:
    responder = side(False, PROLOGUE, PSK, RESPONDER)
    responder.read_message(side(True, PROLOGUE, PSK, INITIATOR).write_message())
    message = responder.write_message(b"hello")
    for index in range(len(message)):
        damaged = bytearray(message)
        damaged[index] ^= 0x40
        initiator = side(True, PROLOGUE, PSK, INITIATOR)
        initiator.write_message()
        assert initiator.read_message(bytes(damaged)) is None


@pytest.mark.parametrize(
    ("prologue", "psk"), [(PROLOGUE + b".", PSK), (b"", PSK), (PROLOGUE, PSK[::-1])], ids=["more", "none", "key"]
)
def test_another_prologue_or_key_is_refused(prologue: bytes, psk: bytes) -> None:
    message = side(True, PROLOGUE, PSK, INITIATOR).write_message()
    assert side(False, prologue, psk, RESPONDER).read_message(message) is None


@pytest.mark.parametrize("length", [0, 31, 32, OVERHEAD - 1])
def test_a_short_message_is_refused(length: int) -> None:
    message = side(True, PROLOGUE, PSK, INITIATOR).write_message()
    assert side(False, PROLOGUE, PSK, RESPONDER).read_message(message[:length]) is None


def test_a_key_that_makes_the_secret_zero_is_refused() -> None:
    initiator = side(True, PROLOGUE, PSK, INITIATOR)
    initiator.write_message()
    assert initiator.read_message(bytes(OVERHEAD)) is None
    assert side(False, PROLOGUE, PSK, RESPONDER).read_message(bytes(OVERHEAD)) is None


def test_an_answer_to_another_handshake_is_refused() -> None:
    responder = side(False, PROLOGUE, PSK, RESPONDER)
    responder.read_message(side(True, PROLOGUE, PSK, INITIATOR).write_message())
    recorded = responder.write_message()
    again = side(True, PROLOGUE, PSK, INITIATOR[::-1])
    again.write_message()
    assert again.read_message(recorded) is None


def test_a_cipher_goes_on_after_a_message_that_was_not_authentic() -> None:
    sending, receiving = CipherState(PSK), CipherState(PSK)
    first, second = sending.encrypt_with_ad(b"ad", b"one"), sending.encrypt_with_ad(b"ad", b"two")
    assert receiving.decrypt_with_ad(b"ad", second) is None
    assert receiving.decrypt_with_ad(b"", first) is None
    assert receiving.decrypt_with_ad(b"ad", first) == b"one"
    assert receiving.decrypt_with_ad(b"ad", second) == b"two"
