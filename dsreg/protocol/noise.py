"""Noise_NNpsk0_25519_AESGCM_SHA256: the handshake of the Noise Protocol Framework, revision 34, for this one name.

    NNpsk0:   -> psk, e
              <- e, ee

Sections in comments are those of the specification (https://noiseprotocol.org/noise.html). Pure: the private key
of the ephemeral pair comes in as an argument, fresh and random for each handshake.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROTOCOL_NAME: Final = b"Noise_NNpsk0_25519_AESGCM_SHA256"
KEY_SIZE: Final = 32  # of a cipher, a pre-shared key, an X25519 key of either kind
HASH_SIZE: Final = 32
CIPHER_TAG_SIZE: Final = 16
NONCE_SIZE: Final = 12  # 4 bytes of zeros, then the counter, big-endian (12.3)
MAX_NONCE: Final = (1 << 64) - 1  # is for `rekey` alone (5.1)
# What a handshake message is longer than its payload by.
OVERHEAD: Final = KEY_SIZE + CIPHER_TAG_SIZE


def rekeyed(key: bytes) -> bytes:
    """REKEY(k): the key that follows `key` (4.2)."""
    return AESGCM(key).encrypt(MAX_NONCE.to_bytes(NONCE_SIZE, "big"), bytes(KEY_SIZE), b"")[:KEY_SIZE]


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF(chaining_key, input_key_material, num_outputs), 2 or 3 outputs of 32 bytes (4.3)."""
    secret = hmac.digest(chaining_key, material, "sha256")
    found = [b""]
    for number in range(1, outputs + 1):
        found.append(hmac.digest(secret, found[-1] + bytes([number]), "sha256"))
    return found[1:]


class CipherState:
    """A key and its nonce (5.1). Without a key, as at the start of a handshake, text passes unchanged."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key
        self._cipher = AESGCM(key) if key else None
        self._nonce = 0

    def _next_nonce(self) -> bytes:
        assert self._nonce < MAX_NONCE
        nonce = self._nonce.to_bytes(NONCE_SIZE, "big")
        self._nonce += 1
        return nonce

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        return plaintext if self._cipher is None else self._cipher.encrypt(self._next_nonce(), plaintext, ad)

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes | None:
        """None, and the nonce stays, where it is not authentic."""
        if self._cipher is None:
            return ciphertext
        try:
            plaintext = self._cipher.decrypt(self._nonce.to_bytes(NONCE_SIZE, "big"), ciphertext, ad)
        except InvalidTag:
            return None
        self._next_nonce()
        return plaintext


class SymmetricState:
    """The hash of all that was said and the keys that come of it (5.2)."""

    def __init__(self) -> None:
        # The name fills a hash exactly, so it is its own.
        self.handshake_hash = PROTOCOL_NAME
        self._chaining_key = PROTOCOL_NAME
        self._cipher = CipherState()

    def mix_hash(self, data: bytes) -> None:
        self.handshake_hash = hashlib.sha256(self.handshake_hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = hkdf(self._chaining_key, material, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, mixed, key = hkdf(self._chaining_key, material, 3)
        self.mix_hash(mixed)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt_with_ad(self.handshake_hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes | None:
        plaintext = self._cipher.decrypt_with_ad(self.handshake_hash, ciphertext)
        if plaintext is not None:
            self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        first, second = hkdf(self._chaining_key, b"", 2)
        return first, second


class HandshakeState:
    """One side of one handshake (5.3, cut down to NNpsk0). The initiator writes, then reads; the responder
    reads, then writes; both `split`. Anything else is a bug of the caller.

    `psk` and `ephemeral` (the private key) are 32 bytes, `prologue` any bytes that both sides know.
    """

    def __init__(self, *, initiator: bool, prologue: bytes, psk: bytes, ephemeral: bytes) -> None:
        assert len(psk) == len(ephemeral) == KEY_SIZE
        self._psk = psk
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        self._shared = b""  # what both ephemeral keys make together
        self._symmetric = SymmetricState()
        self._symmetric.mix_hash(prologue)
        # What may be done next; nothing after a message that was not authentic.
        self._order = [self.write_message, self.read_message] if initiator else [self.read_message, self.write_message]
        self._failed = False

    @property
    def handshake_hash(self) -> bytes:
        return self._symmetric.handshake_hash

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next message: OVERHEAD bytes more than `payload`."""
        assert not self._failed and self._order.pop(0) == self.write_message
        public = self._ephemeral.public_key().public_bytes_raw()
        self._begin_message(public)
        return public + self._symmetric.encrypt_and_hash(payload)

    def read_message(self, message: bytes) -> bytes | None:
        """The payload; None if the message is not authentic: then the handshake has failed, for good."""
        assert not self._failed and self._order.pop(0) == self.read_message
        self._failed = True
        if len(message) < OVERHEAD:
            return None
        public = message[:KEY_SIZE]
        try:
            self._shared = self._ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # all zeros come out: one of the few keys that no honest side has (12.1)
            return None
        self._begin_message(public)
        payload = self._symmetric.decrypt_and_hash(message[KEY_SIZE:])
        self._failed = payload is None
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the two CipherStates: from the initiator to the responder, and back."""
        assert not self._failed and not self._order
        return self._symmetric.split()

    def _begin_message(self, public: bytes) -> None:
        """The tokens: psk and e in the first message, e and ee in the second."""
        symmetric, is_first = self._symmetric, len(self._order) == 1
        if is_first:
            symmetric.mix_key_and_hash(self._psk)
        symmetric.mix_hash(public)
        symmetric.mix_key(public)  # because there is a psk (9.2)
        if not is_first:
            symmetric.mix_key(self._shared)
