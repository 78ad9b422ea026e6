"""Claims operations, keeps their leases, takes over those of the dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Generic

import sqlalchemy.exc
import structlog

from kilonova.db.engine import CommitUnknown, Database
from kilonova.engine import store
from kilonova.engine.model import E, Fenced, Operation, Stuck, Workflow
from kilonova.engine.run import RETRY, Probe, Runner, new_run, no_probe
from kilonova.metrics import families
from kilonova.world import World

log = structlog.get_logger()

LEASE = 30.0
"""Seconds. Only liveness rests on it: a late worker is refused by the epoch."""

SWEEP = 1.0
"""Seconds between looks for operations that nobody was told of."""


class Engine(Generic[E]):
    """Runs operations of `workflows` in this process, up to `concurrency` at a time."""

    def __init__(
        self,
        *,
        env: E,
        db: Database,
        world: World,
        workflows: Mapping[str, Workflow[E]],
        owner: str,
        concurrency: int = 200,
        lease: float = LEASE,
        sweep: float = SWEEP,
        probe: Probe = no_probe,
        retry: tuple[float, float] = RETRY,
    ) -> None:
        self.env = env
        self.db = db
        self.world = world
        self.owner = owner
        self.lease = lease
        self.sweep = sweep
        self.runners = {kind: Runner(workflow, db, world, probe, retry) for kind, workflow in workflows.items()}
        self._room = asyncio.Semaphore(concurrency)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self, *, alone: bool = False) -> None:
        """Begin. `alone`: no other process runs operations on this database, so leases left behind are void."""
        if alone:
            await store.expire_all(self.db)
        self._loops = [asyncio.create_task(self._sweep_loop()), asyncio.create_task(self._renew_loop())]

    async def stop(self, *, drain: float = 5.0) -> None:
        """Let operations reach a resting point for up to `drain` seconds; the rest is given back to others."""
        self._stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        tasks = list(self._running.values())
        if tasks:
            await asyncio.wait(tasks, timeout=drain)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, operation_id: int, *, lost: bool = False) -> None:
        """Take this operation soon, if it is to be had. `lost`: somebody's lease on it has run out."""
        if not self._stopping and operation_id not in self._running:
            task = asyncio.create_task(self._take(operation_id, lost))
            self._running[operation_id] = task
            task.add_done_callback(lambda _: self._running.pop(operation_id, None))

    async def idle(self) -> None:
        """Until nothing runs here; for tests."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def _take(self, operation_id: int, lost: bool) -> None:
        async with self._room:
            try:
                operation = await store.claim(self.db, operation_id, self.owner, self.lease)
            except (sqlalchemy.exc.SQLAlchemyError, CommitUnknown) as error:
                log.warning("claiming an operation failed", operation=operation_id, error=str(error))
                return
            if operation is None:
                return
            families.RUNNING.inc()
            try:
                await self._run(operation, lost)
            finally:
                families.RUNNING.dec()

    async def _run(self, operation: Operation, lost: bool) -> None:
        runner = self.runners.get(operation.kind)
        run = new_run(self.env, operation)
        if runner is None:
            # A newer release's operation: leave it to those who know it. Here it is not looked for.
            await store.release(self.db, run, 1.0)
            return
        if lost:
            families.TAKEOVERS.labels(operation.kind).inc()
        if operation.epoch == 1:
            waited = (self.world.now() - operation.created_at).total_seconds()
            families.OPERATION_WAIT_SECONDS.labels(operation.kind).observe(waited)
        try:
            await runner.run(run)
        except Stuck:
            pass
        except Fenced:
            families.FENCED.labels(operation.kind).inc()
            log.info("operation left to another", operation=operation.id, kind=operation.kind)
        except asyncio.CancelledError:
            if self._stopping:
                with contextlib.suppress(Fenced, sqlalchemy.exc.SQLAlchemyError):
                    await store.release(self.db, run, 0.0)
            raise
        except Exception:
            # The database went away or there is a fault in a workflow: the lease runs out and it is tried again.
            log.exception("operation interrupted", operation=operation.id, kind=operation.kind)
        for following in run.wakes:
            self.wake(following)

    async def _sweep_loop(self) -> None:
        while True:
            try:
                known, running = list(self.runners), list(self._running)[:500]
                for operation_id, lost in await store.claimable(self.db, 100, exclude=running, kinds=known):
                    self.wake(operation_id, lost=lost)
            except Exception as error:
                log.warning("looking for operations failed", error=str(error))
            await self.world.sleep(self.sweep)

    async def _renew_loop(self) -> None:
        while True:
            await self.world.sleep(self.lease / 3)
            try:
                if self._running:
                    await store.renew(self.db, self.owner, list(self._running), self.lease)
            except Exception as error:
                log.warning("renewing leases failed", error=str(error))

    def running(self) -> list[int]:
        return list(self._running)


AnyEngine = Engine[Any]
