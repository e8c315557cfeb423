"""Man pages of all commands, made from what `--help` says: python -m scripts.manpages DIRECTORY"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dsreg.version import VERSION

PROGRAMS = {"dsreg": "dsreg.cli:cli", "dsreg-fuse": "fuse_frontend.cli:main", "dsreg-nbd": "nbd_frontend.cli:main"}
# Marks a paragraph of a help text that keeps its lines: see click's documentation.
KEPT = "\b"


def pages() -> Iterator[tuple[str, str]]:
    """The name of each file, and its content."""
    for program, where in PROGRAMS.items():
        module, name = where.split(":")
        yield from _pages_of(getattr(importlib.import_module(module), name), click.Context(click.Command(program)),
                             (program,))


def _pages_of(command: click.Command, parent: click.Context, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=words[-1], parent=parent if len(words) > 1 else None,
                            **command.context_settings)
    inner = _commands_of(command, context)
    yield f"{'-'.join(words)}.1", page(command, context, words, inner)
    for found in inner:
        assert found.name is not None
        yield from _pages_of(found, context, (*words, found.name))


def _commands_of(command: click.Command, context: click.Context) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return []
    found = (command.get_command(context, name) for name in command.list_commands(context))
    return [one for one in found if one is not None and not one.hidden]


def page(command: click.Command, context: click.Context, words: tuple[str, ...], inner: list[click.Command]) -> str:
    """In the language of man(7)."""
    name = "-".join(words)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {escaped(name.upper())} 1 "" "dsreg {VERSION}" "dsreg"',
        ".SH NAME", f"{escaped(name)} \\- {escaped(summary(command))}",
        ".SH SYNOPSIS", f"\\fB{escaped(' '.join(words))}\\fR {escaped(usage)}",
        ".SH DESCRIPTION", *_paragraphs(command.help or ""),
    ]
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    options = [record for record in records if record is not None and record[1]]
    if options:
        lines.append(".SH OPTIONS")
        for option, text in options:
            lines += [".TP", f"\\fB{escaped(option)}\\fR", *_paragraphs(text)[1:]]
    if inner:
        lines.append(".SH COMMANDS")
        for found in inner:
            lines += [".TP", f"\\fB{escaped(' '.join((*words, found.name or '')))}\\fR", escaped(summary(found))]
    if command.epilog:
        lines += [".SH NOTES", *_paragraphs(command.epilog)]
    others = ["-".join(words[:-1])] if len(words) > 1 else ["-".join((*words, found.name or "")) for found in inner]
    if not others:
        others = [program for program in PROGRAMS if program != name]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{escaped(other)}\\fR(1)" for other in others)]
    return "\n".join([*lines, ""])


def summary(command: click.Command) -> str:
    """The first sentence, without its full stop."""
    text = " ".join((command.help or "").replace(KEPT, "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)])[.:](?: |$)", text)[0]


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        is_kept = paragraph.lstrip(" \n").startswith(KEPT)
        rows = [row.rstrip() for row in paragraph.replace(KEPT, "").split("\n") if row.strip()]
        if not rows:
            continue
        kept = [".nf", *map(escaped, rows), ".fi"]
        lines += [".PP", *(kept if is_kept else [escaped(" ".join(row.strip() for row in rows))])]
    return lines


def escaped(text: str) -> str:
    """As text, not as a request of roff."""
    for character, name in (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("~", "\\(ti"), ("^", "\\(ha")):
        text = text.replace(character, name)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in pages():
        (directory / name).write_text(content)


if __name__ == "__main__":
    main()
