"""How replies go out."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.transport import Transport
from nbd_frontend.numbers import CommandType
from tests.nbd import client as sent
from tests.nbd.tools import serving


async def test_replies_that_end_in_one_turn_are_sent_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, sendings = 64, []
    flush = Transport.flush

    def counting(transport: Transport) -> None:
        if transport.outgoing_bytes:
            sendings.append(transport)
        flush(transport)

    async with serving(tmp_path) as server:
        client = await server.entered()
        [served] = server.server._connections
        monkeypatch.setattr(Transport, "flush", counting)
        await client.stream.send_all(b"".join(
            sent.request(CommandType.READ, number * SECTOR_SIZE, SECTOR_SIZE, cookie=number)
            for number in range(count)))
        answered = [await client.answer(dict.fromkeys(range(count), SECTOR_SIZE)) for _ in range(count)]
        assert {(answer.cookie, answer.error) for answer in answered} == {(number, 0) for number in range(count)}
        assert 0 < sum(transport is served._transport for transport in sendings) < count / 2
