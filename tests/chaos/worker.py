"""A client process: `python -m tests.chaos.worker CONFIG RECORD NUMBER SEED KIND SECTORS`.

KIND "client" is dsreg.Client with several operations in flight, "impatient" the same with a time-out, "raw" a client
that knows nothing but the contract. Each operation is recorded before it starts and when its outcome is known, so
that a killed process leaves its operations open and none untold. SIGTERM: finish what is under way, then end.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import trio

from dsreg.client import Client
from dsreg.config import ClusterConfig, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import OperationTimeout, Outcome
from tests.chaos.record import Recorder
from tests.processes import raw
from tests.simulation.history import payload, value_of

DEPTH = 6
MAX_RUN = 4
# Registers that everybody fights for; the rest of the sectors are there to be new.
HOT = 12
HOT_SHARE = 0.7
# A pause between operations, so that a handful of clients leaves the machine room for the nodes.
THINK_S = 0.02
IMPATIENT_S = 1.0
# How long the contract's client waits before it takes a node for dead.
ANSWER_S = 1.5


class Choices:
    """What to do next: random, with a few sectors in high demand."""

    def __init__(self, seed: int, sectors: int) -> None:
        self.rng = random.Random(seed)
        self._sectors = sectors

    def run(self, most: int) -> tuple[int, int]:
        hot = self.rng.random() < HOT_SHARE
        end = min(HOT, self._sectors) if hot else self._sectors
        first = self.rng.randrange(end)
        return first, min(self.rng.choice((1, 1, 1, most)), self._sectors - first)

    def is_write(self) -> bool:
        return self.rng.random() < 0.5


class Stop:
    """Whether somebody asked for the end."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True


async def work(client: Client, recorder: Recorder, choices: Choices, stop: Stop) -> None:
    while not stop.asked:
        first, count = choices.run(MAX_RUN)
        is_write = choices.is_write()
        operation = recorder.began(is_write, first, count)
        try:
            if is_write:
                await client.write(first, b"".join(map(payload, operation.values)))
                recorder.ended(operation)
            else:
                data = await client.read(first, count)
                sectors = (data[at:at + SECTOR_SIZE] for at in range(0, len(data), SECTOR_SIZE))
                recorder.ended(operation, list(map(value_of, sectors)))
        except OperationTimeout as error:
            if error.outcome is Outcome.DID_NOT_HAPPEN:
                recorder.not_done(operation)
        await trio.sleep(choices.rng.uniform(0, THINK_S))


async def run_client(config: ClusterConfig, recorder: Recorder, choices: Choices, timeout_s: float | None) -> None:
    stop = Stop()
    async with Client(config, timeout_s) as client, trio.open_nursery() as nursery:
        for _ in range(DEPTH):
            nursery.start_soon(work, client, recorder, choices, stop)


def run_raw(config: ClusterConfig, recorder: Recorder, choices: Choices) -> None:
    """Talks to one node until that fails, then to another. What was not answered has no known outcome."""
    stop = Stop()
    raw.TIMEOUT_S = ANSWER_S  # this process is nothing but this client
    while not stop.asked:
        node = choices.rng.choice(config.nodes)
        try:
            with raw.RawClient((node.host, node.port), config.client_key) as client:
                while not stop.asked:
                    exchange(client, recorder, choices)
                    time.sleep(choices.rng.uniform(0, THINK_S))
        except OSError:
            time.sleep(THINK_S)  # a node that is down refuses at once


def exchange(client: raw.RawClient, recorder: Recorder, choices: Choices) -> None:
    """Some commands on different sectors, pipelined, and their answers in whichever order. Raises OSError."""
    sectors = {choices.run(1)[0] for _ in range(DEPTH)}
    pending = {}
    for sector in sectors:
        operation = recorder.began(choices.is_write(), sector, 1)
        pending[operation.number] = operation
        if operation.values:
            client.send(client.write_frame(operation.number, sector, payload(operation.values[0])))
        else:
            client.send(client.read_frame(operation.number, sector))
    while pending:
        answer = client.response()
        operation = pending.pop(answer.request)
        assert answer.status == raw.OK, answer[:3]
        recorder.ended(operation, [] if operation.values else [value_of(answer.content)])


def main() -> None:
    config_path, path, number, seed, kind, sectors = sys.argv[1:]
    config = load_config(Path(config_path), need_system_key=False)
    recorder = Recorder(Path(path), int(number))
    choices = Choices(int(seed), int(sectors))
    if kind == "raw":
        run_raw(config, recorder, choices)
    else:
        trio.run(run_client, config, recorder, choices, IMPATIENT_S if kind == "impatient" else None)
    recorder.close()


if __name__ == "__main__":
    main()
