"""Security groups, resolved: rules with the addresses that they mean. And what a port may send from. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping

from kilonova.network.plan import GroupPlan, MemberSet, Rule
from kilonova.network.rest import Document
from kilonova.network.upkeep import Documents

PROTOCOLS: Mapping[str, str] = {
    "ah": "51",
    "dccp": "33",
    "egp": "8",
    "esp": "50",
    "gre": "47",
    "igmp": "2",
    "ipip": "4",
    "ipv6-encap": "41",
    "ipv6-frag": "44",
    "ipv6-icmp": "icmpv6",
    "ipv6-nonxt": "59",
    "ipv6-opts": "60",
    "ipv6-route": "43",
    "ospf": "89",
    "pgm": "113",
    "rsvp": "46",
    "vrrp": "112",
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "33": "dccp",
    "58": "icmpv6",
    "132": "sctp",
    "136": "udplite",
}
"""Neutron's names of protocols by the ones that rules here have: a name where ports or types count, else a number."""

VERSIONS = {"IPv4": 4, "IPv6": 6}


def own_addresses(port: Document) -> tuple[tuple[str, str], ...]:
    """(MAC, IP or CIDR) pairs: its own, its link-local ones, and those that it is allowed besides."""
    mac = port["mac_address"]
    pairs = {(mac, each["ip_address"]) for each in port["fixed_ips"]}
    for each in port.get("allowed_address_pairs") or ():
        pairs.add((each.get("mac_address") or mac, each["ip_address"]))
    pairs |= {(each, link_local(each)) for each, _ in list(pairs)} | {(mac, link_local(mac))}
    return tuple(sorted((each.lower(), address) for each, address in pairs))


def stateful(documents: Documents, port: Document) -> bool:
    """Neutron sees to it that all groups of a port are of one kind."""
    known = documents["security-groups"]
    return not any((known.get(each) or {}).get("stateful") is False for each in port.get("security_groups") or ())


def link_local(mac: str) -> str:
    """The IPv6 address that a device gives itself (RFC 4291, appendix A)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    eui = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + eui))


def groups(documents: Documents, wanted: Iterable[str]) -> tuple[tuple[GroupPlan, ...], tuple[MemberSet, ...]]:
    """The groups, and the sets of addresses that their rules name."""
    names: set[str] = set()
    found = []
    for group_id in sorted(wanted):
        group = documents["security-groups"].get(group_id)
        rules: dict[str, set[Rule]] = {"ingress": set(), "egress": set()}
        for document in (group or {}).get("security_group_rules") or ():
            rule = _rule(document)
            rules[document["direction"]].add(rule)
            if rule.members is not None:
                names.add(rule.members)
        found.append(GroupPlan(id=group_id, ingress=_ordered(rules["ingress"]), egress=_ordered(rules["egress"])))
    return tuple(found), _sets(documents, names)


def _ordered(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=repr))


def _rule(document: Document) -> Rule:
    version = VERSIONS[document["ethertype"]]
    protocol = document.get("protocol")
    if protocol is not None:
        protocol = str(protocol).lower()
        protocol = PROTOCOLS.get(protocol, protocol)
        if protocol == "icmp" and version == 6:
            protocol = "icmpv6"
        if protocol in ("any", "0"):
            protocol = None
    remote = document.get("remote_ip_prefix")
    members = None
    if document.get("remote_group_id"):
        members = set_name("group", version, document["remote_group_id"])
    elif document.get("remote_address_group_id"):
        members = set_name("addresses", version, document["remote_address_group_id"])
    if remote is not None and ipaddress.ip_network(remote, strict=False).prefixlen == 0:
        remote = None
    return Rule(
        version=version,
        protocol=protocol,
        low=document.get("port_range_min"),
        high=document.get("port_range_max"),
        remote=remote,
        members=members,
    )


def set_name(kind: str, version: int, of: str) -> str:
    """`kind`: group, addresses."""
    return f"{kind}{version}-{of}"


def _sets(documents: Documents, names: Iterable[str]) -> tuple[MemberSet, ...]:
    wanted = sorted(names)
    members = _members(documents) if any(name.startswith("group") for name in wanted) else {}
    found = []
    for name in wanted:
        kind, _, of = name.partition("-")
        version = int(kind[-1])
        if kind.startswith("group"):
            addresses = members.get(of, ())
        else:
            addresses = (documents["address-groups"].get(of) or {}).get("addresses") or ()
        found.append(MemberSet(name=name, version=version, cidrs=_collapsed(addresses, version)))
    return tuple(found)


def _members(documents: Documents) -> Mapping[str, Iterable[str]]:
    """Addresses of the ports of each group, those included that they are allowed besides their own."""
    found: dict[str, list[str]] = defaultdict(list)
    for port in documents["ports"].values():
        for group in port.get("security_groups") or ():
            found[group] += [each["ip_address"] for each in port["fixed_ips"]]
            found[group] += [each["ip_address"] for each in port.get("allowed_address_pairs") or ()]
    return found


def _collapsed(addresses: Iterable[str], version: int) -> tuple[str, ...]:
    parsed = {ipaddress.ip_network(address, strict=False) for address in addresses}
    if version == 4:
        return tuple(map(str, ipaddress.collapse_addresses(each for each in parsed if each.version == 4)))
    return tuple(map(str, ipaddress.collapse_addresses(each for each in parsed if each.version == 6)))
