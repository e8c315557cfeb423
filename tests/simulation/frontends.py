"""Simulated frontends: clients that attach the disk, take it over from each other, and are fenced."""

from __future__ import annotations

from dsreg.client.attachment import Claim, State
from dsreg.client.events import Attached, NotAttached, NotCounted, Waits
from dsreg.errors import AttachRefused, DiskFenced, DsregError
from dsreg.protocol.messages import owner_of
from tests.simulation.clients import ExtensionClient
from tests.simulation.worker import World


class Frontend(ExtensionClient):
    """Attaches at once, or `after_s` seconds later. Fenced, it comes back after a while, some times."""

    def __init__(self, world: World, name: str, host: int, after_s: float) -> None:
        self._take_over = False
        self._tries = 0
        self._coming = False
        super().__init__(world, name, host)
        if after_s:
            self._leave()
            self._coming = True
            world.loop.after(after_s, self._come_back, world.loop.chance(0.8))

    @property
    def idle(self) -> bool:
        return not self._coming and super().idle

    def _claim(self) -> Claim:
        self.epoch = 0
        return Claim(owner_of(self.world.loop.rng.randbytes(16), self.name), self._take_over)

    def crash(self) -> None:
        if not self.out:
            # The nodes do not always know that it is dead before its successor comes.
            self._take_over = self.world.loop.chance(0.6)
            super().crash()

    def put_back(self) -> bool:
        attachment, loop = self.core.attachment, self.world.loop
        if attachment is None or attachment.state is not State.HELD or self.out:
            return False
        attachment._last_counter = int(attachment._last_counter * loop.rng.random())
        attachment._asked_s = self._clock() - attachment._last_counter / 1e6
        return True

    def told(self, effect: Attached | NotAttached | Waits | NotCounted) -> None:
        if isinstance(effect, Waits | NotCounted):
            return
        if isinstance(effect, Attached):
            self.epoch = effect.epoch
            self.world.history.attached(effect.epoch)
            self.world.loop.fault("attached", f"{self.name} in epoch {effect.epoch}")
            return
        self.world.loop.fault("fenced" if isinstance(effect.error, DiskFenced) else "not_attached", self.name)
        self.out = True
        self.world.loop.after(0, self._end, self._life)
        self._tries += 1
        if self._tries <= self.world.options.tries:
            self._coming = True
            delay_s = self.world.options.fault_interval_s * self.world.loop.between(0, 8)
            self.world.loop.after(delay_s, self._come_back, True)

    def _expect(self, error: DsregError) -> None:
        if not isinstance(error, DiskFenced | AttachRefused):
            super()._expect(error)

    # --- out and in -----------------------------------------------------------------------------
    def _end(self, life: int) -> None:
        if life == self._life:
            self._die()

    def _leave(self) -> None:
        """The process ends."""
        self.out = True
        self._die()

    def _come_back(self, take_over: bool) -> None:
        """As a new process."""
        self._coming = False
        if self.out and not self.retired:
            self._die()
            self._take_over = take_over
            self.out = False
            self._revive()
            self._next()

    def succeed(self) -> None:
        """It dies, and another one takes over at once."""
        self.out = True
        self._come_back(True)

    def retire(self) -> None:
        """It never comes back."""
        self.retired = True
        self._coming = False
        self._leave()

    def insist(self) -> None:
        """From now on the disk is this one's."""
        self._tries = 0
        if not self.epoch:
            self.out = True
        self._come_back(True)
