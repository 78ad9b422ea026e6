"""Gratuitous ARP: whoever knows an address by another MAC learns the new one."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable

from kilonova import netns

_ETHERNET, _ARP, _IPV4 = 1, 0x0806, 0x0800
_REQUEST = 1
_EVERYBODY = b"\xff" * 6


def frame(mac: str, address: str) -> bytes:
    """An ARP request for an address from the address itself (RFC 5227, section 3)."""
    sender = bytes.fromhex(mac.replace(":", ""))
    ip = ipaddress.IPv4Address(address).packed
    head = _EVERYBODY + sender + struct.pack(">H", _ARP)
    return head + struct.pack(">HHBBH", _ETHERNET, _IPV4, 6, 4, _REQUEST) + sender + ip + bytes(6) + ip


def announce(space: str, device: str, mac: str, addresses: Iterable[str]) -> None:
    """Send one for each address. A device that is gone meanwhile announces nothing."""
    addresses = list(addresses)
    if not addresses:
        return
    with (
        contextlib.suppress(OSError),
        netns.open_socket(netns.path_of(space), socket.AF_PACKET, socket.SOCK_RAW) as channel,
    ):
        channel.bind((device, _ARP))
        for address in addresses:
            channel.send(frame(mac, address))
