"""`dsreg debug bundle`: what a report of a fault needs, in one archive, without keys and without data of the disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import trio

from dsreg.cli.debug_parts import (
    Missing,
    Secrets,
    configuration,
    described_machine,
    described_packages,
    journal,
    logs_since,
    recent,
    served_metrics,
    storage_listing,
)
from dsreg.cli.faults import describe
from dsreg.cli.options import Seconds, config_option
from dsreg.cli.status_json import as_dict, findings_as_dict
from dsreg.cli.survey import survey_once
from dsreg.config import ClusterConfig, find_config, load_config
from dsreg.errors import ConfigError, DsregError
from dsreg.version import described_version

LOGS_OF_S = 3600.0


class Part(NamedTuple):
    """One file of the archive."""

    name: str
    content: bytes


class Bundle:
    """Parts, and what could not be had and why."""

    def __init__(self, secrets: Secrets) -> None:
        self.parts: list[Part] = []
        self.missing: dict[str, str] = {}
        self._secrets = secrets

    def collect(self, name: str, get: Callable[[], str | bytes]) -> None:
        """What `get` gives is the file `name`. It raises Missing, DsregError or OSError."""
        name = "".join(character if character.isprintable() else "?" for character in name)
        try:
            content = get()
        except Missing as error:
            self.missing[name] = str(error)
        except (DsregError, OSError) as error:
            self.missing[name] = "; ".join(describe([error]))
        else:
            raw = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
            self.parts.append(Part(name, self._secrets.removed_from(raw)))

    def archive(self, directory: str, *, compressed: bool) -> bytes:
        """A tar archive with all parts below `directory`, `manifest.json` first."""
        manifest = {
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": socket.gethostname(),
            "dsreg": described_version(),
            "files": [{"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                      for name, content in self.parts],
            "not_collected": [{"name": name, "reason": reason} for name, reason in self.missing.items()],
        }
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz" if compressed else "w") as tar:
            for name, content in (Part("manifest.json", _json(manifest).encode()), *self.parts):
                entry = tarfile.TarInfo(f"{directory}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()


@click.group()
def debug() -> None:
    """For reports of faults."""


@debug.command()
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@config_option
@click.option("--timeout", "timeout_s", type=Seconds(), default=5.0, show_default=True, metavar="SECONDS",
              help="How long to wait for the nodes.")
@click.option("--log", "logs", type=click.Path(path_type=Path, dir_okay=False), multiple=True, metavar="LOGFILE",
              help="Add the last hour of this log file, too; once for each.")
@click.pass_obj
def bundle(warnings: list[str], archive: Path, config_path: Path | None, timeout_s: float,
           logs: tuple[Path, ...]) -> None:
    """Collect what a report of a fault needs into FILE, a new tar archive for this user alone.

    \b
    In it: versions of dsreg, Python, packages and the kernel; the machine, file systems; the configuration; status
    and health of the cluster, as far as nodes answer; metrics, where nodes serve them; names and sizes of the files
    of nodes on this host; logs of the last hour: systemd's journal, what is below /var/log/dsreg and
    ~/.local/state/dsreg, --log.

    With a name that ends in .gz or .tgz it is compressed. No keys, and no data of the disk. What could not be
    collected is printed, and stands in manifest.json. Addresses, host names and paths are in it: look at it before you
    pass it on.
    """
    if archive.suffix == ".toml":
        raise click.UsageError(f"{archive} is to be the new archive; a configuration is named with -c {archive}")
    if archive.exists():
        raise click.UsageError(f"{archive} exists; name a new file")
    found = find_config(config_path)
    made = collected(found, timeout_s, logs)
    warnings.clear()  # of the client; what they are about is in the status
    name = f"dsreg-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    _write_new(archive, made.archive(name, compressed=archive.suffix in (".gz", ".tgz")))
    for part, reason in made.missing.items():
        click.echo(f"dsreg: not collected: {part}: {reason}", err=True)
    click.echo(f"{archive}: {len(made.parts)} files. Look at what is in it before you pass it on: tar tf {archive}")


def collected(file: Path | None, timeout_s: float, logs: tuple[Path, ...]) -> Bundle:
    """All that can be had of the cluster of the configuration `file`, and of this host."""
    text, faults, config = "", "no configuration found; name one with --config or $DSREG_CONFIG", None
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
            config, faults = load_config(file, need_system_key=False), ""
        except (ConfigError, OSError) as error:
            faults = "\n".join(describe([error]))
    secrets = Secrets.of(file, text)
    made = Bundle(secrets)
    made.collect("machine.txt", lambda: described_machine(config))
    made.collect("packages.txt", described_packages)
    made.collect("cluster.toml", lambda: configuration(text, faults))
    if faults:
        made.collect("configuration-faults.txt", lambda: faults + "\n")
    if config is None:
        made.missing |= dict.fromkeys(("status.json", "health.json"), "there is no configuration that can be used")
    else:
        _ask(made, config, timeout_s)
        _look_at_nodes(made, config)
    since_s = time.time() - LOGS_OF_S
    made.collect("logs/journal.txt", lambda: journal(since_s))
    for path in (*logs, *logs_since(since_s)):
        made.collect(f"logs{path.absolute()}", partial(recent, path, since_s))
    return made


def _ask(made: Bundle, config: ClusterConfig, timeout_s: float) -> None:
    try:
        seen = trio.run(survey_once, config, timeout_s)
    except (DsregError, OSError) as error:
        made.missing |= dict.fromkeys(("status.json", "health.json"), "; ".join(describe([error])))
        return
    made.collect("status.json", lambda: _json(as_dict(config, seen)))
    made.collect("health.json", lambda: _json(findings_as_dict(seen.findings(config))))
    for answer in seen.answers:
        if answer.report is None:
            made.missing[f"status.json: node {answer.node.rank}"] = answer.fault


def _look_at_nodes(made: Bundle, config: ClusterConfig) -> None:
    for node in config.nodes:
        if (at := config.metrics_at(node.rank)) is not None:
            made.collect(f"metrics-{node.rank}.txt", partial(served_metrics, *at, config.metrics_token_file))
        if node.storage.exists():
            made.collect(f"storage-{node.rank}.txt", partial(storage_listing, node.storage))


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write_new(path: Path, content: bytes) -> None:
    """Raises OSError, and leaves nothing behind then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        path.unlink()
        raise
