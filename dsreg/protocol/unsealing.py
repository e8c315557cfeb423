"""A Decoder for a connection that may become sealed: from then on it reads what is in the records."""

from __future__ import annotations

from dsreg.constants import HMAC_SIZE, MAGIC
from dsreg.protocol.decoder import Decoder, _Rule
from dsreg.protocol.keyring import Accepted, Keyring
from dsreg.protocol.messages import Buffer, Message, Seal
from dsreg.protocol.sealed import Opener
from dsreg.protocol.wire import (
    ALWAYS_KNOWN,
    EXTENSION,
    PREFIX,
    PREFIX_SIZE,
    Mac,
    Type,
    extension_size,
)


class UnsealingDecoder(Decoder):
    """As a Decoder, and it knows the messages of the handshake. With one of them `feed` ends: what comes behind it, if
    anything, is kept for `unseal`. `counters` has one key more:

    bad_record     streams that ended because a record did not open, or held something else than whole frames
    other_key      how often the key has changed under which frames are good: see `ring`
    """

    # What is accepted besides `keys`, of a node; it may change. `keys` are those of which the last good frames were:
    # once the stream is sealed, those of the handshake.
    ring: Keyring | None = None
    _opener: Opener | None = None
    _between_nodes = False  # the other side is a node, of a sealed stream
    _client_mac: Mac
    _system_mac: Mac | None = None
    _sealed_rules: dict[int, _Rule]
    # Something in the sealed stream was not as it must be: nothing more comes out, the connection is of no use.
    broken = False
    # A record has opened: the other side has the key and is there now. Its handshake may have been a recorded one.
    proven = False

    def unseal(self, opener: Opener, *, between_nodes: bool) -> list[Message]:
        """From here on the stream is one of records; gives the messages in what has come of it already.

        Records hold frames without HMAC, of either part of the protocol. `between_nodes` says which ones: whoever
        shares the client key must not send what needs the system key.
        """
        assert self._opener is None
        mac = self._system_mac if between_nodes else self._client_mac
        self._sealed_rules = {
            type_: rule
            for type_, rule in self._all_rules.items()
            if rule.mac is mac and type_ not in ALWAYS_KNOWN
        }
        waiting, self._buffer = bytes(self._buffer), bytearray()
        self._opener = opener
        self._between_nodes = between_nodes
        return self.feed(waiting)

    @property
    def buffered(self) -> int:
        """Bytes kept for later: less than one frame or record."""
        return super().buffered if self._opener is None else self._opener.buffered

    @property
    def held(self) -> int:
        """Bytes of memory for that."""
        return super().buffered if self._opener is None else self._opener.held

    def drop(self) -> None:
        """Give up the stream, and at once the memory for it."""
        self.broken = True
        self._buffer, self._opener = bytearray(), None

    def feed(self, data: bytes) -> list[Message]:
        """As Decoder.feed; nothing once the stream is `broken`."""
        if self.broken:
            return []
        if self._opener is None:
            return super().feed(data)
        messages: list[Message] = []
        for frames in self._opener.feed(data):
            self.proven = True
            if not self.broken:
                self._decode_record(frames, messages)
        if self._opener.broken:
            self._break()
        return messages

    def _decode_record(self, frames: Buffer, messages: list[Message]) -> None:
        with memoryview(frames) as view:
            position, end = 0, len(view)
            while position < end:
                rule = None
                if end - position >= PREFIX_SIZE:
                    magic, type_ = PREFIX.unpack_from(view, position)
                    if magic == MAGIC:
                        rule = self._sealed_rules.get(type_)
                if rule is None:
                    self._break()
                    return
                size, _, decode, measure, _ = rule
                if measure is not None:
                    size = measure(view, position) if end - position >= size else 0
                size -= HMAC_SIZE
                if not 0 < size <= end - position:
                    self._break()
                    return
                message = decode(view[position : position + size])
                position += size
                if message is None:
                    self.counters["bad_field"] += 1
                else:
                    messages.append(message)

    # --- keys ---------------------------------------------------------------------------------
    def _find_key(self, mac: Mac, frame: memoryview) -> bool:
        if self.ring is None:
            return False
        for accepted in self.ring.clients if mac is self._client_mac else self.ring.systems:
            if accepted.mac.verify(frame[-HMAC_SIZE:], frame[:-HMAC_SIZE]):
                self._become(mac, accepted)
                self.counters["other_key"] += 1
                return True
        return False

    def ring_changed(self) -> bool:
        """What was good under a key that is not accepted any more is so no longer. False: the stream is sealed, by
        that key, and must end."""
        assert self.ring is not None
        client_is_good = self.ring.accepts_client(self.keys.client)
        system_is_good = self.ring.accepts_system(self.keys.system)
        if self._opener is not None:
            return system_is_good if self._between_nodes else client_is_good
        if not client_is_good:
            self._become(self._client_mac, self.ring.clients[0])
        if not system_is_good and self._system_mac is not None:
            self._become(self._system_mac, self.ring.systems[0])
        return True

    def _become(self, mac: Mac, accepted: Accepted) -> None:
        mac.become(accepted.mac)
        if mac is self._client_mac:
            self.keys = self.keys._replace(client=accepted.key)
        else:
            self.keys = self.keys._replace(system=accepted.key)

    def _break(self) -> None:
        self.counters["bad_record"] += not self.broken
        self.broken = True

    # --- which types are known ----------------------------------------------------------------
    def _client_rules(self, client: Mac) -> dict[int, _Rule]:
        self._client_mac = client
        return {**super()._client_rules(client), Type.SEAL_CLIENT_ANSWER: _seal_rule(client)}

    def _node_rules(self, client: Mac, system: Mac) -> dict[int, _Rule]:
        self._client_mac, self._system_mac = client, system
        return {
            **super()._node_rules(client, system),
            Type.SEAL_CLIENT: _seal_rule(client),
            Type.SEAL_NODE: _seal_rule(system),
            Type.SEAL_NODE_ANSWER: _seal_rule(system),
        }


def _seal_rule(mac: Mac) -> _Rule:
    return _Rule(EXTENSION.size, mac, _seal, extension_size)


def _seal(frame: memoryview) -> Seal:
    _, _, rank, type_, *_ = EXTENSION.unpack_from(frame)
    from_node = type_ in (Type.SEAL_NODE, Type.SEAL_NODE_ANSWER)
    answer = type_ in (Type.SEAL_CLIENT_ANSWER, Type.SEAL_NODE_ANSWER)
    return Seal(rank if from_node else 0, answer, bytes(frame[EXTENSION.size :]))
