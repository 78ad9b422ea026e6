"""What users ask for, one after another and at once; the seed writes it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from kilonova.agent.driver import PowerState
from kilonova.compute import attach, states
from kilonova.compute.servers import boot, delete, power, rebuild, soft_delete
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.servers import Server
from kilonova.errors import KilonovaError, NotFound
from kilonova.runtime import Runtime
from tests.simulation.cloud import GROUP, NETWORK, Cloud

PASSWORD = "Correct-Horse-7"


@dataclass
class Known:
    """What the users were told; all of it has to be true in the end."""

    created: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    turned_off: set[str] = field(default_factory=set)
    """Guests that changed by themselves."""


async def _create(rt: Runtime, ctx: RequestContext, request: boot.BootRequest) -> list[str]:
    return (await boot.create(rt, ctx, request)).uuids


async def _rebuild(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    request = rebuild.RebuildRequest(image_ref="image-1", admin_password=PASSWORD, changes={})
    await rebuild.rebuild(rt, ctx, server, request)


async def _attach(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await attach.attach(rt, ctx, server, network_id=NETWORK)


async def _detach(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    nics = server.network_info or []
    if not nics:
        raise NotFound("It has none.")
    await attach.detach(rt, ctx, server, nics[0]["port_id"])


async def _soft(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await power.reboot(rt, ctx, server, hard=False)


async def _hard(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    await power.reboot(rt, ctx, server, hard=True)


_A, _S, _P, _U, _E = states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED, states.ERROR
_D = states.SOFT_DELETED

VERBS: dict[str, tuple[int, Any, tuple[str, ...]]] = {
    "delete": (4, delete.delete, (_A, _S, _P, _U, _E, _D, states.BUILDING)),
    "soft delete": (2, soft_delete.delete, (_A, _S, _P, _U, _E)),
    "restore": (6, soft_delete.restore, (_D,)),
    "reboot soft": (3, _soft, (_A,)),
    "reboot hard": (3, _hard, (_A, _S, _P, _U, _E)),
    "stop": (4, power.stop, (_A, _E)),
    "start": (6, power.start, (_S,)),
    "pause": (2, power.pause, (_A,)),
    "unpause": (6, power.unpause, (_P,)),
    "suspend": (2, power.suspend, (_A,)),
    "resume": (6, power.resume, (_U,)),
    "rebuild": (4, _rebuild, (_A, _S, _E)),
    "attach": (3, _attach, (_A, _S, _P)),
    "detach": (3, _detach, (_A, _S, _P)),
}
"""A verb's weight, what it is, and in which states it makes sense."""


class Story:
    def __init__(self, cloud: Cloud, chance: random.Random) -> None:
        self.cloud = cloud
        self.chance = chance
        self.known = Known()
        self.requests = 0
        self.users = chance.choice((1, 1, 2, 3))
        self.turns = chance.randint(2, 7)
        self.haste = chance.choice((0.05, 1.0, 8.0))
        """Seconds between two requests of a user, on average."""
        self.restless = chance.choice((0.05, 0.08, 0.3))
        """Share of turns in which a guest powers itself off."""

    async def tell(self) -> None:
        """All users' requests, and what befalls hosts meanwhile."""
        cloud, chance = self.cloud, self.chance
        users = [asyncio.ensure_future(self._user()) for _ in range(self.users)]
        if cloud.weather.strikes and chance.random() < 0.4:
            seconds = chance.choice((3.0, 30.0, 80.0, 130.0)) * chance.random()
            cloud.keep(self._later(cloud.cut_off(chance.choice(sorted(cloud.hosts)), seconds)))
        for user in users:
            await user
        # What was begun meets its fate before calm comes.
        await asyncio.sleep(chance.choice((0.1, 3.0, 30.0)) * chance.random())

    async def _later(self, work: Any) -> None:
        await asyncio.sleep(self.haste * self.turns * self.chance.random())
        await work

    async def _user(self) -> None:
        await self._boot()
        for _ in range(self.turns - 1):
            await asyncio.sleep(self.chance.expovariate(1.0 / self.haste))
            alive = sorted(self.known.created - self.known.deleted)
            roll = self.chance.random()
            if not alive or roll < 0.2:
                await self._boot()
            elif roll < 0.2 + self.restless:
                uuid = await self._goes_off()
                for _ in range(self.chance.choice((0, 1, 2)) if uuid in alive else 0):
                    # Its owner sees it first.
                    await asyncio.sleep(self.chance.choice((0.1, 1.0, 2.0, 6.0)) * self.chance.random())
                    await self._do("reboot hard", uuid)
            else:
                await self._act(self.chance.choice(alive))

    async def _boot(self) -> None:
        cloud, chance = self.cloud, self.chance
        count = chance.choice((1, 1, 1, 2))
        request = boot.BootRequest(
            name="server",
            image_ref="image-1",
            flavor_ref=chance.choice(("1", "1", "2", "gold", "own")),
            networks=chance.choice(("none", "none", [{"uuid": NETWORK}], [{"uuid": NETWORK}, {"uuid": NETWORK}])),
            admin_password=PASSWORD,
            config_drive=chance.random() < 0.3,
            min_count=1,
            max_count=count,
            scheduler_hints={"group": GROUP} if cloud.plan.policy and chance.random() < 0.6 else {},
        )
        hint = " in the group" if request.scheduler_hints else ""
        made = await self._ask(
            f"create {count} of flavor {request.flavor_ref}{hint}", lambda rt: _create(rt, cloud.context(), request)
        )
        self.known.created.update(made or ())

    async def _act(self, uuid: str) -> None:
        await self._do(await self._choose(uuid), uuid)

    async def _do(self, name: str, uuid: str) -> None:
        cloud = self.cloud
        verb = VERBS[name][1]

        async def act(rt: Runtime) -> bool:
            server = await rt.db.read(lambda tx: servers.get(tx, uuid))
            if server is None:
                raise NotFound(f"Instance {uuid} could not be found.")
            await verb(rt, cloud.context(), server)
            return True

        if await self._ask(f"{name} {uuid[:8]}", act) and name == "delete":
            self.known.deleted.add(uuid)

    async def _choose(self, uuid: str) -> str:
        """Mostly what makes sense, once nothing else is under way; now and then anything at any time."""
        look = "SELECT vm_state, operation_id FROM instances WHERE uuid = ?"
        patience = self.chance.choice((0.0, 5.0, 60.0))
        state, busy = self.cloud.store.raw.execute(look, (uuid,)).fetchone()
        while busy and patience > 0:
            patience -= 0.5
            await asyncio.sleep(0.5)
            state, busy = self.cloud.store.raw.execute(look, (uuid,)).fetchone()
        fitting = [name for name, (_, _, fits) in VERBS.items() if state in fits]
        names = fitting if fitting and self.chance.random() < 0.85 else list(VERBS)
        return self.chance.choices(names, [VERBS[name][0] for name in names])[0]

    async def _goes_off(self) -> str | None:
        """A guest powers itself off; returns its server."""
        found = [
            (name, guest.uuid)
            for name, host in sorted(self.cloud.hosts.items())
            for guest in host.driver._host.guests.values()
            if guest.defined and guest.power_state == PowerState.RUNNING
        ]
        if not found:
            return None
        name, uuid = self.chance.choice(found)
        self.cloud.trace.fault(name, "guest goes off", uuid[:8])
        self.known.turned_off.add(uuid)
        await self.cloud.hosts[name].driver.guest_changes(uuid, PowerState.SHUTDOWN)
        return uuid

    async def _ask(self, what: str, verb: Any) -> Any:
        trace = self.cloud.trace
        trace.say("user", f"asks: {what}")
        self.requests += 1
        try:
            answer = await self.cloud.as_api(verb)
        except KilonovaError as error:
            trace.say("user", f"is refused: {what}: {error.message}")
            return None
        except TimeoutError:
            trace.say("user", f"hears nothing: {what}")
            return None
        trace.say("user", f"is told: {what}: {', '.join(answer) if isinstance(answer, list) else 'yes'}")
        return answer
