"""The configuration: every fault is found, reported in one line and comes with what to do."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

import pytest

from dsreg.cli.advice import advice
from dsreg.config import (
    UNKNOWN_CLUSTER,
    ClusterConfig,
    NodeConfig,
    create_cluster,
    find_config,
    format_size,
    load_config,
    parse_address,
    parse_size,
    plan_addresses,
)
from dsreg.constants import MAX_SECTORS, MIN_JOURNAL_BYTES
from dsreg.errors import ConfigError

CLUSTER = 'size = "1MiB"\nclient_key_file = "client.key"\nsystem_key_file = "system.key"\n'
NODES = ["127.0.0.1:7001", "127.0.0.1:7002", "[::1]:7003"]


def node(rank: object, address: str, more: str = "") -> str:
    return f'[[node]]\nrank = {rank}\naddress = "{address}"\n{more}\n'


def write(directory: Path, cluster: str = CLUSTER, nodes: str | None = None) -> Path:
    """A cluster.toml with good keys, with the given inside of [cluster] and the given [[node]]s."""
    for name, size in (("client.key", 32), ("system.key", 64)):
        (directory / name).write_text("5a" * size + "\n")
        (directory / name).chmod(0o600)
    if nodes is None:
        nodes = "".join(node(rank, address) for rank, address in enumerate(NODES, 1))
    path = directory / "cluster.toml"
    path.write_text(f"[cluster]\n{cluster}\n{nodes}")
    return path


def faults_of(path: Path, **options: bool) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load_config(path, **options)
    for fault in raised.value.faults:
        assert "\n" not in fault and str(path) in fault
        assert "5a" * 20 not in fault, "a key must never show up in a message"
    return raised.value.faults


def test_a_good_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    config = load_config(path)
    assert config.sectors == 256
    assert config.client_key == b"\x5a" * 32 and config.system_key == b"\x5a" * 64
    assert config.cluster_id == hmac.digest(config.system_key, b"dsreg cluster identity", "sha256")[:16]
    assert [(n.rank, n.host, n.port) for n in config.nodes] == [
        (1, "127.0.0.1", 7001), (2, "127.0.0.1", 7002), (3, "::1", 7003)]
    assert [n.address for n in config.nodes] == NODES
    assert config.nodes[1].storage == tmp_path / "node-2"
    assert config.path == path
    assert "client_key" not in repr(config) and "system_key" not in repr(config), "keys stay out of logs"


def test_sectors_id_storage_and_order(tmp_path: Path) -> None:
    cluster = CLUSTER.replace('size = "1MiB"', "sectors = 7") + 'id = "00112233445566778899aabbccddeeff"\n'
    nodes = node(2, "b:1", 'storage = "/srv/two"') + node(1, "a:1", 'storage = "one"')
    config = load_config(write(tmp_path, cluster, nodes))
    assert config.sectors == 7
    assert config.cluster_id == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert [n.rank for n in config.nodes] == [1, 2]
    assert [n.storage for n in config.nodes] == [tmp_path / "one", Path("/srv/two")]


@pytest.mark.parametrize(("size", "expected"), [
    ('size = "1MiB"\nsectors = 256', "keep one"),
    ("", "give sectors = N or size"),
    ('size = "5000"', "the next smaller is 4096, the next larger 8192"),
    ('size = "0"', "outside 1.."),
    ('size = "1GB"', "did you mean GiB?"),
    ('size = "much"', "is not a size"),
    ("size = 4096", "must be text"),
    ('sectors = "4"', "whole number, without quotes"),
    ("sectors = true", "whole number"),
    ("sectors = 0", "outside 1.."),
    (f"sectors = {MAX_SECTORS + 1}", "outside 1.."),
])
def test_faults_of_the_size(tmp_path: Path, size: str, expected: str) -> None:
    [fault] = faults_of(write(tmp_path, CLUSTER.replace('size = "1MiB"', size)))
    assert expected in fault


@pytest.mark.parametrize(("nodes", "expected"), [
    ("", ["no [[node]] sections"]),
    (node(1, "a:1") + node(3, "b:1"), ["rank 3 is outside 1..2; 2 nodes have the ranks 1..2 without gaps, here 2 is"]),
    (node(0, "a:1"), ["rank 0 is outside 1..1"]),
    (node(1, "a:1") + node(1, "b:1", 'storage = "s"'), ["rank 1 is given more than once"]),
    (node('"1"', "a:1"), ["rank must be a whole number"]),
    (node(1, "a:1") + node(2, "A:1"), ["address a:1 is given for the nodes 1 and 2"]),
    (node(1, "a"), ["write host:port"]),
    (node(1, "::1:7001"), ["an IPv6 address in brackets"]),
    (node(1, "a:70000"), ["port 70000 is outside"]),
    (node(1, "a:0"), ["port 0 is outside"]),
    ("[[node]]\nrank = 1\n", ["address must be text"]),
    (node(1, "a:1", "storage = 3"), ["storage must be"]),
    (node(1, "a:1", "listen = 7001"), ["listen must be text"]),
    (node(1, "a:1", 'listen = "0.0.0.0"'), ["listen '0.0.0.0' is not an address: write host:port"]),
    (node(1, "0.0.0.0:7001"), ['0.0.0.0 means all addresses of a host, and nobody can connect to it; give one '
                               'that all nodes and clients reach, and beside it listen = "0.0.0.0:PORT"']),
    (node(1, "[::]:7001"), ['beside it listen = "[::]:PORT"']),
    (node(1, "[::ffff:0.0.0.0]:7001"), ["means all addresses"]),
    (node(1, "255.255.255.255:1"), ["is the address of many hosts"]),
    (node(1, "[ff02::1%eth0]:1"), ["is the address of many hosts"]),
    (node(1, "0:7001"), ["0 is no IPv4 address"]),
    (node(1, "10.0.1:7001"), ["10.0.1 is no IPv4 address: write it like 10.0.0.1:7001"]),
    (node(1, "0x7f000001:7001"), ["is no IPv4 address"]),
    (node(1, "[fe80::g]:7001"), ["fe80::g is no IPv6 address: write it like [2001:db8::1]:7001"]),
    (node(1, "[::1]:1") + node(2, "[0:0::1]:1"), ["is given for the nodes 1 and 2"]),
    (node(1, "a:1", 'storage = "s"') + node(2, "b:1", 'storage = "./s"'), ["is given for the nodes 1 and 2"]),
    (node(1, "a:1", 'adress = "a:1"'), ["unknown key 'adress' in [[node]] number 1; did you mean address?"]),
    ("".join(node(rank, f"a:{rank}") for rank in range(1, 256)), ["255 nodes; at most 254"]),
])
def test_faults_of_the_nodes(tmp_path: Path, nodes: str, expected: list[str]) -> None:
    faults = faults_of(write(tmp_path, nodes=nodes))
    assert len(faults) == len(expected)
    for fault, part in zip(faults, expected, strict=True):
        assert part in fault


def test_where_a_node_listens(tmp_path: Path) -> None:
    nodes = node(1, "a:1", 'listen = "0.0.0.0:9"') + node(2, "b:2") + node(3, "c:3", 'listen = "[::]:3"')
    config = load_config(write(tmp_path, nodes=nodes))
    assert [NodeConfig(config, rank, tmp_path).listen_at for rank in (1, 2, 3)] == [("0.0.0.0", 9), ("b", 2), ("::", 3)]
    assert NodeConfig(config, 1, tmp_path, listen=("10.0.0.1", 5)).listen_at == ("10.0.0.1", 5)
    assert config.nodes[0].address == "a:1"


@pytest.mark.parametrize(("addresses", "for_others"), [
    (["a:1", "b:1"], True), (["a:1", "A:2"], False), (["127.0.0.1:1", "127.0.0.1:2"], False),
    (["127.0.0.1:1", "localhost:2", "[::1]:3"], False), (["10.0.0.1:1", "10.0.0.2:1"], True), (["a:1"], False)])
def test_whether_other_hosts_have_to_reach_a_node(tmp_path: Path, addresses: list[str], for_others: bool) -> None:
    config = load_config(write(tmp_path, nodes="".join(node(rank, a) for rank, a in enumerate(addresses, 1))))
    assert NodeConfig(config, 1, tmp_path).is_for_others is for_others


def test_files_that_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As some editors write them, with line ends of their own."""
    path = write(tmp_path)
    plain = load_config(path)
    for name in ("cluster.toml", "client.key", "system.key"):
        file = tmp_path / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_config(path) == plain


def test_advice(tmp_path: Path) -> None:
    def about(*addresses: str) -> list[str]:
        path = write(tmp_path, nodes="".join(node(rank, address) for rank, address in enumerate(addresses, 1)))
        return advice(load_config(path).nodes)

    assert about("a:1", "b:1", "c:1") == about("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3") == about("a:1") == []
    assert about("a:1", "b:1", "c:1", "d:1") == [
        "4 nodes survive the loss of 1, as 3 do, and every write waits for 3 of them: use 3 or 5"]
    [line] = about("a:1", "b:1", "A:2")
    assert line.startswith("the nodes 1, 3 are all on a, and fail together with it")
    [line] = about("[fe80::1]:1")
    assert "fe80::1 is link-local" in line and "[fe80::1%eth0]" in line
    assert about("[fe80::1%br-lan]:1") == []


def test_require_sealed(tmp_path: Path) -> None:
    assert load_config(write(tmp_path)).require_sealed is False
    assert load_config(write(tmp_path, CLUSTER + "require_sealed = true\n")).require_sealed is True
    [fault] = faults_of(write(tmp_path, CLUSTER + 'require_sealed = "yes"\n'))
    assert "require_sealed must be true or false" in fault


def test_all_faults_at_once(tmp_path: Path) -> None:
    cluster = 'sizes = "1MiB"\nclient_key_file = 5\nsystem_key_file = "none.key"\nid = "xyz"\n'
    faults = faults_of(write(tmp_path, cluster, node(2, "a") + "[extra]\n"))
    expected = ["unknown key 'extra'", "did you mean size?", "give sectors = N", "client_key_file must be",
                "none.key does not exist", "id must be 32 hex", "write host:port", "rank 2 is outside 1..1"]
    assert len(faults) == len(expected)
    for fault, part in zip(faults, expected, strict=True):
        assert part in fault


@pytest.mark.parametrize(("content", "mode", "expected"), [
    (b"5a" * 31, 0o600, "holds 62 hex digits; it must hold 64"),
    (b"", 0o600, "holds 0 hex digits"),
    (b"zz" * 32, 0o600, "is not hexadecimal"),
    (b"5a" * 32, 0o640, "(mode 0640); run: chmod 600"),
    (b"5a" * 32, 0o604, "(mode 0604); run: chmod 600"),
    (None, 0, "does not exist"),
])
def test_faults_of_a_key_file(tmp_path: Path, content: bytes | None, mode: int, expected: str) -> None:
    path = write(tmp_path)
    key = tmp_path / "client.key"
    if content is None:
        key.unlink()
    else:
        key.write_bytes(content)
        key.chmod(mode)
    [fault] = faults_of(path)
    assert expected in fault


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "client.key").unlink()
    (tmp_path / "client.key").mkdir()
    [fault] = faults_of(path)
    assert "not a regular file" in fault


def test_a_systemd_credential_may_be_group_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    (tmp_path / "system.key").chmod(0o440)
    assert len(faults_of(path)) == 1
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_config(path).system_key


@pytest.mark.parametrize("leave_out", ["the file", "the line"])
def test_a_client_host_needs_no_system_key(tmp_path: Path, leave_out: str) -> None:
    path = write(tmp_path)
    if leave_out == "the file":
        (tmp_path / "system.key").unlink()
    else:
        path.write_text(path.read_text().replace('system_key_file = "system.key"\n', ""))
    [fault] = faults_of(path)
    assert "system_key_file" in fault
    config = load_config(path, need_system_key=False)
    assert config.system_key == b"" and config.cluster_id == UNKNOWN_CLUSTER


def test_a_loose_system_key_is_refused_on_a_client_host_too(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "system.key").chmod(0o644)
    [fault] = faults_of(path, need_system_key=False)
    assert "chmod 600" in fault


@pytest.mark.parametrize(("content", "expected"), [
    (None, "no such file"), (b"[cluster\n", "not valid TOML"), (b"\xff\xfe", "not valid TOML")])
def test_no_file_and_no_toml(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "cluster.toml"
    if content is not None:
        path.write_bytes(content)
    [fault] = faults_of(path)
    assert expected in fault


def test_find_config_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "etc.toml"
    user = tmp_path / "xdg" / "dsreg" / "cluster.toml"
    monkeypatch.setattr("dsreg.config.load.SYSTEM_CONFIG", system)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    assert find_config(None) is None
    system.touch()
    assert find_config(None) == system
    user.parent.mkdir(parents=True)
    user.touch()
    assert find_config(None) == user
    monkeypatch.setenv("DSREG_CONFIG", "/named/by/environment.toml")
    assert find_config(None) == Path("/named/by/environment.toml")
    assert find_config(Path("explicit.toml")) == Path("explicit.toml")


def test_find_config_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".config" / "dsreg" / "cluster.toml"
    config.parent.mkdir(parents=True)
    config.touch()
    assert find_config(None) == config


@pytest.mark.parametrize("text", ["4096", "64KiB", "1GiB", "3TiB"])
def test_sizes_round_trip(text: str) -> None:
    assert parse_size(format_size(parse_size(text))) == parse_size(text)


def test_sizes_and_addresses() -> None:
    for huge in ("9" * 5000 + "GiB", "9" * 30):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(huge)
    assert parse_size("4096") == 4096 and parse_size(" 1 GiB ") == 1 << 30
    assert format_size(4096) == "4KiB" and format_size(4097) == "4097" and format_size(0) == "0"
    for scope in ("eth0", "br-lan", "enP2p1s0", "eth0.100", "wg_0"):
        assert parse_address(f"[fe80::1%{scope}]:7001") == (f"fe80::1%{scope}", 7001)
    assert parse_address("1und1.example:7001") == ("1und1.example", 7001)
    for bad in ("a b:1", ":1", "a:", "a:1 ", "a:b:1", "a:-1", "http://a:1",
                "[::1]", "[a]:1", "[10.0.0.1]:1", "[fe80::1%]:1"):
        with pytest.raises(ValueError, match="address"):
            parse_address(bad)


def test_node_config_reports_all_faults(tmp_path: Path) -> None:
    path = write(tmp_path)
    config = load_config(path)
    assert NodeConfig(config, 2, tmp_path).node.port == 7002
    bare = ClusterConfig(config.sectors, config.client_key, b"", config.nodes, config.cluster_id, path)
    with pytest.raises(ConfigError) as raised:
        NodeConfig(bare, 4, tmp_path, MIN_JOURNAL_BYTES - 4096)
    assert len(raised.value.faults) == 3
    with pytest.raises(ConfigError, match="multiple of 4096"):
        NodeConfig(config, 1, tmp_path, MIN_JOURNAL_BYTES + 1)


def test_create_cluster(tmp_path: Path) -> None:
    path = create_cluster(tmp_path / "new", 1 << 20, NODES)
    config = load_config(path)
    assert config.sectors == 256 and [n.address for n in config.nodes] == NODES
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    for name in ("client.key", "system.key"):
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600
    other = load_config(create_cluster(tmp_path / "other", 1 << 20, NODES))
    assert other.client_key != config.client_key and other.cluster_id != config.cluster_id


@pytest.mark.parametrize("existing", ["cluster.toml", "client.key", "system.key"])
def test_create_cluster_never_overwrites(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(ConfigError, match="never overwritten"):
        create_cluster(tmp_path, 1 << 20, NODES)
    assert os.listdir(tmp_path) == [existing], "nothing is left behind"
    assert (tmp_path / existing).read_text() == "precious"


def test_create_cluster_checks_before_it_writes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        create_cluster(tmp_path / "new", 4097, [])
    assert len(raised.value.faults) == 2
    assert not (tmp_path / "new").exists()


def test_plan_addresses() -> None:
    assert plan_addresses(["127.0.0.1"], 3, 7001) == ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
    assert plan_addresses(["a", "b:9", "[::1]"], 3, 7001) == ["a:7001", "b:9", "[::1]:7001"]
    with pytest.raises(ConfigError, match="given twice"):
        plan_addresses(["a:1", "a:1"], 2, 7001)
    with pytest.raises(ConfigError, match="outside 1..65535"):
        plan_addresses(["a"], 2, 65535)


@pytest.mark.parametrize(("line", "rate"), [("", 0), ('heal_rate = "50MiB"', 50 << 20), ('heal_rate = ""', 0)])
def test_the_rate_of_healing(tmp_path: Path, line: str, rate: int) -> None:
    path = create_cluster(tmp_path, 1 << 20, ["127.0.0.1:7001"])
    path.write_text(path.read_text().replace("[cluster]\n", f"[cluster]\n{line}\n"))
    config = load_config(path, need_system_key=True)
    assert config.heal_rate == rate
    assert NodeConfig(config, 1, tmp_path).heal_bytes_per_s == rate
    assert NodeConfig(config, 1, tmp_path, heal_rate=7).heal_bytes_per_s == 7


@pytest.mark.parametrize("value", ["50", "true", '"much"'])
def test_a_rate_that_is_none(tmp_path: Path, value: str) -> None:
    path = create_cluster(tmp_path, 1 << 20, ["127.0.0.1:7001"])
    path.write_text(path.read_text().replace("[cluster]\n", f"[cluster]\nheal_rate = {value}\n"))
    with pytest.raises(ConfigError, match="heal_rate"):
        load_config(path, need_system_key=True)


def test_nodes_that_were_added_and_removed(tmp_path: Path) -> None:
    """The list may have gaps then, and what the cluster was created with is told apart from it."""
    path = write(tmp_path, CLUSTER + "first_nodes = 3", node(5, "e:1") + node(1, "a:1") + node(3, "c:1"))
    config = load_config(path)
    assert config.ranks == (1, 3, 5) and config.first_ranks == (1, 2, 3)
    assert config.node(3).address == "c:1" and NodeConfig(config, 5, tmp_path).node.address == "e:1"
    with pytest.raises(ConfigError, match="rank 2: not in .*; give one of 1, 3, 5"):
        config.node(2)
    before = load_config(write(tmp_path, nodes=node(1, "a:1") + node(2, "b:1")))
    assert before.first_ranks == before.ranks == (1, 2)


@pytest.mark.parametrize(("value", "nodes", "expected"), [
    ("0", [1], "first_nodes must be a whole number from 1"),
    ('"3"', [1], "first_nodes must be a whole number from 1"),
    ("true", [1], "first_nodes must be a whole number from 1"),
    ("3", [1, 255], "rank 255 is outside 1..254$"),
    ("3", [1, 4, 4], "rank 4 is given more than once"),
])
def test_faults_of_nodes_that_were_added(tmp_path: Path, value: str, nodes: list[int], expected: str) -> None:
    text = "".join(node(rank, f"h{at}:1") for at, rank in enumerate(nodes))
    with pytest.raises(ConfigError, match=expected):
        load_config(write(tmp_path, f"{CLUSTER}first_nodes = {value}", text))
