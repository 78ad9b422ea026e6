"""`nova-status upgrade check`: whether this release can go to work. Exit codes: 0 yes, 1 with warnings, 2 no."""

from __future__ import annotations

import sys
import textwrap
from typing import NamedTuple

import typer

from kilonova import config
from kilonova.cli import guarded, manage
from kilonova.cli.options import ConfigFiles
from kilonova.cli.tables import boxed
from kilonova.db import hosts, schema
from kilonova.db.engine import Database
from kilonova.errors import KilonovaError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
upgrade_app = typer.Typer(no_args_is_help=True, help="Upgrades.")
app.add_typer(upgrade_app, name="upgrade")

SUCCESS, WARNING, FAILURE = "Success", "Warning", "Failure"
WIDTH = 76
"""Characters in a line of details."""
_CODES = {SUCCESS: 0, WARNING: 1, FAILURE: 2}


class Check(NamedTuple):
    name: str
    result: str
    details: str | None = None


@app.callback()
def status(
    config_file: ConfigFiles = None,
) -> None:
    """Look at a deployment."""
    manage.manage(config_file)


def main() -> None:
    """Entry point of `nova-status`."""
    guarded(lambda: app(prog_name="nova-status", args=sys.argv[1:]))


@upgrade_app.command("check")
def check() -> None:
    """Look at configuration, schema and services. Exit codes: 0 fine, 1 warnings, 2 failures."""
    checks = [_configuration()]
    if checks[0].result != FAILURE:
        checks += [manage.with_database(_schema, unreachable=2), manage.with_database(_services, unreachable=2)]
    print(boxed("Upgrade Check Results", [_lines(each) for each in checks]))
    raise typer.Exit(max(_CODES[c.result] for c in checks))


def _lines(found: Check) -> list[str]:
    details = textwrap.wrap(f"Details: {found.details}", WIDTH, subsequent_indent="  ")
    return [f"Check: {found.name}", f"Result: {found.result}", *details]


def _configuration() -> Check:
    name = "Configuration"
    try:
        config.load(manage.chosen_files())
    except KilonovaError as error:
        return Check(name, FAILURE, error.message)
    ignored = [finding.text for path in manage.chosen_files() for finding in config.review(path) if not finding.old]
    return Check(name, WARNING if ignored else SUCCESS, "; ".join(ignored) or None)


async def _schema(db: Database) -> Check:
    found = await schema.revision(db)
    if found == schema.newest():
        return Check("Database schema", SUCCESS)
    if schema.serves(found):
        return Check("Database schema", WARNING, f"revision {found}, the next release's: replace this release's roles")
    return Check(
        "Database schema", FAILURE, f"revision {found or 'none'}, needs {schema.newest()}: nova-manage db sync"
    )


async def _services(db: Database) -> Check:
    if not schema.serves(await schema.revision(db)):
        return Check("Services", WARNING, "not looked at: the schema is not there")
    found = await db.read(lambda tx: hosts.find_services(tx, service_down_time=60.0))
    down = [f"{service.binary} on {service.host}" for service in found if not service.up and not service.forced_down]
    return Check("Services", WARNING if down else SUCCESS, f"not heard of: {', '.join(down)}" if down else None)


if __name__ == "__main__":
    main()
