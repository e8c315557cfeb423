"""The demonstration without FUSE: the tree as a tar stream in the disk's sectors, through the Python client."""

from __future__ import annotations

import hashlib
import io
import tarfile

from dsreg.client import BlockingClient
from dsreg.config import load_config
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE

from .cluster import Cluster, Outage
from .report import DemoFailed, Report
from .tree import Source, digest, total_mb


class SectorWriter(io.RawIOBase):
    """A write-only file on the sectors from 0 on."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._pending = bytearray()
        self.sectors = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pending += data
        while len(self._pending) >= MAX_RUN_BYTES:
            self._flush_run(MAX_RUN_BYTES)
        return len(data)

    def finish(self) -> None:
        """Writes what is left, filled up with zeros to whole sectors."""
        self._pending += bytes(-len(self._pending) % SECTOR_SIZE)
        if self._pending:
            self._flush_run(len(self._pending))

    def _flush_run(self, size: int) -> None:
        self._client.write(self.sectors, bytes(self._pending[:size]))
        del self._pending[:size]
        self.sectors += size // SECTOR_SIZE


class SectorReader(io.RawIOBase):
    """A read-only file on the sectors 0 .. sectors - 1."""

    def __init__(self, client: BlockingClient, sectors: int) -> None:
        self._client = client
        self._next = 0
        self._sectors = sectors
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._pending and self._next < self._sectors:
            count = min(MAX_RUN_BYTES // SECTOR_SIZE, self._sectors - self._next)
            self._pending = bytes(self._client.read(self._next, count))
            self._next += count
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size


def write_tree(report: Report, cluster: Cluster, client: BlockingClient, files: list[Source]) -> tuple[Outage, int]:
    outage = Outage(cluster, rank=2)
    writer = SectorWriter(client)
    with (
        report.progress("files written", len(files)) as progress,
        tarfile.open(fileobj=writer, mode="w|", bufsize=MAX_RUN_BYTES) as archive,
    ):
        for done, file in enumerate(files, 1):
            archive.add(file.path, file.name, recursive=False)
            outage.advance(done, len(files))
            progress.advance(progress.tasks[0].id)
    writer.finish()
    return outage, writer.sectors


def compare(report: Report, client: BlockingClient, files: list[Source], sectors: int) -> None:
    reader = io.BufferedReader(SectorReader(client, sectors), MAX_RUN_BYTES)
    with (
        report.progress("files compared", len(files)) as progress,
        tarfile.open(fileobj=reader, mode="r|") as archive,
    ):
        for file in files:
            member = archive.next()
            content = archive.extractfile(member) if member is not None else None
            if member is None or content is None or member.name != file.name:
                raise DemoFailed(f"{file.name} is not where it was written")
            if hashlib.sha256(content.read()).digest() != digest(file.path):
                raise DemoFailed(f"{file.name} differs")
            progress.advance(progress.tasks[0].id)


def run(report: Report, cluster: Cluster, files: list[Source]) -> None:
    """Writes the tree with an outage, reads it back with a second client, compares."""
    config = load_config(cluster.config)
    with report.step("write files as a tar stream; node 2 gets SIGKILL at 1/3, starts again at 2/3") as step:
        with BlockingClient(config) as client:
            outage, sectors = write_tree(report, cluster, client, files)
        step.seen = (f"{len(files)} files, {total_mb(files):.1f} MB, {sectors} sectors; {outage.pieces_without} files "
                     f"in {outage.lasted_s:.1f} s without node 2")
    with report.step("read everything back and compare") as step:
        with BlockingClient(config) as client:
            compare(report, client, files, sectors)
        step.seen = f"{len(files)} files identical (SHA-256)"
