"""Makes what test_upgrade.py opens: `python -m tests.storage.make_old_format`, run by the version whose format it is.

Directories of rank 1 in old_formats/, each a .tar.xz: one that was closed, and one of a process that was
killed with a journal to replay. `CONTENTS` is what is in each; `KILLED` what only the journal of the second one has. Of
formats 4 and 5, which stood for 3 with something more, one that learns, and one with a file `configuration`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from dsreg.protocol.configuration import Ballot
from dsreg.protocol.tags import pack_tag
from dsreg.storage import Identity, OsFiles
from tests.storage.support import checkpoint_now, commit_all, open_storage, store, values

OLD_FORMATS = Path(__file__).parent / "old_formats"
DISK = Identity(bytes(range(16)), 1, (1, 2, 3), 1 << 14)
# First sector, sectors, ts: later ones over earlier ones. The last one is at the end of the disk.
CONTENTS = ((0, 40, 1), (3, 1, 2), (8, 9, 3), (5000, 1, 1), (5003, 1, 2), (8000, 64, 7), (DISK.sectors - 1, 1, 4))
KILLED = ((3, 1, 9), (30, 20, 9), (7777, 1, 1), (8000, 2, 9))
EPOCH, OWNER = 5, b"owner".ljust(64, b"!")
RESTAMPED = (100, 3, 2)  # stored under EPOCH
RESERVED = 77
PROMISED = Ballot(7, bytes(range(16)))
LEARNED = 12000  # the first so many sectors


def make(path: Path, how: str) -> None:
    storage = open_storage(OsFiles(path), DISK)
    for first, count, ts in CONTENTS:
        store(storage, first, count, ts)
        commit_all(storage)
    checkpoint_now(storage)
    storage.close()
    storage = open_storage(OsFiles(path), DISK)
    storage.reserve(RESERVED)
    storage.fence(EPOCH, OWNER)
    first, count, ts = RESTAMPED
    storage.persist(first, count, pack_tag(ts, 1, 0, EPOCH) * count, values(first, count, ts))
    commit_all(storage)
    if how == "killed":
        for first, count, ts in KILLED:
            store(storage, first, count, ts)
            commit_all(storage)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "learning":
        storage.learning.begin()
        assert storage.learning.learned(0, LEARNED)
    if how == "configured":
        storage.configuration.remember(storage.configuration.record._replace(promised=PROMISED))
    storage.close()


def main() -> None:
    if len(sys.argv) > 1:
        make(Path(sys.argv[2]), sys.argv[1])
        return
    OLD_FORMATS.mkdir(exist_ok=True)
    for number, how in ((3, "closed"), (3, "killed"), (4, "learning"), (5, "configured"), (6, "closed"), (6, "killed")):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "node-1"
            subprocess.run([sys.executable, "-m", "tests.storage.make_old_format", how, str(path)], check=False)
            with tarfile.open(OLD_FORMATS / f"format-{number}-{how}.tar.xz", "w:xz") as archive:
                for file in sorted(path.iterdir()):
                    archive.add(file, file.name)


if __name__ == "__main__":
    main()
