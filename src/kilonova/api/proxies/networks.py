"""`/os-networks`, `/os-tenant-networks` and `/os-floating-ip-pools`."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.compute import network_proxies
from kilonova.networking import Document

_EMPTY = ("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6")
_EMPTY_FOR_ADMINISTRATORS = (
    "created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address",
    "vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host",
    "priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address",
)  # fmt: skip


async def index(request: Request) -> Any:
    found = await network_proxies.networks(request.runtime, request.context)
    return {"networks": [_network(request, network) for network in found]}


async def show(request: Request) -> Any:
    found = await network_proxies.network(request.runtime, request.context, request.params["id"])
    return {"network": _network(request, found)}


def _network(request: Request, network: Document) -> dict[str, Any]:
    """What Networking does not have any more is null."""
    names = (*_EMPTY, *_EMPTY_FOR_ADMINISTRATORS) if request.context.is_admin else _EMPTY
    return dict.fromkeys(names) | {"id": network["id"], "label": network["name"]}


async def tenant_index(request: Request) -> Any:
    found = await network_proxies.networks(request.runtime, request.context)
    return {"networks": [_tenant_network(network) for network in found]}


async def tenant_show(request: Request) -> Any:
    found = await network_proxies.network(request.runtime, request.context, request.params["id"])
    return {"network": _tenant_network(found)}


def _tenant_network(network: Document) -> dict[str, Any]:
    # That is how the old interface has always shown it.
    return {"id": network["id"], "cidr": "None", "label": network["name"]}


async def pools(request: Request) -> Any:
    found = await network_proxies.pools(request.runtime)
    return {"floating_ip_pools": [{"name": network["name"] or network["id"]} for network in found]}
