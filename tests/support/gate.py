"""A way through to a server that can be cut, as a network can: what is under way hangs, and nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from tests.support.processes import free_port


class Gate:
    """Forwards a port of its own to `target`. Any number of gates share a thread."""

    def __init__(self, gates: Gates, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates = gates

    def cut(self) -> None:
        self._gates.call(self._open.clear)

    def mend(self) -> None:
        """Open again. Connections of before are broken: both sides have long lost their place."""
        self._gates.call(self._mend)

    def _mend(self) -> None:
        if not self._open.is_set():
            for task in self._tasks:
                task.cancel()
            self._open.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._open.wait()
            with contextlib.suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pump(reader, inner_writer))
                        group.create_task(self._pump(inner_reader, writer))
                except* (OSError, EOFError):
                    pass
                finally:
                    inner_writer.transport.abort()
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await reader.read(65536)
            if not data:
                raise EOFError
            await self._open.wait()
            writer.write(data)
            await writer.drain()


class Gates:
    """The thread, and the gates in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gates", daemon=True)
        self._thread.start()
        self.gates: list[Gate] = []

    def add(self, target: int) -> Gate:
        gate = Gate(self, target)
        asyncio.run_coroutine_threadsafe(gate.start(), self._loop).result(10)
        self.gates.append(gate)
        return gate

    def call(self, work: object) -> None:
        assert callable(work)
        self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        for gate in self.gates:
            asyncio.run_coroutine_threadsafe(gate.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
