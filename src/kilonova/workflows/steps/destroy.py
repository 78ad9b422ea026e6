"""Making sure that a host has nothing of a server any more, now or when it comes back."""

from __future__ import annotations

import asyncio

from kilonova.agent.commands import DestroyArgs
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import tombstones
from kilonova.engine.model import Data, Run
from kilonova.errors import HostFailure, KilonovaError, Transient
from kilonova.workflows.env import Env
from kilonova.workflows.steps.server import command


async def destroy_on(run: Run[Env], host: str, step: str) -> Data:
    """Returns {'tombstone': host} when the host could not be reached or did not manage."""
    try:
        async with asyncio.timeout(run.env.pace.destroy):
            while True:
                if not await run.env.hosts.is_up(host):
                    return {"tombstone": host}
                try:
                    await command(run, step, host, "destroy", DestroyArgs(uuid=run.server_uuid))
                    return {"tombstone": None}
                except (Transient, HostFailure, KilonovaError):
                    run.tries += 1
                    await run.env.rt.world.sleep(min(0.5 * 2**run.tries, 15.0))
    except TimeoutError:
        return {"tombstone": host}


async def bury(tx: Tx, run: Run[Env], result: Data) -> None:
    """Remember in this transaction what `destroy_on` could not do."""
    host = result.get("tombstone")
    if host:
        values = {
            "host": host,
            "server_uuid": run.server_uuid,
            "operation_id": run.id,
            "created_at": run.env.rt.world.now(),
        }
        await insert_if_missing(tx, tombstones, values)
