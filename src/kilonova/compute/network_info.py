"""What is cached of a server's ports in its row, made from Networking's documents; and what views show of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kilonova.networking import Document
from kilonova.nic import FixedIp, Nic, Route, Subnet


def nics_of(stored: Any) -> tuple[Nic, ...]:
    """From the row's JSON; None for a server that never had a port."""
    return msgspec.convert(stored or [], tuple[Nic, ...])


def make_nics(
    ports: Sequence[Document],
    *,
    networks: Mapping[str, Document],
    subnets: Mapping[str, Document],
    floating: Iterable[Document] = (),
    tags: Mapping[str, str | None] | None = None,
    foreign: Iterable[str] = (),
) -> tuple[Nic, ...]:
    """`tags`: by port; `foreign`: ids of ports that are the user's own."""
    leading: dict[tuple[str, str], list[str]] = {}
    for ip in floating:
        leading.setdefault((ip["port_id"], ip["fixed_ip_address"]), []).append(ip["floating_ip_address"])
    own = set(foreign)
    return tuple(
        Nic(
            port_id=port["id"],
            mac=port["mac_address"],
            network_id=port["network_id"],
            network_name=networks.get(port["network_id"], {}).get("name", ""),
            mtu=networks.get(port["network_id"], {}).get("mtu") or 0,
            vif_type=port.get("binding:vif_type") or "unbound",
            vnic_type=port.get("binding:vnic_type") or "normal",
            tag=(tags or {}).get(port["id"]),
            ours=port["id"] not in own,
            subnets=_subnets(port, subnets, leading),
        )
        for port in ports
    )


def _subnets(
    port: Document, subnets: Mapping[str, Document], leading: Mapping[tuple[str, str], list[str]]
) -> tuple[Subnet, ...]:
    by_subnet: dict[str, list[str]] = {}
    for ip in port["fixed_ips"]:
        by_subnet.setdefault(ip["subnet_id"], []).append(ip["ip_address"])
    return tuple(
        Subnet(
            id=subnet_id,
            cidr=document["cidr"],
            version=document["ip_version"],
            gateway=document.get("gateway_ip"),
            dns=tuple(document.get("dns_nameservers") or ()),
            routes=tuple(
                Route(destination=route["destination"], gateway=route["nexthop"])
                for route in document.get("host_routes") or ()
            ),
            dhcp=bool(document.get("enable_dhcp")),
            ipv6_address_mode=document.get("ipv6_address_mode"),
            ips=tuple(
                FixedIp(address=address, floating=tuple(leading.get((port["id"], address), ())))
                for address in addresses
            ),
        )
        for subnet_id, addresses in by_subnet.items()
        if (document := subnets.get(subnet_id)) is not None
    )


def addresses(nics: Iterable[Nic]) -> dict[str, list[dict[str, Any]]]:
    """As servers show them: by network, fixed ones first, each followed by the floating ones that lead to it."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for nic in nics:
        for subnet in nic.subnets:
            for ip in subnet.ips:
                entries = shown.setdefault(nic.network_name, [])
                entries.append(_entry(nic, ip.address, subnet.version, "fixed"))
                entries += [_entry(nic, address, 4, "floating") for address in ip.floating]
    return shown


def _entry(nic: Nic, address: str, version: int, kind: str) -> dict[str, Any]:
    return {
        "version": version,
        "addr": address,
        "OS-EXT-IPS:type": kind,
        "OS-EXT-IPS-MAC:mac_addr": nic.mac,
    }


def columns(nics: Sequence[Nic], group_names: Iterable[str] | None = None) -> dict[str, Any]:
    """The columns of the server's row that tell of its ports."""
    values: dict[str, Any] = {"network_info": msgspec.to_builtins(list(nics)), "addresses": addresses(nics)}
    if group_names is not None:
        values["security_groups"] = [{"name": name} for name in group_names]
    return values
