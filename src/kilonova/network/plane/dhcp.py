"""dnsmasq's files for one network. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from kilonova.network.plan import DhcpPlan, DhcpSubnet
from kilonova.network.plane import names

METADATA = "169.254.169.254"
LEASE = 86400
"""Seconds."""

_FIXED = """\
interface={device}
except-interface=lo
bind-interfaces
port=0
user=root
group=root
no-hosts
no-resolv
no-ping
dhcp-authoritative
dhcp-ignore=tag:!known
dhcp-lease-max={most}
dhcp-leasefile={directory}/leases
dhcp-hostsfile={directory}/hosts
dhcp-optsfile={directory}/options
log-facility=-
quiet-dhcp
quiet-dhcp6
quiet-ra
"""


def fixed(plan: DhcpPlan, directory: Path) -> str:
    """dnsmasq.conf: what needs a new start."""
    ranges = [_range(subnet) for subnet in plan.subnets if subnet.mode != "slaac"]
    domain = [f"domain={plan.domain}"] if plan.domain else []
    # dnsmasq refuses what is beyond the leases it is allowed, so there is room for all that come and go.
    head = _FIXED.format(device=names.DHCP_DEVICE, directory=directory, most=100_000)
    return head + "\n".join([*ranges, *domain, ""])


def _range(subnet: DhcpSubnet) -> str:
    network = ipaddress.ip_network(subnet.cidr)
    size = network.netmask if subnet.version == 4 else network.prefixlen
    return f"dhcp-range=set:{_tag(subnet.id)},{network.network_address},static,{size},{LEASE}s"


def hosts(plan: DhcpPlan) -> str:
    """One line for each of the guests' addresses, of which a request can only get one per subnet."""
    subnets = {subnet.id: subnet for subnet in plan.subnets}
    lines = []
    for host in plan.hosts:
        # A stateless guest, too, is known in a subnet by its address there; else its question is passed over.
        six = [f"[{ip}]" for id, ip in host.addresses if subnets[id].version == 6 and subnets[id].mode != "slaac"]
        four = [ip for subnet, ip in host.addresses if subnets[subnet].version == 4]
        for address in [*four, *six] or [""]:
            lines.append(",".join(filter(None, [host.mac, f"set:{_tag(host.port_id)}", address, host.name])))
    return "\n".join([*lines, ""])


def options(plan: DhcpPlan) -> str:
    lines: list[str] = []
    for subnet in plan.subnets:
        lines += _options_of_four(plan, subnet) if subnet.version == 4 else _options_of_six(subnet)
    for host in plan.hosts:
        for version, name, value in host.options:
            option = name if name.isdigit() else f"option{'6' if version == 6 else ''}:{name}"
            lines.append(f"tag:{_tag(host.port_id)},{option},{value}")
    return "\n".join([*lines, ""])


def _options_of_four(plan: DhcpPlan, subnet: DhcpSubnet) -> Iterator[str]:
    tag = f"tag:{_tag(subnet.id)}"
    yield f"{tag},option:mtu,{plan.mtu}"
    # Without a value an option that dnsmasq would make up itself is not sent.
    yield ",".join([tag, "option:dns-server", *subnet.dns])
    yield ",".join([tag, "option:router", *([subnet.gateway] if subnet.gateway else [])])
    # The metadata service is here, whether or not there is a router.
    routes = [(f"{METADATA}/32", subnet.address), *subnet.routes]
    if subnet.gateway and not any(ipaddress.ip_network(to).prefixlen == 0 for to, _ in routes):
        routes.append(("0.0.0.0/0", subnet.gateway))
    pairs = [part for route in routes for part in route]
    yield ",".join([tag, "option:classless-static-route", *pairs])
    yield ",".join([tag, "249", *pairs])


def _options_of_six(subnet: DhcpSubnet) -> Iterator[str]:
    tag = f"tag:{_tag(subnet.id)}"
    yield ",".join([tag, "option6:dns-server", *(f"[{each}]" for each in subnet.dns)])


def _tag(of: str) -> str:
    return f"t{of[:11]}"
