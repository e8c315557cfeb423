"""What `dsreg debug bundle` looks at on this host, and what it takes out of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from dsreg.config import ClusterConfig, format_address
from dsreg.config.metrics import read_token
from dsreg.version import described_version

# Of each log at most so much, the latest.
MAX_LOG_BYTES = 16 << 20
MAX_METRICS_BYTES = 4 << 20
ASK_S = 5.0
LOG_DIRECTORIES = (Path("/var/log/dsreg"), Path("~/.local/state/dsreg"))

_STAMP = re.compile(rb'(?:\{"time": ")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z')
# A client key has 64 hexadecimal digits, a system key 128; nothing else that is collected has as many.
_KEY = re.compile(rb"[0-9A-Fa-f]{64,}")
_SECRET_NAME = re.compile(r"key|token|secret|password", re.IGNORECASE)
_REMOVED = b"<removed>"


class Missing(Exception):
    """There is nothing to collect; the message says why."""


class Secrets:
    """What must not be passed on: whatever could be a key, and these `values`."""

    def __init__(self, values: set[bytes]) -> None:
        # The longest first: one may be a part of another.
        self._values = sorted(filter(None, values), key=len, reverse=True)

    @classmethod
    def of(cls, file: Path | None, text: str) -> Self:
        """What the configuration `text` in `file` has by itself or in files that it names, as far as it can be read."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            document = {}
        values: set[bytes] = set()
        for section in document.values():
            for name, value in section.items() if isinstance(section, dict) else ():
                if not isinstance(value, str) or not _SECRET_NAME.search(name):
                    continue
                if not name.endswith("_file"):
                    values.add(value.encode())
                elif file is not None:
                    values |= _forms_of(file.parent / value)
        return cls(values)

    def removed_from(self, content: bytes) -> bytes:
        for value in self._values:
            content = content.replace(value, _REMOVED)
        return _KEY.sub(_REMOVED, content)


def _forms_of(path: Path) -> set[bytes]:
    """The key in this file, as it may stand somewhere; nothing if it cannot be read, which is no reason to end."""
    try:
        text = path.read_bytes()[:4096].split()
    except OSError:
        return set()
    forms = set()
    for word in text:
        if re.fullmatch(rb"(?:[0-9A-Fa-f]{2}){16,}", word):
            forms |= {word, word.lower(), word.upper(), bytes.fromhex(word.decode())}
        elif len(word) >= 16:
            forms.add(word)
    return forms


def configuration(text: str, faults: str) -> str:
    """`text`, without what stands in it and should not."""
    if not text:
        raise Missing(faults)
    hidden = re.compile(rf"^(\s*\w*(?:{_SECRET_NAME.pattern})\w*(?<!_file)\s*=\s*).*$", re.IGNORECASE | re.MULTILINE)
    return hidden.sub(r'\1"<removed>"', text)


def described_packages() -> str:
    names = {(found.metadata["Name"] or "?", found.version) for found in importlib.metadata.distributions()}
    lines = sorted((f"{name} {version}" for name, version in names), key=str.lower)
    python = f"Python {sys.version}, {sys.executable}".replace("\n", " ")
    return "\n".join([f"dsreg {described_version()}", python, *lines, ""])


def described_machine(config: ClusterConfig | None) -> str:
    lines = [f"kernel: {' '.join(os.uname())}"]
    try:
        lines.append(f"system: {platform.freedesktop_os_release().get('PRETTY_NAME', '?')}")
    except OSError as error:
        lines.append(f"system: {error}")
    lines += [
        f"libc: {' '.join(platform.libc_ver())}",
        f"processors: {len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        f"memory: {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 20} MiB",
        f"load: {' '.join(f'{value:.2f}' for value in os.getloadavg())}",
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
    ]
    for node in config.nodes if config is not None else ():
        if node.storage.exists():
            lines.append(f"node {node.rank}: {node.storage}: {_file_system_of(node.storage)}")
    return "\n".join([*lines, ""])


def _file_system_of(path: Path) -> str:
    """Its type and options, where it is mounted, and how full it is."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = "of an unknown type"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if fields[2] == number:
            kind = f"{right.split()[0]}, mounted at {fields[4]} ({fields[5]})"
            break
    room = os.statvfs(path)
    total, available = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    return f"{kind}, {available >> 20} of {total >> 20} MiB available"


def storage_listing(directory: Path) -> str:
    """Names of the files, their sizes and what they take: no content."""
    lines = [f"{'bytes':>16} {'taken':>16}  name"]
    for path in sorted(directory.iterdir()):
        status = path.lstat()
        lines.append(f"{status.st_size:16} {status.st_blocks * 512:16}  {path.name}")
    return "\n".join([*lines, ""])


def served_metrics(host: str, port: int, token_file: Path | None) -> bytes:
    """`token_file`: has what is to be shown for them, if something is. Raises Missing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://{format_address(host, port)}/metrics")
    if token_file is not None:
        try:
            request.add_header("Authorization", f"Bearer {read_token(token_file).decode('ascii')}")
        except ValueError as error:
            raise Missing(str(error)) from None
    try:
        with opener.open(request, timeout=ASK_S) as answer:
            return bytes(answer.read(MAX_METRICS_BYTES))
    except (urllib.error.URLError, OSError) as error:
        raise Missing(f"{format_address(host, port)}: {getattr(error, 'reason', error)}") from None


def journal(since_s: float) -> bytes:
    """The entries of all our units. Raises Missing."""
    command = ["journalctl", "--quiet", "--no-pager", "--output=short-iso-precise", f"--since=@{int(since_s)}",
               "--unit=dsreg*"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=60)
    except FileNotFoundError:
        raise Missing("journalctl is not installed") from None
    except subprocess.TimeoutExpired:
        raise Missing("journalctl does not answer") from None
    if not done.stdout:
        said = done.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise Missing(said or "the journal has nothing of units dsreg*, or nothing that this user may read")
    return done.stdout[-MAX_LOG_BYTES:]


def logs_since(since_s: float) -> list[Path]:
    """Log files in their usual places that have been written to since then."""
    found = (path for directory in LOG_DIRECTORIES for path in sorted(directory.expanduser().glob("*.log")))
    return [path for path in found if path.lstat().st_mtime >= since_s]


def recent(path: Path, since_s: float) -> bytes:
    """What has been written to the log file `path` since. Raises OSError, or Missing."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_LOG_BYTES))
        lines = file.read(MAX_LOG_BYTES).splitlines(keepends=True)
    limit = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_s)).encode()
    for index, line in enumerate(lines):
        stamp = _STAMP.match(line)
        if stamp is not None and stamp[1] >= limit:
            return b"".join(lines[index:])
    raise Missing("nothing of the last hour is in it")
