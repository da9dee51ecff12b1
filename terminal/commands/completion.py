"""The command that prints what a shell needs to complete commands: completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the code that lets SHELL complete commands and options of setcon.

    For bash put `eval "$(setcon completion bash)"` into ~/.bashrc, for zsh the same with zsh into
    ~/.zshrc; for fish run `setcon completion fish > ~/.config/fish/completions/setcon.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    click.echo(kind(context.find_root().command, {}, "setcon", "_SETCON_COMPLETE").source())


COMMANDS = (completion,)
