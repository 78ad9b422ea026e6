"""The host's rules: who may send as whom, and which packets reach or leave a guest. Pure.

Two tables. `bridge` sees the devices: it drops what is spoofed, and marks packets with the port they come from or go
to. The kernel tracks no connections there, so bridged packets are shown to `inet` too (br_netfilter), where the device
is the bridge only: its zone keeps equal addresses of two networks apart, and the mark says which port's rules apply.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from kilonova.network.plan import MemberSet, NetworkPlan, Plan, PortPlan, Rule
from kilonova.network.plane import limits, names
from kilonova.network.plane.links import service_taps
from kilonova.network.plane.ruleset import Chain, Ruleset, Set, Table

PORTS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})

_NEIGHBOURS = "{ 130, 131, 132, 135, 136, 143 }"
"""ICMPv6 without which there is no IPv6: listener queries and reports, neighbours."""

_TO_ANY = (
    "meta nfproto ipv4 udp sport 67 udp dport 68 accept",
    "meta nfproto ipv6 udp sport 547 udp dport 546 accept",
    f"icmpv6 type {_NEIGHBOURS} accept",
    "icmpv6 type nd-router-advert accept",
)
_FROM_ANY = (
    "meta nfproto ipv4 udp sport 68 udp dport 67 accept",
    "meta nfproto ipv6 udp sport 546 udp dport 547 accept",
    f"icmpv6 type {_NEIGHBOURS} accept",
    "icmpv6 type nd-router-solicit accept",
)


def ruleset(plan: Plan) -> Ruleset:
    """The two tables of the host's namespace."""
    secured = [port for port in plan.ports if port.secured and port.up]
    return {("bridge", "kilonova"): _devices(plan, secured), ("inet", "kilonova"): _connections(plan, secured)}


# -- devices


def _devices(plan: Plan, secured: list[PortPlan]) -> Table:
    known = [names.tap(port.id) for port in plan.ports if port.up] + list(service_taps(plan))
    local = {mac for network in plan.networks for mac in network.local_macs}
    chains = {
        "from": Chain(
            (
                f'iifname "{names.TAP}*" iifname != @known drop',
                f'iifname "{names.TUNNEL}*" ether saddr @local drop',
                *(limits.rule(names.tap(p.id), p.from_guest) for p in plan.ports if p.up and p.from_guest is not None),
                "meta mark set iifname map @marks",
                "iifname vmap @own",
            ),
            hook="type filter hook prerouting priority -300; policy accept;",
        ),
        "to": Chain(
            (
                "meta mark set 0",
                f'oifname "{names.TAP}*" oifname != @known drop',
                # Every host has its own DHCP server, under one address.
                f'oifname "{names.TUNNEL}*" ether saddr @local drop',
                f'oifname "{names.TUNNEL}*" udp dport {{ 67, 547 }} drop',
                "meta mark set oifname map @marks",
            ),
            hook="type filter hook forward priority -300; policy accept;",
        ),
    }
    for port in secured:
        chains[f"own-{port.id[:11]}"] = Chain(_own(port))
    sets = {
        "known": Set("set", "type ifname;", frozenset(f'"{tap}"' for tap in known)),
        "local": Set("set", "type ether_addr;", frozenset(local)),
        "marks": Set("map", "type ifname : mark;", frozenset(f'"{names.tap(p.id)}" : {p.mark}' for p in secured)),
        "own": Set(
            "map", "type ifname : verdict;", frozenset(f'"{names.tap(p.id)}" : jump own-{p.id[:11]}' for p in secured)
        ),
    }
    return Table(chains, sets)


def _own(port: PortPlan) -> tuple[str, ...]:
    """What a guest sends must be from one of its addresses."""
    by_mac: dict[str, list[str]] = defaultdict(list)
    for mac, address in port.addresses:
        by_mac[mac].append(address)
    rules = [
        f"ether saddr != {_these(by_mac)} drop",
        "ether type ip udp sport 67 udp dport 68 drop",
        "ether type ip6 udp sport 547 udp dport 546 drop",
        "icmpv6 type nd-router-advert drop",
    ]
    for mac, addresses in sorted(by_mac.items()):
        four = _collapsed(addresses, 4)
        six = _collapsed(addresses, 6)
        arp = f"ether saddr {mac} arp saddr ether {mac}"
        rules.append(f"{arp} arp saddr ip {_these(['0.0.0.0', *four])} accept")
        rules.append(f"ether saddr {mac} ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept")
        if four:
            rules.append(f"ether saddr {mac} ip saddr {_these(four)} accept")
        if six:
            # The address that a neighbour advertisement speaks for stands at its ninth byte.
            targets = [f"0x{int(ipaddress.IPv6Address(each)):032x}" for each in six if "/" not in each]
            if all("/" not in each for each in six):
                rules.append(f"ether saddr {mac} icmpv6 type nd-neighbor-advert @th,64,128 != {_these(targets)} drop")
            rules.append(f"ether saddr {mac} ip6 saddr {_these(['::', *six])} accept")
    return (*rules, "drop")


def _collapsed(addresses: Iterable[str], version: int) -> list[str]:
    parsed = {ipaddress.ip_network(each, strict=False) for each in addresses}
    same = [each for each in parsed if each.version == version]
    whole = 32 if version == 4 else 128
    found = ipaddress.collapse_addresses(same)  # type: ignore[type-var]  # all of one version
    return [str(each.network_address) if each.prefixlen == whole else str(each) for each in found]


def _these(values: Iterable[str]) -> str:
    return "{ " + ", ".join(sorted(values)) + " }"


# -- connections


def _connections(plan: Plan, secured: list[PortPlan]) -> Table:
    chains = {
        "zones": Chain(
            ("ct zone set iifname map @zones",), hook="type filter hook prerouting priority -300; policy accept;"
        ),
        "from": Chain(
            (
                "meta mark 0 accept",
                "meta mark @stateless goto from-stateless",
                "ct state established,related accept",
                "jump from-any",
                "ct state invalid drop",
                "meta mark vmap @from-guests",
            ),
            hook="type filter hook prerouting priority -150; policy accept;",
        ),
        "to": Chain(
            (
                "meta mark 0 accept",
                "meta mark @stateless goto to-stateless",
                "ct state established,related accept",
                "jump to-any",
                "ct state invalid drop",
                "meta mark vmap @to-guests",
            ),
            hook="type filter hook forward priority 0; policy accept;",
        ),
        "from-any": Chain(_FROM_ANY),
        "to-any": Chain(_TO_ANY),
        "from-stateless": Chain(("jump from-any", "meta mark vmap @from-guests")),
        "to-stateless": Chain(("jump to-any", "meta mark vmap @to-guests")),
    }
    for group in plan.groups:
        chains[f"in-{group.id}"] = Chain(tuple(_rule(rule, "saddr") for rule in group.ingress))
        chains[f"out-{group.id}"] = Chain(tuple(_rule(rule, "daddr") for rule in group.egress))
    for port in secured:
        chains[f"to-{port.id[:11]}"] = Chain((*(f"jump in-{group}" for group in port.groups), "drop"))
        chains[f"from-{port.id[:11]}"] = Chain((*(f"jump out-{group}" for group in port.groups), "drop"))
    sets = {
        "zones": Set("map", "typeof iifname : ct zone;", frozenset(map(_zone, plan.networks))),
        "stateless": Set("set", "type mark;", frozenset(str(port.mark) for port in secured if not port.stateful)),
        "to-guests": Set("map", "type mark : verdict;", frozenset(f"{p.mark} : jump to-{p.id[:11]}" for p in secured)),
        "from-guests": Set(
            "map", "type mark : verdict;", frozenset(f"{p.mark} : jump from-{p.id[:11]}" for p in secured)
        ),
    }
    sets |= {each.name: _members(each) for each in plan.sets}
    return Table(chains, sets)


def _zone(network: NetworkPlan) -> str:
    return f'"{names.bridge(network.id)}" : {network.zone}'


def _members(members: MemberSet) -> Set:
    kind = "ipv4_addr" if members.version == 4 else "ipv6_addr"
    return Set("set", f"type {kind}; flags interval;", frozenset(members.cidrs), whole=True)


def _rule(rule: Rule, side: str) -> str:
    words = []
    family = "ip" if rule.version == 4 else "ip6"
    if rule.remote is not None:
        words.append(f"{family} {side} {rule.remote}")
    elif rule.members is not None:
        words.append(f"{family} {side} @{rule.members}")
    else:
        words.append(f"meta nfproto ipv{rule.version}")
    if rule.protocol in ("icmp", "icmpv6"):
        words.append(_icmp(rule))
    elif rule.protocol in PORTS and rule.low is not None:
        words.append(f"{rule.protocol} dport {_range(rule.low, rule.high)}")
    elif rule.protocol is not None:
        words.append(f"meta l4proto {rule.protocol}")
    return " ".join([*words, "accept"])


def _icmp(rule: Rule) -> str:
    if rule.low is None:
        return f"meta l4proto {rule.protocol}"
    code = f" {rule.protocol} code {rule.high}" if rule.high is not None else ""
    return f"{rule.protocol} type {rule.low}{code}"


def _range(low: int, high: int | None) -> str:
    return str(low) if high in (None, low) else f"{low}-{high}"
