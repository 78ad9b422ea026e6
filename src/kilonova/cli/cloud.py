"""`kilonova up`, `down` and `status`: the cloud on one machine."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from kilonova.allinone.clients import clouds_yaml_path
from kilonova.allinone.settings import CloudSettings, host_in_url
from kilonova.allinone.status import FRESH, Report, read_report
from kilonova.allinone.up import UpOptions, run_down, run_up, up_detached

StateDir = Annotated[Path, typer.Option("--state-dir", readable=False, help="Where everything of this cloud lives.")]
DEFAULT_STATE_DIR = Path(".state")
NO_ROOM = 8
"""MiB of free disk below which no database can be counted on to take a server."""


def up(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bind: Annotated[str, typer.Option(help="Address that the services listen on.")] = "127.0.0.1",
    port_offset: Annotated[int, typer.Option(min=0, help="Added to every port; several clouds side by side.")] = 0,
    hypervisor: Annotated[
        Literal["libvirt", "sim"] | None,
        typer.Option(help="libvirt: real guests (root, QEMU). sim: none of it. Default: libvirt if it can be had."),
    ] = None,
    sim_hosts: Annotated[int, typer.Option(min=1, help="Hosts of the simulated hypervisor.")] = 1,
    networking: Annotated[
        Literal["neutron", "none"], typer.Option(help="neutron: Neutron with our data plane. none: no ports.")
    ] = "neutron",
    detach: Annotated[bool, typer.Option("--detach", help="Return when the cloud is ready, and leave it up.")] = False,
    config_file: Annotated[list[Path] | None, typer.Option(help="An operator's nova.conf; may be repeated.")] = None,
) -> None:
    """Bring a cloud up: Keystone, Glance, Neutron, Compute, on this machine. Again on the same directory: go on."""
    options = UpOptions(
        state_dir=state_dir.resolve(),
        bind=bind,
        port_offset=port_offset,
        hypervisor=hypervisor,
        sim_hosts=sim_hosts,
        networking=networking,
        config_files=tuple(path.resolve() for path in config_file or ()),
    )
    if detach:
        print_usage(up_detached(options, say=say), detached=True)
        return
    began = time.monotonic()

    def on_ready(settings: CloudSettings) -> None:
        say(f"ready after {time.monotonic() - began:.1f} s")
        print_usage(settings, detached=False)

    run_up(options, say=say, on_ready=on_ready)


def down(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    stop_guests: Annotated[
        bool, typer.Option("--stop-guests", help="Power off running guests too, and end their libvirt.")
    ] = False,
) -> None:
    """Stop a cloud. Its running guests stay up, unless --stop-guests; nothing stored is removed."""
    run_down(state_dir, stop_guests=stop_guests, say=say)


def status(state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Show what runs. Exit code 0 only when a server can be created."""
    report = read_report(state_dir.resolve())
    if report is None:
        say(f"not running (state directory {state_dir.resolve()})")
        raise typer.Exit(3)
    Console().print(_table(report))
    free = shutil.disk_usage(state_dir).free >> 20
    if free < NO_ROOM:
        say(f"NOT READY: the disk that holds {state_dir.resolve()} is full ({free} MiB free): free some space")
        raise typer.Exit(2)
    if report.silent_for > FRESH:
        say(f"NOT READY: process {report.owner.pid} has been silent for {report.silent_for:.0f} s")
        raise typer.Exit(2)
    if not report.ready:
        say(f"NOT READY: {report.reason}")
        raise typer.Exit(2)
    say(f"ready: a server can be created (hypervisor {report.hypervisor})")


def print_usage(settings: CloudSettings, *, detached: bool) -> None:
    """How to go on, for somebody who has never seen this."""
    directory = settings.state_dir
    programs = Path(sys.executable).parent
    found = shutil.which("openstack") == str(programs / "openstack")
    stop = f"kilonova down --state-dir {directory}" if detached else "Ctrl-C"
    for line in (
        "",
        *([] if found else [f"export PATH={programs}:$PATH"]),
        f"export OS_CLIENT_CONFIG_FILE={clouds_yaml_path(directory)} OS_CLOUD=kilonova",
        "openstack server list",
        f"(OS_CLOUD=kilonova-demo: an ordinary user; or: . {directory / 'openrc'})",
        "",
        f"Identity {settings.identity_url}   Image {settings.image_url}   Compute {settings.compute_url}/v2.1",
        f"Consoles http://{host_in_url(settings.host)}:{settings.ports.console}   (openstack console url show SERVER)",
        f"Logs {settings.log_dir}   Stop: {stop}",
    ):
        print(f"  {line}", flush=True)


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "pid", "restarts", "for", "detail"):
        table.add_column(heading, no_wrap=heading != "detail")
    for part in report.parts:
        colour = {"ready": "green", "starting": "yellow", "waiting": "red", "stopped": "red"}[part.state]
        table.add_row(
            part.name,
            f"[{colour}]{part.state}[/{colour}]",
            str(part.pid or "-"),
            str(part.restarts),
            _duration(time.monotonic() - part.since) if part.since else "-",
            part.detail,
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def say(line: str) -> None:
    """Tell the user, at once. A detached cloud tells its log, and does not end because the disk under it is full."""
    with contextlib.suppress(OSError):
        print(line, flush=True)
