"""Reboot, stop, start, pause, unpause, suspend, resume."""

from __future__ import annotations

from kilonova.compute import states
from kilonova.compute.servers.submit import submit
from kilonova.context import RequestContext
from kilonova.db.servers import Server
from kilonova.errors import Conflict
from kilonova.runtime import Runtime

SOFT_REBOOT_FROM = (states.ACTIVE,)
HARD_REBOOT_FROM = (states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED, states.ERROR)


async def reboot(rt: Runtime, ctx: RequestContext, server: Server, *, hard: bool) -> None:
    """A hard reboot pushes a soft one aside, and sets a server in ERROR right."""
    await submit(
        rt,
        ctx,
        server,
        kind="reboot",
        action="reboot",
        task_state=states.REBOOTING_HARD if hard else states.REBOOTING,
        vm_states=HARD_REBOOT_FROM if hard else SOFT_REBOOT_FROM,
        over_tasks=(states.REBOOTING, states.REBOOTING_HARD) if hard else (),
        data={"hard": hard},
    )


async def stop(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await submit(
        rt, ctx, server, kind="stop", action="stop", task_state=states.POWERING_OFF,
        vm_states=(states.ACTIVE, states.ERROR), values={"desired_power": states.POWER_SHUTDOWN},
    )  # fmt: skip


async def start(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await submit(
        rt, ctx, server, kind="start", action="start", task_state=states.POWERING_ON,
        vm_states=(states.STOPPED,), values={"desired_power": states.POWER_RUNNING},
    )  # fmt: skip


async def pause(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await submit(
        rt, ctx, server, kind="pause", action="pause", task_state=states.PAUSING,
        vm_states=(states.ACTIVE,), values={"desired_power": states.POWER_PAUSED},
    )  # fmt: skip


async def unpause(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await submit(
        rt, ctx, server, kind="unpause", action="unpause", task_state=states.UNPAUSING,
        vm_states=(states.PAUSED,), values={"desired_power": states.POWER_RUNNING},
    )  # fmt: skip


async def suspend(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    if (server.claim or {}).get("pci_devices"):
        # Its memory can be saved, the state of a device cannot.
        raise Conflict(f"Cannot 'suspend' instance {server.uuid}: it has PCI devices of its host")
    await submit(
        rt, ctx, server, kind="suspend", action="suspend", task_state=states.SUSPENDING,
        vm_states=(states.ACTIVE,), values={"desired_power": states.POWER_SUSPENDED},
    )  # fmt: skip


async def resume(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await submit(
        rt, ctx, server, kind="resume", action="resume", task_state=states.RESUMING,
        vm_states=(states.SUSPENDED,), values={"desired_power": states.POWER_RUNNING},
    )  # fmt: skip
