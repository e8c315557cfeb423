"""What metrics of an edge cost: `python -m scripts.metrics_cost [TURNS]`.

Three nodes on this host, and a disk as an edge has it, under the same load of 4 KiB requests, half of them reads. By
turns the edge counts, serves its metrics and is asked for them once a second, or does none of that. Each pair of turns
gives a ratio of the requests done and one of the CPU time that a request costs, at the client and the nodes together;
what is told are the medians of these. On a machine that does other things they are a few per cent apart by chance, so
what is added to a request, and what a page costs, is measured alone as well.
"""

from __future__ import annotations

import os
import random
import statistics
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from dsreg.client import Attach, Client
from dsreg.config import load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.listening import free_ports, is_free
from dsreg.metrics.of_edge import families
from dsreg.metrics.pages import pages
from dsreg.protocol.messages import Command, CommandKind
from dsreg.store import Buffer, Read, Write
from dsreg.volume import EdgeMeter, Volume, VolumeOptions, open_volume
from scripts.demo.cluster import NODES, Cluster
from scripts.heal_time import status
from scripts.measuring import Figures, directory_option, json_option, run_measurement

SIZE = "64MiB"
DEPTH = 32
TURN_S = 1.0
# Calls that are timed together.
CALLS = 100_000
PAGES = 100
# Of Prometheus 15 s are usual: this is many times what they cost.
SCRAPE_S = 1.0


@dataclass
class Turn:
    """Requests that were done, and CPU seconds of the client and of the nodes."""

    requests: int
    client_s: float
    nodes_s: float

    @property
    def cpu_s(self) -> float:
        """Of a request."""
        return (self.client_s + self.nodes_s) / self.requests


class Load:
    """Requests in flight at `volume`, each followed by the next one."""

    def __init__(self, volume: Volume, rng: random.Random) -> None:
        self.done = 0
        self._volume = volume
        self._rng = rng
        self._data = rng.randbytes(SECTOR_SIZE)
        self._sectors = volume.size // SECTOR_SIZE
        self._end_s = 0.0
        self._in_flight = 0
        self._over = trio.Event()

    async def run(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds
        for _ in range(DEPTH):
            self._submit()
        self._volume.end_turn()
        await self._over.wait()

    def _submit(self) -> None:
        offset = self._rng.randrange(self._sectors) * SECTOR_SIZE
        self._in_flight += 1
        request = Read(offset, SECTOR_SIZE) if self._rng.random() < 0.5 else Write(offset, self._data)
        self._volume.submit(request, self._ended)

    def _ended(self, data: Buffer, code: int) -> None:
        assert code == 0
        self.done += 1
        self._in_flight -= 1
        if time.monotonic() < self._end_s:
            self._submit()
        elif not self._in_flight:
            self._over.set()


async def turn(cluster: Cluster, meter: EdgeMeter | None, seed: int) -> Turn:
    options = VolumeOptions(load_config(cluster.config), attach=Attach(name="measurement"), meter=meter)
    async with open_volume(options) as opening:
        await opening.attached()
        async with opening.volume() as (volume, _), trio.open_nursery() as nursery:
            if meter is not None:
                nursery.start_soon(scrape, meter.address)
            load, nodes_s, own_s = Load(volume, random.Random(seed)), await nodes_cpu_s(opening.client), own_cpu_s()
            await load.run(TURN_S)
            own_s = own_cpu_s() - own_s
            measured = Turn(load.done, own_s, await nodes_cpu_s(opening.client) - nodes_s)
            nursery.cancel_scope.cancel()
    return measured


async def scrape(address: tuple[str, int]) -> None:
    """It is done by a thread of this process, whose CPU time is taken for the client's."""
    host, port = address
    while is_free(host, port):  # noqa: ASYNC110
        await trio.sleep(0.01)
    while True:
        await trio.to_thread.run_sync(read_all, f"http://{host}:{port}/metrics")
        await trio.sleep(SCRAPE_S)


def read_all(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30.0) as answer:
        answer.read()


def own_cpu_s() -> float:
    return time.process_time()


async def nodes_cpu_s(client: Client) -> float:
    return sum([float((await status(client, rank))["cpu_s"]) for rank in range(1, NODES + 1)])


async def measure(cluster: Cluster, turns: int, figures: Figures) -> None:
    [port] = free_ports(range(20000, 30000), 1)
    seed = int.from_bytes(os.urandom(4))
    click.echo(f"seed {seed}")
    await turn(cluster, None, seed)  # fills caches
    rates, costs, usual = [], [], []
    for number in range(turns):
        of: dict[bool, Turn] = {}
        for is_metered in (True, False) if number % 2 else (False, True):  # no turn is always the second one
            meter = EdgeMeter("measurement", ("127.0.0.1", port)) if is_metered else None
            of[is_metered] = await turn(cluster, meter, seed + number)
        rates.append(of[True].requests / of[False].requests)
        costs.append(of[True].cpu_s / of[False].cpu_s)
        usual.append(of[False].cpu_s)
        without, counted = of[False], of[True]
        click.echo(f"{number + 1}: {without.requests / TURN_S:.0f} requests/s at {without.cpu_s * 1e6:.0f} us of CPU "
                   f"without, {counted.requests / TURN_S:.0f} at {counted.cpu_s * 1e6:.0f} us with metrics")
    for name, ratios in (("requests", rates), ("cpu", costs)):
        quarter, middle, three = statistics.quantiles(ratios, n=4)
        spread = f"half of the pairs: {quarter:.4f} to {three:.4f}"
        figures.tell(f"{name}_ratio", middle, f"{middle:.4f} of what it is without ({spread})")
    counting_s, page_s = alone()
    figures.tell("counting_us", counting_s * 1e6, f"{counting_s * 1e6:.2f} us of CPU for a request")
    figures.tell("counting_ratio", counting_s / statistics.median(usual),
                 f"{counting_s / statistics.median(usual):.4f} of the CPU time of a request")
    figures.tell("page_ms", page_s * 1e3, f"{page_s * 1e3:.1f} ms of CPU for the text of a scrape")


def alone() -> tuple[float, float]:
    """CPU seconds: of what is counted for a request, and of making a page."""
    meter, request = EdgeMeter("measurement", ("127.0.0.1", 0)), Read(0, SECTOR_SIZE)
    command = Command(CommandKind.GET, 1, 0, 1, b"", b"", True)
    began_s = own_cpu_s()
    for _ in range(CALLS):
        time.monotonic()  # when the request has ended
        meter.ended(request, 0.001, failed=False)
        meter.client.answered(command, 2, 0.001)
    counting_s = own_cpu_s() - began_s
    metrics = pages(lambda: families(meter), meter.findings)["/metrics"]
    began_s = own_cpu_s()
    for _ in range(PAGES):
        metrics({})
    return counting_s / CALLS, (own_cpu_s() - began_s) / PAGES


@click.command()
@click.argument("turns", type=click.IntRange(2), default=20)
@directory_option
@json_option
def main(turns: int, directory: Path | None, as_json: bool) -> None:
    """Measure with so many pairs of turns."""
    async def measure_turns(cluster: Cluster, size: int, figures: Figures) -> None:
        await measure(cluster, turns, figures)

    run_measurement(measure_turns, SIZE, directory, as_json)


if __name__ == "__main__":
    main()
