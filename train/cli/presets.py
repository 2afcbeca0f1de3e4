"""``train presets``: what each preset sets."""

from __future__ import annotations

import click

from ..report.print_table import print_table


def attach(group: click.Group) -> None:
    """Add the command to a group."""
    group.add_command(presets_command)


@click.command("presets")
def presets_command() -> None:
    """List what each preset sets.

    The settings have the names of the options of `train run` that override them. Without
    --preset, a dataset has the preset of its name. Any other dataset uses `small-data` on a CPU or
    with fewer than 5,000 clips, and else `default`. `mtat`, `dcase2017` and `speech_commands` are
    those of the published network.

    \b
    Example:
        train presets
        train run --preset demo-small --epochs 8
    """
    from ..config.preset_table import preset_table

    table, shared = preset_table()
    print_table(table)
    listed = ", ".join(f"{name} {value}" for name, value in shared.items())
    click.echo(f"All presets: {listed}.")
