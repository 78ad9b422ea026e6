"""The question to the scheduler that a server makes: its needs, its group, and what its hints mean by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.compute.needs import read_needs
from kilonova.db import server_groups
from kilonova.db.engine import Tx
from kilonova.db.scheduling import read_node
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.errors import Invalid
from kilonova.runtime import Image
from kilonova.scheduler.request import Group, PlacementRequest
from kilonova.settings import ComputeSettings

FILTER_OF_HINT = {
    "same_host": "SameHostFilter",
    "different_host": "DifferentHostFilter",
    "build_near_host_ip": "SimpleCIDRAffinityFilter",
    "query": "JsonFilter",
}
_FILTER_OF_SCOPE = {
    "aggregate_instance_extra_specs": "AggregateInstanceExtraSpecsFilter",
    "capabilities": "ComputeCapabilitiesFilter",
}
_FILTER_OF_PROPERTY = dict.fromkeys(
    ("img_hv_type", "hypervisor_type", "img_hv_requested_version", "hypervisor_version_requires"),
    "ImagePropertiesFilter",
)


def listed(hint: Any) -> list[str]:
    """A hint that is one server or several."""
    return [str(one) for one in hint] if isinstance(hint, list) else [str(hint)]


def text(hint: Any) -> str:
    """A hint that is one thing, which may come as a list of one; an object as its JSON."""
    if isinstance(hint, Mapping):
        return msgspec.json.encode(hint).decode()
    return str(hint[0]) if isinstance(hint, list) and hint else str(hint)


def check_wishes(
    settings: ComputeSettings,
    hints: Mapping[str, Any],
    extra_specs: Mapping[str, str],
    properties: Mapping[str, str],
) -> None:
    """Raises Invalid for what asks something of a filter that this cloud does not have enabled, or cannot be read."""
    enabled = {name.rsplit(".", 1)[-1] for name in settings.scheduler.enabled_filters}
    needed = [(f"scheduler hint '{name}'", wanted) for name, wanted in FILTER_OF_HINT.items() if hints.get(name)]
    for key in extra_specs:
        scope = key.split(":")[0]
        if ":" in key and scope in _FILTER_OF_SCOPE:
            needed.append((f"flavor extra spec '{key}'", _FILTER_OF_SCOPE[scope]))
    needed += [
        (f"image property '{key}'", wanted) for key, wanted in _FILTER_OF_PROPERTY.items() if properties.get(key)
    ]
    for what, wanted in needed:
        if wanted not in enabled:
            raise Invalid(f"The {what} cannot be honoured: {wanted} is not enabled in this cloud.")
    if hints.get("query"):
        from kilonova.scheduler.filters.json_query import parse

        parse(text(hints["query"]))
    if hints.get("build_near_host_ip"):
        from kilonova.scheduler.filters.wishes import near_network

        address, prefix = text(hints["build_near_host_ip"]), text(hints.get("cidr", "/24"))
        if near_network(address, prefix) is None:
            raise Invalid(
                f"The scheduler hints build_near_host_ip={address} and cidr={prefix} make no network; "
                "accepted are an IP address, and the length of a prefix like '/24'."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be placed: a server, or one that might be asked for. Memory in MiB, disk in GiB."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    flavor_name: str
    extra_specs: dict[str, str]
    image_id: str | None
    image_properties: dict[str, str]
    project_id: str
    availability_zone: str | None
    hints: Mapping[str, Any]
    server_group: str | None = None
    pci_aliases: Mapping[str, str] = field(default_factory=dict)
    holds_on: str | None = None
    """The host on which it has a claim already."""


def subject_of(server: Server, settings: ComputeSettings) -> Subject:
    return Subject(
        vcpus=server.vcpus,
        memory_mb=server.memory_mb,
        disk_gb=server.disk_gb,
        flavor_name=str(server.flavor.get("name", "")),
        extra_specs=server.flavor.get("extra_specs") or {},
        image_id=server.image_ref or None,
        image_properties=(server.image or {}).get("properties") or {},
        project_id=server.project_id,
        availability_zone=server.pinned_availability_zone,
        hints=server.scheduler_hints,
        server_group=server.server_group,
        pci_aliases=settings.pci_aliases,
        holds_on=server.host if server.claimed else None,
    )


async def request_for(
    tx: Tx,
    subject: Subject,
    *,
    host: str | None = None,
    node: str | None = None,
    forced: bool = False,
    exclude_nodes: Sequence[int] = (),
) -> PlacementRequest:
    """`host`, `node`: what an administrator asked for. Raises Invalid as `read_needs` does."""
    s, hints = subject, subject.hints
    needs = read_needs(s.vcpus, s.memory_mb, s.disk_gb, s.extra_specs, s.image_properties, s.pci_aliases)
    same, different = hints.get("same_host"), hints.get("different_host")
    near = hints.get("build_near_host_ip")
    return PlacementRequest(
        vcpus=needs.vcpus,
        memory_mb=needs.memory_mb,
        disk_gb=needs.disk_gb,
        resources=needs.resources,
        numa=needs.numa,
        required_traits=tuple(sorted(needs.required_traits)),
        forbidden_traits=tuple(sorted(needs.forbidden_traits)),
        availability_zone=s.availability_zone,
        host=host,
        node=node,
        forced=forced,
        exclude_nodes=tuple(exclude_nodes),
        project_id=s.project_id,
        flavor_name=s.flavor_name,
        extra_specs=s.extra_specs,
        image_id=s.image_id,
        image_properties=s.image_properties,
        group=await _group(tx, s),
        same_hosts=tuple(await _hosts_of(tx, listed(same))) if same else None,
        different_hosts=tuple(await _hosts_of(tx, listed(different))) if different else (),
        near_ip=text(near) if near else None,
        cidr=text(hints.get("cidr", "/24")),
        query=text(hints["query"]) if hints.get("query") else None,
    )


OF_IMAGE = ("traits", "ImagePropertiesFilter", "IsolatedHostsFilter")


async def check_image(tx: Tx, settings: ComputeSettings, server: Server, image_id: str, image: Image) -> None:
    """Whether the server's host can run it from another image. Raises Invalid, saying why not."""
    properties = image.spec.properties
    # Filters come with their arrays: 9 MiB that a process without rebuilds does not need.
    from kilonova.scheduler.picture import Picture
    from kilonova.scheduler.registry import make_rules

    check_wishes(settings, {}, {}, properties)
    node = await read_node(tx, server.host or "", server.node or "")
    if node is None:
        return
    subject = replace(
        subject_of(server, settings), image_id=image_id, image_properties=properties, server_group=None, hints={}
    )
    request = await request_for(tx, subject)
    picture = Picture([node])
    for one in make_rules(settings.scheduler).filters:
        mask = one.mask(picture, request) if one.name in OF_IMAGE else None
        if mask is not None and not mask[0]:
            raise Invalid(f"The server cannot be rebuilt from this image: its host {one.why(picture, 0, request)}.")


async def _hosts_of(tx: Tx, uuids: Sequence[str]) -> list[str]:
    c = instances.c
    query = sa.select(c.host).where(c.uuid.in_(uuids), c.deleted == 0, c.host.is_not(None)).distinct()
    return sorted(row.host for row in await tx.execute(query))


async def _group(tx: Tx, subject: Subject) -> Group | None:
    if subject.server_group is None:
        return None
    group = await server_groups.get(tx, subject.server_group)
    if group is None:
        return None
    members = await server_groups.hosts(tx, group.id)
    if subject.holds_on in members:
        members[subject.holds_on] -= 1
    return Group(policy=group.policy, max_server_per_host=group.max_server_per_host, members=members)
