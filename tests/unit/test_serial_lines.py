"""Serial lines of libvirt's guests, on a stream of our own: many at one line, and who leaves when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

pytest.importorskip("libvirt")

from kilonova.agent.libvirt import serial  # needs libvirt's binding
from kilonova.errors import HostFailure

UUID = "11111111-2222-3333-4444-555555555555"


class Stream:
    def __init__(self) -> None:
        self.typed = b""
        self.closed = False
        self.reading = True

    def send(self, data: bytes) -> int:
        self.typed += data[:3]
        return len(data[:3])

    def recv(self, size: int) -> bytes:
        return self.next

    def eventUpdateCallback(self, events: int) -> None:
        self.reading = bool(events & serial.libvirt.VIR_STREAM_EVENT_READABLE)

    def eventRemoveCallback(self) -> None:
        self.reading = False

    def abort(self) -> None:
        self.closed = True


class Scene:
    """A listener as the tunnel has one, and the streams that were opened for it."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.failure: str | None = None
        self.lines = serial.SerialLines(self, "deployment")  # type: ignore[arg-type]
        self.port = 0
        self.served = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def call(self, what: str, do: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        return do(None)

    def open(self, line: Any, handle: Any) -> Stream:
        if self.failure is not None:
            raise HostFailure(self.failure)
        self.streams.append(Stream())
        return self.streams[-1]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served += 1
        with contextlib.suppress(OSError):
            await self.lines.serve(UUID, reader, writer)
        writer.transport.abort()
        self.served -= 1

    def says(self, data: bytes) -> None:
        """The guest does; nothing: it closes the line."""
        stream = self.streams[-1]
        stream.next = data  # type: ignore[attr-defined]
        line = self.lines._lines[UUID]
        line._event(stream, serial.libvirt.VIR_STREAM_EVENT_READABLE, None)

    async def join(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        before = self.users()
        opened = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(opened[1])
        await until(lambda: self.users() == before + 1)
        return opened

    def users(self) -> int:
        return sum(len(line._writers) for line in self.lines._lines.values())


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.01)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    made = Scene()
    monkeypatch.setattr(serial._Line, "_open", lambda line, handle: made.open(line, handle))
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in made.writers:
        writer.transport.abort()
    await until(lambda: made.served == 0)
    # Until the loop has closed what was aborted.
    await asyncio.sleep(0.05)


async def test_all_at_one_line_see_the_same_and_each_types(scene: Scene) -> None:
    (one, to_one), (two, to_two) = await scene.join(), await scene.join()
    assert len(scene.streams) == 1
    scene.says(b"login: ")
    assert await one.readexactly(7) == await two.readexactly(7) == b"login: "
    to_one.write(b"root\n")
    await until(lambda: scene.streams[0].typed == b"root\n")
    to_two.write(b"secret\n")
    await until(lambda: scene.streams[0].typed == b"root\nsecret\n")
    to_one.close()
    await until(lambda: scene.users() == 1)
    assert not scene.streams[0].closed
    scene.says(b"# ")
    assert await two.readexactly(2) == b"# "
    to_two.close()
    await until(lambda: scene.streams[0].closed)
    # The next one opens it anew.
    _, writer = await scene.join()
    assert len(scene.streams) == 2
    writer.close()


async def test_a_guest_that_closes_its_line_ends_all_of_it(scene: Scene) -> None:
    (one, _), (two, _) = await scene.join(), await scene.join()
    scene.says(b"")
    assert await one.read() == await two.read() == b""
    reader, _ = await scene.join()
    assert len(scene.streams) == 2
    scene.says(b"again")
    assert await reader.readexactly(5) == b"again"


async def test_whoever_reads_nothing_leaves_and_the_others_read_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial, "_PATIENCE", 0.3)
    (stalled, _), (reader, writer) = await scene.join(), await scene.join()
    stalled._transport.pause_reading()  # type: ignore[attr-defined]
    chunk, got = bytes(serial._CHUNK), 0

    async def read_on() -> None:
        nonlocal got
        while data := await reader.read(1 << 16):
            got += len(data)

    reading = asyncio.create_task(read_on())
    said = 0
    async with asyncio.timeout(60):
        while scene.users() == 2:
            if scene.streams[0].reading:
                scene.says(chunk)
                said += len(chunk)
            await asyncio.sleep(0)
    await until(lambda: got == said)
    # Once all is taken, the guest is read from again.
    await until(lambda: scene.streams[0].reading)
    writer.close()
    await asyncio.gather(reading, return_exceptions=True)


async def test_a_line_that_cannot_be_opened_closes_the_connection(scene: Scene) -> None:
    scene.failure = "the guest is off"
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
    assert await reader.read() == b""
    writer.close()
    await until(lambda: not scene.lines._lines)
