"""Nodes whose directory is lost, swapped, or someone else's; and first starts."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import trio

from dsreg.client import Client
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Side
from dsreg.protocol.messages import Command, Hello, Status
from dsreg.protocol.messages import Response as Answered
from dsreg.register.foreign import ANSWER_S
from dsreg.storage import OsFiles
from dsreg.storage import lives as lives_file
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg, until
from tests.processes.fake_peer import FakePeer
from tests.processes.history import stamp
from tests.processes.raw import OK, READ_PROC, VALUE, WRITE_ANSWER, RawClient, Response

REFUSED = "is neither asked nor counted"
SECTORS = 40
# How long status waits for the nodes where not all of them run: it uses that up.
ASK_S = "5"


def ended(cluster: Cluster, rank: int) -> str:
    """What a process said that ended by itself; it must not have served."""
    assert cluster.processes.pop(rank).wait(TIMEOUT_S) == 1
    return cluster.log(rank).read_text()


def spawn(cluster: Cluster, rank: int, *options: str) -> None:
    cluster.processes[rank] = cluster.spawn(rank, options=options)


def status(cluster: Cluster) -> dict[int, dict[str, object]]:
    """What status says of each node."""
    found = json.loads(dsreg("status", "--json", "--timeout", ASK_S, cluster.path).stdout)
    return {node["rank"]: node for node in found["nodes"]}


def knows(cluster: Cluster, rank: int, *others: int) -> bool:
    return {str(other) for other in others} <= cluster.report(rank)["lives"]["known"].keys()


def all_know_all(cluster: Cluster) -> None:
    ranks = set(cluster.ranks)
    until(lambda: all(knows(cluster, rank, *(ranks - {rank})) for rank in ranks), "all know all")


async def write_all(client: Client, number: int) -> None:
    for sector in range(SECTORS):
        await client.write(sector, stamp(1000 * number + sector))


# --- first starts ---------------------------------------------------------------------------------
async def test_a_fresh_majority_works_and_the_third_joins_later(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start(1, 2)
    async with Client(cluster.config) as client:
        await write_all(client, 1)
        cluster.start(3)
        await trio.to_thread.run_sync(all_know_all, cluster)
        await trio.to_thread.run_sync(cluster.kill, 1)
        for sector in range(SECTORS):
            assert await client.read(sector) == stamp(1000 + sector)


def test_one_of_three_waits_and_says_for_what(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start(1)  # it answers what has no effect
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.send(client.write_frame(1, 7, stamp(7)))
        client.nothing_more()
        until(lambda: "has an empty directory" in cluster.log(1).read_text(), "it says what it waits for")
        lives = cluster.report(1)["lives"]
        assert lives["stage"] == "asking" and "--new" in lives["waits_for"]
        cluster.start(2)
        assert client.response() == Response(OK, WRITE_ANSWER, 1, b"")
    assert cluster.log(1).read_text().count("has an empty directory") == 1


def test_strict_start_waits_for_the_third_and_new_stands_in_for_it(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.path.write_text(cluster.path.read_text().replace("[cluster]", "[cluster]\nstrict_start = true"))
    cluster.start(1, 2)
    until(lambda: "2 must" in cluster.log(1).read_text(), "it waits for both others")
    cluster.terminate(1)
    cluster.terminate(2)
    for rank in (1, 2):
        spawn(cluster, rank, "--new")
        cluster.wait(rank)
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.write(7, stamp(7))
    cluster.start(3)
    # It has begun only when both have recorded it.
    until(lambda: cluster.report(3)["lives"]["stage"] == "started", "the third joins")
    cluster.kill(1)
    with RawClient(cluster.address(3), cluster.config.client_key) as client:
        assert client.read(7) == stamp(7)


def test_among_nodes_of_the_contract_it_starts_once_they_have_shown_themselves(
    make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster()
    node, key = cluster.address(1), cluster.config.system_key
    two = FakePeer(2, cluster.address(2), node, key)
    try:
        cluster.start(1)
        with RawClient(node, cluster.config.client_key) as client:
            client.send(client.write_frame(1, 7, stamp(7)))
            question = two.expect(READ_PROC)
            # It has not started, and does not say what it has.
            asked_s = time.monotonic()
            two.send(two.read_proc(77, 7))
            value = two.arrived(VALUE)
            assert (value.message.rid, value.message.ts) == (77, 0)
            assert value.at - asked_s >= ANSWER_S
            two.send(two.value(question))
            order = two.expect(5)
            two.send(two.ack(order))
            assert client.response() == Response(OK, WRITE_ANSWER, 1, b"")
    finally:
        two.close()
        cluster.kill()
        two.join()


def test_all_start_again(make_cluster: Callable[..., Cluster]) -> None:
    """One node of three waits until another one has told whether it knows of a later state of its directory, and says
    how far it is meanwhile."""
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    cluster.kill()
    cluster.start(1)
    assert cluster.report(1)["lives"]["stage"] == "asking"
    cluster.start(2)
    until(lambda: cluster.report(1)["lives"]["stage"] == "started", "it serves")


# --- lost directories -----------------------------------------------------------------------------
async def test_a_node_with_an_empty_directory_is_refused_and_nothing_old_is_read(
    make_cluster: Callable[..., Cluster]
) -> None:
    """Node 2 misses what 1 and 3 acknowledge; then the directory of node 3 is deleted, and it is started again."""
    cluster = make_cluster()
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    async with Client(cluster.config) as client:
        await write_all(client, 1)
        await trio.to_thread.run_sync(cluster.kill, 2)
        await write_all(client, 2)
        await trio.to_thread.run_sync(cluster.start, 2)
        await trio.to_thread.run_sync(cluster.kill, 3)
        shutil.rmtree(cluster.storage(3))
        spawn(cluster, 3, "--new")  # which overrules nobody
        said = await trio.to_thread.run_sync(ended, cluster, 3)
        assert "this is not the directory that the cluster knows as that of rank 3" in said and "empty" in said
        assert "put that back" in said and "--rejoin" in said
        for sector in range(SECTORS):
            assert await client.read(sector) == stamp(2000 + sector)  # 1 and 2 go on
        await trio.to_thread.run_sync(cluster.kill, 1)
        spawn(cluster, 3)
        with trio.move_on_after(1.5) as waiting:
            await client.read(7)
        assert waiting.cancelled_caught, "1 has what was acknowledged, and is down"
        assert "not the directory" in await trio.to_thread.run_sync(ended, cluster, 3)
        await trio.to_thread.run_sync(cluster.start, 1)
        assert await client.read(7) == stamp(2007)


def test_a_twin_with_the_rank_of_a_running_node_is_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    cluster.views[3] = {3: ("127.9.9.9", cluster.address(3)[1])}
    before = cluster.log(3).read_text()
    twin = cluster.spawn(3, cluster.directory / "elsewhere")
    assert twin.wait(TIMEOUT_S) == 1
    assert "not the directory that the cluster knows" in cluster.log(3).read_text()[len(before):]
    with RawClient(cluster.address(3), cluster.config.client_key) as client:
        client.write(7, stamp(7))
    assert dsreg("status", "--timeout", str(TIMEOUT_S), cluster.path).returncode == 0


def test_the_runbooks_last_step(make_cluster: Callable[..., Cluster]) -> None:
    """The directory of node 3 is lost for good: the others forget it, all being stopped, and it begins with an empty
    one."""
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.write(7, stamp(7))
    # Else 1 and 3 alone may have it, and the disk is lost with the directory of 3 before 2 has been healed.
    until(lambda: cluster.report(2)["sectors_written"] == 1, "node 2 has it as well")
    cluster.kill(3)
    shutil.rmtree(cluster.storage(3))
    running = dsreg("forget", "--storage", cluster.storage(1), "--rank", "3")
    assert running.returncode == 1 and "in use by another process" in running.stderr
    cluster.terminate(1)
    cluster.terminate(2)
    for rank in (1, 2):
        done = dsreg("forget", "--storage", cluster.storage(rank), "--rank", "3")
        assert done.returncode == 0 and "forgot the directory" in done.stdout, done.stderr
    assert "nothing to forget" in dsreg("forget", "--storage", cluster.storage(1), "--rank", "3").stdout
    assert dsreg("forget", "--storage", cluster.storage(1), "--rank", "1").returncode == 1
    assert dsreg("forget", "--storage", cluster.directory / "nothing", "--rank", "3").returncode == 1
    assert not Path(cluster.directory / "nothing").exists()
    cluster.start()
    all_know_all(cluster)
    cluster.kill(1)
    with RawClient(cluster.address(3), cluster.config.client_key) as client:
        assert client.read(7) == stamp(7)


def test_the_old_directory_put_back_is_used_again(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    cluster.kill(3)
    aside = cluster.storage(3).rename(cluster.directory / "unmounted")
    spawn(cluster, 3)
    ended(cluster, 3)
    # It ends as soon as one node has refused it; the other one need not have met it.
    until(lambda: status(cluster)[3]["directory_fault"], "the node that has refused it says so")
    said = dsreg("status", "--timeout", ASK_S, cluster.path)
    assert "directory changed" in said.stdout and "2 of 3 nodes answer" in said.stdout
    until(lambda: any(REFUSED in cluster.log(rank).read_text() for rank in (1, 2)), "nothing becomes of it")
    shutil.rmtree(cluster.storage(3))
    aside.rename(cluster.storage(3))
    cluster.start(3)
    until(lambda: not status(cluster)[3]["directory_fault"], "it is used again")
    assert "3 of 3 nodes answer" in dsreg("status", "--timeout", str(TIMEOUT_S), cluster.path).stdout


# --- a later life ---------------------------------------------------------------------------------
def set_number(cluster: Cluster, rank: int, number: int) -> None:
    """The life of a stopped node: the same directory, as if it had rejoined and learned all that there is."""
    salt = cluster.identity(rank).salt
    files = OsFiles(cluster.storage(rank))
    known, starts, addresses = lives_file.read(files, salt)
    known[rank] = known[rank]._replace(number=number)
    lives_file.write(files, known, salt, starts, addresses)
    files.close()


def number_of(cluster: Cluster, rank: int, teller: int) -> object:
    return cluster.report(teller)["lives"]["known"][str(rank)]["life"]


async def test_a_later_life_is_obeyed_by_nodes_and_clients_and_the_earlier_one_is_not_taken_back(
    make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster()
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    async with Client(cluster.config) as client:
        await write_all(client, 1)
        cluster.terminate(3)
        set_number(cluster, 3, 2)
        await write_all(client, 2)
        cluster.start(3)
        await trio.to_thread.run_sync(
            until, lambda: number_of(cluster, 3, 1) == number_of(cluster, 3, 2) == 2, "both know the later life"
        )
        cluster.kill(1)  # 2 and 3 are the majority
        for sector in range(SECTORS):
            assert await client.read(sector) == stamp(2000 + sector)
        await write_all(client, 3)
        cluster.start(1)
        assert await trio.to_thread.run_sync(number_of, cluster, 3, 1) == 2, "it was durable"
        cluster.kill(2)  # 1 and 3
        for sector in range(SECTORS):
            assert await client.read(sector) == stamp(3000 + sector)
        cluster.start(2)
    for command, refused in ((Command.get(5, 0, 1), Status.REFUSED),
                             (Command.attach(6, 1, bytes(64)), Status.UNSUPPORTED)):
        assert answer_to_one_that_knows_no_lives(cluster, 1, command).status is refused
    assert answer_to_one_that_knows_no_lives(cluster, 1, Command.read(7, 0, extended=True)).status is Status.OK
    cluster.terminate(3)
    set_number(cluster, 3, 1)
    spawn(cluster, 3)
    assert "(life 2), this one is" in ended(cluster, 3)


def answer_to_one_that_knows_no_lives(cluster: Cluster, rank: int, command: Command) -> Answered:
    keys = Keys(cluster.config.client_key, cluster.config.system_key)
    decoder = Decoder(keys, bounds=Bounds(SECTORS, frozenset(cluster.ranks)), side=Side.CLIENT, extended=True)
    encoder = Encoder(keys)
    with socket.create_connection(cluster.address(rank), TIMEOUT_S) as sock:
        sock.sendall(b"".join(encoder.encode(Hello(0, False, cluster.config.cluster_id, 1, SECTORS))))
        while data := sock.recv(1 << 16):
            for answer in decoder.feed(data):
                if isinstance(answer, Hello):
                    sock.sendall(b"".join(encoder.encode(command)))
                elif isinstance(answer, Answered):
                    return answer
    raise AssertionError("the node has closed the connection")
