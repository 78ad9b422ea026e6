"""What console sessions cost the proxy: `python -m bench.consoles [SESSIONS]`.

One proxy process with its sessions all open, each at a guest of a screen's size (`agent/sim/screen.py`) that is drawn
several times a second. consoleauth and the guests stand in another process: only the proxy is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvicorn
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from kilonova.agent.sim import screen
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, ConsumeConsoleToken, LiveConsoles, Message
from kilonova.console.proxy import files
from kilonova.console.proxy.proxy import ConsoleProxy
from kilonova.console.proxy.server import server_config
from kilonova.console.settings import CONSOLEAUTH, ProxySettings
from kilonova.world import World

SESSIONS = 200
REDRAWS = 5
"""A second, of the whole screen; what a guest that plays a film may ask for."""
_AT_ONCE = 20
_WANT = b"\x03\x00" + bytes(8)
_PICTURE = screen.WIDTH * screen.HEIGHT * 4 + 16


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one session, in bytes of the proxy's resident memory and per cent of a processor; `pictures`: drawn in all."""

    sessions: int
    idle: float
    busy: float
    stalled: float
    """With a viewer that has stopped reading."""
    cpu: float
    pictures: int

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions: {self.idle / 1024:.0f} KiB each after the first picture,"
            f" {self.busy / 1024:.0f} KiB at {REDRAWS} pictures a second ({self.cpu:.2f} % of a processor each),"
            f" {self.stalled / 1024:.0f} KiB when nobody reads; {self.pictures} pictures"
        )


async def serve(guests: int) -> None:
    """The proxy, in a process of its own; every token is good. Says its port, ends with its standard input."""
    bus = MemoryBus()
    await bus.start()

    async def consoleauth(message: Message) -> Answer:
        match message:
            case ConsumeConsoleToken():
                where = {"host": "127.0.0.1", "port": guests, "ticket": None, "seconds": None}
                return Answer(data={"connection": message.token, "server": message.token, "kind": "vnc", **where})
            case LiveConsoles():
                return Answer(data={"ended": {}})
        raise AssertionError(message)

    await bus.listen(CONSOLEAUTH, consoleauth)
    settings = ProxySettings()
    proxy = ConsoleProxy(bus, World(), settings, files.load(Path("/nowhere")))
    await proxy.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(server_config(proxy, settings))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    print(listener.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving
    await proxy.stop()


class Viewer:
    """One browser's part: opens the session, asks for pictures, and takes them."""

    def __init__(self, opened: ClientConnection) -> None:
        self._socket = opened
        self._held = bytearray()
        self.pictures = 0

    async def _take(self, count: int) -> None:
        while len(self._held) < count:
            data = await self._socket.recv()
            assert isinstance(data, bytes)
            self._held += data
        del self._held[:count]

    async def begin(self) -> None:
        for wanted, said in ((12, b"RFB 003.008\n"), (2, b"\x01"), (4, b"\x01")):
            await self._take(wanted)
            await self._socket.send(said)
        await self._take(24 + len("bench"))
        await self.draw()

    async def draw(self) -> None:
        await self._socket.send(_WANT)
        await self._take(_PICTURE)
        self.pictures += 1

    async def draw_until(self, end: float) -> None:
        """Until then, and in any case once more than `begin`, however busy the machine is."""
        while time.monotonic() < end or self.pictures < 2:
            began = time.monotonic()
            await self.draw()
            await asyncio.sleep(max(0.0, 1 / REDRAWS - (time.monotonic() - began)))

    async def stall(self) -> None:
        """Ask for far more than all buffers hold, and take nothing."""
        for _ in range(64):
            await self._socket.send(_WANT)


async def measure(sessions: int = SESSIONS, seconds: float = 10.0) -> Cost:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await screen.screen("bench", reader, writer)
        writer.close()

    guests = await asyncio.start_server(guest, "127.0.0.1", 0)
    command = [sys.executable, "-m", "bench.consoles", "serve", str(guests.sockets[0].getsockname()[1])]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = int(await process.stdout.readline())
        known = psutil.Process(process.pid)
        async with contextlib.AsyncExitStack() as stack:

            async def open_one(number: int) -> Viewer:
                # One message at a time, so that what is not read waits in the proxy or before it.
                url = f"ws://127.0.0.1:{port}/?token=t{number}&session=s"
                options: dict[str, Any] = {"compression": None, "max_queue": 1, "close_timeout": 0.1}
                opened = connect(url, ping_interval=None, open_timeout=60, **options)
                viewer = Viewer(await stack.enter_async_context(opened))
                await viewer.begin()
                return viewer

            # What the first session brings along is no session's: modules, and the allocator's first blocks.
            first = await open_one(-1)
            before = known.memory_info().rss
            viewers: list[Viewer] = []
            for start in range(0, sessions, _AT_ONCE):
                numbers = range(start, min(start + _AT_ONCE, sessions))
                viewers += await asyncio.gather(*(open_one(number) for number in numbers))
            idle = known.memory_info().rss - before
            used, began = sum(known.cpu_times()[:2]), time.monotonic()
            await asyncio.gather(*(viewer.draw_until(began + seconds) for viewer in viewers))
            cpu = (sum(known.cpu_times()[:2]) - used) / (time.monotonic() - began)
            busy = known.memory_info().rss - before
            await asyncio.gather(*(viewer.stall() for viewer in viewers))
            await asyncio.sleep(seconds / 4)
            stalled = known.memory_info().rss - before
            # Somebody else's stalled viewers keep nobody waiting.
            await first.draw()
            return Cost(
                sessions=sessions,
                idle=idle / sessions,
                busy=busy / sessions,
                stalled=stalled / sessions,
                cpu=100 * cpu / sessions,
                pictures=sum(viewer.pictures for viewer in viewers),
            )
    finally:
        process.stdin.close()
        await process.wait()
        guests.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2])))
    else:
        print(uvloop.run(measure(*(int(word) for word in sys.argv[1:2]))))
