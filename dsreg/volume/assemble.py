"""From a configuration to an attached block device, in one place for every edge: open_volume, or its two halves."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from dsreg.block_device import BlockDevice
from dsreg.cache import WritebackCache
from dsreg.client import Attach, Client, Meter
from dsreg.config import ClusterConfig, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientError, OperationTimeout
from dsreg.register.absences import CHECK_INTERVAL_S, Absences, describe_absence
from dsreg.slow import INTERVAL_S, SlowLog
from dsreg.store import SectorStore
from dsreg.volume import embedded
from dsreg.volume.failures import VolumeError
from dsreg.volume.metering import EdgeMeter, InUse
from dsreg.volume.requests import Volume
from dsreg.volume.slow import SlowRequests

log = logging.getLogger(__name__)

# Nodes listen within a second; a machine that just boots, or one whose old nodes still drain, takes longer.
CLUSTER_START_TIMEOUT_S = 60.0
# Attaching takes milliseconds where a majority is up, and 5 s after the nodes' start if nobody takes the disk over:
# dsreg.register.epochs.OWNER_UNSURE_S.
ATTACH_PATIENCE_S = 8.0
# A disk that is shared has the size of the file if no majority says otherwise for so long. It follows later.
SIZE_PATIENCE_S = 5.0


@dataclass(frozen=True)
class VolumeOptions:
    """The disk of `config`. `is_embedded`: its nodes are run here. `timeout_s`: for each request, None to wait for
    ever. `attach`: how to keep others out, None if they are welcome. `is_cached`: with a write-back cache. `meter`:
    what is counted for metrics, None if nobody wants any. `slow_s`: requests that take so long are logged; inf: none.
    """

    config: ClusterConfig
    is_embedded: bool = False
    timeout_s: float | None = None
    attach: Attach | None = None
    is_cached: bool = False
    meter: EdgeMeter | None = None
    slow_s: float = math.inf


class Opening:
    """A disk whose nodes are being connected to: wait for `attached`, then use `volume`."""

    def __init__(self, client: Client, options: VolumeOptions) -> None:
        self.client = client
        self.in_use = InUse(client)
        self._options = options
        self._meter = options.meter
        self._slow = SlowRequests(options.slow_s) if options.slow_s < math.inf else None
        if self._slow is not None:
            assert client.meter is not None, "made for it"
            client.meter.slow_s, client.meter.on_slow = self._slow.step_s, self._slow.answered

    async def attached(self) -> None:
        """Wait until the disk is attached, if it is to be, and how large it is is known; what is waited for is logged.
        Raises ClientError."""
        if self._options.attach is None:
            with contextlib.suppress(ClientError), trio.move_on_after(SIZE_PATIENCE_S):
                await self.client.size()  # why it cannot be told, requests will say
            return
        with trio.move_on_after(ATTACH_PATIENCE_S):
            while True:
                try:
                    await self.client.attached()
                    return
                except OperationTimeout:
                    await trio.lowlevel.checkpoint()  # a short `timeout_s` is for requests; nodes may just be starting
        log.warning("waiting to attach the disk: %s", self.client.why_not_attached())
        await self.client.attached()

    @asynccontextmanager
    async def volume(self) -> AsyncIterator[tuple[Volume, WritebackCache | None]]:
        """The disk, once it is attached, and its cache, which is empty at the end. What is worth saying about it is
        logged meanwhile. Raises WritebackFailed where the cache could not be emptied."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_nodes, self.client)
            if self._options.attach is not None:
                nursery.start_soon(_report_loss, self.client)
            if self._options.is_cached:
                counts = None if self._meter is None else self._meter.cache
                async with WritebackCache(self.client, self._options.timeout_s, counts=counts) as cache:
                    self.in_use.cache = cache
                    yield await self._watched(nursery, cache), cache
            else:
                yield await self._watched(nursery, self.client), None
            nursery.cancel_scope.cancel()

    async def _watched(self, nursery: trio.Nursery, store: SectorStore) -> Volume:
        volume = self.in_use.volume = Volume(BlockDevice(store), self._meter, self._slow)
        nursery.start_soon(volume.stall_watch.watch)
        if self._slow is not None:
            nursery.start_soon(_tick, self._slow.slow)
        nursery.start_soon(_follow_size, self.client, volume)
        return volume


@asynccontextmanager
async def run_nodes(options: VolumeOptions) -> AsyncIterator[None]:
    """Run the nodes, if they are run here, and serve the metrics, if they are wanted. Raises VolumeError if the nodes
    do not start."""
    async with trio.open_nursery() as nursery:
        if options.meter is not None:
            from dsreg.volume.serving import serve_metrics  # wants the packages of the extra `metrics`

            nursery.start_soon(serve_metrics, options.meter)
        if options.is_embedded:
            try:
                with trio.fail_after(CLUSTER_START_TIMEOUT_S):
                    await nursery.start(embedded.run_cluster, options.config)
            except trio.TooSlowError:
                raise VolumeError(f"the nodes of {options.config.path} do not start; see their log") from None
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect(options: VolumeOptions) -> AsyncIterator[Opening]:
    """Connect to the nodes, which run."""
    attach = options.attach
    if attach is not None:
        # Not before there is a daemon: whoever started it ends.
        attach = replace(attach, name=f"{attach.name}, process {os.getpid()}")
    # A disk that is shared is written beside whoever else has it: that was asked for.
    meter = options.meter
    wants = options.slow_s < math.inf
    count = meter.client if meter is not None else Meter() if wants else None
    async with Client(options.config, options.timeout_s, attach, force=attach is None, meter=count) as client:
        opening = Opening(client, options)
        if meter is None:
            yield opening
            return
        meter.in_use = opening.in_use
        try:
            yield opening
        finally:
            meter.in_use = None


@asynccontextmanager
async def open_volume(options: VolumeOptions) -> AsyncIterator[Opening]:
    """Run the nodes, if they are run here, and connect to them. Raises VolumeError if they do not start."""
    async with run_nodes(options), connect(options) as opening:
        yield opening


async def _follow_size(client: Client, volume: Volume) -> None:
    sectors = client.sectors
    while True:
        sectors = await client.told_size(other_than=sectors)
        log.info("the disk has %s from now on", format_size(sectors * SECTOR_SIZE))
        volume.on_resized()


async def _tick(slow: SlowLog) -> None:
    while True:
        await trio.sleep(INTERVAL_S)
        slow.tick()


async def _report_loss(client: Client) -> None:
    error = await client.lost()
    log.error("%s. Every request fails with an I/O error from now on: unmount the file system on the disk, then detach "
              "it", error.reason)


async def _watch_nodes(client: Client) -> None:
    """Say which nodes have been out of reach for long, and when they are back."""
    absences = Absences(client.ranks, trio.current_time())
    while True:
        await trio.sleep(CHECK_INTERVAL_S)
        absences.watch(client.ranks, trio.current_time())
        reached = client.connected_ranks
        for rank, is_back, absent_s in absences.check(reached, trio.current_time()):
            place = str(client.place(rank))
            log.warning("%s", describe_absence(rank, place, is_back, absent_s, reached, client.quorum),
                        extra={"node": rank, "peer": place})
