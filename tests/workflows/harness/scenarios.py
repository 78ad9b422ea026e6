"""What is done to a server, from which state, and how it ends when nothing that matters goes wrong."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kilonova.compute import attach, states
from kilonova.compute.servers import power, rebuild, soft_delete
from kilonova.context import RequestContext
from kilonova.db import server_groups
from kilonova.db.servers import Server
from kilonova.db.tables import instance_types
from kilonova.runtime import Runtime
from tests.workflows.harness.audit import GONE
from tests.workflows.harness.cloud import APART, GPU_FLAVOR, NETWORK, PASSWORD, RICH_FLAVOR, TOGETHER, FaultCloud
from tests.workflows.harness.director import Director

Verb = Callable[[Runtime, RequestContext, Server], Awaitable[Any]]


async def _hard_reboot(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await power.reboot(rt, ctx, server, hard=True)


async def _soft_reboot(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await power.reboot(rt, ctx, server, hard=False)


async def _rebuild(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await rebuild.rebuild(
        rt, ctx, server, rebuild.RebuildRequest(image_ref="image-1", admin_password=PASSWORD, changes={})
    )


async def _attach(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await attach.attach(rt, ctx, server, network_id=NETWORK)


async def _attach_two(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    """The second one has to wait for the first."""
    for number in (1, 2):
        await _attach(rt, dataclasses.replace(ctx, request_id=f"{ctx.request_id}-{number}"), server)


async def _detach(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await attach.detach(rt, ctx, server, server.network_info[0]["port_id"])


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`verb` None: create; `start` None: there is no server before. `effects`: how often each verb took effect.

    `has_ports`: the server that is there before has two. `special`: it claims more than size: a place in a group, and
    a resource of another class.
    """

    name: str
    kind: str
    start: str | None
    end: str
    verb: Verb | None = None
    deletes: bool = False
    networks: list[dict[str, Any]] | None = None
    failed: str | None = None
    """Where its failing leaves the server; None: where it was."""
    has_ports: bool = False
    special: bool = False
    effects: Mapping[str, int] = field(default_factory=dict)

    async def act(self, cloud: FaultCloud) -> None:
        if self.start is None:
            await create(cloud, self, self.networks)
            return
        server = (await cloud.all_servers())[0]
        if self.deletes:
            await cloud.delete(server.uuid)
        elif self.verb is not None:
            verb = self.verb
            await cloud.as_api(lambda rt: verb(rt, cloud.context(), server))


async def create(cloud: FaultCloud, scenario: Scenario, networks: list[dict[str, Any]] | None) -> str | None:
    if scenario.special:
        return await cloud.create(networks=networks, flavor=RICH_FLAVOR, group=APART)
    return await cloud.create(networks=networks)


_GPU = {"resources:CUSTOM_GPU": "1"}
_RICH = _GPU | {"pci_passthrough:alias": "nic:1"}
_TWO = [{"uuid": NETWORK}, {"uuid": NETWORK}]
_BUILT = {"disks": 1, "config_drive": 1, "defined": 1, "running": 1}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="boot", kind="boot", start=None, end=states.ACTIVE, effects=_BUILT),
        Scenario(name="boot special", kind="boot", start=None, end=states.ACTIVE, special=True, effects=_BUILT),
        Scenario(
            name="delete special", kind="delete", start=states.ACTIVE, end=GONE, deletes=True, special=True,
            effects={**_BUILT, "absent": 1, "disks_absent": 1},
        ),
        Scenario(
            name="boot with ports", kind="boot_with_ports", start=None, end=states.ACTIVE,
            networks=_TWO, effects={**_BUILT, "plugged": 1},
        ),
        Scenario(
            name="delete with ports", kind="delete", start=states.ACTIVE, end=GONE, deletes=True, has_ports=True,
            effects={**_BUILT, "plugged": 1, "absent": 1, "unplugged": 1, "disks_absent": 1},
        ),
        Scenario(
            name="rebuild with ports", kind="rebuild", start=states.ACTIVE, end=states.ACTIVE, verb=_rebuild,
            has_ports=True,
            effects={
                "disks": 2, "config_drive": 2, "defined": 2, "running": 2, "plugged": 1, "absent": 1,
                "disks_absent": 1,
            },
        ),
        Scenario(
            name="attach", kind="attach_interface", start=states.ACTIVE, end=states.ACTIVE, verb=_attach,
            effects={**_BUILT, "attached": 1},
        ),
        Scenario(
            name="attach two", kind="attach_interface", start=states.ACTIVE, end=states.ACTIVE, verb=_attach_two,
            has_ports=True, effects={**_BUILT, "plugged": 1, "attached": 2},
        ),
        Scenario(
            name="detach", kind="detach_interface", start=states.ACTIVE, end=states.ACTIVE, verb=_detach,
            has_ports=True, effects={**_BUILT, "plugged": 1, "detached": 1},
        ),
        Scenario(
            name="delete",
            kind="delete",
            start=states.ACTIVE,
            end=GONE,
            deletes=True,
            effects={**_BUILT, "absent": 1, "disks_absent": 1},
        ),
        Scenario(
            name="reboot soft", kind="reboot", start=states.ACTIVE, end=states.ACTIVE, verb=_soft_reboot,
            effects={**_BUILT, "rebooted": 1},
        ),
        Scenario(
            name="reboot hard", kind="reboot", start=states.ACTIVE, end=states.ACTIVE, verb=_hard_reboot,
            effects={**_BUILT, "rebooted": 1},
        ),
        Scenario(
            name="stop", kind="stop", start=states.ACTIVE, end=states.STOPPED, verb=power.stop,
            effects={**_BUILT, "stopped": 1},
        ),
        Scenario(
            name="start", kind="start", start=states.STOPPED, end=states.ACTIVE, verb=power.start,
            effects={**_BUILT, "stopped": 1, "running": 2},
        ),
        Scenario(
            name="soft delete", kind="soft_delete", start=states.ACTIVE, end=states.SOFT_DELETED,
            verb=soft_delete.delete, effects={**_BUILT, "stopped": 1},
        ),
        Scenario(
            name="restore", kind="restore", start=states.SOFT_DELETED, end=states.ACTIVE, verb=soft_delete.restore,
            failed=states.STOPPED,
            effects={**_BUILT, "stopped": 1, "running": 2},
        ),
        Scenario(
            name="pause", kind="pause", start=states.ACTIVE, end=states.PAUSED, verb=power.pause,
            effects={**_BUILT, "paused": 1},
        ),
        Scenario(
            name="unpause", kind="unpause", start=states.PAUSED, end=states.ACTIVE, verb=power.unpause,
            effects={**_BUILT, "paused": 1, "unpaused": 1},
        ),
        Scenario(
            name="suspend", kind="suspend", start=states.ACTIVE, end=states.SUSPENDED, verb=power.suspend,
            effects={**_BUILT, "suspended": 1},
        ),
        Scenario(
            name="resume", kind="resume", start=states.SUSPENDED, end=states.ACTIVE, verb=power.resume,
            effects={**_BUILT, "suspended": 1, "resumed": 1},
        ),
        Scenario(
            name="rebuild", kind="rebuild", start=states.ACTIVE, end=states.ACTIVE, verb=_rebuild,
            effects={"disks": 2, "config_drive": 2, "defined": 2, "running": 2, "absent": 1, "disks_absent": 1},
        ),
        Scenario(
            name="rebuild stopped", kind="rebuild", start=states.STOPPED, end=states.STOPPED, verb=_rebuild,
            effects={
                "disks": 2, "config_drive": 2, "defined": 2, "running": 1, "stopped": 1, "absent": 1,
                "disks_absent": 1,
            },
        ),
    )
}  # fmt: skip

_WAYS: dict[str, Verb] = {
    states.STOPPED: power.stop,
    states.PAUSED: power.pause,
    states.SUSPENDED: power.suspend,
    states.SOFT_DELETED: soft_delete.delete,
}


async def make_template(directory: Path, scenario: Scenario) -> None:
    """A cloud's files with one server in a state, or with none."""
    from tests.workflows.harness.cases import rest, schema

    await schema(directory)
    start = scenario.start
    cloud = FaultCloud(directory, Director(), 0)
    await cloud.start()
    try:

        async def flavor(tx: Any) -> None:
            now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            sizes = ("1", 1, {}), ("2", 2, {}), (GPU_FLAVOR, 1, _GPU), (RICH_FLAVOR, 1, _RICH)
            for number, vcpus, specs in sizes:
                await tx.execute(
                    sa.insert(instance_types).values(
                        flavorid=number, name=f"m{number}", vcpus=vcpus, memory_mb=512 * vcpus, root_gb=vcpus,
                        extra_specs=specs, created_at=now,
                    )
                )  # fmt: skip
            for uuid, policy in ((APART, "anti-affinity"), (TOGETHER, "affinity")):
                await server_groups.insert(
                    tx,
                    {
                        "uuid": uuid, "project_id": "project-1", "user_id": "user-1", "name": policy, "policy": policy,
                        "rules": {}, "created_at": now,
                    },
                )  # fmt: skip

        await cloud.db.write(flavor)
        if start is not None:
            uuid = await create(cloud, scenario, _TWO if scenario.has_ports else None)
            assert uuid is not None
            assert await rest(cloud, {states.ACTIVE}) == []
            if start in _WAYS:
                server = await cloud.server(uuid)
                assert server is not None
                await _WAYS[start](cloud.runtime(cloud.api), cloud.context(), server)
                assert await rest(cloud, {start}) == []
            cloud.keep_network()
    finally:
        await cloud.close()
