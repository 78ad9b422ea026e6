"""Netlink sockets of a namespace: what tells that something there has changed, and the number of nft's changes."""

from __future__ import annotations

import os
import socket
import struct

from kilonova import netns

_ROUTE_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR, _IPV4_ROUTE, _IPV6_ROUTE (rtnetlink.h)"""
_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFTABLES_GROUP = 7
"""NFNLGRP_NFTABLES (nfnetlink.h)"""
_GET_GENERATION, _NEW_GENERATION = 0x0A10, 0x0A0F
"""Subsystem nf_tables (10), NFT_MSG_GETGEN (16) and NEWGEN (15)"""
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port (nlmsghdr)"""


class Watch:
    """Readable when links, addresses, routes or rules of the namespace have changed since `drain`."""

    def __init__(self, space: str) -> None:
        path = netns.path_of(space)
        route = netns.open_socket(path, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        rules = netns.open_socket(path, socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        route.bind((0, _ROUTE_GROUPS))
        rules.bind((0, 0))
        rules.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
        self.sockets = (route, rules)
        for each in self.sockets:
            each.setblocking(False)

    def drain(self) -> None:
        """What was there to read is read. A socket that has lost something says so once: that is news too."""
        for each in self.sockets:
            while True:
                try:
                    each.recv(65536)
                except BlockingIOError:
                    break
                except OSError:
                    continue

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def generation(space: str) -> int:
    """The number of the namespace's ruleset: another one after each change, whoever made it. Raises OSError."""
    with netns.open_socket(netns.path_of(space), socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as channel:
        channel.settimeout(5)
        # A message without attributes: family, version, resource.
        channel.send(_HEADER.pack(_HEADER.size + 4, _GET_GENERATION, _REQUEST, 1, 0) + bytes(4))
        answer = channel.recv(65536)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _NEW_GENERATION:
        raise OSError(f"nf_tables answered with a message of type {kind}")
    # The first attribute (NFTA_GEN_ID): length and type, then the number, most significant byte first.
    return int(struct.unpack_from(">I", answer, _HEADER.size + 4 + 4)[0])


def inode(space: str) -> int:
    """Which namespace the name stands for."""
    return os.stat(netns.path_of(space)).st_ino
