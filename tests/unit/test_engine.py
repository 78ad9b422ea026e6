"""One operation in the hands of the engine."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc

from kilonova.db.engine import Database, Tx
from kilonova.db.schema import create_all
from kilonova.engine import store
from kilonova.engine.engine import Engine
from kilonova.engine.model import Aborted, Data, Failure, Run, Step, Workflow
from kilonova.engine.run import Runner, new_run
from kilonova.world import World


async def _nothing(tx: Tx, run: Run[Any]) -> None:
    return


async def _run(directory: Path, *steps: Step[Any]) -> tuple[str, str | None, dict[str, Any]] | None:
    db = Database(f"sqlite:///{directory}/compute.sqlite", synchronous="OFF")
    await create_all(db)
    now = dt.datetime(2030, 1, 1)  # noqa: DTZ001  # as the database keeps it
    try:
        operation_id = await db.write(
            lambda tx: store.insert(
                tx, kind="k", action="k", server_uuid="s", project_id="p", user_id="u", request_id="r", now=now
            )
        )
        operation = await store.claim(db, operation_id, "me", 30.0)
        workflow = Workflow(kind="k", steps=steps, succeed=_nothing, fail=_nothing)
        await Runner(workflow, db, World(), retry=(0.001, 0.001)).run(new_run(None, operation))
        return await store.outcome(db, operation_id)
    finally:
        await db.close()


def _away() -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("SELECT", None, sqlite3.OperationalError("the connection was lost"))


@pytest.mark.parametrize("error", [_away(), ConnectionRefusedError("nobody listens")])
async def test_a_database_that_is_away_during_a_step_fails_nothing(tmp_path: Path, error: Exception) -> None:
    errors = [error, error]

    async def effect(run: Run[Any]) -> Data:
        if errors:
            raise errors.pop()
        return {"answer": 42}

    state, _, data = await _run(tmp_path, Step(name="only", effect=effect)) or ("", None, {})
    assert (state, data) == ("done", {"answer": 42})


async def test_a_database_that_is_away_during_an_undo_leaves_nothing_stuck(tmp_path: Path) -> None:
    errors = [_away()]

    async def effect(run: Run[Any]) -> Data:
        raise Aborted(Failure("no"))

    async def undo(run: Run[Any]) -> Data:
        if errors:
            raise errors.pop()
        return {}

    state, error, _ = await _run(tmp_path, Step(name="only", effect=effect, undo=undo)) or ("", None, {})
    assert (state, error) == ("failed", "no")


async def test_a_fault_in_a_step_ends_it(tmp_path: Path) -> None:
    async def effect(run: Run[Any]) -> Data:
        raise sqlalchemy.exc.ProgrammingError("SELECT", None, sqlite3.OperationalError("no such column"))

    state, error, _ = await _run(tmp_path, Step(name="only", effect=effect)) or ("", None, {})
    assert state == "failed"
    assert error is not None
    assert "failed unexpectedly" in error


async def test_an_operation_of_the_next_release_is_left_to_a_conductor_that_knows_it(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(db)

    async def effect(run: Run[Any]) -> Data:
        return {}

    def engine(kind: str) -> Engine[None]:
        steps: tuple[Step[None], ...] = (Step(name="only", effect=effect),)
        workflows = {kind: Workflow(kind=kind, steps=steps, succeed=_nothing, fail=_nothing)}
        return Engine(env=None, db=db, world=World(), workflows=workflows, owner=kind, sweep=0.05)

    old, new = engine("known"), engine("unknown")
    operation_id = await db.write(
        lambda tx: store.insert(
            tx, kind="unknown", action="k", server_uuid="s", project_id="p", user_id="u", request_id="r",
            now=World().now(),
        )
    )  # fmt: skip
    await old.start()
    # It is told by name of what it does not look for by itself.
    old.wake(operation_id)
    await old.idle()
    assert (await store.outcome(db, operation_id) or ("",))[0] == "ready"
    await new.start()
    async with asyncio.timeout(60):
        while (await store.outcome(db, operation_id) or ("",))[0] != "done":
            await asyncio.sleep(0.02)
    await new.stop()
    await old.stop()
    await db.close()
