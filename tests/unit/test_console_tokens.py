"""The life of a console token, on a database."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.console import tokens
from kilonova.console.settings import VNC, ConsoleSettings
from kilonova.console.tokens import Grant, Refusal
from kilonova.db import console_tokens
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.db.tables import console_tokens as table
from kilonova.db.tables import instances
from kilonova.world import World
from tests.support import server_rows as rows

SETTINGS = ConsoleSettings()
WORLD = World()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(made)
    yield made
    await made.close()


async def issue(db: Database, server: str, settings: ConsoleSettings = SETTINGS) -> str:
    return await db.write(
        lambda tx: tokens.issue(
            tx, WORLD, settings, server_uuid=server, host="host-1", console_type=VNC, address="127.0.0.1", port=5900
        )
    )


async def consume(db: Database, token: str, session: str = "", settings: ConsoleSettings = SETTINGS) -> Grant | Refusal:
    return await db.write(lambda tx: tokens.consume(tx, WORLD, settings, token, session))


async def age(db: Database, column: str, seconds: float) -> None:
    """As if so much time had passed for one of the rows' times."""
    await db.write(lambda tx: tx.execute(sa.update(table).values({column: table.c[column] - seconds})))


async def hold(db: Database, *connections: str) -> set[str]:
    return await db.write(lambda tx: console_tokens.hold(tx, connections, reconnect=SETTINGS.reconnect))


async def test_a_token_opens_its_console_once(db: Database) -> None:
    server = await rows.add(db)
    token = await issue(db, server)
    grant = await consume(db, token)
    assert isinstance(grant, Grant)
    assert (grant.server_uuid, grant.host, grant.console_type, grant.seconds) == (server, "host-1", VNC, None)
    assert await consume(db, token) is Refusal.USED
    assert await consume(db, token, "somebody") is Refusal.USED


async def test_the_token_itself_is_kept_nowhere(db: Database) -> None:
    token = await issue(db, await rows.add(db))
    await consume(db, token, "my-session")
    found = (await db.read(lambda tx: tx.execute(sa.select(table)))).all()
    assert token not in repr(found)
    assert "my-session" not in repr(found)


async def test_what_nobody_issued_opens_nothing(db: Database) -> None:
    assert await consume(db, "nonsense") is Refusal.UNKNOWN
    assert await consume(db, "", "session") is Refusal.UNKNOWN


async def test_a_token_expires(db: Database) -> None:
    token = await issue(db, await rows.add(db))
    await age(db, "expires_at", SETTINGS.token_ttl + 1)
    assert await consume(db, token, "session") is Refusal.EXPIRED
    assert await db.read(lambda tx: tokens.find(tx, token)) is None


async def test_only_the_session_that_consumed_it_comes_back_and_only_for_a_while(db: Database) -> None:
    token = await issue(db, await rows.add(db))
    first = await consume(db, token, "mine")
    assert await consume(db, token, "another's") is Refusal.USED
    second = await consume(db, token, "mine")
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert first.connection != second.connection
    # The earlier connection has lost the console to the later.
    assert await hold(db, first.connection, second.connection) == {second.connection}
    # A session that goes on may come back for a minute from its end, also when the token is long over.
    await age(db, "expires_at", 10_000)
    await age(db, "reconnect_until", SETTINGS.reconnect - 5)
    assert await hold(db, second.connection) == {second.connection}
    await age(db, "reconnect_until", SETTINGS.reconnect - 5)
    assert isinstance(await consume(db, token, "mine"), Grant)
    await age(db, "reconnect_until", SETTINGS.reconnect + 1)
    assert await consume(db, token, "mine") is Refusal.USED


async def test_a_session_can_be_made_to_end_with_its_token(db: Database) -> None:
    strict = dataclasses.replace(SETTINGS, enforce_session_timeout=True)
    token = await issue(db, await rows.add(db), strict)
    grant = await consume(db, token, "mine", strict)
    assert isinstance(grant, Grant)
    assert grant.seconds is not None
    assert 0 < grant.seconds <= strict.token_ttl
    await age(db, "expires_at", strict.token_ttl + 1)
    assert await consume(db, token, "mine", strict) is Refusal.EXPIRED


async def test_revoking_a_servers_tokens_ends_them_used_or_not_and_no_others(db: Database) -> None:
    server, other = await rows.add(db), await rows.add(db)
    unused, used, others = await issue(db, server), await issue(db, server), await issue(db, other)
    grant = await consume(db, used, "mine")
    assert isinstance(grant, Grant)
    await db.write(lambda tx: tokens.revoke(tx, server))
    assert await consume(db, unused, "x") is Refusal.REVOKED
    assert await consume(db, used, "mine") is Refusal.REVOKED
    assert await hold(db, grant.connection) == set()
    assert isinstance(await consume(db, others), Grant)


@pytest.mark.parametrize(
    "change", [{"host": "host-2"}, {"deleting": True}, {"vm_state": "stopped"}, {"deleted": 1}, {"host": None}]
)
async def test_a_token_is_for_a_guest_on_its_host(db: Database, change: dict[str, Any]) -> None:
    server = await rows.add(db)
    early, late = await issue(db, server), await issue(db, server)
    grant = await consume(db, early)
    assert isinstance(grant, Grant)
    await db.write(lambda tx: tx.execute(sa.update(instances).where(instances.c.uuid == server).values(**change)))
    assert await consume(db, late) is Refusal.REVOKED
    if "vm_state" not in change:
        assert await hold(db, grant.connection) == set()


async def test_old_rows_go_and_those_in_use_stay(db: Database) -> None:
    server = await rows.add(db)
    await issue(db, server)
    used = await consume(db, await issue(db, server), "mine")
    assert isinstance(used, Grant)
    await age(db, "expires_at", SETTINGS.token_ttl + 100)
    assert await db.write(lambda tx: console_tokens.sweep(tx, keep=200)) == 0
    assert await db.write(lambda tx: console_tokens.sweep(tx, keep=50)) == 1
    assert await hold(db, used.connection) == {used.connection}


async def test_of_many_at_once_one_gets_the_console(db: Database) -> None:
    token = await issue(db, await rows.add(db))
    found = await asyncio.gather(*(consume(db, token, f"session-{number}") for number in range(20)))
    assert sum(isinstance(each, Grant) for each in found) == 1


_RACER = """
import asyncio, sys
from kilonova.console import tokens
from kilonova.console.settings import ConsoleSettings
from kilonova.db.engine import Database
from kilonova.world import World

async def main():
    db = Database("sqlite:///" + sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    won = []
    for token in sys.argv[2].split(","):
        found = await db.write(lambda tx: tokens.consume(tx, World(), ConsoleSettings(), token, sys.argv[3]))
        if isinstance(found, tokens.Grant):
            won.append(token)
    print(",".join(won), flush=True)
    await db.close()

asyncio.run(main())
"""


async def test_two_processes_never_both_get_a_console(db: Database, tmp_path: Path) -> None:
    server = await rows.add(db)
    issued = [await issue(db, server) for _ in range(40)]
    path = str(tmp_path / "compute.sqlite")

    def race() -> list[list[str]]:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", _RACER, path, ",".join(issued), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("a", "b")
        ]
        won = []
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        for racer in racers:
            out, _ = racer.communicate(timeout=60)
            assert racer.returncode == 0
            won.append([token for token in out.strip().split(",") if token])
        return won

    first, second = await asyncio.to_thread(race)
    assert sorted(first + second) == sorted(issued)
