"""stdin, stdout and stderr: opened where they were closed, checked when output ends; and the exit code of a command."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as a shell says of a program that Ctrl-C has ended


def run_command(command: click.Command, name: str) -> NoReturn:
    """The whole life of a process that is `command`; nothing that it prints to stdout is lost without an error."""
    _open_standard_files()
    try:
        code = command.main(prog_name=name, standalone_mode=False)  # the callback's value, or the code of ctx.exit
        code = code if isinstance(code, int) else 0
    except SystemExit as ending:
        code = ending.code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # what click makes of KeyboardInterrupt
        code = EXIT_INTERRUPTED
    except OSError as error:
        code = _complain(name, error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _complain(name, error)
        # What could not be written stays in the buffer, and would fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _complain(name: str, error: OSError) -> int:
    if not isinstance(error, BrokenPipeError):  # whoever reads us has had enough, and knows it
        click.echo(f"{name}: {error.filename or 'error'}: {error.strerror}", err=True)
    return EXIT_FAILED


def _open_standard_files() -> None:
    """Give those of the files 0, 1 and 2 that are closed something to stand on: /dev/null.

    Otherwise the next files that are opened, sockets of the client say, would take these numbers, and what is meant
    for the terminal would go there; and Python has None for such a file in `sys`. Reading from a stdin that was closed,
    and writing to such a stdout, goes on failing with EBADF: data that nobody gets must not pass for delivered. What is
    written to such a stderr is lost.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    if sys.stdout is not None:
        sys.stdout.flush()
    buffered = io.BufferedWriter(_NamedStdout())
    sys.stdout = io.TextIOWrapper(buffered, errors="replace", line_buffering=os.isatty(1))


class _NamedStdout(io.RawIOBase):
    """The file 1. The system does not name the file of an error, which a person could not guess."""

    def fileno(self) -> int:
        return 1

    def isatty(self) -> bool:
        return os.isatty(1)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(1, data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "stdout") from None
