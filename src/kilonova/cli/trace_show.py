"""A server's operations, read and shown as waterfalls."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kilonova import config
from kilonova.allinone.errors import CloudError
from kilonova.cli.waterfall import Bar, bars, drawn, total
from kilonova.db import trace as rows
from kilonova.db.engine import Database
from kilonova.db.trace import Found, TracedOperation
from kilonova.service import deployment

_COLOURS = {
    "step": "blue",
    "undo": "magenta",
    "failed": "red",
    "gap": "yellow",
    "scheduler": "cyan",
    "turn": "yellow",
    "host": "green",
    "networking": "cyan",
    "retry": "red",
}
_STATES = {"done": "green", "failed": "red", "stuck": "bold red", "superseded": "yellow"}
_MARKS = (12, 60)
"""Least and most characters of the line of time."""
_TEXT = 75
"""Characters that the other columns get before the line of time grows."""
_NOTES = 40
"""Most of them for notes, if there are any."""


def show(url: str, server: str, *, limit: int, request: str | None) -> None:
    """Print the newest `limit` operations, or that of one request. Raises CloudError for what cannot be found."""
    found, operations = asyncio.run(_read(url, server, limit if request is None else 1000))
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    shown = [operation for operation in operations if request in (None, operation.request_id)]
    if not shown:
        raise CloudError(
            f"server {found.uuid} has no operation of request {request}" if request else "it has no operations",
            remedy="leave --request out to see all" if request else None,
        )
    console = Console()
    console.print(f"[bold]{found.name}[/bold]  {found.uuid}{'  (deleted)' if found.deleted else ''}", highlight=False)
    for operation in shown:
        before = [other for other in operations if other.id < operation.id]
        console.print()
        console.print(_headline(operation, now), highlight=False)
        console.print(_table(bars(operation, before, now), total(operation, now), console.width))


def database_url(state_dir: Path) -> str:
    """Of an all-in-one cloud, whether it runs or not. Raises CloudError where there is none."""
    path = state_dir.resolve() / "kilonova/compute.sqlite"
    if not path.is_file():
        raise CloudError(
            f"there is no cloud in {state_dir.resolve()}", remedy="name its directory with --state-dir, or: kilonova up"
        )
    return f"sqlite:///{path}"


def configured_url(files: Sequence[Path]) -> str:
    """Of a deployment's database. Raises Invalid where the files do not say it."""
    return deployment.database(config.load(files)).url


async def _read(url: str, text: str, limit: int) -> tuple[Found, list[TracedOperation]]:
    db = Database(url)
    try:
        found = the_one(text, await db.read(lambda tx: rows.find(tx, text)))
        return found, await db.read(lambda tx: rows.operations_of(tx, found.uuid, limit=limit))
    finally:
        await db.close()


def the_one(text: str, found: list[Found]) -> Found:
    """An id before a name, the living before the deleted. Raises CloudError for none, or several of one name."""
    by_id = [each for each in found if each.uuid == text]
    living = [each for each in found if not each.deleted]
    for choice in (by_id, living, found):
        if len(choice) == 1:
            return choice[0]
        if choice:
            listed = "\n".join(
                f"  {each.uuid}  project {each.project_id}  created {each.created_at:%Y-%m-%d %H:%M:%S}"
                f"{'  deleted' if each.deleted else ''}"
                for each in choice[:10]
            )
            raise CloudError(f"{len(choice)} servers are called '{text}':\n{listed}", remedy="name one by its id")
    raise CloudError(
        f"no server has the id or name '{text}'", remedy="openstack server list --all-projects shows what there is"
    )


def _headline(operation: TracedOperation, now: dt.datetime) -> Text:
    line = Text.assemble(
        (operation.kind, "bold"),
        "  ",
        (operation.state, _STATES.get(operation.state, "")),
        f"  {_duration(total(operation, now))}  {operation.created_at:%Y-%m-%d %H:%M:%S}Z  {operation.request_id}",
    )
    if operation.traceparent:
        line.append(f"  trace {operation.traceparent[3:35]}")
    if operation.error:
        line.append(f"\n{operation.error}", "red")
    return line


def _table(found: list[Bar], whole: float, console_width: int) -> Table:
    least, most = _MARKS
    notes = min(_NOTES, max((len(bar.note) for bar in found), default=0))
    width = max(least, min(most, console_width - _TEXT - notes))
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("host", no_wrap=True)
    table.add_column("from", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column(f"0{_duration(whole).rjust(width - 1)}", width=width, no_wrap=True)
    table.add_column("", overflow="fold")
    for bar in found:
        colour = _COLOURS.get(bar.kind, "")
        table.add_row(
            Text("  " * bar.depth + bar.label, colour if bar.kind in ("gap", "failed", "undo") else ""),
            bar.host,
            _duration(bar.began),
            _duration(bar.seconds),
            Text(drawn(bar, whole, width), colour),
            Text(bar.note),
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min"
