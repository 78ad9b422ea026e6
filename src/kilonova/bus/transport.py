"""`transport_url` as the configuration states it: `rabbit://user:password@host:port,user:password@host2/vhost`."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import msgspec

from kilonova.errors import Invalid


class BrokerAddress(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    user: str
    password: str
    vhost: str = "/"

    def amqp_url(self, *, tls: bool, heartbeat: int) -> str:
        """`heartbeat` in seconds: a silent broker is given up after about twice that."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        vhost = quote(self.vhost, safe="")
        return f"{'amqps' if tls else 'amqp'}://{login}@{host}:{self.port}/{vhost}?heartbeat={heartbeat}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Files in PEM. Without `ca_file` the system's authorities count."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError when a file cannot be read."""
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


def parse_transport_url(url: str, *, tls: bool = False) -> tuple[list[BrokerAddress], bool]:
    """The brokers in order, and whether to speak TLS. Ports default to 5672, with TLS to 5671.

    Raises Invalid without repeating the URL, which holds passwords.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in ("rabbit", "kombu", "amqp", "amqps"):
        raise Invalid(
            f"transport_url: the kind '{scheme if separator else ''}' is not known;"
            " expected rabbit://USER:PASSWORD@HOST[:PORT][,...][/VHOST]."
        )
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    options = parse_qs(query)
    tls = tls or scheme == "amqps" or options.get("ssl", ["0"])[0].lower() in ("1", "true", "yes")
    user, password = "guest", "guest"
    addresses = []
    for part in hosts.split(","):
        login, at, where = part.rpartition("@")
        if at:
            name, _, secret = login.partition(":")
            user, password = unquote(name), unquote(secret)
        host, port = _host_port(where)
        address = BrokerAddress(
            host=host,
            port=port or (5671 if tls else 5672),
            user=user,
            password=password,
            vhost=unquote(path) or "/",
        )
        addresses.append(address)
    return addresses, tls


def _host_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, bracket, port = text.partition(":")
    if not host or (port and not port.isdigit()) or (text.startswith("[") and not bracket):
        raise Invalid("transport_url: expected HOST or HOST:PORT after the '@' of each broker.")
    return host, int(port) if port else None
