"""`kilonova trace SERVER`: where the time of its operations went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilonova.cli.cloud import DEFAULT_STATE_DIR, StateDir


def trace(
    server: Annotated[str, typer.Argument(help="A server's id or name; deleted ones are known for a while, too.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    limit: Annotated[int, typer.Option(min=1, help="How many operations, the newest.")] = 10,
    request: Annotated[str | None, typer.Option(help="Only the operation of this request (req-...).")] = None,
    config_file: Annotated[
        list[Path] | None, typer.Option(help="A deployment's nova.conf, instead of a state directory; may be repeated.")
    ] = None,
) -> None:
    """Show a server's operations step by step: host, duration, tries, and what was waited for."""
    # Imported late: `kilonova --help` needs none of it.
    from kilonova.cli import trace_show

    url = trace_show.configured_url(config_file) if config_file else trace_show.database_url(state_dir)
    trace_show.show(url, server, limit=limit, request=request)
