"""The cloud's external network: which addresses it has, and its being there in Neutron from the first start on."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kilonova.network.rest import NeutronRest

NAME = "public"
"""Of the external network in Neutron, and of the flat physical network that it is."""

POOL_NAME = "shared-default-subnetpool-v4"
TENANT_RANGE = "10.64.0.0/10"
"""From which Neutron takes subnets for projects that ask for 'a network' without saying more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRange:
    """A /24 between the machine and the cloud's own namespaces, one per cloud."""

    cidr: IPv4Network
    gateway: IPv4Address
    """The machine's end of the link."""
    pool: tuple[IPv4Address, IPv4Address]
    """First and last address for routers and floating IPs."""


def external_range(cloud_id: str) -> ExternalRange:
    """172.24.n.0/24, where n (1 to 254) follows from the cloud's id (hex digits)."""
    cidr = IPv4Network(f"172.24.{1 + int(cloud_id, 16) % 254}.0/24")
    return ExternalRange(cidr=cidr, gateway=cidr[1], pool=(cidr[10], cidr[250]))


async def ensure_content(rest: NeutronRest, wanted: ExternalRange) -> None:
    """Make what is missing; leave alone what is there, whatever an admin has made of it. Raises Unavailable.

    The external network is the default one and there is a default subnet pool, which is all that Neutron needs to
    give a project a network of its own (`openstack server create --nic auto`).
    """
    found = await rest.where("networks", {"provider:physical_network": NAME})
    if found:
        network = found[0]
    else:
        network = await rest.create(
            "networks",
            {
                "name": NAME,
                "router:external": True,
                "is_default": True,
                "provider:network_type": "flat",
                "provider:physical_network": NAME,
            },
        )
    if not network["subnets"]:
        await rest.create(
            "subnets",
            {
                "name": NAME,
                "network_id": network["id"],
                "ip_version": 4,
                "cidr": str(wanted.cidr),
                "gateway_ip": str(wanted.gateway),
                "allocation_pools": [{"start": str(wanted.pool[0]), "end": str(wanted.pool[1])}],
                "enable_dhcp": False,
            },
        )
    if not await rest.where("subnetpools", {"is_default": "True", "ip_version": "4"}):
        pool = {"name": POOL_NAME, "prefixes": [TENANT_RANGE], "default_prefixlen": "24", "is_default": True}
        await rest.create("subnetpools", {**pool, "shared": True})
