"""Errors of the command line: operating errors become lines on stderr and an exit code, bugs keep their traceback."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import click

from dsreg.errors import (
    AuthenticationFailed,
    ConfigError,
    DsregError,
    NodesFull,
    OperationTimeout,
    UnsealedNode,
    WrongDisk,
    is_config_fault,
)
from dsreg.logs import said

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_NO_QUORUM = 3


class Commands(click.Group):
    """A group that imports each command (`module:name` in `commands_at`) when it is needed."""

    def __init__(self, *args: Any, commands_at: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._commands_at:
            return None
        module, name = self._commands_at[cmd_name].split(":")
        return cast(click.Command, getattr(importlib.import_module(module), name))

    def invoke(self, ctx: click.Context) -> Any:
        with held_warnings() as held:
            ctx.obj = held
            try:
                return super().invoke(ctx)
            except (DsregError, OSError, BaseExceptionGroup) as error:
                errors = operating_errors(error)
                if errors is None:
                    raise
                if exit_code(errors) == EXIT_CONFIG:
                    held.clear()  # no node can be used, which each warning says of one of them
                for line in describe(errors):
                    click.echo(said("dsreg", line), err=True)
                ctx.exit(exit_code(errors))


@contextmanager
def held_warnings() -> Iterator[list[str]]:
    """What the client warns of meanwhile, printed at the end, each line once; taken from the list, it is not."""
    held: list[str] = []

    class Hold(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.append(record.getMessage())

    handler = Hold(logging.WARNING)
    logger = logging.getLogger("dsreg.client")
    logger.addHandler(handler)
    try:
        yield held
    finally:
        logger.removeHandler(handler)
        for line in dict.fromkeys(held):
            click.echo(f"dsreg: warning: {line}", err=True)


def operating_errors(error: BaseException) -> list[Exception] | None:
    """The operating errors that `error` is or, as a group, consists of; None where any of it is a bug.

    Raises KeyboardInterrupt or BrokenPipeError out of a group: both have their own way to end a command.
    """
    found = leaves(error)
    for leaf in found:
        if isinstance(leaf, KeyboardInterrupt | BrokenPipeError):
            raise leaf from None
    errors = [leaf for leaf in found if isinstance(leaf, DsregError | OSError)]
    return list(errors) if len(errors) == len(found) else None


def describe(errors: list[Exception]) -> list[str]:
    """One line per fault, each once."""
    lines: list[str] = []
    for error in errors:
        if isinstance(error, ConfigError):
            lines += error.faults
        elif isinstance(error, AuthenticationFailed):
            lines.append(f"{error.reason}: client_key_file belongs to another cluster; copy it from a host of this one")
        elif isinstance(error, (WrongDisk, UnsealedNode)):
            lines.append(error.reason)  # as a fault of the configuration, which no outcome of an operation adds to
        elif isinstance(error, OSError) and not isinstance(error, DsregError) and error.strerror:
            lines.append(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        else:
            lines.append(" ".join(str(error).split("\n")) or type(error).__name__)
    return list(dict.fromkeys(lines))


def exit_code(errors: list[Exception]) -> int:
    if any(map(is_config_fault, errors)):
        return EXIT_CONFIG
    if any(isinstance(error, OperationTimeout) and not isinstance(error, NodesFull) for error in errors):
        return EXIT_NO_QUORUM
    return EXIT_FAILED


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, in groups in it, and so on; `error` itself where it is no group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
