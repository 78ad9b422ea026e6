"""Boot: find and claim a host, have it build the guest."""

from __future__ import annotations

import dataclasses

import msgspec

from kilonova import tracing
from kilonova.agent.commands import BootArgs
from kilonova.bus.messages import SchedulingQuestion
from kilonova.compute import claims, placing, states
from kilonova.compute.needs import Needs, needs_of
from kilonova.db import pci_devices, servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine.model import Again, Data, Fenced, Run, Step, Workflow
from kilonova.errors import NoValidHost, Transient, Unavailable
from kilonova.scheduler.request import Placement, PlacementRequest
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared
from kilonova.workflows.steps.destroy import bury, destroy_on

SCHEDULE = 600.0
"""Seconds until a server that no scheduler answers for fails: longer than brokers and schedulers take to come back."""


async def find_hosts(run: Run[Env]) -> Data:
    server = await shared.load(run)
    run.scratch["server"] = server

    async def make_request(tx: Tx) -> PlacementRequest:
        return await placing.request_for(
            tx,
            placing.subject_of(server, run.env.rt.settings),
            host=run.data.get("requested_host"),
            node=run.data.get("requested_node"),
            forced=bool(run.data.get("forced_host")),
            exclude_nodes=[*run.data.get("excluded", ()), *run.scratch.get("full", ())],
        )

    request = await run.env.rt.db.read(make_request)
    question = SchedulingQuestion(request=request, fresh=run.tries > 0, traceparent=tracing.traceparent())
    try:
        with run.waiting(run.env.rt.world, "scheduler", "where to"):
            answer = await run.env.rt.bus.ask("scheduler", question, run.env.pace.scheduler)
    except Unavailable as error:
        raise Transient(error.message) from error
    if answer.error is not None:
        raise Transient(answer.error)
    placement = msgspec.convert(answer.data, Placement)
    if not placement.candidates:
        raise NoValidHost(_no_host(run, placement))
    run.scratch["candidates"] = placement.candidates
    return {}


def _no_host(run: Run[Env], placement: Placement) -> str:
    earlier = run.data.get("last_failure")
    return f"{placement.explain()} Before that: {earlier}" if earlier else placement.explain()


async def claim_host(tx: Tx, run: Run[Env], result: Data) -> None:
    server: Server = run.scratch["server"]
    needs = needs_of(server, run.env.rt.settings.pci_aliases)
    held = needs.claim()
    plain = Needs(vcpus=server.vcpus, memory_mb=server.memory_mb, disk_gb=server.disk_gb).claim()
    group = await claims.lock_group(tx, server)
    for candidate in run.scratch["candidates"]:
        generation = candidate.aggregates_generation
        taken = await claims.take(tx, needs, candidate.node_id, group, candidate.host, generation, server.uuid)
        if taken is not None:
            if taken.numa:
                held["numa"] = msgspec.to_builtins(taken.numa)
            if needs.devices:
                held["pci_devices"] = await pci_devices.of_server(tx, server.uuid)
            run.host = candidate.host
            run.data |= {"host": candidate.host, "node_id": candidate.node_id, "failing": candidate.failing}
            place = {
                "host": candidate.host,
                "node": candidate.node,
                "availability_zone": candidate.availability_zone,
                "claimed": True,
                "claim": None if held == plain else held,
                "task_state": states.SPAWNING,
            }
            await shared.change(tx, run, **place)
            # For the next steps; a deadlock's second try may find another host, from the same row.
            run.scratch["placed"] = place
            return
    # Others were faster on all of them: look again, with fresh eyes. One whose aggregates have changed may still do.
    refused = [c for c in run.scratch["candidates"] if not await claims.moved(tx, c.node_id, c.aggregates_generation)]
    run.scratch.setdefault("full", []).extend(c.node_id for c in refused)
    raise Again


async def release_host(tx: Tx, run: Run[Env], result: Data) -> None:
    server = await servers.get(tx, run.server_uuid)
    if server is None:
        raise Fenced
    if server.claimed:
        failed = run.failure is not None and run.failure.kind in ("host", "deadline")
        await claims.release(tx, server, failed=failed)
        await shared.change(
            tx,
            run,
            claimed=False,
            claim=None,
            host=None,
            node=None,
            availability_zone=None,
            task_state=states.SCHEDULING,
        )
    node_id = run.data.pop("node_id", None)
    if node_id is not None:
        run.data["excluded"] = [*run.data.get("excluded", ()), node_id]
    run.data["last_failure"] = run.failure.message if run.failure else None
    run.data.pop("host", None)
    run.scratch.clear()


def placed(run: Run[Env]) -> Server | None:
    """The server on its host, when this process has just put it there."""
    if "server" not in run.scratch or "placed" not in run.scratch:
        return None
    server: Server = run.scratch["server"]
    return dataclasses.replace(server, **run.scratch["placed"])


async def build(run: Run[Env]) -> Data:
    server = placed(run) or await shared.load(run)
    files = (run.operation.secrets or {}).get("files")
    args = BootArgs(spec=shared.spec(server, run.env.rt.settings, files))
    return {"built": await shared.command(run, "build", run.data["host"], "boot", args, with_secrets=True)}


async def destroy(run: Run[Env]) -> Data:
    host = run.data.get("host")
    return await destroy_on(run, host, "build") if host else {}


async def bury_build(tx: Tx, run: Run[Env], result: Data) -> None:
    run.host = run.data.get("host")
    await bury(tx, run, result)


async def succeed(tx: Tx, run: Run[Env]) -> None:
    built = run.data.pop("built")
    if run.data.pop("failing", False):
        await claims.forgive(tx, run.data["node_id"])
    await shared.settle(
        tx,
        run,
        vm_state=states.ACTIVE,
        power_state=built["power_state"],
        launched_at=run.env.rt.world.now(),
        machine_type=built.get("machine_type"),
        cpu_model=built.get("cpu_model"),
    )


async def fail(tx: Tx, run: Run[Env]) -> None:
    await shared.settle(tx, run, vm_state=states.ERROR, fault=shared.fault(run))


WORKFLOW = Workflow(
    kind="boot",
    steps=(
        Step(name="schedule", effect=find_hosts, commit=claim_host, undo_commit=release_host, deadline=SCHEDULE),
        Step(name="build", effect=build, undo=destroy, undo_commit=bury_build, deadline=1800.0),
    ),
    succeed=succeed,
    fail=fail,
    retry_from="schedule",
    max_attempts=lambda env: env.rt.settings.max_attempts,
)
