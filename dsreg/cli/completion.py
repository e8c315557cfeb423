"""`dsreg completion`: the script that teaches a shell the commands and options of our programs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOWTO = """\
\b
  bash: dsreg completion bash > ~/.local/share/bash-completion/completions/dsreg
  zsh:  dsreg completion zsh > ~/.zfunc/_dsreg    (with fpath+=~/.zfunc before compinit)
  fish: dsreg completion fish > ~/.config/fish/completions/dsreg.fish
and the same for dsreg-fuse and dsreg-nbd:
  bash: dsreg completion bash dsreg-fuse > ~/.local/share/bash-completion/completions/dsreg-fuse
"""


@click.command(help=f"Print the completion script of PROGRAM for a shell.\n\n{_HOWTO}")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.argument("program", type=click.Choice(["dsreg", "dsreg-fuse", "dsreg-nbd"]), default="dsreg")
@click.pass_context
def completion(ctx: click.Context, shell: str, program: str) -> None:
    completer = get_completion_class(shell)
    assert completer is not None, "the choices are the shells that click knows"
    # The script calls the program with this variable set; of the command the completer needs nothing to write it.
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    click.echo(completer(ctx.find_root().command, {}, program, variable).source())
