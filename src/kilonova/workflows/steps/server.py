"""What the steps of several workflows share: the server's row, its host, its end."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from kilonova.agent.driver import ImageSpec, Secrets, ServerSpec
from kilonova.bus.messages import Result
from kilonova.compute import network_info
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine import store
from kilonova.engine.model import Data, Fenced, Run
from kilonova.numa import read_placed
from kilonova.settings import ComputeSettings
from kilonova.workflows.env import Env

TURN = 0.01
"""Seconds between sending a command and its start on the host, from which on they are told apart from its own time."""


async def load(run: Run[Env]) -> Server:
    """The server as it stands. Raises Fenced when it is gone: then somebody else has ended this operation."""
    server = await run.env.rt.db.read(lambda tx: servers.get(tx, run.server_uuid))
    if server is None:
        raise Fenced
    return server


async def change(tx: Tx, run: Run[Env], **values: Any) -> None:
    """Change the server while this operation holds its slot. Raises Fenced otherwise."""
    values["updated_at"] = run.env.rt.world.now()
    if not await servers.update_held(tx, run.server_uuid, run.id, values):
        raise Fenced


async def settle(tx: Tx, run: Run[Env], **values: Any) -> None:
    """The same, and give the slot back."""
    await change(tx, run, operation_id=None, task_state=None, **values)


async def pass_on(tx: Tx, run: Run[Env], **values: Any) -> None:
    """Change the server, and give its slot to the operation that has waited longest for it, if there is one."""
    # The lock keeps others from queueing behind an operation that ends just now.
    server = await servers.get(tx, run.server_uuid, lock=True)
    if server is None or server.operation_id != run.id:
        raise Fenced
    waiting = await store.queued(tx, run.server_uuid)
    await change(tx, run, operation_id=waiting[0] if waiting else None, **values)
    if waiting:
        await store.begin_queued(tx, waiting[0])
    run.wakes = tuple(waiting[:1])


def fault(run: Run[Env], *, code: int = 500) -> dict[str, Any]:
    """The server's fault for the failure that ends this run."""
    failure = run.failure
    return {
        "code": code,
        "message": failure.message if failure else "",
        "details": failure.details if failure else None,
        "created": run.env.rt.world.now().isoformat(timespec="seconds") + "Z",
    }


def spec(server: Server, settings: ComputeSettings, files: dict[str, str] | None = None) -> ServerSpec:
    """All that a host needs to build the server, or to define it anew. `files`: to be injected, base64."""
    flavor = server.flavor
    return ServerSpec(
        uuid=server.uuid,
        name=settings.instance_name_template % server.id,
        display_name=server.display_name,
        hostname=server.hostname,
        project_id=server.project_id,
        user_id=server.user_id,
        deployment_id=settings.deployment_id,
        vcpus=server.vcpus,
        memory_mb=server.memory_mb,
        root_gb=server.root_gb,
        ephemeral_gb=server.ephemeral_gb,
        swap_mb=server.swap_mb,
        flavor_name=str(flavor.get("name", "")),
        extra_specs=flavor.get("extra_specs") or {},
        image=msgspec.convert(server.image["spec"], ImageSpec) if server.image else None,
        config_drive=bool(server.config_drive) or settings.force_config_drive,
        availability_zone=server.availability_zone,
        metadata=server.metadata,
        key_name=server.key_name,
        public_key=server.key_data,
        key_type=server.key_type or "ssh",
        user_data=server.user_data,
        launch_index=server.launch_index,
        files=files or {},
        reservation_id=server.reservation_id,
        machine_type=server.machine_type,
        cpu_model=server.cpu_model,
        nics=network_info.nics_of(server.network_info),
        pci_devices=tuple((server.claim or {}).get("pci_devices") or ()),
        numa=read_placed((server.claim or {}).get("numa")),
    )


async def secrets(run: Run[Env]) -> Secrets:
    """The operation's secrets and a token for the image; made anew for each message, kept nowhere."""
    kept = run.operation.secrets or {}
    return Secrets(admin_password=kept.get("admin_password"), image_token=await run.env.rt.image_token())


async def command(
    run: Run[Env], step: str, host: str, verb: str, args: msgspec.Struct, *, with_secrets: bool = False
) -> Data:
    """Have the server's host do `verb`; see `conductor.agents.Agents.call` for the errors."""
    run.host = host
    world = run.env.rt.world
    since = world.now()
    seconds: float | None = None

    async def make_secrets() -> Secrets:
        return await secrets(run)

    def on_result(result: Result) -> None:
        nonlocal seconds
        seconds = result.seconds

    try:
        return await run.env.agents.call(
            host=host,
            key=run.key(step),
            operation_id=run.id,
            server_uuid=run.server_uuid,
            verb=verb,
            args=args,
            secrets=make_secrets if with_secrets else None,
            on_progress=run.report,
            on_result=on_result,
        )
    finally:
        until = world.now()
        # A result that was stored before tells of an earlier time, which may be longer than this.
        began = since if seconds is None else max(since, until - dt.timedelta(seconds=seconds))
        if (began - since).total_seconds() > TURN:
            run.waited(since, began, "turn", f"{verb} on {host}")
        run.waited(began, until, "host", f"{verb} on {host}")
