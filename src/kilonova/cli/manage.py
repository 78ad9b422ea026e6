"""`nova-manage`: the database's schema, rows of deleted servers, and what there is of cells (one).

Exit codes are those that operators' scripts know: 0 done, and for each command what its help says.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import sqlalchemy.exc
import typer

from kilonova import config
from kilonova.cli import guarded
from kilonova.cli.tables import table
from kilonova.db import archive, hosts, schema
from kilonova.db import restored as after_backup
from kilonova.db.engine import Database
from kilonova.errors import KilonovaError
from kilonova.service import deployment
from kilonova.service.process import DEFAULT_FILES

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
db_app = typer.Typer(no_args_is_help=True, help="The database.")
api_db_app = typer.Typer(no_args_is_help=True, help="The API's database, which is the same one here.")
cell_app = typer.Typer(no_args_is_help=True, help="Cells: there is one, and nothing to do for it.")
app.add_typer(db_app, name="db")
app.add_typer(api_db_app, name="api_db")
app.add_typer(cell_app, name="cell_v2")

_files: list[Path] = []

BATCH = 1000
"""Rows moved in one go until all are."""

Verbose = Annotated[bool, typer.Option("--verbose", help="Say what was done.")]
Before = Annotated[str | None, typer.Option("--before", help="A date, e.g. 2026-11-01 or '2026-11-01 12:30:00'.")]


@app.callback()
def manage(
    config_file: Annotated[
        list[Path] | None, typer.Option("--config-file", help="A nova.conf; may be repeated.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Of no effect; scripts say it.")] = False,
) -> None:
    """Look after a deployment's database."""
    _files[:] = config_file or DEFAULT_FILES


def main() -> None:
    """Entry point of `nova-manage`."""
    guarded(lambda: app(prog_name="nova-manage", args=sys.argv[1:]))


def chosen_files() -> list[Path]:
    """The configuration files that the command line names."""
    return _files


def with_database(work: Callable[[Database], Awaitable[T]], *, unreachable: int = 1) -> T:
    """Do it on the database of nova.conf; ends the program with `unreachable` when that does not answer."""
    options = deployment.database(config.load(_files))

    async def run() -> T:
        db = Database(options.url, pool_size=1)
        try:
            return await work(db)
        finally:
            await db.close()

    # The driver repeats MariaDB's notes on names of primary keys, which it does not keep.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    try:
        return asyncio.run(run())
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        print(f"error: the database does not answer: {str(error).splitlines()[0]}", file=sys.stderr)
        raise typer.Exit(unreachable) from None


# -- schema
@db_app.command("sync")
@api_db_app.command("sync")
def sync(
    version: Annotated[str | None, typer.Argument(help="The newest revision, which it is anyway.")] = None,
    local_cell: Annotated[bool, typer.Option("--local_cell", help="Of no effect: there is one cell.")] = False,
) -> None:
    """Bring the database's schema to this release. Again: a no-op. Exit code 1 when that cannot be."""
    if version is not None and version != schema.newest():
        raise KilonovaError(f"This release's schema is {schema.newest()}; it cannot be brought to {version}.")
    with_database(schema.migrate)


@db_app.command("version")
@api_db_app.command("version")
def version() -> None:
    """Print the schema's revision; 0 for an empty database."""
    print(with_database(schema.revision) or "0")


@db_app.command("restored")
def restored() -> None:
    """After a backup was loaded, before any role starts: have numbers go on above all that hosts may know."""
    nexts, under_way = with_database(_restored)
    for name, number in sorted(nexts.items()):
        print(f"{name}: numbers go on from {number}")
    print(f"operations that go on from where they stood: {under_way}")


async def _restored(db: Database) -> tuple[dict[str, int], int]:
    found = await schema.revision(db)
    if found != schema.newest():
        raise KilonovaError(f"The schema is of revision {found or 'none'}, not {schema.newest()}: first 'db sync'.")
    return await after_backup.restored(db)


@db_app.command("online_data_migrations")
def online_data_migrations(
    max_count: Annotated[
        int | None, typer.Option("--max-count", "--max_count", help="Rows to migrate at most.")
    ] = None,
) -> None:
    """Migrate data while services run: none is needed by this release. Exit code 127 for a --max-count below 1."""
    if max_count is not None and max_count < 1:
        print("Must supply a positive value for max_number")
        raise typer.Exit(127)
    with_database(schema.revision)
    if max_count is None:
        print("Running batches of 50 until complete")
    print(table(("Migration", "Total Needed", "Completed"), ()))


# -- rows of deleted servers
@db_app.command("archive_deleted_rows")
def archive_deleted_rows(
    max_rows: Annotated[int, typer.Option("--max_rows", help="Rows to move at most.")] = BATCH,
    verbose: Verbose = False,
    until_complete: Annotated[bool, typer.Option("--until-complete", help="Go on until nothing is left.")] = False,
    before: Before = None,
    purge_too: Annotated[bool, typer.Option("--purge", help="Drop what was moved, at the end.")] = False,
    sleep: Annotated[float, typer.Option("--sleep", help="Seconds between two rounds of --until-complete.")] = 0.0,
    all_cells: Annotated[bool, typer.Option("--all-cells", help="Of no effect: there is one cell.")] = False,
    task_log: Annotated[bool, typer.Option("--task-log", help="Of no effect: there is no such log.")] = False,
) -> None:
    """Move deleted servers' rows out of the way.

    Exit codes: 0 nothing was moved (with --until-complete: all was), 1 something was, 2 a bad --max_rows,
    3 the database does not answer, 4 a bad --before.
    """
    if max_rows < 0:
        print("Must supply a positive value for max_rows")
        raise typer.Exit(2)
    if max_rows > 0x7FFFFFFF:
        print(f"max rows must be <= {0x7FFFFFFF}")
        raise typer.Exit(2)
    until = _date(before, code=4)
    moved = with_database(lambda db: _archive(db, max_rows, until, until_complete, sleep), unreachable=3)
    if verbose:
        rows = sorted(moved.items())
        print(table(("Table", "Number of Rows Archived"), rows, left=True) if rows else "Nothing was archived.")
    if purge_too:
        _print_purged(with_database(lambda db: archive.purge(db, before=until), unreachable=3), verbose)
    raise typer.Exit(0 if until_complete or not moved else 1)


async def _archive(
    db: Database, max_rows: int, before: dt.datetime | None, until_complete: bool, sleep: float
) -> dict[str, int]:
    total: dict[str, int] = {}
    while True:
        now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        moved = await archive.archive(db, now=now, before=before, max_rows=max_rows)
        for name, count in moved.items():
            total[name] = total.get(name, 0) + count
        if not until_complete or not moved:
            return total
        await asyncio.sleep(sleep)


@db_app.command("purge")
def purge(
    all_rows: Annotated[bool, typer.Option("--all", help="Everything that was moved.")] = False,
    before: Before = None,
    verbose: Verbose = False,
    all_cells: Annotated[bool, typer.Option("--all-cells", help="Of no effect: there is one cell.")] = False,
) -> None:
    """Drop what archive_deleted_rows has moved.

    Exit codes: 0 rows were dropped, 1 neither --all nor --before, 2 a bad --before, 3 there was nothing to drop,
    4 the database does not answer.
    """
    if not all_rows and before is None:
        print("Either --before or --all is required")
        raise typer.Exit(1)
    until = None if all_rows else _date(before, code=2)
    dropped = with_database(lambda db: archive.purge(db, before=until), unreachable=4)
    _print_purged(dropped, verbose)
    raise typer.Exit(0 if dropped else 3)


def _print_purged(dropped: dict[str, int], verbose: bool) -> None:
    if verbose:
        for name, count in sorted(dropped.items()):
            print(f"{name}: {count} rows dropped")


def _date(text: str | None, *, code: int) -> dt.datetime | None:
    if text is None:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        print(f"Invalid value for --before: {text}")
        raise typer.Exit(code) from None
    return found.astimezone(dt.UTC).replace(tzinfo=None) if found.tzinfo else found


# -- cells
@cell_app.command("map_cell0")
def map_cell0(
    database_connection: Annotated[str | None, typer.Option("--database_connection", help="Of no effect.")] = None,
) -> None:
    """Nothing to do: servers that found no host are with all others."""
    with_database(schema.revision)
    print("Cell0 is already setup")


@cell_app.command("simple_cell_setup")
def simple_cell_setup(
    transport_url: Annotated[str | None, typer.Option("--transport-url", help="Of no effect.")] = None,
) -> None:
    """Nothing to do."""
    map_cell0()


@cell_app.command("create_cell")
def create_cell(
    name: Annotated[str | None, typer.Option("--name", help="Of no effect: it is called cell1.")] = None,
    verbose: Verbose = False,
    transport_url: Annotated[str | None, typer.Option("--transport-url", help="Of no effect.")] = None,
    database_connection: Annotated[str | None, typer.Option("--database_connection", help="Of no effect.")] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Refused: it is the only one.")] = False,
) -> None:
    """Nothing to do: the one cell is there. With --verbose its id is printed. Exit code 1 for --disabled."""
    conf = config.load(_files)
    with_database(schema.revision)
    if disabled:
        print("There is one cell, and it cannot be disabled")
        raise typer.Exit(1)
    if verbose:
        print(_cell_uuid(conf))


@cell_app.command("discover_hosts")
def discover_hosts(
    verbose: Verbose = False,
    cell_uuid: Annotated[str | None, typer.Option("--cell_uuid", help="Of no effect.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1: no host is ever new.")] = False,
    by_service: Annotated[bool, typer.Option("--by-service", help="Of no effect.")] = False,
) -> None:
    """Nothing to do: a host counts from its first report on."""
    cell = _cell_uuid(config.load(_files))
    with_database(schema.revision)
    if verbose:
        print("Found 2 cell mappings.")
        print("Skipping cell0 since it does not contain hosts.")
        print(f"Getting computes from cell 'cell1': {cell}")
        print(f"Found 0 unmapped computes in cell: {cell}")
    raise typer.Exit(1 if strict else 0)


@cell_app.command("list_cells")
def list_cells(verbose: Verbose = False) -> None:
    """List them; with --verbose, passwords too."""
    conf = config.load(_files)
    url = deployment.database(conf).url
    brokers = deployment.broker(conf, "nova-manage").brokers
    vhost = brokers[0].vhost.lstrip("/")
    transport = "rabbit://" + ",".join(f"{b.user}:{b.password}@{b}" for b in brokers) + f"/{vhost}"
    shown: Callable[[str], str] = str if verbose else _masked
    print(
        table(
            ("Name", "UUID", "Transport URL", "Database Connection", "Disabled"),
            [
                ("cell0", uuid.UUID(int=0), "none:/", shown(url), False),
                ("cell1", _cell_uuid(conf), shown(transport), shown(url), False),
            ],
        )
    )


@cell_app.command("list_hosts")
def list_hosts(
    cell_uuid: Annotated[str | None, typer.Option("--cell_uuid", help="Of no effect.")] = None,
) -> None:
    """List the hosts, all of which are in the one cell."""
    cell = _cell_uuid(config.load(_files))
    found = with_database(
        lambda db: db.read(lambda tx: hosts.find_services(tx, service_down_time=60.0, binary=hosts.COMPUTE))
    )
    print(table(("Cell Name", "Cell UUID", "Hostname"), [("cell1", cell, service.host) for service in found]))


def _cell_uuid(conf: Any) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"kilonova:{conf.deployment_id}:cell1")


def _masked(url: str) -> str:
    return re.sub(r"(?<=:)[^:/@]*(?=@)", "****", url)


if __name__ == "__main__":
    main()
