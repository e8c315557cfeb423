"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from dsreg.config import ClusterConfig, find_config, load_config, parse_address, parse_size
from dsreg.config.scrubbing import SCRUB_DAYS_RULE, are_scrub_days
from dsreg.errors import ConfigError
from dsreg.logs import FORMAT_VARIABLE, FORMATS, TEXT

_FILE = click.Path(dir_okay=False, path_type=Path)


def to_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Option callback: bytes for a size such as 4KiB or 1GiB."""
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def to_address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Option callback: (host, port) of HOST:PORT."""
    if value is None:
        return None
    try:
        return parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def to_scrub_days(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Option callback: days, as the configuration may have them."""
    if value is not None and not are_scrub_days(value):
        raise click.BadParameter(SCRUB_DAYS_RULE, ctx, param)
    return value


class Sector(click.IntRange):
    """A sector's number. Where a configuration stands in its place, as other commands take it, -c is named."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.endswith(".toml"):
            self.fail(f"{value} is not a number; a configuration is named with -c {value}", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A time, above `min`. Neither `nan`, which compares with nothing, nor `inf`."""

    def __init__(self, min: float = 0.0) -> None:
        super().__init__(min=min, min_open=min == 0.0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds; write one such as 2.5", param, ctx)
        return seconds


config_option = click.option(
    "-c", "--config", "config_path", type=_FILE, metavar="FILE", help="The cluster.toml to use.")
config_argument = click.argument("file", type=_FILE, required=False, metavar="[FILE]")
timeout_option = click.option(
    "--timeout", "timeout_s", type=Seconds(), default=30.0, show_default=True,
    metavar="SECONDS", help="How long one request may wait for a majority.",
)

log_format_option = click.option(
    "--log-format", type=click.Choice(FORMATS), envvar=FORMAT_VARIABLE, default=TEXT, show_default=True,
    help=f"text: lines for people. json: one object a line, see docs/logs.md.  [env: {FORMAT_VARIABLE}]")

slow_ms_option = click.option(
    "--slow-ms", type=click.IntRange(min=0), metavar="MS",
    help="Log requests that take so many milliseconds or longer, with what they have waited for; 0: none.  "
         "[default: as configured, or 0]")


def chosen_config(path: Path | None, other: Path | None = None, *, need_system_key: bool = False) -> ClusterConfig:
    """The configuration that was named by option or argument, or else found. Raises ConfigError."""
    if path is not None and other is not None and path != other:
        raise ConfigError([f"{path} and {other} are both named; name one configuration"])
    found = find_config(path or other)
    if found is None:
        raise ConfigError(["no configuration found; name one with --config or $DSREG_CONFIG, "
                           "or create a cluster with `dsreg init`"])
    return load_config(found, need_system_key=need_system_key)
