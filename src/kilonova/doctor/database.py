"""The database: reachable, as this user, with this release's schema and the rights that roles need, by one clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from kilonova.db import schema, tls
from kilonova.db.engine import async_url
from kilonova.db.types import database_seconds
from kilonova.doctor import galera
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.doctor.site import Site
from kilonova.errors import Conflict

PATIENCE = 10.0
"""Seconds for a connection, and for each look."""
_NEEDED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_FOR_SYNC = frozenset({"CREATE", "ALTER", "INDEX", "DROP", "REFERENCES"})
_DENIED = {1044, 1045, 1698}
_UNKNOWN_DATABASE = 1049
_OPTION = "[database] connection"


async def look(site: Site) -> tuple[list[Finding], float | None]:
    """And how far this machine's clock is ahead of the database's, seconds; None: nobody could ask."""
    assert site.database is not None
    url, context = tls.split(async_url(site.database))
    place = f"{url.host}:{url.port}" if url.host and url.port else url.host or str(url.database)
    if url.get_backend_name() == "sqlite" and not _is_there(url.database):
        return [wrong("database", f"{url.database} is not there", f"begin with 'kilonova up {site.name}'")], None
    arguments: dict[str, Any] = {} if context is None else {"connect_args": {"ssl": context}}
    engine = create_async_engine(url, poolclass=NullPool, **arguments)
    try:
        async with asyncio.timeout(3 * PATIENCE):
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = await engine.connect()
            except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
                return [_unreachable(site, url, place, error)], None
            try:
                return await _connected(site, connection, place)
            finally:
                await connection.close()
    finally:
        await engine.dispose()


def _is_there(file: str | None) -> bool:
    return file is not None and Path(file).is_file()


def _unreachable(site: Site, url: sa.URL, place: str, error: Exception) -> Finding:
    original = getattr(error, "orig", None) or error
    args: Sequence[Any] = getattr(original, "args", ())
    reason = str(args[1] if len(args) > 1 else original or repr(error)).splitlines()[0]
    if isinstance(error, TimeoutError):
        reason = f"no answer within {PATIENCE:g} s"
    code = args[0] if args else None
    if code == galera.REFUSED:
        return galera.refuses(place)
    if code in _DENIED or "InvalidPassword" in type(original).__name__ or "authentication failed" in reason:
        grant = f"GRANT ALL ON {url.database}.* TO '{url.username}'@..."
        fix = f"user and password of {_OPTION} in {site.name}, or: {grant}"
    elif code == _UNKNOWN_DATABASE or "does not exist" in reason:
        fix = f"CREATE DATABASE {url.database}; then nova-manage db sync"
    elif "CERTIFICATE" in reason.upper():
        fix = f"the authority in {_OPTION} (ssl_ca=...) of {site.name}, or the database's certificate"
    else:
        fix = f"start the database, or correct host and port of {_OPTION} in {site.name}"
    return wrong("database", f"{place}: {reason}", fix)


async def _connected(site: Site, connection: AsyncConnection, place: str) -> tuple[list[Finding], float | None]:
    found = [ok("database", f"{await _server(connection)} at {place}")]
    if connection.dialect.name == "mysql" and (cluster := await galera.look(connection)) is not None:
        found.append(cluster)
        if cluster.result == "wrong":
            return found, None
    revision = await connection.run_sync(schema.stored_revision)
    sync = "nova-manage db sync"
    if revision == schema.newest():
        try:
            await connection.run_sync(schema.check)
            found.append(ok("database: schema", f"revision {revision}"))
        except Conflict as error:
            found.append(wrong("database: schema", error.message, "restore a backup"))
    elif revision is None:
        found.append(wrong("database: schema", "not there", sync))
    elif revision < schema.newest():
        found.append(wrong("database: schema", f"revision {revision}, this release needs {schema.newest()}", sync))
    elif schema.serves(revision):
        text = f"revision {revision}, the next release's; this one's is {schema.newest()}"
        found.append(warning("database: schema", text, "go on with the upgrade: replace this release's roles"))
    else:
        text = f"revision {revision}, newer than this release's {schema.newest()}"
        found.append(wrong("database: schema", text, "use the release that made it"))
    found += await _rights(connection, site)
    before = time.time()
    now = float((await connection.execute(sa.select(database_seconds()))).scalar_one())
    return found, beyond(now, before, time.time())


def beyond(theirs: float, before: float, after: float) -> float:
    """How far our clock is ahead of one that was read between two looks at ours; what the asking took is no skew."""
    return before - theirs if theirs < before else min(0.0, after - theirs)


async def _server(connection: AsyncConnection) -> str:
    kind = connection.dialect.name
    if kind == "sqlite":
        return "SQLite"
    version = str((await connection.execute(sa.text("SELECT version()"))).scalar_one())
    if kind == "postgresql":
        return " ".join(version.split()[:2])
    cipher = (await connection.execute(sa.text("SHOW STATUS LIKE 'Ssl_cipher'"))).first()
    secured = f" by TLS ({cipher[1]})" if cipher is not None and cipher[1] else ""
    return f"MariaDB {version.partition('-')[0]}{secured}"


async def _rights(connection: AsyncConnection, site: Site) -> list[Finding]:
    if connection.dialect.name == "sqlite":
        return []
    if connection.dialect.name == "postgresql":
        may = sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
        held = frozenset(_FOR_SYNC if (await connection.execute(may)).scalar_one() else ())
        each = sa.text("SELECT has_table_privilege(to_regclass('instances'), :right)")
        for right in _NEEDED:
            # None: there is no table yet, which is the schema's matter.
            if (await connection.execute(each, {"right": right})).scalar_one() is not False:
                held |= {right}
    else:
        # As the server sees the user that we are; of patterns such as nova\_% too, and of roles that are set.
        own = sa.text(
            "SELECT privilege_type FROM information_schema.user_privileges UNION "
            "SELECT privilege_type FROM information_schema.schema_privileges WHERE DATABASE() LIKE table_schema"
        )
        held = frozenset(str(row[0]).upper() for row in await connection.execute(own))
    fix = f"GRANT ALL to the user of {_OPTION} in {site.name}"
    if missing := sorted(_NEEDED - held):
        return [wrong("database: grants", f"the user may not {', '.join(missing)}", fix)]
    if missing := sorted(_FOR_SYNC - held):
        text = f"the user may not {', '.join(missing)}, which 'nova-manage db sync' needs"
        return [warning("database: grants", text, fix)]
    return [ok("database: grants", "all that roles and 'nova-manage db sync' need")]
