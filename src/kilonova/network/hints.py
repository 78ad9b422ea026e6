"""Hints: Neutron's process tells the role `network` what has just changed, so that it reads only that.

One datagram each, sent without waiting and never repeated: a lost one costs the time until the next full read.
Standard library only, since it runs inside Neutron too.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import local
from typing import NamedTuple

BINDINGS = "plane-bindings"
"""Hosts on which a port has an inactive binding (extensions/planereport.py): a live migration's other end."""

KINDS = frozenset(
    {"networks", "subnets", "ports", "routers", "floatingips", "security-groups", "address-groups", "policies"}
    | {BINDINGS}
)
"""Neutron's collections, as in its URLs."""

LARGEST = 8192
"""Bytes of a datagram."""

MOST_IDS = 100
"""In one hint; of more the whole collection is read."""


class Hint(NamedTuple):
    """`ids` of `kind` were made, changed or deleted; without ids anything of that kind may have been."""

    kind: str
    ids: tuple[str, ...] = ()


def encode(hint: Hint) -> bytes:
    return json.dumps({"kind": hint.kind, "ids": hint.ids if len(hint.ids) <= MOST_IDS else ()}).encode()


def decode(data: bytes) -> Hint | None:
    """None for anything that is no hint: whoever reaches the socket can at most cause a read."""
    try:
        found = json.loads(data)
        kind, ids = found["kind"], found["ids"]
    except (ValueError, TypeError, KeyError):
        return None
    if kind not in KINDS or not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        return None
    return Hint(kind, tuple(ids))


def address(text: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """`@name`: a socket of this machine known by name alone; `HOST:PORT`: UDP. Raises ValueError for anything else."""
    if text.startswith("@"):
        return socket.AF_UNIX, "\0" + text[1:]
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"[kilonova] hints = {text!r}: expected @NAME or HOST:PORT")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


class Sender:
    """Sends hints; drops them when nobody listens or `address_text` is empty."""

    def __init__(self, address_text: str) -> None:
        self._socket: socket.socket | None = None
        self._quiet = local()
        if address_text:
            family, self._address = address(address_text)
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def send(self, kind: str, ids: Iterable[str | None] = ()) -> None:
        """Without an id (None among `ids`) the hint names the whole collection."""
        if self._socket is None or getattr(self._quiet, "on", False):
            return
        known = [each for each in ids if each]
        with suppress(OSError):  # the role is not up, or its queue is full: it reads everything soon
            self._socket.sendto(encode(Hint(kind, tuple(known))), self._address)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No hints from this thread: what the role itself reports is no news to it."""
        self._quiet.on = True
        try:
            yield
        finally:
            self._quiet.on = False


def listen(address_text: str) -> socket.socket:
    """The role's end, not blocking. Raises ValueError, or OSError when somebody else listens there."""
    family, where = address(address_text)
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener
