"""`kilonova api`, `conductor`, ...: one role in this process, on nova.conf; and the guide's names for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config-file", help="A nova.conf; may be repeated. Default: /etc/nova/nova.conf.")
]

COMMANDS = {
    "api": ("nova-api", "The Compute API and, as enabled_apis says, the metadata service."),
    "metadata": ("nova-api-metadata", "The metadata service alone."),
    "conductor": ("nova-conductor", "Runs operations step by step."),
    "scheduler": ("nova-scheduler", "Ranks hosts for servers."),
    "consoleauth": ("nova-consoleauth", "Tells console proxies what a token opens."),
    "console": ("nova-novncproxy", "Console pages for users' browsers, and the way to guests' screens."),
    "cert": ("nova-cert", "Signs certificates for users of the old API."),
    "network": ("kilonova-network", "Turns Neutron's state into what each host's network plane should have."),
    "plane": ("kilonova-plane", "One host's bridges, tunnels, rules, DHCP and routers, as `network` says."),
    "compute": ("nova-compute", "One host's hypervisor, or many simulated ones."),
}
"""Program and help by role."""


def command(name: str) -> Callable[..., None]:
    """The command line of one role."""

    def role(
        config_file: ConfigFiles = None,
        log_file: Annotated[Path | None, typer.Option(help="Where to log, whatever the file says.")] = None,
        debug: Annotated[bool, typer.Option("--debug", help="Log at level DEBUG.")] = False,
    ) -> None:
        # Imported late: `kilonova --help` needs none of it.
        from kilonova.service.process import DEFAULT_FILES, Invocation, run
        from kilonova.service.roles import ROLES

        files = tuple(path.resolve() for path in config_file or ()) or DEFAULT_FILES
        run(ROLES[name], Invocation(files=files, log_file=log_file, debug=debug))

    role.__doc__ = COMMANDS[name][1]
    return role


def add_to(app: typer.Typer) -> None:
    """Every role as a command of `kilonova`."""
    for name in COMMANDS:
        app.command(name, rich_help_panel="Roles")(command(name))


def run_program(name: str, program: str, arguments: Sequence[str]) -> None:
    """Be the role, as the command line says."""
    from kilonova.cli import guarded

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command(name))
    guarded(lambda: app(prog_name=program, args=list(arguments)))


def _program(name: str) -> Callable[[], None]:
    return lambda: run_program(name, COMMANDS[name][0], sys.argv[1:])


nova_api = _program("api")
nova_api_metadata = _program("metadata")
nova_conductor = _program("conductor")
nova_scheduler = _program("scheduler")
nova_consoleauth = _program("consoleauth")
nova_novncproxy = _program("console")
nova_cert = _program("cert")
nova_compute = _program("compute")
