"""All commands in one place; each is in the module that its help names."""

from __future__ import annotations

import typer

from kilonova.cli import check, options
from kilonova.cli.cloud import down, status, up
from kilonova.cli.demo import demo
from kilonova.cli.doctor import doctor
from kilonova.cli.explain import explain
from kilonova.cli.guest_image import guest_image
from kilonova.cli.trace import trace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Kilonova: an OpenStack Compute service that comes up with one command.",
)
app.command()(up)
app.command()(down)
app.command()(status)
app.command()(demo)
app.command()(doctor)
app.command()(explain)
app.command()(guest_image)
app.command()(trace)
options.add_roles(app)
app.add_typer(check.app, name="config")


@app.callback()
def kilonova() -> None:
    """Kilonova: an OpenStack Compute service that comes up with one command."""
