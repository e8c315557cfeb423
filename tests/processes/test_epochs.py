"""Attachments over real nodes whose clocks are wrong, that have just started, or have more than the client knows of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.errors import AlreadyAttached, DiskFenced, OperationTimeout, Outcome
from dsreg.protocol.codec import UNBOUNDED, Decoder, Encoder, Keys, Side
from dsreg.protocol.messages import Command, Hello, Message, Response, Status, owner_of
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH
from dsreg.register.assembly import client_hello
from dsreg.register.epochs import MAX_LEAP
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.history import stamp, value_of
from tests.processes.test_attached import FIRST, SECOND, THIEF, attached, holder

__all__ = ["holder"]

# A node whose clock says 1970, as where a machine without a battery has not heard of the time yet.
IN_1970 = ("-c", "import time; time.time = lambda: 5.0; from dsreg.cli import main; main()")


def attach_raw(cluster: Cluster, rank: int, epochs: list[int]) -> list[Status]:
    """What the node answers to claims of these epochs by one owner."""
    keys = Keys(cluster.config.client_key, b"")
    encoder, decoder = Encoder(keys), Decoder(keys, bounds=UNBOUNDED, side=Side.CLIENT, extended=True)
    with socket.create_connection(cluster.address(rank), TIMEOUT_S) as sock:

        def ask(message: Message) -> Message:
            sock.sendall(b"".join(encoder.encode(message)))
            while True:
                for answer in decoder.feed(sock.recv(65536)):
                    if isinstance(answer, (Hello, Response)):  # the others a node sends of its own accord
                        return answer

        told: list[Status] = []

        def answers(claim: Command) -> Status:
            answer = ask(claim)
            assert isinstance(answer, Response)
            told[:] = [answer.status]
            return answer.status

        ask(client_hello(cluster.config.sectors, seals=False))
        found = []
        for request, epoch in enumerate(epochs):
            owner = owner_of(b"forger".ljust(16), "a forger")
            claim = Command.attach(request, epoch, owner)
            # A node links to one that has just started by the contract first.
            until(lambda claim=claim: answers(claim) is not Status.UNSUPPORTED, "all nodes keep epochs")
            found.append(told.pop())
        return found


def bring_to(cluster: Cluster, epoch: int) -> None:
    """All nodes have promised this epoch, step by step."""
    for rank in cluster.ranks:
        assert set(attach_raw(cluster, rank, [*range(MAX_LEAP, epoch, MAX_LEAP), epoch])) == {Status.OK}


def start_in_1970(cluster: Cluster, *ranks: int) -> None:
    for rank in ranks:
        cluster.processes[rank] = cluster.spawn(rank, program=IN_1970)
    for rank in ranks:
        cluster.wait(rank)


@pytest.mark.parametrize("rank", [1, 2, 3])
async def test_one_node_with_a_wrong_clock_stops_nobody(cluster: Cluster, rank: int) -> None:
    bring_to(cluster, ALWAYS_PLAUSIBLE_EPOCH + 1000)
    cluster.kill(rank)
    start_in_1970(cluster, rank)
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as client:
            assert await client.attached() == ALWAYS_PLAUSIBLE_EPOCH + 1001
            await trio.to_thread.run_sync(until, lambda: len(client.connected_ranks) == 3, "all connected")
            for value in range(1, 30):
                await client.write(value % 7, stamp(value))
                assert value_of(await client.read(value % 7)) == value
        async with Client(cluster.config) as plain:
            assert value_of(await plain.read(29 % 7)) == 29
        assert await attached(cluster, SECOND) == ALWAYS_PLAUSIBLE_EPOCH + 1002, "one for each attachment"


@pytest.mark.allow_logs("attached 65536 times")
async def test_at_the_bound_a_client_waits_says_why_and_fences_nobody(cluster: Cluster) -> None:
    bring_to(cluster, ALWAYS_PLAUSIBLE_EPOCH - 1)
    cluster.kill()
    start_in_1970(cluster, 1, 2, 3)
    with trio.fail_after(2 * TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as first:
            assert await first.attached() == ALWAYS_PLAUSIBLE_EPOCH
            async with Client(cluster.config, timeout_s=1.0, attach=THIEF) as thief:
                with pytest.raises(OperationTimeout, match="65536 times.* accept at most 65536.*set them") as caught:
                    await thief.attached()
                assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
            await first.write(1, stamp(1))
            async with Client(cluster.config, attach=THIEF) as patient, trio.open_nursery() as nursery:
                nursery.start_soon(patient.attached)
                await trio.to_thread.run_sync(until, lambda: patient.waits_for, "it says what it waits for")
                cluster.kill()
                await trio.to_thread.run_sync(cluster.start)
                assert await patient.attached() == ALWAYS_PLAUSIBLE_EPOCH + 1, "the clocks are set"
                with pytest.raises(DiskFenced) as fenced:
                    await first.write(1, stamp(2))
                # One of the nodes may not have heard of the new epoch yet, and have taken it.
                possible = (1,) if fenced.value.outcome is Outcome.DID_NOT_HAPPEN else (1, 2)
                assert value_of(await patient.read(1)) in possible


async def test_one_forged_claim_does_not_use_up_the_epochs(cluster: Cluster) -> None:
    for rank in cluster.ranks:
        assert attach_raw(cluster, rank, [1_000_000]) == [Status.DISBELIEVED]
    assert attach_raw(cluster, 1, [MAX_LEAP]) == [Status.OK]
    assert attach_raw(cluster, 2, [MAX_LEAP + 1]) == [Status.OK], "node 1 has told it that it is not far"
    assert await attached(cluster, FIRST) in (MAX_LEAP + 1, MAX_LEAP + 2)


async def test_nodes_that_restart_do_not_give_the_disk_away(
    cluster: Cluster, holder: subprocess.Popen[bytes]
) -> None:
    """The holder is slow to come back. Who wants the disk meanwhile waits, and then hears that it is taken."""
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        cluster.kill()
        await trio.to_thread.run_sync(cluster.start)
        async with Client(cluster.config, attach=SECOND) as client:
            await trio.to_thread.run_sync(until, lambda: client.waits_for, "it waits")
            assert "cannot tell yet whether holder, who had the disk attached, is alive" in client.waits_for
            os.kill(holder.pid, signal.SIGCONT)
            with trio.fail_after(TIMEOUT_S), pytest.raises(AlreadyAttached, match="holder"):
                await client.attached()
    finally:
        os.kill(holder.pid, signal.SIGCONT)


async def test_a_client_that_is_put_back_to_a_snapshot_overwrites_nothing(cluster: Cluster) -> None:
    """As on a host whose memory is restored: its counter and its clock are those of an hour ago."""
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as client:
            await client.attached()
            for value in (1, 2):
                await client.write(value, stamp(value))
            attachment = client._engine.core.attachment
            assert attachment is not None and attachment._asked_s is not None
            attachment._asked_s += 3600.0
            attachment._last_counter = 1
            with pytest.raises(DiskFenced, match="restored from a snapshot") as caught:
                await client.write(2, stamp(3))
            assert caught.value.outcome is Outcome.MAY_HAVE_HAPPENED
            with pytest.raises(DiskFenced):
                await client.read(1)
        async with Client(cluster.config) as plain:
            assert [value_of(await plain.read(sector)) for sector in (1, 2)] == [1, 2]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_copy_of_a_client_that_had_not_attached_yet_stops(cluster: Cluster, restart: bool) -> None:
    """The nodes tell it of writes under its name, also after they were started again."""
    attach = Attach(take_over=True, name="host a")
    with trio.fail_after(2 * TIMEOUT_S):
        async with Client(cluster.config, attach=attach) as client:
            await client.write(1, stamp(1))
            if restart:
                cluster.kill()
                await trio.to_thread.run_sync(cluster.start)
            copy = Client(cluster.config, attach=attach)
            one, other = client._engine.core.attachment, copy._engine.core.attachment
            assert one is not None and other is not None
            other.claim = one.claim
            async with copy:
                with pytest.raises(DiskFenced, match="a copy of this client"):
                    await copy.attached()
