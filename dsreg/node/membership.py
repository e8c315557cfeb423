"""Membership: whether this node is one of those that decide: it is yet to be told so, it is, or it has left."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dsreg.errors import ChangedDirectory, StorageError, WrongDirectory
from dsreg.node.configuring import Configuring, described
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.life import Life
from dsreg.register.quorum import bit
from dsreg.storage.lives import LivesFile
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")


class Membership:
    """Of the node `rank`. `begun`: it has served before, with this directory."""

    def __init__(self, rank: int, configuring: Configuring, *, begun: bool) -> None:
        self.is_member = configuring.is_member  # an attribute: each command asks
        self._rank = rank
        self._configuring = configuring
        self._begun = begun
        self.on_gone: Callable[[], None] = lambda: None  # it is none any more
        self._tellers: set[int] = set()  # others that have told which nodes there are
        if begun:
            self._say_if_gone(configuring.current)

    def reconfigured(self, configuration: Configuration) -> None:
        """This one is in force."""
        was_member, self.is_member = self.is_member, self._configuring.is_member
        if was_member:
            self._say_if_gone(configuration)
            if not self.is_member:
                self.on_gone()
        elif self.is_member:
            log.warning("node %d is a member now: configuration %d has %s", self._rank, configuration.number,
                        described(configuration), extra={"configuration": configuration.number})

    def _say_if_gone(self, configuration: Configuration) -> None:
        if not self.is_member:
            log.warning(
                "node %d is no member any more: configuration %d has %s. It serves nobody; stop it. What it has stored "
                "is at the others", self._rank, configuration.number, described(configuration),
                extra={"configuration": configuration.number},
            )

    def check(self, configuration: Configuration, teller: int) -> None:
        """Of a node whose directory has never been used: whether what it has taken for the first configuration, the
        list in its cluster.toml, is what the node `teller` says. Raises WrongDirectory."""
        self._tellers.add(teller)
        if self._configuring.is_another(configuration):
            raise WrongDirectory(
                f"this cluster was made with {described(configuration)}, node {teller} says, and the cluster.toml of "
                f"this node, which has an empty directory, lists {described(self._configuring.current)}. If it is to "
                "become a member, start it with --join; else correct cluster.toml"
            )

    def awaits(self, teller: int, transport: Transport | None) -> bool:
        """Whether the node `teller`, heard over this connection, has yet to tell which nodes there are, which it does
        behind what it says of lives: an empty directory whose rank has left is no lost one."""
        is_told = self._configuring.is_told_by(teller, transport)
        return is_told and not self._begun and teller not in self._tellers

    @property
    def has_left(self) -> bool:
        """Whether this node was a member, and is none any more."""
        return not self.is_member and bool(self._configuring.current.used & bit(self._rank))

    def refused(self, file: LivesFile, teller: int, life: Life) -> StorageError:
        """The node `teller` knows the rank by `life`, which is not that of the directory of `file`."""
        if file.begun or not self.has_left:
            return changed_directory(file, teller, life)
        configuration = self._configuring.current
        return WrongDirectory(
            f"rank {self._rank} has left the cluster, and is never used again: configuration {configuration.number} "
            f"has {described(configuration)}. Do not start this node any more; what is to become a member gets a rank "
            "of its own: dsreg members add"
        )

    def waits_for(self) -> str:
        """For people; "" if it is a member."""
        if self.is_member:
            return ""
        configuration = self._configuring.current
        if self.has_left:
            return f"is not one of {described(configuration)}, and its rank was in use: it can only be stopped"
        known = f"; there are {described(configuration)}" if configuration.number else ""
        return f"waits until it is made a member of the cluster{known}"


def changed_directory(file: LivesFile, teller: int, life: Life) -> ChangedDirectory:
    """The node `teller` knows the rank of this one, which has the directory of `file`, by the life of another one."""
    return ChangedDirectory(
        f"this is not the directory that the cluster knows as that of rank {file.rank}: node {teller} knows "
        f"{life}, this one is {file.own}"
        f"{'' if file.begun else ' and empty'}. What this node has acknowledged is in the other one: put "
        "that back (is its file system mounted?). If it is lost for good, start this node with "
        f"{'an empty directory and ' if file.begun else ''}--rejoin: it takes over what the others have"
    )
