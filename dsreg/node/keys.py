"""A node follows its key files: what it uses and accepts changes while it runs, docs/keys.md."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Final

from dsreg.config import ClusterConfig
from dsreg.config.keys import fingerprint
from dsreg.key_files import follow
from dsreg.link.accepted_line import AcceptedLine
from dsreg.node.dialer import Dialer
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.server import Server
from dsreg.protocol.codec import Bounds, Encodings, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.keyring import Keyring

log = logging.getLogger("dsreg.node")

# So many hosts are remembered that were connected under another key; a STATUS has a bound.
MOST_HOSTS: Final = 16


def keys_of(config: ClusterConfig) -> tuple[Keys, Keys]:
    """What is used, and what is accepted besides."""
    return Keys(config.client_key, config.system_key), Keys(config.other_client_key, config.other_system_key)


class KeysHeld:
    """What is made of the keys of a configuration. `new_decoder`, `new_acceptor`: for what the party sends that this
    node has connected to, or that has connected to it; `extended`: see Decoder."""

    def __init__(self, config: ClusterConfig, bounds: Bounds) -> None:
        self.ring = Keyring(*keys_of(config))
        self.seals = Seals(self.ring.used, lambda: secrets.token_bytes(32), required=config.require_sealed)
        self.encodings = Encodings(self.ring.used)
        self._bounds = bounds

    def new_decoder(self, extended: bool) -> UnsealingDecoder:
        return UnsealingDecoder(self.ring.used, bounds=self._bounds, side=Side.NODE, extended=extended)

    def new_acceptor(self, extended: bool) -> UnsealingDecoder:
        decoder = self.new_decoder(extended)
        decoder.ring = self.ring
        return decoder


class NodeKeys:
    """`held`: of `config`; `server` has its decoders from it. `dialers`: the links of this node, by rank."""

    def __init__(
        self, config: ClusterConfig, held: KeysHeld, interpreter: Interpreter, server: Server,
        dialers: Mapping[int, Dialer],
    ) -> None:
        self._config = config
        self._ring, self._seals, self._encodings = held.ring, held.seals, held.encodings
        self._interpreter = interpreter
        self._server = server
        self._dialers = dialers
        self._signing: dict[Keys, Encodings] = {}  # of keys that are not used here
        self._gone: dict[str, tuple[float, bool, str]] = {}  # by address: when, whether a node, the key's fingerprint
        server.on_other_key = self._answer
        server.on_end = self._ended

    async def run(self) -> None:
        """Until cancelled."""
        if self._config.key_files:
            await follow(self._config, self.take, self._refuse, self._objection)

    def _refuse(self, why: str) -> None:
        log.error("the keys stay as they were: %s", why)

    def _objection(self, config: ClusterConfig) -> str:
        """A file that was exchanged by mistake must not shut everybody out: each step of a change keeps a key of the
        one before."""
        known, told = keys_of(self._config), keys_of(config)
        for name, of in (("client", "clients"), ("system", "nodes")):
            before, after = ({getattr(each, name) for each in keys} - {b""} for keys in (known, told))
            if before.isdisjoint(after):
                return (f"{name}_key_file has a key that has nothing to do with those in use; dsreg keys rotate "
                        f"changes the key of the {of}, and a restart takes whatever is there")
        return ""

    async def take(self, config: ClusterConfig) -> None:
        """Use and accept the keys of this configuration, and from now on no others."""
        ring, before = self._ring, self._ring.systems
        used, other = keys_of(config)
        if keys_of(self._config) == (used, other):
            return
        self._config = config
        ring.change(used, other)
        self._seals.change(used)
        self._encodings.change(used)
        self._signing.clear()
        for connection, line in list(self._server.connections.items()):
            if line.decoder.ring_changed():
                self._answer(connection, line.decoder.keys)
            else:
                connection.transport.close()
        systems = [one.key for one in ring.systems]
        if systems[0] != before[0].key or any(one.key not in systems for one in before):
            for dialer in self._dialers.values():
                dialer.rekeyed()
        log.info("keys changed: clients %s, nodes %s", *(_names(ring_of) for ring_of in self.in_force().values()))

    def in_force(self) -> dict[str, dict[str, object]]:
        """Of clients and of nodes, by fingerprint."""
        return {
            name: {"uses": fingerprint(accepted[0].key), "accepts": [fingerprint(one.key) for one in accepted]}
            for name, accepted in (("client", self._ring.clients), ("system", self._ring.systems))
        }

    def report(self) -> dict[str, object]:
        """For STATUS: docs/protocol.md. `others`: who has not used the key last that this node uses."""
        now_s = self._interpreter.clock()
        others = [
            {"peer": connection.transport.peer, "node": line.is_node, "key": key, "connected": True, "seen_s": 0.0}
            for connection, line in self._server.connections.items()
            if not connection.transport.closed and (key := self._other_key(line))
        ]
        there = {str(other["peer"]).rpartition(":")[0] for other in others}
        accepted = {fingerprint(one.key) for one in (*self._ring.clients, *self._ring.systems)}
        others += [
            {"peer": host, "node": is_node, "key": key, "connected": False, "seen_s": round(now_s - at_s, 1)}
            for host, (at_s, is_node, key) in self._gone.items() if host not in there and key in accepted
        ]
        return {**self.in_force(), "others": others[:MOST_HOSTS], "others_left_out": max(0, len(others) - MOST_HOSTS)}

    # --- connections ----------------------------------------------------------------------------------
    def _answer(self, connection: Connection, keys: Keys) -> None:
        """What comes over it is of these keys: so is to be what goes."""
        under = self._interpreter.under
        under.pop(connection.transport, None)
        if keys != self._ring.used and not connection.transport.is_sealed:
            if keys not in self._signing:
                self._signing[keys] = Encodings(keys)
            under[connection.transport] = self._signing[keys].encode

    def _other_key(self, line: AcceptedLine) -> str:
        """The fingerprint of the key over whose connection something good has come, if that is not the one in use."""
        keys, used = line.decoder.keys, self._ring.used
        key, own = (keys.system, used.system) if line.is_node else (keys.client, used.client)
        return fingerprint(key) if line.is_known and key != own else ""

    def _ended(self, connection: Connection, line: AcceptedLine) -> None:
        self._interpreter.under.pop(connection.transport, None)
        if key := self._other_key(line):
            self._gone.pop(connection.address, None)
            self._gone[connection.address] = self._interpreter.clock(), line.is_node, key
            if len(self._gone) > MOST_HOSTS:
                del self._gone[next(iter(self._gone))]


def _names(in_force: Mapping[str, object]) -> str:
    accepts = in_force["accepts"]
    assert isinstance(accepts, list)
    return f"use {accepts[0]}" + (f" and may use {accepts[1]}" if accepts[1:] else "")
