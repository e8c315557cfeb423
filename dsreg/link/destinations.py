"""Where to connect to one party: at the address in the configuration, or where it has said that it is. Pure."""

from __future__ import annotations

from dsreg.protocol.address import Place


class Destinations:
    """`configured`: as the configuration has it. `learned`: as it has said before; None: it has not. `learns`: whether
    that counts.

    Either may be out of date: the file, because the party has moved; what was learned, because the file was edited
    since. So what did not lead to it gives way to the other one, in turn.
    """

    def __init__(self, configured: Place, learned: Place | None = None, *, learns: bool = True) -> None:
        if not learns:
            learned = None
        self._learns = learns
        self.current = configured  # of the last attempt
        self._configured = configured
        self._learned = learned
        self.preferred = configured if learned is None else learned  # to be tried first
        self._attempts = 0  # since one has worked, or the preferred place has changed
        self._works = False

    def next(self) -> Place:
        """For one attempt."""
        is_other = self._attempts % 2 == 1
        self._attempts += 1
        self._works = False
        self.current = self._other if is_other else self.preferred
        return self.current

    @property
    def _other(self) -> Place:
        if self._learned is None or self.preferred == self._learned:
            return self._configured
        return self._learned

    def worked(self) -> None:
        """The last attempt has led to the party."""
        self._works = True
        self.preferred = self.current
        self._attempts = 0

    def learn(self, place: Place, *, is_first: bool) -> bool:
        """The party has said that it is there. Whether to go there now, whatever is under way.

        `is_first`: it had not said anything before. Then a connection that works may go another way to the same place,
        through a tunnel or a translation of addresses, and stays.
        """
        if not self._learns:
            return False
        self._learned = place
        if is_first and self._works:
            return False
        self.preferred = place
        self._attempts = 0
        return self.current != place
