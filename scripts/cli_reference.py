"""docs/reference-cli.md: all commands and their options, made from their help texts: python -m scripts.cli_reference"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import click

from scripts.manpages import PROGRAMS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference-cli.md"
# Columns of the help texts.
WIDTH = 100
HEAD = """\
# Commands

What each command says with `--help`. This page is made of the commands themselves: after a change to one of them,
`python -m scripts.cli_reference` writes it anew.
"""


def document() -> str:
    """The page, in Markdown."""
    commands = [found for program, where in PROGRAMS.items() for found in _of_program(program, where)]
    index = "\n".join(f"- [`{name}`](#{name.replace(' ', '-')})" for name, _ in commands)
    return "\n".join([HEAD, index, "", *(f"## {name}\n\n```text\n{text}\n```\n" for name, text in commands)])


def _of_program(program: str, where: str) -> Iterator[tuple[str, str]]:
    module, name = where.split(":")
    yield from _of(getattr(importlib.import_module(module), name), program, None)


def _of(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Its words and its help text, and those of all below it that are not hidden."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, **settings)
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            if found is not None and not found.hidden:
                yield from _of(found, f"{name} {word}", context)


def main() -> None:
    PAGE.write_text(document())


if __name__ == "__main__":
    main()
