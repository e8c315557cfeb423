"""Which nodes a cluster had and how large its disk was, as a directory that is left tells, and which the new cluster
has: docs/recover.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dsreg.config import ClusterConfig, format_address
from dsreg.config.edit import with_node, with_size, without_node
from dsreg.config.recovered import Recovered
from dsreg.errors import ConfigError, WrongDirectory
from dsreg.protocol.address import Place
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import quorum_of
from dsreg.register.course import described, named
from dsreg.register.quorum import Majority, bit, mask, ranks_in
from dsreg.storage import Files
from dsreg.storage import lives as lives_file
from dsreg.storage.identity import Recorded
from dsreg.storage.new_cluster import known_to, recorded_in


class LastKnown(NamedTuple):
    """Of the directory of the node `rank`. `latest`: the configuration that it knows. `voted`: what it has voted for to
    follow, None: nothing. `sectors`: the size of the disk there. `places`: where nodes have said that they are."""

    rank: int
    latest: Configuration
    voted: Configuration | None
    sectors: int
    places: Mapping[int, Place]


class NewCluster(NamedTuple):
    """`members`: of its configuration 1, a mask. `sectors`: the size of its disk."""

    members: int
    sectors: int


def last_known(files: Files) -> LastKnown:
    """Raises WrongDirectory for a directory whose node never became a member; DamagedStorage."""
    recorded = recorded_in(files)
    identity = recorded.identity
    record = known_to(files, recorded)
    if not record.current.number:
        raise WrongDirectory("this directory was made to join a cluster, and its node has never become a member: there "
                             "is nothing on it that the others do not have")
    voted = None if record.voted is None else record.voted.configuration
    sectors = max(identity.sectors, record.current.sectors)
    return LastKnown(identity.rank, record.current, voted, sectors, _places(files, recorded))


def _places(files: Files, recorded: Recorded) -> Mapping[int, Place]:
    if not recorded.store:  # of a format that knew no addresses
        return {}
    addresses = lives_file.read(files, recorded.identity.salt).addresses
    return {rank: address.place for rank, address in addresses.items()}


def new_cluster(known: LastKnown, config: ClusterConfig, left: Sequence[int]) -> NewCluster:
    """What is made of the directories of the nodes `left`. Raises ConfigError if one of them has nothing to give, or if
    nothing is lost, or if they do not fit together."""
    for rank in left:
        if not known.latest.members & bit(rank):
            raise ConfigError([_why_no_member(known, config, rank)])
    if quorum_of(known.latest).decided(mask(left)):
        raise ConfigError([nothing_is_lost(left)])
    sectors = known.sectors if known.latest.number > 1 else max(known.sectors, config.sectors)
    return NewCluster(_members(known.latest, mask(left)), sectors)


def _why_no_member(known: LastKnown, config: ClusterConfig, rank: int) -> str:
    there_are = f"configuration {known.latest.number}, the latest that node {known.rank} knows, has " \
                f"{described(known.latest)}"
    if known.latest.used & bit(rank):
        return f"rank {rank}: it has left the cluster, and lacks what was written since: {there_are}"
    if rank not in config.ranks:
        return config.no_such(rank)
    return (f"rank {rank}: {config.path} lists it, and it has never become a member: there is nothing on it that the "
            f"others do not have; {there_are}. If it has become one since, begin with its directory")


def nothing_is_lost(ranks: Sequence[int]) -> str:
    nodes = ", ".join(map(str, sorted(ranks)))
    return (f"the directories of the nodes {nodes} are a majority: nothing is lost. Start these nodes, and the others "
            "with empty directories and `dsreg node --rejoin`")


def _members(latest: Configuration, left: int) -> int:
    """Of two joint sets the later one, which somebody has wanted, if all that are left are in it, else the earlier one.
    Either is safe: docs/recover.md, rule 7. No more of a set may be left than meet every majority of it."""
    for members in (latest.joining, latest.ranks):
        if members and not left & ~members and left.bit_count() <= Majority(members).needed_to_cover:
            return members
    raise ConfigError([
        f"the nodes were being changed from {named(latest.ranks)} to {named(latest.joining)}, and the new cluster has "
        f"one of these sets: name nodes of one of them alone, at most {Majority(latest.ranks).needed_to_cover} of the "
        f"first or {Majority(latest.joining).needed_to_cover} of the second"
    ])


def what_is_known(known: LastKnown, new: NewCluster, left: Sequence[int]) -> list[str]:
    """For people: which nodes the new cluster has, why these, and what nobody knows. [] where members never changed."""
    latest = known.latest
    if latest.number == 1 and known.voted is None:
        return []
    lines = [f"Node {known.rank} knows configuration {latest.number}: {described(latest)}."]
    which = f"    The new cluster has the nodes {named(new.members)}"
    if latest.joining and new.members == latest.joining:
        which += ", to which they were being changed"
    elif latest.joining:
        outside = ranks_in(mask(left) & ~latest.joining)
        why = f"node {outside[0]} is none of the later ones" if outside else "so many of the later ones are left"
        which += f", from which they were being changed, as {why}"
    lines.append(f"{which}.")
    if known.voted is not None:
        lines.append(f"    It has voted for configuration {known.voted.number}, {described(known.voted)}, and does not "
                     "know whether that was chosen.")
    lines.append("    If others became members later, what only those have acknowledged is lost as well.")
    return lines


# --- the file -------------------------------------------------------------------------------------
def recovered_from(config: ClusterConfig, new: NewCluster, left: tuple[int, ...], epoch: int) -> Recovered:
    """The section [recovered] of the new cluster."""
    said = tuple(range(1, (config.first_nodes or len(config.nodes)) + 1))
    nodes = tuple(ranks_in(new.members))
    return Recovered(config.cluster_id, left, epoch, () if nodes == said else nodes)


def edited(config: ClusterConfig, known: LastKnown, new: NewCluster) -> str:
    """What `cluster.toml` says, with the nodes and the size of the new cluster. Raises ConfigError."""
    missing = ranks_in(new.members & ~mask(config.ranks))
    if unknown := [rank for rank in missing if rank not in known.places]:
        raise ConfigError([f"{config.path}: it does not list node {rank}, which the new cluster has, and nothing here "
                           "says where that is: add it, with its address" for rank in unknown])
    try:
        text = config.path.read_bytes().decode("utf-8-sig")  # as bytes: the ends of its lines stay what they are
        for rank in missing:
            text = with_node(text, rank, format_address(*known.places[rank]))
        if known.latest.number > 1:
            for rank in ranks_in(mask(config.ranks) & ~new.members):
                text = without_node(text, rank)
        return text if new.sectors == config.sectors else with_size(text, new.sectors)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{config.path}: {error}"]) from None
