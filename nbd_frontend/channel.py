"""The bytes of one client: over its socket in clear text, or by TLS from the moment on at which that was agreed on.

TLS works on bytes here (`ssl.SSLObject`), so that both ways have the same turns: all that has been put goes out in one
write, and a wait for bytes may be cancelled.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path

from dsreg.constants import RECV_BYTES
from dsreg.errors import ConfigError
from dsreg.store import Buffer
from dsreg.transport import Transport

# In the directory of --tls-certs, by the names that qemu, nbdkit and libnbd use.
CERTIFICATE, KEY, AUTHORITY = "server-cert.pem", "server-key.pem", "ca-cert.pem"


def tls_context(directory: Path) -> ssl.SSLContext:
    """For the certificates in `directory`. Where the one of an authority is among them, clients need one of that.
    Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key, authority = (directory / name for name in (CERTIFICATE, KEY, AUTHORITY))
    faults = [f"{path}: is needed for TLS" for path in (certificate, key) if not path.is_file()]
    if faults:
        raise ConfigError(faults)
    try:
        context.load_cert_chain(certificate, key)
        if authority.is_file():
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # which an SSLError is
        raise ConfigError([f"the certificates in {directory} cannot be used: {error.strerror or error}"]) from None
    return context


class Channel:
    """Over `transport`. `fault`: what is wrong with the TLS of the other side, or with its certificate, which ends the
    connection; "" as long as nothing is."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.fault = ""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    @property
    def is_encrypted(self) -> bool:
        return self._tls is not None

    async def start_tls(self, context: ssl.SSLContext, received: bytes) -> None:
        """The other side begins TLS; `received`: what it has sent of it."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(received)
        while self._tls is None and not self.fault:
            try:
                tls.do_handshake()
                self._tls = tls
            except ssl.SSLWantReadError:
                self._flush_tls()
                data = await self.transport.receive()
                if not data:
                    self.fault = "the connection has ended in the TLS handshake"
                self._incoming.write(data)
            except ssl.SSLError as error:
                self.fault = f"TLS: {error.reason or error}"
            self._flush_tls()  # the alert, if it has failed

    async def receive(self) -> bytes:
        """Some bytes; b"" once the connection is over."""
        if self._tls is None:
            return await self.transport.receive()
        while True:
            data = self._decrypted(self._tls)
            if data is not None:
                return data
            self._flush_tls()  # what the other side's bytes have asked for
            encrypted = await self.transport.receive()
            if not encrypted:
                return b""
            self._incoming.write(encrypted)

    def _decrypted(self, tls: ssl.SSLObject) -> bytes | None:
        """All that has come, None if there is nothing, b"" at the end."""
        parts = []
        try:
            while part := tls.read(RECV_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            return b"".join(parts) or None
        except ssl.SSLError as error:
            self.fault = f"TLS: {error.reason or error}"
            self._flush_tls()
            return b""
        return b"".join(parts)

    def put(self, buffers: Sequence[Buffer]) -> None:
        """Queue for `flush`."""
        if self._tls is None:
            self.transport.put(buffers)
            return
        for buffer in buffers:
            if len(buffer):
                self._tls.write(buffer)
        self.transport.put((self._outgoing.read(),))

    def send(self, buffers: Sequence[Buffer]) -> None:
        """At once, as far as the kernel takes it."""
        self.put(buffers)
        self.transport.flush()

    def say_goodbye(self) -> None:
        """The last that is sent, where the connection ends in order."""
        if self._tls is not None and not self.transport.closed:
            with contextlib.suppress(ssl.SSLError):  # the other side's goodbye is not waited for
                self._tls.unwrap()
            self._flush_tls()

    def _flush_tls(self) -> None:
        if self._outgoing.pending:
            self.transport.put((self._outgoing.read(),))
            self.transport.flush()
