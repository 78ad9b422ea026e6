"""An agent with a simulated host on a memory bus, and a stand-in for the conductor that keeps what it hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from kilonova.agent.agent import Agent
from kilonova.agent.commands import BootArgs, encode_args
from kilonova.agent.driver import ImageSpec, Secrets, ServerSpec
from kilonova.agent.journal import Journal
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.script import Script
from kilonova.agent.sim.state import SimState
from kilonova.bus import Bus
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Command, Message, Result
from kilonova.world import World

M = TypeVar("M")
SERVER = "5e43f0c6-6e2f-4c6e-9a58-1f6a6b8f3c01"


def make_spec(uuid: str = SERVER, **values: object) -> ServerSpec:
    spec = ServerSpec(
        uuid=uuid,
        name="instance-00000001",
        display_name="web",
        hostname="web",
        project_id="p1",
        user_id="u1",
        deployment_id="d1",
        vcpus=1,
        memory_mb=64,
        root_gb=1,
        image=ImageSpec(id="image-1", size=1024, disk_format="raw"),
    )
    return msgspec.structs.replace(spec, **values)


def make_command(
    key: str = "1/build/do/0.0",
    verb: str = "boot",
    args: msgspec.Struct | None = None,
    *,
    uuid: str = SERVER,
    reply_to: str = "conductor.a",
    secrets: Secrets | None = None,
) -> Command:
    return Command(
        key=key,
        operation_id=int(key.split("/")[0]),
        server_uuid=uuid,
        verb=verb,
        args=encode_args(args if args is not None else BootArgs(spec=make_spec(uuid))),
        reply_to=reply_to,
        secrets=secrets,
    )


class Heard:
    """What came to a conductor's addresses, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._news = asyncio.Condition()

    async def __call__(self, message: Message) -> Answer | None:
        self.messages.append(message)
        async with self._news:
            self._news.notify_all()
        return None

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def results(self, key: str) -> list[Result]:
        return [result for result in self.of(Result) if result.key == key]

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: bool(true()))

    async def result(self, key: str, count: int = 1) -> Result:
        """The `count`-th result for a key, waiting for it."""
        await self.until(lambda: len(self.results(key)) >= count)
        return self.results(key)[count - 1]


class Gate:
    """A script that stops guests' verbs at the door until it is opened."""

    def __init__(self, *verbs: str) -> None:
        self.verbs = set(verbs)
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.waiting: set[str] = set()
        """Servers at the door."""

    async def before(self, host: str, verb: str, uuid: str) -> None:
        if verb in self.verbs:
            self.reached.set()
            self.waiting.add(uuid)
            await self.open.wait()

    async def after(self, host: str, verb: str, uuid: str) -> None:
        return


class Bench:
    """One host's parts. `crash()` drops the agent as a kill would; `agent()` starts one (again) on the same files."""

    def __init__(self, directory: Path, bus: Bus, script: Script | None) -> None:
        self.directory = directory
        self.bus = bus
        self.script = script
        self.world = World(1)
        self.heard = Heard()
        self.journal = Journal(directory / "journal.sqlite", synchronous="OFF")
        self.state = SimState(directory / "sim.sqlite")
        self.driver: SimDriver
        self.running: Agent | None = None

    async def agent(self, *, boot_id: str = "boot-1", **values: object) -> Agent:
        self.driver = SimDriver(SimOptions(), self.world, host="h1", state=self.state, script=self.script)
        agent = Agent(
            host="h1",
            driver=self.driver,
            bus=self.bus,
            journal=self.journal,
            world=self.world,
            boot_id=boot_id,
            **values,  # type: ignore[arg-type]
        )
        await agent.start()
        self.running = agent
        return agent

    async def stop(self, agent: Agent) -> None:
        await agent.stop()
        self.running = None

    async def send(self, command: Command) -> None:
        await self.bus.send("agent.h1", command)


@contextlib.asynccontextmanager
async def make_bench(directory: Path, *, bus: Bus | None = None, script: Script | None = None) -> AsyncIterator[Bench]:
    bench = Bench(directory, bus or MemoryBus(), script)
    await bench.bus.start()
    await bench.journal.start()
    await bench.state.start()
    for address in ("conductor", "conductor.a", "conductor.b"):
        await bench.bus.listen(address, bench.heard)
    try:
        yield bench
    finally:
        if bench.running is not None:
            await bench.running.stop()
        await bench.bus.close()
        await bench.journal.close()
        await bench.state.close()
