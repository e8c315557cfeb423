"""Sealed connections: keys, the handshake of the two parties, and the records that come after it. Pure.

    Opening    the party that connected:  `message`, then `finish` with what came back
    accept     the party that was connected to
    Sealer     frames -> record         each direction has one of these at one end
    Opener     bytes -> frames          and one of these at the other

The handshake is Noise_NNpsk0_25519_AESGCM_SHA256 (dsreg.protocol.noise). The transport is not Noise's: its messages
end at 65,535 bytes, and a frame of ours has up to a megabyte. The two keys are used with records of our own:

    record = length u32 | ciphertext[length] | tag[16]

AES-256-GCM with the four bytes of the length as associated data and with the number of the record as the nonce, from 0
on: a record that was changed, moved, left out, repeated or cut off does not open. Nothing opens behind it then: there
is no sliding in a sealed stream, the connection has to be closed. A record holds one or more whole frames.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from dsreg.constants import CLIENT_KEY_SIZE, SYSTEM_KEY_SIZE
from dsreg.protocol.messages import Buffer
from dsreg.protocol.noise import CIPHER_TAG_SIZE, HASH_SIZE, NONCE_SIZE, OVERHEAD, HandshakeState, rekeyed

LENGTH_SIZE: Final = 4
# What a record is longer than its frames by.
RECORD_OVERHEAD: Final = LENGTH_SIZE + CIPHER_TAG_SIZE
# Bytes of frames in one record: the longest frame there is (1 MiB, its tags, its header) and some small ones with
# it. It is the bound of what an Opener keeps.
MAX_RECORD_BYTES: Final = (1 << 20) + (1 << 17)
# Both sides take the next key, by Noise's REKEY, after this many records. They are at most 2^36.2 bytes, 2^32.2
# blocks: what an attacker gains on AES-GCM by so many under one key is below 2^-63. The number of the record goes on
# and needs 2^64 records to run out.
RECORDS_PER_KEY: Final = 1 << 16
# From this size on the frames are encrypted one after the other instead of being joined first. Setting that up costs
# 4 us; a copy of a megabyte, and memory for it, costs more than to encrypt it.
STREAM_BYTES: Final = 32 * 1024

FIRST_MESSAGE_SIZE: Final = OVERHEAD
SECOND_MESSAGE_SIZE: Final = OVERHEAD + HASH_SIZE

_CLIENT_INFO: Final = b"dsreg sealed connection, client and node, 1"
_NODE_INFO: Final = b"dsreg sealed connection, node and node, 1"


class SealKey(NamedTuple):
    """What the parties of one kind of connection share: `psk` is the key, `role` keeps the kinds apart."""

    psk: bytes  # 32 bytes
    role: bytes


def client_seal(client_key: bytes) -> SealKey:
    """For connections between a client and a node."""
    assert len(client_key) == CLIENT_KEY_SIZE
    return SealKey(_derived(client_key, _CLIENT_INFO), _CLIENT_INFO)


def node_seal(system_key: bytes) -> SealKey:
    """For connections between nodes."""
    assert len(system_key) == SYSTEM_KEY_SIZE
    return SealKey(_derived(system_key, _NODE_INFO), _NODE_INFO)


def _derived(key: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt, 32 bytes."""
    return hmac.digest(hmac.digest(bytes(HASH_SIZE), key, "sha256"), info + b"\x01", "sha256")


def _prologue(key: SealKey, hello: bytes) -> bytes:
    return len(key.role).to_bytes(2, "big") + key.role + hello


class Opening:
    """The handshake of the party that connected. `hello`: the greeting that it said, which both must see alike, so
    that nobody takes a feature or a version out of it. `ephemeral`: 32 fresh random bytes."""

    def __init__(self, key: SealKey, hello: bytes, ephemeral: bytes) -> None:
        self._state = HandshakeState(
            initiator=True, prologue=_prologue(key, hello), psk=key.psk, ephemeral=ephemeral
        )
        self.message = self._state.write_message()  # FIRST_MESSAGE_SIZE bytes

    def finish(self, message: bytes, answer: bytes) -> tuple[Sealer, Opener] | None:
        """`message`: what came back; `answer`: the answer to the greeting, as it was understood here. None: one of
        them is not what the other party sent, or that has another key."""
        payload = self._state.read_message(message)
        if payload is None or not hmac.compare_digest(payload, hashlib.sha256(answer).digest()):
            return None
        there, back = self._state.split()
        return Sealer(there), Opener(back)


def accept(
    key: SealKey, hello: bytes, answer: bytes, message: bytes, ephemeral: bytes
) -> tuple[bytes, Sealer, Opener] | None:
    """The handshake of the party that was connected to: SECOND_MESSAGE_SIZE bytes to send back, then what seals and
    what opens. `hello` and `answer`: the greeting as it was understood here, and what was answered. None: the
    `message` is not authentic, or was not made for this greeting."""
    state = HandshakeState(initiator=False, prologue=_prologue(key, hello), psk=key.psk, ephemeral=ephemeral)
    if state.read_message(message) != b"":
        return None
    reply = state.write_message(hashlib.sha256(answer).digest())
    there, back = state.split()
    return reply, Sealer(back), Opener(there)


class _Direction:
    """The key of one direction, and the number of its next record."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)
        self._number = 0

    def _next_nonce(self) -> bytes:
        number = self._number
        if number % RECORDS_PER_KEY == 0 and number:
            self._key = rekeyed(self._key)
            self._cipher = AESGCM(self._key)
        self._number = number + 1
        return number.to_bytes(NONCE_SIZE, "big")


class Sealer(_Direction):
    """What is sent over one sealed connection. `key`: 32 bytes, never used before."""

    def seal(self, pieces: Sequence[Buffer]) -> list[Buffer]:
        """One record of all `pieces`: whole frames, together 1..MAX_RECORD_BYTES. It must be sent next."""
        length = sum(map(len, pieces))
        assert 0 < length <= MAX_RECORD_BYTES
        header = length.to_bytes(LENGTH_SIZE, "big")
        nonce = self._next_nonce()
        if length < STREAM_BYTES:
            return [header, self._cipher.encrypt(nonce, b"".join(pieces), header)]
        stream = Cipher(AES(self._key), modes.GCM(nonce)).encryptor()
        stream.authenticate_additional_data(header)
        record: list[Buffer] = [header, *map(stream.update, pieces)]
        stream.finalize()
        record.append(stream.tag)
        return record


class Opener(_Direction):
    """What comes over one sealed connection. `key`: 32 bytes, never used before."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        # Something was not authentic: nothing more comes out, and the connection is of no use.
        self.broken = False
        self._kept = bytearray()  # the beginning of a record that is short, or of unknown length
        self._needed = LENGTH_SIZE  # how long `_kept` has to become
        self._long: _LongRecord | None = None

    @property
    def buffered(self) -> int:
        """Bytes kept for later: less than one record, so less than MAX_RECORD_BYTES + RECORD_OVERHEAD."""
        return len(self._kept) + (LENGTH_SIZE + self._long.size if self._long is not None else 0)

    @property
    def held(self) -> int:
        """Bytes of memory for that: a long record has its whole length from its beginning on."""
        return len(self._kept) + (self._long.length if self._long is not None else 0)

    def feed(self, data: bytes) -> list[Buffer]:
        """Takes the next bytes of the stream; gives what was sealed in the records that they complete, in order.

        Depends on the bytes alone, not on how they are split. Time is linear in the length of the stream.
        """
        opened: list[Buffer] = []
        position, end = 0, len(data)
        with memoryview(data) as view:
            while position < end and not self.broken:
                if self._long is not None:
                    position += self._long.take(view[position:])
                    self._finish_long(opened)
                elif self._kept:
                    more = min(self._needed - len(self._kept), end - position)
                    self._kept += view[position : position + more]
                    position += more
                    if len(self._kept) == self._needed:
                        kept, self._kept = self._kept, bytearray()
                        with memoryview(kept) as beginning:
                            self._take(beginning, opened)
                else:
                    position += self._take(view[position:], opened)
        return opened

    def _take(self, view: memoryview, opened: list[Buffer]) -> int:
        """Open or keep the record, whole or not, that begins with `view`; gives the bytes of it that were there."""
        available = len(view)
        if available < LENGTH_SIZE:
            return self._keep(view, LENGTH_SIZE)
        length = int.from_bytes(view[:LENGTH_SIZE], "big")
        if not 0 < length <= MAX_RECORD_BYTES:
            self.broken = True
            return available
        size = length + RECORD_OVERHEAD
        if available >= size:
            nonce = self._next_nonce()
            try:
                opened.append(self._cipher.decrypt(nonce, view[LENGTH_SIZE:size], view[:LENGTH_SIZE]))
            except InvalidTag:
                self.broken = True
            return size
        if length < STREAM_BYTES:
            return self._keep(view, size)
        nonce = self._next_nonce()
        self._long = _LongRecord(self._key, nonce, bytes(view[:LENGTH_SIZE]), length)
        return LENGTH_SIZE

    def _keep(self, view: memoryview, needed: int) -> int:
        self._kept += view
        self._needed = needed
        return len(view)

    def _finish_long(self, opened: list[Buffer]) -> None:
        assert self._long is not None
        if self._long.is_complete:
            frames = self._long.open()
            self._long = None
            if frames is None:
                self.broken = True
            else:
                opened.append(frames)


class _LongRecord:
    """A record that comes in parts, decrypted as they come: so it needs memory for itself once, not twice. Nothing
    of it is given away before its tag is there and good."""

    def __init__(self, key: bytes, nonce: bytes, header: bytes, length: int) -> None:
        self._stream = Cipher(AES(key), modes.GCM(nonce)).decryptor()
        self._stream.authenticate_additional_data(header)
        self.length = length
        # The library asks for the room of one more block.
        self._frames = bytearray(length + AES.block_size // 8 - 1)
        self._tag = b""
        self.size = 0  # bytes taken, without the header

    @property
    def is_complete(self) -> bool:
        return self.size == self.length + CIPHER_TAG_SIZE

    def take(self, view: memoryview) -> int:
        """Gives how many of the bytes belong to this record."""
        done = min(self.size, self.length)
        part = view[: self.length - done]
        if part:
            with memoryview(self._frames) as frames:
                self._stream.update_into(part, frames[done:])
        tag = view[len(part) : len(part) + CIPHER_TAG_SIZE - len(self._tag)]
        self._tag += tag
        self.size += len(part) + len(tag)
        return len(part) + len(tag)

    def open(self) -> Buffer | None:
        try:
            self._stream.finalize_with_tag(self._tag)
        except InvalidTag:
            return None
        return memoryview(self._frames).toreadonly()[: self.length]
