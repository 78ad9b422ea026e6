"""The app's share of what `cli.roles` is: how roles are listed, and options that other commands have too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from kilonova.cli import roles

ConfigFiles = Annotated[list[Path] | None, typer.Option("--config-file", help=roles.CONFIG_FILE)]


def add_roles(app: typer.Typer) -> None:
    """Every role as a command of `kilonova`."""
    for name in roles.COMMANDS:
        app.command(name, rich_help_panel="Roles")(_command(name))


def _command(name: str) -> Callable[..., None]:
    def role(
        config_file: ConfigFiles = None,
        log_file: Annotated[Path | None, typer.Option(help=roles.LOG_FILE)] = None,
        debug: Annotated[bool, typer.Option("--debug", help=roles.DEBUG)] = False,
    ) -> None:
        roles.be(name, config_file or (), log_file, debug)

    role.__doc__ = roles.COMMANDS[name][1]
    return role
