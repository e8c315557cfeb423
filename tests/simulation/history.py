"""What the clients saw: values that are unique, and the operations on them as the checker wants them."""

from __future__ import annotations

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
from dsreg.protocol.messages import Buffer
from tests.simulation.checker import INITIAL, OPEN, ZEROED, Operation
from tests.simulation.loop import Loop

# A value that was read and that no write can have made: torn, mixed or made up.
NO_VALUE = -1
_ID_SIZE = 8


def payload(value: int) -> bytes:
    """The sector that stands for the value: its number again and again, so that a mixture shows; or zeros."""
    if value >= ZEROED:
        return ZERO_SECTOR
    return value.to_bytes(_ID_SIZE) * (SECTOR_SIZE // _ID_SIZE)


def value_of(sector: Buffer) -> int:
    """The value that a whole sector stands for, or NO_VALUE."""
    data = bytes(sector)
    if data == ZERO_SECTOR:
        return INITIAL
    value = int.from_bytes(data[:_ID_SIZE])
    return value if data == data[:_ID_SIZE] * (SECTOR_SIZE // _ID_SIZE) else NO_VALUE


class Call:
    """One client's read or write of a run of sectors. `values`: what it writes, one for each."""

    __slots__ = ("client", "count", "first", "is_write", "start", "values")

    def __init__(self, client: str, first: int, count: int, is_write: bool, values: tuple[int, ...], start: int):
        self.client = client
        self.first = first
        self.count = count
        self.is_write = is_write
        self.values = values
        self.start = start

    @property
    def data(self) -> bytes:
        return b"".join(map(payload, self.values))

    def __str__(self) -> str:
        kind = f"write {list(self.values)} to" if self.is_write else "read"
        return f"{self.client} {kind} {self.first}+{self.count}"


class History:
    """Collects operations. Moments are stamps of the loop, so no two are the same."""

    def __init__(self, loop: Loop) -> None:
        self.operations: list[Operation] = []
        self.unknown = 0  # writes whose outcome nobody knows
        self._epochs: list[int] = []  # of the attachments that did them, 0 for none
        self._loop = loop
        self._last_value = INITIAL
        self._open: dict[Call, None] = {}
        self._attached: dict[int, float] = {}  # epoch -> when

    def attached(self, epoch: int) -> None:
        """Somebody holds the disk in `epoch`; what he asked for earlier has waited for that."""
        self._attached[epoch] = self._loop.stamp()

    def draft(self, client: str, first: int, count: int, is_write: bool, *, zeros: bool = False) -> Call:
        """With values of its own, but no operation yet. `zeros`: a write is one of zeros."""
        values: tuple[int, ...] = ()
        if is_write:
            begin = self._last_value + 1 + (ZEROED if zeros else 0)
            values = tuple(range(begin, begin + count))
            self._last_value += count
        return Call(client, first, count, is_write, values, 0)

    def call(self, client: str, first: int, count: int, is_write: bool, *, zeros: bool = False) -> Call:
        return self.begin(self.draft(client, first, count, is_write, zeros=zeros))

    def begin(self, call: Call) -> Call:
        """It is under way from now on."""
        call.start = self._loop.stamp()
        self._open[call] = None
        if self._loop.verbose:
            self._loop.say(f"{call}")
        return call

    def returned(self, call: Call, data: Buffer = b"", epoch: int = 0) -> None:
        """It is done; `data`: what was read. `epoch`: of the attachment that did it."""
        del self._open[call]
        end = self._loop.stamp()
        values = call.values
        if not call.is_write:
            view = memoryview(data)
            values = tuple(value_of(view[at : at + SECTOR_SIZE]) for at in range(0, len(view), SECTOR_SIZE))
        self._add(call, values, end, epoch)
        if self._loop.verbose:
            self._loop.say(f"{call} done: {list(values)}")

    def not_done(self, call: Call) -> None:
        """It certainly did not happen: if its value is read all the same, nobody wrote that."""
        del self._open[call]
        if self._loop.verbose:
            self._loop.say(f"{call} did not happen")

    def lost(self, call: Call, epoch: int = 0) -> None:
        """Its outcome will never be known."""
        del self._open[call]
        if call.is_write:
            self.unknown += call.count
            self._add(call, call.values, OPEN, epoch)
        if self._loop.verbose:
            self._loop.say(f"{call} has no known outcome")

    def close(self) -> None:
        """The end: what is open stays so."""
        for call in list(self._open):
            self.lost(call)

    def open_calls(self) -> list[Call]:
        return list(self._open)

    def with_deadlines(self) -> list[Operation]:
        """The operations, for the strict check: when a write of unknown outcome must have taken effect, if ever.

        That is before any operation of a newer attachment on its sector, unless this one has read it. Of a write that
        nobody has read nothing is demanded: it need not have happened.
        """
        read = {(operation.sector, operation.value) for operation in self.operations if not operation.is_write}
        by_sector: dict[int, list[tuple[Operation, int]]] = {}
        for operation, epoch in zip(self.operations, self._epochs, strict=True):
            by_sector.setdefault(operation.sector, []).append((operation, epoch))
        return [
            operation._replace(crashed=self._deadline(operation, epoch, by_sector[operation.sector]))
            if operation.end == OPEN and epoch and (operation.sector, operation.value) in read else operation
            for operation, epoch in zip(self.operations, self._epochs, strict=True)
        ]

    def brought_up(self) -> list[tuple[Operation, Operation, Operation]]:
        """Where some clients do not attach: what an older attachment has left undone, a write that was begun and done
        once there was a newer one, and a read after that which sees the older value all the same.

        (Reads of others may bring up what was left, but not over what was written since.)
        """
        known = list(zip(self.operations, self._epochs, strict=True))
        reads: dict[tuple[int, int], list[Operation]] = {}
        for each, _ in known:
            if not each.is_write:
                reads.setdefault((each.sector, each.value), []).append(each)
        found = []
        for left, epoch in known:
            if left.end != OPEN or not epoch or (left.sector, left.value) not in reads:
                continue
            succeeded = min((moment for newer, moment in self._attached.items() if newer > epoch), default=OPEN)
            over = [
                each for each, its in known
                if each.is_write and each.sector == left.sector and each.start > succeeded and not 0 < its <= epoch
            ]
            first = min(over, key=lambda each: each.end, default=left)
            found += [(left, first, read) for read in reads[left.sector, left.value] if read.start > first.end]
        return found

    def _add(self, call: Call, values: tuple[int, ...], end: float, epoch: int) -> None:
        self._epochs += [epoch] * len(values)
        for index, value in enumerate(values):
            self.operations.append(
                Operation(call.first + index, call.is_write, value, call.start, end, OPEN, call.client)
            )

    def _deadline(self, write: Operation, epoch: int, others: list[tuple[Operation, int]]) -> float:
        deadline = OPEN
        for other, newer in others:
            if newer > epoch and other.end != OPEN:
                has_read_it = not other.is_write and other.value == write.value
                begun = max(other.start, self._attached[newer])
                # Stamps are whole numbers: just before it began.
                deadline = min(deadline, other.end if has_read_it else begun - 0.5)
        return deadline
