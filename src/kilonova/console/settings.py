"""Settings of consoles with their defaults; `config.py` fills them from nova.conf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONSOLEAUTH: Final = "consoleauth"
"""The address of the role on the bus."""
VNC = "novnc"
SERIAL = "serial"
"""Types of consoles, as tokens have them."""

NONE = "none"
VENCRYPT = "vencrypt"
"""Schemes of `[vnc] auth_schemes`."""
_PKI = "/etc/pki/nova-novncproxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSecurity:
    """How the proxy speaks with hosts' screens; the paths are of PEM files, and needed for `vencrypt` alone."""

    schemes: tuple[str, ...] = (NONE,)
    """`[vnc] auth_schemes`: the first that a host offers is taken."""
    authorities: str = f"{_PKI}/ca-cert.pem"
    """`[vnc] vencrypt_ca_certs`"""
    certificate: str = f"{_PKI}/client-cert.pem"
    """`[vnc] vencrypt_client_cert`"""
    key: str = f"{_PKI}/client-key.pem"
    """`[vnc] vencrypt_client_key`"""

    @property
    def plain(self) -> bool:
        """Nothing to agree on: browser and screen speak with each other alone."""
        return self.schemes == (NONE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """What the API and consoleauth know of consoles. Durations in seconds."""

    vnc_enabled: bool = True
    vnc_url: str = "http://127.0.0.1:6080/vnc_auto.html"
    """`[vnc] novncproxy_base_url`"""
    serial_enabled: bool = True
    serial_url: str = "http://127.0.0.1:6080/serial.html"
    """`[serial_console] base_url`"""
    hosts_name: frozenset[str] = frozenset()
    """Kinds (vnc, serial) of which our nova.conf names no page: one that the guest's host names counts then."""
    token_ttl: float = 600.0
    """`[consoleauth] token_ttl`: how long a token waits for its browser."""
    enforce_session_timeout: bool = False
    """`[consoleauth] enforce_session_timeout`: a session ends when its token would."""
    reconnect: float = 60.0
    """How long after its connection broke the session that consumed a token may come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What a console proxy knows. Durations in seconds, sizes in bytes."""

    host: str | None = None
    """`[vnc] novncproxy_host`: the address that it listens at; None: that of the other services."""
    port: int | None = None
    """`[vnc] novncproxy_port`"""
    allowed_origins: tuple[str, ...] = ()
    """`[console] allowed_origins`: host names, or host:port, whose pages may open consoles too."""
    security: ScreenSecurity = ScreenSecurity()
    idle_timeout: float = 0.0
    """`[console] idle_timeout`: a session in which the user does nothing for so long ends; 0: never."""
    watch: float = 5.0
    """How often the proxy asks whether its sessions may go on."""
    connect_timeout: float = 10.0
    message_limit: int = 1024 * 1024
    """The largest message of a browser: what it may paste at once."""
    buffer: int = 32 * 1024
    """Held of each direction of a session while the other side does not take it."""
