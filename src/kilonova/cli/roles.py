"""`kilonova api`, `conductor`, ...: one role in this process, on nova.conf; and the guide's names for them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CONFIG_FILE = "A nova.conf; may be repeated. Default: /etc/nova/nova.conf."
LOG_FILE = "Where to log, whatever the file says."
DEBUG = "Log at level DEBUG."

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


def be(name: str, config_files: Sequence[Path], log_file: Path | None, debug: bool) -> None:
    from kilonova import lean

    lean.trim()
    from kilonova.service.process import DEFAULT_FILES, Invocation, run
    from kilonova.service.roles import ROLES

    files = tuple(path.resolve() for path in config_files) or DEFAULT_FILES
    run(ROLES[name], Invocation(files=files, log_file=log_file, debug=debug))


def run_program(name: str, program: str, arguments: Sequence[str]) -> None:
    """Be the role, as the command line says. Typer is left out: it would stay in the process with all that it loads."""
    from kilonova.cli import guarded

    parser = argparse.ArgumentParser(prog=program, description=COMMANDS[name][1], allow_abbrev=False)
    parser.add_argument("--config-file", type=Path, action="append", default=[], metavar="PATH", help=CONFIG_FILE)
    parser.add_argument("--log-file", type=Path, metavar="PATH", help=LOG_FILE)
    parser.add_argument("--debug", action="store_true", help=DEBUG)
    given = parser.parse_args(arguments)
    guarded(lambda: be(name, given.config_file, given.log_file, given.debug))


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
