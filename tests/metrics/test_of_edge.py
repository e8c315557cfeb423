"""The metrics of an edge, on real nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from dsreg.block_device import BlockDevice
from dsreg.client import Attach
from dsreg.config import create_cluster
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DiskFenced
from dsreg.store import Flush, Read, Trim, Write, Zero
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import EdgeMeter, Volume, VolumeOptions, open_volume, stall
from dsreg.volume.serving import serve_metrics
from nbd_frontend.cli import main as nbd
from tests.metrics.scraping import check_formats, get, samples
from tests.test_volume import ask, nodes

LOOPBACK = ("127.0.0.1", 0)
# Of three nodes that start in one process on a busy machine.
pytestmark = pytest.mark.allow_logs("has an empty directory, and serves once")


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.allow_logs("read: OutOfRange")
async def test_what_an_edge_does_is_counted(is_cached: bool, nursery: trio.Nursery) -> None:
    meter = EdgeMeter("fuse", LOOPBACK)
    port = await nursery.start(serve_metrics, meter)
    before = await samples(port)
    assert [value for name, value in before.items() if name.startswith("dsreg_edge_info{edge=fuse,version=")] == [1]
    assert "dsreg_client_attachment_epoch" not in before and await get(port, "/healthz") == (200, "well\n")
    async with nodes() as config:
        options = VolumeOptions(config, attach=Attach(name="edge"), is_cached=is_cached, meter=meter)
        async with open_volume(options) as opening:
            await opening.attached()
            async with opening.volume() as (volume, _):
                await ask(volume, Write(0, bytes(range(256)) * 32))
                await ask(volume, Write(SECTOR_SIZE * 8, b"a part"))
                await ask(volume, Read(SECTOR_SIZE, 2 * SECTOR_SIZE))
                await ask(volume, Read(volume.size, 1))
                await ask(volume, Zero(0, SECTOR_SIZE))
                await ask(volume, Trim(0, 2 * SECTOR_SIZE))
                await ask(volume, Flush())
                found = await samples(port)
                await check_formats(port)
        check_requests(found)
        assert found["dsreg_edge_requests_unfinished"] == found["dsreg_edge_oldest_request_seconds"] == 0
        assert found["dsreg_client_attachment{state=held}"] == found["dsreg_client_attachment_epoch"] == 1
        assert found["dsreg_client_quorum_wait_seconds_count{command=put}"] >= 1
        assert ("dsreg_cache_dirty_bytes" in found) == is_cached
        if is_cached:
            assert found["dsreg_cache_dirty_bytes"] == found["dsreg_cache_failing"] == 0
            assert found["dsreg_cache_reads_total{found=some}"] == 1
            assert found["dsreg_cache_flushes_total"] == 1 and found["dsreg_cache_failed_flushes_total"] == 0
            assert found["dsreg_cache_written_bytes_total"] == 3 * SECTOR_SIZE
        after = await samples(port)
        check_requests(after)
        assert "dsreg_client_attachment_epoch" not in after, "nothing is in use"
        # A second attachment of the process goes on counting.
        async with open_volume(options) as opening:
            await opening.attached()
            async with opening.volume() as (volume, _):
                await ask(volume, Flush())
                again = await samples(port)
        assert again["dsreg_edge_request_duration_seconds_count{edge=fuse,operation=flush}"] == 2
        assert again["dsreg_client_attachment_epoch"] == 2
    nursery.cancel_scope.cancel()


def check_requests(found: dict[str, float]) -> None:
    def of(name: str, operation: str) -> float:
        return found[f"dsreg_edge_request_{name}{{edge=fuse,operation={operation}}}"]

    counts = {"read": 2, "write": 2, "zero": 1, "trim": 1, "flush": 1}
    assert {operation: of("duration_seconds_count", operation) for operation in counts} == counts
    assert of("bytes_total", "write") == 2 * SECTOR_SIZE + 6
    assert of("bytes_total", "read") == 2 * SECTOR_SIZE + 1
    assert of("bytes_total", "zero") == SECTOR_SIZE and of("bytes_total", "trim") == 2 * SECTOR_SIZE
    assert of("bytes_total", "flush") == 0
    assert of("errors_total", "read") == 1 and of("errors_total", "write") == 0


@pytest.mark.allow_logs("has been waiting", "requests are answered again")
def test_stalls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, store = EdgeMeter("nbd", LOOPBACK), MemoryStore(4, holds=True)
    volume = Volume(BlockDevice(store), meter)
    now_s = [100.0]
    volume.stall_watch.clock = lambda: now_s[0]
    codes: list[int] = []
    volume.submit(Read(0, SECTOR_SIZE), lambda data, code: codes.append(code))
    for step_s, stalls, is_stalled in ((stall.STALL_S - 1, 0, False), (2, 1, True), (1, 1, True)):
        now_s[0] += step_s
        volume.stall_watch.check()
        assert (meter.stalls, volume.stall_watch.stalled) == (stalls, is_stalled)
    assert volume.stall_watch.oldest_s == stall.STALL_S + 2
    volume.end_turn()
    volume.stall_watch.check()
    assert codes == [0] and not volume.stall_watch.stalled and volume.stall_watch.oldest_s == 0
    [took] = [served.took.total for name, served in meter.requests() if name == "read"]
    assert took == stall.STALL_S + 2


async def test_what_is_not_well_is_said(nursery: trio.Nursery) -> None:
    meter = EdgeMeter("nbd", LOOPBACK)
    port = await nursery.start(serve_metrics, meter)
    async with nodes() as config:
        options = VolumeOptions(config, attach=Attach(name="first"), meter=meter)
        async with open_volume(options) as first:
            await first.attached()
            while len(first.client.connected_ranks) < 3:
                await trio.lowlevel.checkpoint()
            assert await get(port, "/healthz") == (200, "well\n")
            taking = VolumeOptions(config, attach=Attach(name="second", take_over=True))
            async with open_volume(taking) as second:
                await second.attached()
                with pytest.raises(DiskFenced):
                    await first.client.write(0, bytes(SECTOR_SIZE))
                status, text = await get(port, "/healthz")
                assert status == 503 and "critical: another client has taken the disk over" in text
                found = await samples(port)
                assert found["dsreg_client_attachment{state=lost}"] == 1
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("options", "fault"), [
    (("--metrics", "0.0.0.0:9600"), "--metrics: other hosts can reach 0.0.0.0: name a file with a token"),
    (("--metrics", "9600"), "write host:port"),
])
def test_metrics_that_an_edge_cannot_serve(tmp_path: Path, options: tuple[str, ...], fault: str) -> None:
    path = create_cluster(tmp_path / "cluster", 1 << 20, ["127.0.0.1:7001"])
    done = CliRunner().invoke(nbd, ["--config", str(path), "--socket", str(tmp_path / "socket"), *options])
    assert done.exit_code == 2 and fault in done.output, done.output
