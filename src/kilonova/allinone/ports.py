"""Whether a cloud's ports are free, and who has the one that is not."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import asdict

import psutil

from kilonova.allinone.errors import CloudError
from kilonova.allinone.settings import CloudSettings


def check_free(settings: CloudSettings) -> None:
    """Raise CloudError for the first port of the cloud that something else listens on."""
    for purpose, port in asdict(settings.ports).items():
        if purpose == "network" and settings.networking == "none":
            continue
        if purpose == "metrics":
            # Those find another one: no cloud stays down because of them.
            continue
        if not 0 < port < 65536:
            raise CloudError(f"port {port} ({purpose}) does not exist", remedy="use a smaller --port-offset")
        try:
            bind_error = _bind_error(settings.bind, port)
        except OSError as error:
            raise CloudError(
                f"cannot listen on {settings.bind}: {error.strerror or error}",
                remedy="name an address of this machine with --bind",
            ) from None
        if bind_error:
            raise CloudError(
                f"port {port} ({purpose}) is taken by {owner(port)}",
                remedy="stop that process, or move all ports of this cloud with --port-offset N",
            )


def _bind_error(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (98, 13):  # EADDRINUSE; EACCES for ports below 1024
                return True
            raise
    return False


def owner(port: int) -> str:
    """The process that listens on a TCP port, in words."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline())[:120] or process.name()
                return f"process {connection.pid} ({command})"
    return "a process of another user"
