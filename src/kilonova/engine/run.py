"""One operation through its steps, forward and back."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Generic

import structlog

from kilonova import tracing
from kilonova.db.engine import CommitUnknown, Database, Tx, is_away
from kilonova.engine import store
from kilonova.engine.model import Aborted, Again, Data, E, Failure, Fenced, Run, Step, Stuck, Workflow
from kilonova.errors import HostFailure, KilonovaError, Transient
from kilonova.metrics import families
from kilonova.world import World

log = structlog.get_logger()

Probe = Callable[[str], Awaitable[None]]
"""Awaited at every point where a process could die; the fault harness hooks in here."""

RETRY = (0.2, 15.0)
"""Seconds: shortest and longest wait between tries after transient failures."""

COMMIT_TRIES = 8

DETAILS = 4000
"""Characters of a failure's details that go with the operation; its step's event has them all."""


async def no_probe(point: str) -> None:
    return None


class Runner(Generic[E]):
    """Runs operations of one workflow; holds no state of its own."""

    def __init__(
        self,
        workflow: Workflow[E],
        db: Database,
        world: World,
        probe: Probe = no_probe,
        retry: tuple[float, float] = RETRY,
    ) -> None:
        self.workflow = workflow
        self.db = db
        self.world = world
        self.probe = probe
        self.retry = retry

    async def run(self, run: Run[E]) -> None:
        """Take the operation from where it stands to its end. Raises Fenced when it is no longer ours."""
        try:
            while not await (self._forward(run) if run.phase == "do" else self._back(run)):
                pass
        finally:
            self._trace_end(run)

    async def _forward(self, run: Run[E]) -> bool:
        """Do one step; True at the end of the operation."""
        step = self.workflow.steps[run.step]
        last = run.step + 1 == len(self.workflow.steps)
        started = run.begin(self.world.now())
        with self._span(run, step) as span:
            try:
                await self._do(run, step, started, last)
                return last
            except TimeoutError:
                message = f"Step '{step.name}' did not end within {step.deadline:.0f} seconds."
                failure = Failure(message, kind="deadline")
            except Aborted as error:
                failure = error.failure
            span.fail(failure.message)
            await self._turn_back(run, step, started, failure)
            return False

    async def _do(self, run: Run[E], step: Step[E], started: dt.datetime, last: bool) -> None:
        run.tries = 0
        until = asyncio.get_running_loop().time() + step.deadline
        while True:
            # The commit stays outside of the time limit: interrupted, nobody would know whether it happened.
            async with asyncio.timeout_at(until):
                result = await self._effect(run, step, step.effect)
            try:
                await self._commit_forward(run, step, result, started, last)
                return
            except Again:
                run.tries += 1
                await self._pause(run, step, "moved", self._delay(run.tries) / 4, "others were faster")

    async def _effect(
        self, run: Run[E], step: Step[E], effect: Callable[[Run[E]], Awaitable[Data | None]] | None
    ) -> Data:
        """Try until it works; Transient failures, and a database that is away, back off. Raises Aborted for others."""
        if effect is None:
            return {}
        while True:
            try:
                await self.probe(f"{run.phase}:{step.name}:before effect")
                result = await effect(run) or {}
                await self.probe(f"{run.phase}:{step.name}:after effect")
                return result
            except Transient as error:
                await self._wait(run, step, error.message)
            except (Fenced, Aborted):
                raise
            except HostFailure as error:
                raise Aborted(Failure(error.message, kind="host", details=error.details)) from error
            except KilonovaError as error:
                raise Aborted(Failure(error.message, kind="invalid", details=error.details)) from error
            except Exception as error:
                if is_away(error):
                    await self._wait(run, step, str(error))
                    continue
                log.exception("step failed", operation=run.id, step=step.name)
                message = (
                    f"Step '{step.name}' failed unexpectedly; the operator finds it under {run.operation.request_id}."
                )
                raise Aborted(Failure(message, details=traceback.format_exc())) from error

    async def _wait(self, run: Run[E], step: Step[E], reason: str) -> None:
        run.tries += 1
        log.info("step tried again", operation=run.id, step=step.name, tries=run.tries, reason=reason)
        await self._pause(run, step, "transient", self._delay(run.tries), reason)

    async def _pause(self, run: Run[E], step: Step[E], reason: str, seconds: float, why: str) -> None:
        """Before the effect is done anew."""
        families.STEP_REPEATS.labels(self.workflow.kind, step.name, reason).inc()
        with run.waiting(self.world, "retry", why):
            await self.world.sleep(seconds)

    async def _commit_forward(self, run: Run[E], step: Step[E], result: Data, started: dt.datetime, last: bool) -> None:
        data = {**run.data, **result}

        async def work(tx: Tx) -> None:
            now = self.world.now()
            run.data = dict(data)
            if step.commit is not None:
                await step.commit(tx, run, result)
            if last:
                await self.workflow.succeed(tx, run)
                await store.fence(
                    tx, run, state="done", step=run.step + 1, data=run.data, secrets=None, owner=None,
                    progress=None, updated_at=now, finished_at=now,
                )  # fmt: skip
            else:
                await store.fence(tx, run, step=run.step + 1, data=run.data, progress=None, updated_at=now)
            await store.add_step(tx, run, step.name, started_at=started, finished_at=now)

        await self._commit(run, step, work, (run.step + 1, "do", run.attempt))
        self._count(run, step, "done", "done" if last else None)
        run.step += 1
        run.host = None

    async def _turn_back(self, run: Run[E], step: Step[E], started: dt.datetime, failure: Failure) -> None:
        """From now on the operation is being undone, from the failed step inclusive."""
        log.info("step failed", operation=run.id, step=step.name, kind=failure.kind, message=failure.message)
        workflow = self.workflow
        if workflow.pivot is not None and run.step >= workflow.index(workflow.pivot):
            await self._stuck(run, step, started, failure)
            raise Stuck
        retry = (
            failure.kind in ("host", "deadline")
            and workflow.retry_from is not None
            and run.step > workflow.index(workflow.retry_from)
            and run.attempt + 1 < workflow.max_attempts(run.env)
        )
        told = {"message": failure.message, "kind": failure.kind, "details": (failure.details or "")[-DETAILS:]}
        data = {**run.data, "failure": told | {"retry": retry}}

        async def work(tx: Tx) -> None:
            now = self.world.now()
            await store.fence(tx, run, phase="undo", data=data, progress=None, updated_at=now)
            await store.add_step(
                tx,
                run,
                step.name,
                started_at=started,
                finished_at=now,
                error=failure.message,
                traceback=failure.details,
            )

        await self._commit(run, step, work, (run.step, "undo", run.attempt))
        self._count(run, step, "failed")
        run.phase, run.data = "undo", data

    async def _back(self, run: Run[E]) -> bool:
        """Undo one step; True at the end of the operation."""
        workflow = self.workflow
        failure = run.data["failure"]
        run.failure = Failure(failure["message"], failure["kind"], failure.get("details") or None)
        first = workflow.index(workflow.retry_from) if failure["retry"] and workflow.retry_from else 0
        step = workflow.steps[run.step]
        with self._span(run, step):
            return await self._back_one(run, step, first, failure)

    async def _back_one(self, run: Run[E], step: Step[E], first: int, failure: Data) -> bool:
        workflow = self.workflow
        started = run.begin(self.world.now())
        run.tries = 0
        try:
            async with asyncio.timeout(step.deadline):
                result = await self._effect(run, step, step.undo)
        except (TimeoutError, Aborted) as error:
            message = f"What step '{step.name}' had done could not be undone: {error or 'it took too long'}"
            await self._stuck(run, step, started, Failure(message))
            raise Stuck from error
        over = run.step == first
        again = over and failure["retry"]
        position = (run.step, "do", run.attempt + 1) if again else (max(run.step - 1, 0), "undo", run.attempt)
        before = run.data

        async def work(tx: Tx) -> None:
            now = self.world.now()
            # A deadlock's second try starts from what the first one found.
            run.data = dict(before)
            if step.undo_commit is not None:
                await step.undo_commit(tx, run, result)
            if again:
                data = {k: v for k, v in run.data.items() if k != "failure"}
                await store.fence(tx, run, phase="do", step=first, attempt=run.attempt + 1, data=data, updated_at=now)
                run.data = data
            elif over:
                await workflow.fail(tx, run)
                await store.fence(
                    tx, run, state="failed", step=0, data=run.data, secrets=None, owner=None,
                    error=failure["message"], updated_at=now, finished_at=now,
                )  # fmt: skip
            else:
                await store.fence(tx, run, step=run.step - 1, data=run.data, updated_at=now)
            if step.undo is not None or step.undo_commit is not None:
                await store.add_step(tx, run, step.name, started_at=started, finished_at=now)

        await self._commit(run, step, work, position)
        self._count(run, step, "done", "failed" if over and not again else None)
        if again:
            run.attempt += 1
            run.phase = "do"
        else:
            run.step -= 1
        run.host = None
        return over and not again

    async def _stuck(self, run: Run[E], step: Step[E], started: dt.datetime, failure: Failure) -> None:
        """Neither forward nor back: keep the row for the operator, tell the owner of the server."""
        run.failure = failure
        log.error("operation stuck", operation=run.id, step=step.name, message=failure.message, details=failure.details)

        async def work(tx: Tx) -> None:
            now = self.world.now()
            await self.workflow.fail(tx, run)
            await store.fence(
                tx, run, state="stuck", owner=None, secrets=None, error=failure.message, updated_at=now, finished_at=now
            )
            await store.add_step(
                tx,
                run,
                step.name,
                started_at=started,
                finished_at=now,
                error=failure.message,
                traceback=failure.details,
            )

        await self._commit(run, step, work, None)
        self._count(run, step, "stuck", "stuck")

    def _span(self, run: Run[E], step: Step[E]) -> contextlib.AbstractContextManager[tracing.Span]:
        if not tracing.on():
            return tracing.span("", None)
        attributes: tracing.Attributes = {
            "kilonova.phase": run.phase,
            "kilonova.attempt": run.attempt,
            "kilonova.server": run.server_uuid,
        }
        undo = "undo " if run.phase == "undo" else ""
        return tracing.span(f"{self.workflow.kind}: {undo}{step.name}", run.traceparent, attributes)

    def _count(self, run: Run[E], step: Step[E], outcome: str, end: str | None = None) -> None:
        """A step that is committed; `end`: the outcome of the operation, when it ended with it."""
        kind, now = self.workflow.kind, self.world.now()
        if run.phase == "do" or step.undo is not None or step.undo_commit is not None:
            families.step(kind, step.name, run.phase, outcome, (now - run.began).total_seconds())
        if end is not None:
            run.outcome = end
            families.operation(kind, end, (now - run.operation.created_at).total_seconds())

    def _trace_end(self, run: Run[E]) -> None:
        """The operation's own span, when it has ended here; after those of its steps."""
        if run.outcome is not None:
            operation, failure = run.operation, run.failure
            tracing.operation(
                f"operation {operation.kind}",
                operation.traceparent,
                operation.id,
                operation.created_at,
                {"kilonova.server": run.server_uuid, "kilonova.request": operation.request_id},
                None if run.outcome == "done" else failure.message if failure else run.outcome,
            )

    async def _commit(
        self, run: Run[E], step: Step[E], work: Callable[[Tx], Awaitable[None]], position: tuple[int, str, int] | None
    ) -> None:
        """Commit once. After a lost answer, the stored position tells whether it had happened."""
        await self.probe(f"{run.phase}:{step.name}:before commit")
        for _ in range(COMMIT_TRIES):
            try:
                await self.db.write(work)
                break
            except CommitUnknown:
                await self.world.sleep(self.retry[0])
                if await self._committed(run, position):
                    break
        else:
            raise Fenced
        await self.probe(f"{run.phase}:{step.name}:after commit")

    async def _committed(self, run: Run[E], position: tuple[int, str, int] | None) -> bool:
        stored = await store.position(self.db, run.id)
        if stored is None or stored[4] != run.operation.epoch:
            raise Fenced
        if stored[3] != "running":
            return True
        return position is not None and stored[:3] == position

    def _delay(self, tries: int) -> float:
        shortest, longest = self.retry
        return min(shortest * 2.0 ** min(tries - 1, 16), longest) * (0.5 + self.world.random.random())


def new_run(env: Any, operation: Any) -> Run[Any]:
    return Run(
        env=env,
        operation=operation,
        data=dict(operation.data),
        step=operation.step,
        phase=operation.phase,
        attempt=operation.attempt,
        traceparent=tracing.of_operation(operation.traceparent, operation.id),
    )
