"""``prep completion`` and ``train completion``: what makes a shell complete their words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_LINES = {
    "bash": 'eval "$({command} completion bash)"',
    "zsh": 'eval "$({command} completion zsh)"',
    "fish": "{command} completion fish | source",
}


def completion(group: click.Group) -> click.Command:
    """The command that prints the completion script of `group` for a shell."""
    name = group.name or ""

    def show(shell: str) -> None:
        kind = get_completion_class(shell)
        assert kind is not None  # click knows the three
        click.echo(kind(group, {}, name, f"_{name.upper()}_COMPLETE").source())

    lines = "\n".join(f"    {line.format(command=name)}" for line in _LINES.values())
    return click.Command(
        "completion",
        callback=show,
        params=[click.Argument(["shell"], type=click.Choice(list(_LINES)))],
        help=(
            "Print what completes commands, options and choices in a shell.\n\n"
            "One of these lines in ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish turns it on."
            f"\n\n\b\nExample:\n{lines}"
        ),
    )
