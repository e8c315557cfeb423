"""The one tree of operating errors. Bugs are assertions and are not in here.

Every error that ends a client's operation says in `outcome` whether the operation certainly did not
happen or may have happened.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Outcome(enum.Enum):
    """What is known of an operation that raised."""

    DID_NOT_HAPPEN = "certainly did not happen"
    MAY_HAVE_HAPPENED = "may have happened, now or later"


class DsregError(Exception):
    """Base of all operating errors of dsreg."""


class ConfigError(DsregError):
    """A configuration that cannot be used. `faults` lists every fault found, one line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class StartFailed(DsregError):
    """A node has never come to listen, however often it was started: what is in its way takes a person to mend."""


# --- storage ----------------------------------------------------------------------------------
class StorageError(DsregError):
    """The storage directory cannot be used, or cannot be used any longer."""


class StorageLocked(StorageError):
    """Another process uses the directory."""


class WrongDirectory(StorageError):
    """The directory belongs to another cluster, node or disk size, or is not a dsreg directory."""


class ChangedDirectory(StorageError):
    """The other nodes know this rank by another directory: what it has acknowledged is not in this one."""


class OlderDirectory(StorageError):
    """The directory is an older state of itself: others have heard of a later one. It is opened anew as such."""


class DamagedStorage(StorageError):
    """Acknowledged state is missing from the directory: the node must not answer from it."""


class SyncFailed(StorageError):
    """fsync or a journal write failed. Final: the process exits and recovers from what is on disk."""


class NoSpace(StorageError):
    """There is no room for the write. Nothing is lost; it is accepted again once there is room."""


# --- client -----------------------------------------------------------------------------------
class ClientError(DsregError):
    """A client's operation did not complete. `reason`: why, without the outcome that the message ends with."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        self.reason = message
        self.outcome = outcome
        super().__init__(f"{message} (the operation {outcome.value})")


class OperationTimeout(ClientError):
    """No majority answered within the time the caller gave."""


class NodesFull(OperationTimeout):
    """Likewise, and so many nodes have no room for new data that no majority is left."""


class AuthenticationFailed(ClientError):
    """A node does not accept the client key."""


class WrongDisk(ClientError):
    """The nodes have a disk of another size than the client's configuration says."""


class AttachRefused(ClientError):
    """The nodes cannot attach the disk."""


class AlreadyAttached(AttachRefused):
    """Another client has attached the disk, and is alive: it can be neither attached nor written beside that one."""


class DiskFenced(ClientError):
    """Another client has taken the disk over. Final: this one has to be closed."""


class NotBelieved(ClientError):
    """So many nodes do not take the epoch, or the tag, of an operation that no majority is left: by their clocks it
    cannot be."""


class UnsealedNode(ClientError):
    """The nodes do not seal their connections, and the configuration wants no other."""


class OutOfRange(ClientError):
    """A sector beyond the end of the disk."""


class ClientClosed(ClientError):
    """The client was closed while the operation was under way."""


class WritebackFailed(ClientError):
    """What a write-back cache has buffered is not durable. `__cause__`: the error of the store beneath it. `is_final`:
    and never will be."""

    is_final = False


# What nobody can mend by trying again: all nodes turn away whoever comes with this configuration or key.
_CONFIG_FAULTS = (ConfigError, AuthenticationFailed, WrongDisk, UnsealedNode)


def is_config_fault(error: BaseException | None) -> bool:
    return isinstance(error, _CONFIG_FAULTS)
