"""Hypervisors: what hosts report of themselves. No host is asked."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.fields import View
from kilonova.api.hypervisors.view import BRIEF, DETAIL
from kilonova.api.requests import Request
from kilonova.api.types import boolean
from kilonova.api.validation import is_uuid
from kilonova.db import hosts as rows
from kilonova.db.engine import Tx
from kilonova.db.hosts import Hypervisor, MarkerNotFound
from kilonova.errors import Invalid, NotFound, NotImplementedHere

Servers = dict[str, list[tuple[int, str]]]


async def index(request: Request) -> dict[str, Any]:
    return await _list(request, BRIEF, "os-hypervisors")


async def detail(request: Request) -> dict[str, Any]:
    return await _list(request, DETAIL, "os-hypervisors/detail")


async def _list(request: Request, view: View, collection: str) -> dict[str, Any]:
    query = request.query
    pattern = query.last("hypervisor_hostname_pattern")
    marker = query.last("marker") or None
    if pattern is not None and ("limit" in query or marker):
        raise Invalid("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
    paged = request.version >= versions.HYPERVISOR_PAGING and pattern is None
    after = (_by_uuid(marker) if is_uuid(marker) else _by_number(marker)) if marker and paged else None
    if marker and paged and after is None:
        raise Invalid(f"marker [{marker}] not found")
    with_servers = boolean(query.last("with_servers") or False)

    async def work(tx: Tx) -> tuple[list[Hypervisor], Servers | None]:
        found = await rows.find_hypervisors(
            tx,
            service_down_time=request.runtime.settings.service_down_time,
            limit=request.page_limit() if paged else None,
            after=after,
            pattern=pattern,
        )
        return found, await rows.servers_by_host(tx, [node.host for node in found]) if with_servers else None

    try:
        nodes, servers = await request.runtime.db.read(work)
    except MarkerNotFound:
        raise Invalid(f"marker [{marker}] not found") from None
    if pattern is not None and not nodes:
        raise _no_match(pattern)
    shown = [_shown(request, view, node, servers) for node in nodes]
    answer: dict[str, Any] = {"hypervisors": shown}
    if paged:
        links = request.next_links(collection, len(shown), str(shown[-1]["id"]) if shown else None)
        if links:
            answer["hypervisors_links"] = links
    return answer


async def show(request: Request) -> dict[str, Any]:
    with_servers = boolean(request.query.last("with_servers") or False)
    node, servers = await _get(request, with_servers)
    return {"hypervisor": _shown(request, DETAIL, node, servers)}


async def uptime(request: Request) -> dict[str, Any]:
    node, _ = await _get(request, False)
    if not node.up:
        raise Invalid(f"Compute service of {node.host} is unavailable at this time.")
    if node.uptime is None:
        raise NotImplementedHere("The requested functionality is not supported.")
    return {"hypervisor": _shown(request, BRIEF, node, None) | {"uptime": node.uptime}}


async def search(request: Request) -> dict[str, Any]:
    nodes, _ = await _matching(request, False)
    return {"hypervisors": [_shown(request, BRIEF, node, None) for node in nodes]}


async def servers(request: Request) -> dict[str, Any]:
    nodes, found = await _matching(request, True)
    return {"hypervisors": [_shown(request, BRIEF, node, found) for node in nodes]}


async def statistics(request: Request) -> dict[str, Any]:
    sums = await request.runtime.db.read(rows.statistics)
    settings = request.runtime.settings
    memory_used = sums.memory_mb_used + sums.count * settings.reserved_host_memory_mb
    disk_used = sums.local_gb_used + sums.count * (settings.reserved_host_disk_mb // 1024)
    return {
        "hypervisor_statistics": {
            "count": sums.count,
            "vcpus": sums.vcpus,
            "memory_mb": sums.memory_mb,
            "local_gb": sums.local_gb,
            "vcpus_used": sums.vcpus_used,
            "memory_mb_used": memory_used,
            "local_gb_used": disk_used,
            "free_ram_mb": sums.memory_mb - memory_used,
            "free_disk_gb": sums.local_gb - disk_used,
            "current_workload": sums.busy_vms,
            "running_vms": sums.running_vms,
            "disk_available_least": sums.disk_available_least,
        }
    }


def _shown(request: Request, view: View, node: Hypervisor, servers: Servers | None) -> dict[str, Any]:
    shown = view.at(request.version)(node, request)
    if servers is not None:
        template = request.runtime.settings.instance_name_template
        found = [{"name": template % row_id, "uuid": uuid} for row_id, uuid in servers.get(node.host, ())]
        if found or request.version >= versions.UNIFORM_VIEWS:
            shown["servers"] = found
    return shown


def _by_uuid(given: str) -> rows.Identity | None:
    return rows.node_uuid(given) if is_uuid(given) else None


def _by_number(given: str) -> rows.Identity | None:
    return rows.node_row(int(given)) if given.isascii() and given.isdigit() and len(given) < 19 else None


async def _get(request: Request, with_servers: bool) -> tuple[Hypervisor, Servers | None]:
    given = request.params["id"]
    by_uuid = request.version >= versions.UUIDS_FOR_HOSTS
    identity = _by_uuid(given) if by_uuid else _by_number(given)
    missing = NotFound(f"Hypervisor with ID '{given}' could not be found.")
    if identity is None:
        raise Invalid(f"Invalid uuid {given}") if by_uuid else missing

    async def work(tx: Tx) -> tuple[Hypervisor, Servers | None]:
        down = request.runtime.settings.service_down_time
        node = await rows.get_hypervisor(tx, identity, service_down_time=down)
        if node is None:
            raise missing
        return node, await rows.servers_by_host(tx, [node.host]) if with_servers else None

    return await request.runtime.db.read(work)


async def _matching(request: Request, with_servers: bool) -> tuple[list[Hypervisor], Servers | None]:
    pattern = request.params["id"]

    async def work(tx: Tx) -> tuple[list[Hypervisor], Servers | None]:
        down = request.runtime.settings.service_down_time
        nodes = await rows.find_hypervisors(tx, service_down_time=down, pattern=pattern)
        return nodes, await rows.servers_by_host(tx, [node.host for node in nodes]) if with_servers else None

    nodes, found = await request.runtime.db.read(work)
    if not nodes:
        raise _no_match(pattern)
    return nodes, found


def _no_match(pattern: str) -> NotFound:
    return NotFound(f"No hypervisor matching '{pattern}' could be found.")
