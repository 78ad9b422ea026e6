"""Bridges and taps of guests' ports, made by netlink in the host's network namespace.

A tap's alias says whose it is, so that nothing has to be remembered to find a server's taps again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kilonova.errors import HostFailure
from kilonova.netns import in_namespace
from kilonova.nic import Nic

T = TypeVar("T")

_EXISTS = errno.EEXIST
_GONE = (errno.ENOENT, errno.ENODEV)
_VANISHED = (*_GONE, errno.EINVAL)
"""The last one is what a tap is told that is to join a bridge which has just gone."""
ATTEMPTS = 20
DEFAULT_MTU = 1500


class Nics:
    """`netns`: the file of the namespace that guests' taps live in; None: the one that we are in. Blocks."""

    def __init__(self, deployment_id: str, netns: Path | None = None) -> None:
        self._prefix = f"kilonova/{deployment_id}/"
        self._netns = netns

    def plug(self, server_uuid: str, nics: Iterable[Nic]) -> None:
        """Bridge and tap of every port exist and are up. Raises HostFailure."""

        def work(ip: Any) -> None:
            for nic in nics:
                _plug(ip, nic, self._prefix + server_uuid)

        self._do(f"plug the ports of server {server_uuid}", work)

    def unplug(self, server_uuid: str, keep: Iterable[str] = ()) -> None:
        """No tap of the server but those of the ports `keep`. Bridges are whoever wires ports' to remove."""
        kept = {f"tap{port_id[:11]}" for port_id in keep}

        def work(ip: Any) -> None:
            for link in ip.get_links():
                if link.get_attr("IFLA_IFALIAS") == self._prefix + server_uuid and _name(link) not in kept:
                    with _unless(*_GONE):
                        ip.link("del", index=link["index"])

        self._do(f"unplug the ports of server {server_uuid}", work)

    def _do(self, doing: str, work: Callable[[Any], T]) -> T:
        try:
            return in_namespace(self._netns, lambda: _with_netlink(work))
        except NetlinkError as error:
            raise HostFailure(f"The host could not {doing}: {error.args[-1]}.", details=repr(error)) from error
        except OSError as error:
            raise HostFailure(f"The host could not {doing}: {error.strerror}.", details=repr(error)) from error


def _with_netlink(work: Callable[[Any], T]) -> T:
    with IPRoute() as ip:
        return work(ip)


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _plug(ip: Any, nic: Nic, alias: str) -> None:
    for left in reversed(range(ATTEMPTS)):
        try:
            _tap(ip, nic, _bridge(ip, nic), alias)
            return
        except NetlinkError as error:
            # Whoever wires ports removes bridges that nobody is in, and may not have heard of this port yet.
            if error.code not in _VANISHED or not left:
                raise


def _bridge(ip: Any, nic: Nic) -> int:
    with _unless(_EXISTS):
        ip.link("add", ifname=nic.bridge, kind="bridge", br_stp_state=0, br_forward_delay=0)
    index = _index(ip, nic.bridge)
    ip.link("set", index=index, state="up", mtu=nic.mtu or DEFAULT_MTU)
    return index


def _index(ip: Any, name: str) -> int:
    found = ip.link_lookup(ifname=name)
    if not found:
        raise NetlinkError(errno.ENODEV, f"{name} has gone")
    return int(found[0])


def _tap(ip: Any, nic: Nic, bridge: int, alias: str) -> None:
    found = ip.link_lookup(ifname=nic.tap)
    if not found:
        with _unless(_EXISTS):
            ip.link("add", ifname=nic.tap, kind="tuntap", mode="tap")
        found = [_index(ip, nic.tap)]
    # Its own address is not the guest's: the bridge would take what is for the guest.
    address = "fe" + nic.mac[2:]
    ip.link("set", index=found[0], ifalias=alias, address=address, mtu=nic.mtu or DEFAULT_MTU)
    ip.link("set", index=found[0], master=bridge, state="up")


@contextlib.contextmanager
def _unless(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise
