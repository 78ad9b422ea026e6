"""Roles by their commands, and by the guide's names."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

from typer.testing import CliRunner

from kilonova.cli.app import app
from kilonova.cli.roles import COMMANDS
from kilonova.service.roles import ROLES

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


def test_each_role_has_a_command_and_the_guides_program() -> None:
    assert {name: role.program for name, role in ROLES.items()} == {
        name: program for name, (program, _) in COMMANDS.items()
    }
    assert {program for program, _ in COMMANDS.values() if program.startswith("nova-")} <= SCRIPTS.keys()
    listed = CliRunner().invoke(app, ["--help"]).output
    assert all(name in listed for name in COMMANDS)


def test_every_script_is_there() -> None:
    for script, target in SCRIPTS.items():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function)), script
