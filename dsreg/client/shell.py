"""What an engine needs from who runs it: connections, and somebody to tell."""

from __future__ import annotations

from typing import Protocol

from dsreg.client.events import Attached, NotAttached, NotCounted, Waits
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed
from dsreg.protocol.messages import Command, ScrubBegun, ScrubRequest, StatusReport, StatusRequest


class Connection(Protocol):
    """To one node. What is sent goes out with the next `flush`; see dsreg.client.connection."""

    def send(self, message: Command | StatusRequest | ScrubRequest | Proposed) -> None: ...

    def tell(self, report: ConfigurationReport) -> None: ...

    def withdraw(self, request: int) -> None: ...

    def flush(self) -> None: ...

    def drop(self) -> None: ...

    def moved(self, place: Place, *, is_first: bool) -> None: ...


class Shell(Protocol):
    """Who runs an engine. It must not call the engine back from these."""

    def busy(self) -> None:
        """`tick` is due every limits.TICK_S from now on, until it says that it is not."""

    def up(self, rank: int) -> None:
        """The node can be asked."""

    def down(self, rank: int) -> None:
        """It cannot be, any more."""

    def found(self, rank: int, place: Place) -> None:
        """There is this node as well. What comes next is that a connection to it is made."""

    def gone(self, rank: int) -> None:
        """The node has left. The connection to it is to be ended, and is not to tell the engine of anything more."""

    def reported(self, report: StatusReport | ScrubBegun | Answered) -> None:
        """The answer to what one node was asked, about itself or what follows; also to a status request of the core."""

    def sized(self, sectors: int) -> None:
        """The disk has so many: told for the first time, or another number than before."""

    def told(self, effect: Attached | NotAttached | Waits | NotCounted) -> None:
        """What the user is to know."""
