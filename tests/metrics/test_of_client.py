"""What a client counts: how long a majority took, and which node was the last of it."""

from __future__ import annotations

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dsreg.client import Attach, BlockingClient, Client, Meter
from dsreg.client.core import ClientCore
from dsreg.client.events import Connected, Disconnected, Start, Tick
from dsreg.client.limits import GET_ATTEMPT_S
from dsreg.constants import SECTOR_SIZE
from dsreg.metrics.of_client import collector
from dsreg.protocol.messages import CommandKind
from tests.client.play import DATA, Play, commands, ok
from tests.metrics.scraping import name_of
from tests.test_volume import nodes

# Of three nodes that start in one process on a busy machine.
pytestmark = pytest.mark.allow_logs("has an empty directory, and serves once")


class Metered(Play):
    def __init__(self) -> None:
        super().__init__(up=())
        self.meter = Meter()
        self.core = ClientCore((1, 2, 3), meter=self.meter)
        for rank in (1, 2, 3):
            self.do(Connected(rank))

    def waits(self) -> dict[str, tuple[int, float, int]]:
        """Of the commands that there were: how many, seconds in all, bytes."""
        return {name: (took.count, took.total, size) for name, took, size in self.meter.commands() if took.count}


def test_a_majority_that_the_client_counts() -> None:
    play = Metered()
    (first, get), (last, _) = commands(play.do(Start(1, 0, 2, None)))
    play.do(ok(get, first), after_s=0.01)
    assert play.waits() == {}, "one is no majority"
    play.do(ok(get._replace(values=False), last), after_s=0.02)
    assert play.waits() == {"get": (1, pytest.approx(0.03), 2 * SECTOR_SIZE)}
    assert [play.meter.last(rank) for rank in (first, last)] == [0, 1]
    assert play.meter.counters is play.core.counters and play.meter.counters.quorums == 1


def test_a_majority_that_a_node_sees_to() -> None:
    play = Metered()
    rank, tag = play.tag(1)
    rank, store = play.sends(ok(tag, rank), after_s=0.01)
    assert store.kind is CommandKind.STORE
    play.do(ok(store, rank), after_s=0.5)
    assert play.waits() == {
        "tag": (1, pytest.approx(0.01), SECTOR_SIZE), "store": (1, pytest.approx(0.5), SECTOR_SIZE)}
    assert play.meter.last(rank) == 2


def test_what_is_not_answered_in_time() -> None:
    play = Metered()
    play.do(Start(1, 0, 1, None))
    again = commands(play.do(Tick(), after_s=GET_ATTEMPT_S))
    assert [command.kind for _, command in again] == [CommandKind.READ]
    assert (play.meter.counters.hedges, play.meter.counters.coordinated) == (1, 1)
    rank, read = again[0]
    play.do(ok(read, rank)._replace(messages=(ok(read, rank).messages[0]._replace(tags=b""),)), after_s=0.1)
    assert play.waits() == {"read": (1, pytest.approx(0.1), SECTOR_SIZE)}, "from when the node was asked"
    assert play.meter.counters.failures == 0


def test_clients_that_follow_each_other_share_a_meter() -> None:
    play = Metered()
    rank, tag = play.tag(1)
    play.do(ok(tag, rank))
    play.core = ClientCore((1, 2, 3), meter=play.meter)
    play.do(Connected(1))
    play.do(Disconnected(1))
    play.do(Connected(1))
    rank, tag = play.tag(2)
    play.do(ok(tag, rank))
    assert play.waits()["tag"][0] == 2


@pytest.mark.slow
async def test_a_program_with_a_registry_of_its_own() -> None:
    async with nodes() as config:
        async with Client(config, attach=Attach(name="program"), meter=Meter()) as client:
            registry = CollectorRegistry()
            registry.register(collector(client))
            epoch = await client.attached()
            await client.write(3, DATA)
            assert await client.read(3, 2) == DATA + bytes(SECTOR_SIZE)
            text = generate_latest(registry).decode()
            found = {name_of(sample.name, sample.labels): sample.value
                     for family in parse_text(text) for sample in family.samples}
    assert found["dsreg_client_quorum_wait_seconds_count{command=put}"] == 1
    assert 0 < found["dsreg_client_quorum_wait_seconds_sum{command=put}"] < 30
    assert found["dsreg_client_command_bytes_total{command=put}"] == SECTOR_SIZE
    # What nobody has written under this attachment yet is read by a node, and stored.
    steps = [found[f"dsreg_client_quorum_wait_seconds_count{{command={name}}}"] for name in ("get", "read", "store")]
    assert sum(steps) >= 1
    last = sum(found[f"dsreg_client_last_answers_total{{node={rank}}}"] for rank in (1, 2, 3))
    assert last == sum(steps) + 1
    assert found["dsreg_client_attachment{state=held}"] == 1 and found["dsreg_client_attachment{state=lost}"] == 0
    assert found["dsreg_client_attachment_epoch"] == epoch
    assert found["dsreg_client_has_majority"] == 1
    assert found["dsreg_client_operations_unfinished"] == found["dsreg_client_operations_waiting"] == 0
    assert found["dsreg_client_disk_size_bytes"] == config.sectors * SECTOR_SIZE


async def test_a_program_without_trio() -> None:
    """Its registry is asked in one thread, its client works in another."""
    async with nodes() as config:
        def write() -> bytes:
            with BlockingClient(config, 30.0, meter=Meter()) as client:
                registry = CollectorRegistry()
                registry.register(collector(client))
                client.write(1, DATA)
                return generate_latest(registry)

        text = (await trio.to_thread.run_sync(write)).decode()
    assert 'dsreg_client_quorum_wait_seconds_count{command="tag"} 1.0' in text
    assert 'dsreg_client_attachment{state="shared"} 1.0' in text


async def test_a_client_without_a_meter() -> None:
    async with nodes() as config:
        with pytest.raises(ValueError, match="meter"):
            collector(Client(config))
