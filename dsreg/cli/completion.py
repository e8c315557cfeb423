"""`dsreg completion`: the script that teaches a shell our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOWTO = """\
\b
  bash: dsreg completion bash > ~/.local/share/bash-completion/completions/dsreg
  zsh:  dsreg completion zsh > ~/.zfunc/_dsreg    (with fpath+=~/.zfunc before compinit)
  fish: dsreg completion fish > ~/.config/fish/completions/dsreg.fish
"""


@click.command(help=f"Print the completion script for a shell.\n\n{_HOWTO}")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    completer = get_completion_class(shell)
    assert completer is not None, "the choices are the shells that click knows"
    click.echo(completer(ctx.find_root().command, {}, "dsreg", "_DSREG_COMPLETE").source())
