"""What the scheduler would say of a server, or of a wish, on what the database has now. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.compute import placing
from kilonova.compute.needs import claimed_by
from kilonova.compute.servers.boot import check_asked
from kilonova.conductor.host_picture import HostPicture
from kilonova.db import flavors, server_groups, servers
from kilonova.db.engine import Database, Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instance_types, instances, operations
from kilonova.errors import Invalid, NotFound
from kilonova.runtime import Image
from kilonova.scheduler.explain import Explanation, explain
from kilonova.scheduler.registry import make_rules
from kilonova.scheduler.request import PlacementRequest
from kilonova.settings import ComputeSettings
from kilonova.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A server that might be asked for. Hints as the API takes them."""

    flavor: str
    image: Image | None = None
    project_id: str = ""
    availability_zone: str | None = None
    host: str | None = None
    hints: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """`server`: None for a wish."""

    request: PlacementRequest
    explanation: Explanation
    server: Server | None = None


async def explain_server(db: Database, settings: ComputeSettings, name: str) -> Explained:
    """`name`: a server's id, or its name when only one has it. What it holds counts as free. Raises NotFound."""

    async def work(tx: Tx) -> tuple[Server, PlacementRequest]:
        server = await _find(tx, name)
        o = operations.c
        query = sa.select(o.data).where(o.server_uuid == server.uuid, o.kind.in_(("boot", "boot_with_ports")))
        data: dict[str, Any] = (await tx.execute(query.order_by(o.id.desc()).limit(1))).scalar() or {}
        request = await placing.request_for(
            tx,
            placing.subject_of(server, settings),
            host=data.get("requested_host"),
            node=data.get("requested_node"),
            forced=bool(data.get("forced_host")),
        )
        return server, request

    server, request = await db.read(work)
    picture = await HostPicture(db, World(), settings).current(0.0)
    if server.claimed:
        held = claimed_by(server)
        for row in picture.rows_of_host(server.host or ""):
            if picture.nodes[row].node == server.node:
                mine = PlacementRequest(
                    vcpus=held.vcpus, memory_mb=held.memory_mb, disk_gb=held.disk_gb, resources=held.resources
                )
                picture.give_back(row, mine)
    return Explained(
        server=server, request=request, explanation=explain(picture, request, make_rules(settings.scheduler))
    )


async def _find(tx: Tx, name: str) -> Server:
    c = instances.c
    rows = await tx.execute(
        sa.select(instances).where(sa.or_(c.uuid == name, c.display_name == name)).order_by(c.deleted, c.id.desc())
    )
    found = [servers.from_row(row) for row in rows]
    alive = [server for server in found if not server.deleted] or found
    exact = [server for server in alive if server.uuid == name] or alive
    if not exact:
        raise NotFound(f"No server has the id or name '{name}'.")
    if len(exact) > 1:
        raise Invalid(f"{len(exact)} servers have the name '{name}'; say which by its id.")
    return exact[0]


async def explain_wish(db: Database, settings: ComputeSettings, wish: Wish) -> Explained:
    """Raises NotFound without the flavor, Invalid for what a request with this would be refused for."""

    async def work(tx: Tx) -> PlacementRequest:
        flavor = await _flavor(tx, wish.flavor)
        properties = wish.image.properties if wish.image else {}
        check_asked(settings, flavor, wish.image, wish.hints)
        group = str(wish.hints["group"]) if wish.hints.get("group") else None
        if group is not None and await server_groups.get(tx, group) is None:
            raise Invalid(f"Instance group {group} could not be found.")
        subject = placing.Subject(
            vcpus=flavor.vcpus,
            memory_mb=flavor.memory_mb,
            disk_gb=flavor.root_gb + flavor.ephemeral_gb + -(-flavor.swap_mb // 1024),
            flavor_name=flavor.name,
            extra_specs=flavor.extra_specs,
            image_id=wish.image.id if wish.image else None,
            image_properties=properties,
            project_id=wish.project_id,
            availability_zone=wish.availability_zone or settings.default_schedule_zone,
            hints=wish.hints,
            pci_aliases=settings.pci_aliases,
            server_group=group,
        )
        return await placing.request_for(tx, subject, host=wish.host)

    request = await db.read(work)
    picture = await HostPicture(db, World(), settings).current(0.0)
    return Explained(request=request, explanation=explain(picture, request, make_rules(settings.scheduler)))


async def _flavor(tx: Tx, name: str) -> flavors.Flavor:
    found = await flavors.get(tx, name)
    if found is None:
        row = (await tx.execute(sa.select(instance_types.c.flavorid).where(instance_types.c.name == name))).first()
        found = await flavors.get(tx, row.flavorid) if row is not None else None
    if found is None:
        raise NotFound(f"No flavor has the id or name '{name}'.")
    return found
