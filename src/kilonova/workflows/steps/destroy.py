"""Making sure that a host has nothing of a server any more, now or when it comes back."""

from __future__ import annotations

import asyncio

import structlog

from kilonova.agent.commands import DestroyArgs
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import tombstones
from kilonova.engine.model import Aborted, Data, Run
from kilonova.errors import KilonovaError
from kilonova.workflows.env import Env
from kilonova.workflows.steps.server import command

log = structlog.get_logger()

NETWORK = "(network)"
"""In a tombstone, instead of a host: the ports of a server that was deleted while Networking did not answer."""


async def destroy_on(run: Run[Env], host: str, step: str) -> Data:
    """Returns {'tombstone': host} when the host could not be reached or did not manage."""
    shortest, longest = run.env.pace.retry
    try:
        async with asyncio.timeout(run.env.pace.destroy):
            while await run.env.hosts.is_up(host):
                try:
                    await command(run, step, host, "destroy", DestroyArgs(uuid=run.server_uuid))
                    return {"tombstone": None}
                except (KilonovaError, Aborted) as error:
                    # Whatever went wrong there, the server must not depend on it: try on, then leave a tombstone.
                    log.warning("destroying a guest failed", host=host, server=run.server_uuid, error=str(error))
                    run.tries += 1
                    await run.env.rt.world.sleep(min(shortest * 2.0 ** min(run.tries, 16), longest))
    except TimeoutError:
        pass
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
