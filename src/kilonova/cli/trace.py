"""`kilonova trace SERVER`: where the time of its operations went."""

from __future__ import annotations

from typing import Annotated

import typer

from kilonova.cli.cloud import DEFAULT_STATE_DIR, StateDir


def trace(
    server: Annotated[str, typer.Argument(help="A server's id or name; deleted ones are known for a while, too.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    limit: Annotated[int, typer.Option(min=1, help="How many operations, the newest.")] = 10,
    request: Annotated[str | None, typer.Option(help="Only the operation of this request (req-...).")] = None,
) -> None:
    """Show a server's operations step by step: host, duration, tries, and what was waited for."""
    # Imported late: `kilonova --help` needs none of it.
    from kilonova.cli import trace_show

    trace_show.show(trace_show.database_url(state_dir), server, limit=limit, request=request)
