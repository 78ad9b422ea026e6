"""Key pairs of users: imported or made, counted against the quota, deleted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import sqlalchemy.exc

from kilonova.compute import keys
from kilonova.compute.quota_usage import read_limits
from kilonova.compute.quotas import lock_project
from kilonova.context import RequestContext
from kilonova.db import key_pairs as rows
from kilonova.db.engine import Tx
from kilonova.db.key_pairs import KeyPair
from kilonova.errors import Conflict, NotFound, OverQuota
from kilonova.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Created:
    key_pair: KeyPair
    private_key: str | None
    """Of a key that was made here; it is kept nowhere."""


def not_found(user_id: str, name: str) -> NotFound:
    return NotFound(f"Keypair {name} not found for user {user_id}")


async def get(tx: Tx, user_id: str, name: str) -> KeyPair:
    key_pair = await rows.get(tx, user_id, name)
    if key_pair is None:
        raise not_found(user_id, name)
    return key_pair


async def create(
    rt: Runtime, ctx: RequestContext, *, user_id: str, name: str, key_type: str, public_key: str | None
) -> Created:
    """Import `public_key`, or make a key without one.

    Raises Invalid for what is no key, OverQuota, and Conflict when the name is taken.
    """
    private_key = None
    if public_key is None:
        made = await asyncio.to_thread(keys.generate, key_type, user_id, rt.world.now())
        public_key, private_key, fingerprint = made.public_key, made.private_key, made.fingerprint
    else:
        fingerprint = await asyncio.to_thread(keys.fingerprint, key_type, public_key)
    values = {
        "user_id": user_id,
        "name": name,
        "type": key_type,
        "fingerprint": fingerprint,
        "public_key": public_key,
        "created_at": rt.world.now(),
    }
    taken = Conflict(f"Key pair '{name}' already exists.")

    async def work(tx: Tx) -> KeyPair:
        limit = (await read_limits(tx, ctx.project_id, user_id, rt.settings.quota)).of_user["key_pairs"]
        if limit >= 0:
            await lock_project(tx, ctx.project_id)
            if await rows.count(tx, user_id) >= limit:
                raise OverQuota(f"Quota exceeded, too many key pairs. At most {limit} are allowed.")
        if await rows.get(tx, user_id, name):
            raise taken
        await rows.insert(tx, values)
        return await get(tx, user_id, name)

    try:
        return Created(await rt.db.write(work), private_key)
    except sqlalchemy.exc.IntegrityError:
        raise taken from None


async def delete(rt: Runtime, user_id: str, name: str) -> None:
    async def work(tx: Tx) -> None:
        if not await rows.delete(tx, user_id, name):
            raise not_found(user_id, name)

    await rt.db.write(work)
