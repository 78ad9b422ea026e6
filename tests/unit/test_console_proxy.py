"""The console proxy as browsers meet it: a real server and real WebSockets, consoleauth and the guest are ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, ConsumeConsoleToken, LiveConsoles, Message
from kilonova.console.proxy import files
from kilonova.console.proxy.origins import allowed
from kilonova.console.proxy.proxy import ConsoleProxy
from kilonova.console.proxy.server import server_config
from kilonova.console.settings import CONSOLEAUTH, ProxySettings
from kilonova.world import World

Guest = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@dataclass
class Scene:
    """`answers`: what each token opens, changes to the usual answer. `ended`: what consoleauth says of connections."""

    url: str = ""
    proxy: ConsoleProxy = None  # type: ignore[assignment]
    server: uvicorn.Server = None  # type: ignore[assignment]
    answers: dict[str, dict[str, object]] = field(default_factory=dict)
    asked: list[ConsumeConsoleToken] = field(default_factory=list)
    held: list[list[str]] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    guest_port: int = 0
    guest: Guest = echo

    async def consoleauth(self, message: Message) -> Answer:
        if self.silent:
            return Answer(error="the database is away")
        match message:
            case ConsumeConsoleToken():
                self.asked.append(message)
                usual: dict[str, object] = {
                    "connection": f"connection-{len(self.asked)}", "server": "server", "kind": "serial",
                    "seconds": None, "host": "127.0.0.1", "port": self.guest_port, "ticket": None,
                }  # fmt: skip
                known = self.answers.get(message.token)
                return Answer(data={"refused": "unknown"} if known is None else usual | known)
            case LiveConsoles():
                self.held.append(message.connections)
                return Answer(
                    data={"ended": {each: self.ended[each] for each in message.connections if each in self.ended}}
                )
        raise AssertionError(message)

    def open(self, token: str, session: str = "mine", **options: Any) -> connect:
        self.answers.setdefault(token, {})
        return connect(f"ws{self.url[4:]}/?token={token}&session={session}", compression=None, **options)

    async def closed(self, token: str | None, session: str = "mine", **options: Any) -> tuple[int, str]:
        """The close code and reason of a connection that is refused."""
        query = "" if token is None else f"?token={token}&session={session}"
        async with connect(f"ws{self.url[4:]}/{query}", **options) as socket:
            return await end_of(socket)


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.01)


Make = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with contextlib.AsyncExitStack() as stack:

        async def scene(guest: Guest = echo, **options: Any) -> Scene:
            made = Scene(guest=guest)

            async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await made.guest(reader, writer)
                writer.close()

            guests = await asyncio.start_server(served, "127.0.0.1", 0)
            stack.callback(guests.close)
            made.guest_port = guests.sockets[0].getsockname()[1]
            bus = MemoryBus()
            await bus.start()
            stack.push_async_callback(bus.close)
            await bus.listen(CONSOLEAUTH, made.consoleauth)
            settings = ProxySettings(**{"watch": 0.05, **options})
            made.proxy = ConsoleProxy(bus, World(), settings, files.load(Path("/nowhere")))
            await made.proxy.start()
            stack.push_async_callback(made.proxy.stop)
            listener = socket.create_server(("127.0.0.1", 0))
            made.server = uvicorn.Server(server_config(made.proxy, settings))
            made.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
            serving = asyncio.create_task(made.server.serve(sockets=[listener]))

            async def stop() -> None:
                made.server.should_exit = True
                await serving

            stack.push_async_callback(stop)
            made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            await until(lambda: made.server.started)
            return made

        yield scene


@pytest.fixture
async def scene(make: Make) -> Scene:
    return await make()


# -- a session


async def test_bytes_go_both_ways(scene: Scene) -> None:
    async with scene.open("good", subprotocols=[Subprotocol("binary")]) as socket:
        assert socket.subprotocol == "binary"
        data = os.urandom(700_000)
        for message in (b"\x00\xff", "text é", data):
            await socket.send(message)
        wanted = b"\x00\xff" + "text é".encode() + data
        got = b""
        while len(got) < len(wanted):
            got += await socket.recv()  # type: ignore[operator]
        assert got == wanted
    assert (scene.asked[0].token, scene.asked[0].session) == ("good", "mine")
    await until(lambda: scene.proxy.sessions == 0)


async def test_the_ticket_is_said_first(scene: Scene) -> None:
    scene.answers["good"] = {"ticket": "let me in"}
    async with scene.open("good") as socket:
        await socket.send(b"x")
        got = b""
        while len(got) < len(b"let me in\nx"):
            got += await socket.recv()  # type: ignore[operator]
        assert got == b"let me in\nx"


async def test_when_the_browser_leaves_the_console_is_let_go(make: Make) -> None:
    left = asyncio.Event()

    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        left.set()

    scene = await make(guest)
    async with scene.open("good") as socket:
        assert await socket.recv() == b"hello"
    async with asyncio.timeout(20):
        await left.wait()


async def test_when_the_host_closes_the_page_is_told_so(make: Make) -> None:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()

    scene = await make(guest)
    async with scene.open("good") as socket:
        assert await socket.recv() == b"bye"
        assert (await end_of(socket))[0] == 4502
    scene.guest_port = 1
    assert (await scene.closed("good"))[0] == 4502


# -- refusals


@pytest.mark.parametrize("refusal", ["unknown", "expired", "used", "revoked"])
async def test_a_refused_token_is_a_close_code_with_the_reason(scene: Scene, refusal: str) -> None:
    scene.answers["bad"] = {"refused": refusal}
    assert await scene.closed("bad") == (4401, refusal)
    assert scene.proxy.sessions == 0


@pytest.mark.parametrize("token", [None, "", "x" * 129])
async def test_what_can_be_no_token_asks_nobody(scene: Scene, token: str | None) -> None:
    assert await scene.closed(token) == (4401, "unknown")
    assert scene.asked == []


async def test_a_console_that_is_not_there_is_said_in_the_host_s_words(scene: Scene) -> None:
    scene.answers["off"] = {"refused": "unavailable", "message": "Server é is off." + "." * 200}
    code, reason = await scene.closed("off")
    assert code == 4404
    assert reason.startswith("Server é is off.")
    assert len(reason.encode()) <= 123


async def test_without_consoleauth_the_page_is_to_try_later(scene: Scene) -> None:
    scene.silent = True
    assert (await scene.closed("good"))[0] == 1013


# -- origins


@pytest.mark.parametrize(
    ("origin", "host", "others", "is_allowed"),
    [
        (None, "c.example:6080", (), True),
        ("http://c.example:6080", "c.example:6080", (), True),
        ("http://c.example:6081", "c.example:6080", (), False),
        ("http://c.example", "c.example:6080", (), False),
        ("https://c.example", "c.example", (), True),
        ("http://c.example", "c.example", (), True),
        ("http://c.example:8080", "c.example", (), False),
        ("http://C.example:6080", "c.EXAMPLE:6080", (), True),
        ("http://[::1]:6080", "[::1]:6080", (), True),
        ("http://evil.example:6080", "c.example:6080", (), False),
        ("http://c.example.evil.example:6080", "c.example:6080", (), False),
        ("http://c.example:6080@evil.example", "c.example:6080", (), False),
        ("null", "c.example:6080", (), False),
        ("", "c.example:6080", (), False),
        ("file://", "c.example:6080", (), False),
        ("http://c.example:x", "c.example:6080", (), False),
        ("https://d.example", "c.example:6080", ("d.example",), True),
        ("https://d.example:8443", "c.example:6080", ("d.example",), True),
        ("https://d.example:8443", "c.example:6080", ("d.example:443",), False),
        ("https://d.example", "c.example:6080", ("d.example:443",), True),
        ("https://e.example", "c.example:6080", ("d.example",), False),
        ("http://c.example:6080", None, (), False),
    ],
)
def test_whose_pages_may_open_consoles(
    origin: str | None, host: str | None, others: tuple[str, ...], is_allowed: bool
) -> None:
    assert allowed(origin, host, others) is is_allowed


async def test_a_foreign_page_is_refused_and_uses_no_token_up(scene: Scene) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with scene.open("good", origin=Origin("http://evil.example")):
            pass
    assert refused.value.response.status_code == 403
    assert scene.asked == []
    async with scene.open("good", origin=Origin(scene.url)) as socket:
        await socket.send(b"x")
        assert await socket.recv() == b"x"


async def test_pages_of_hosts_that_the_operator_names_are_let_in(make: Make) -> None:
    scene = await make(allowed_origins=("dashboard.example",))
    async with scene.open("good", origin=Origin("https://dashboard.example")) as socket:
        await socket.send(b"x")
        assert await socket.recv() == b"x"


# -- ends


async def test_the_same_session_opened_again_ends_the_earlier_connection(scene: Scene) -> None:
    async with scene.open("good") as first:
        await first.send(b"x")
        assert await first.recv() == b"x"
        async with scene.open("good") as second:
            assert (await end_of(first))[0] == 4409
            await second.send(b"y")
            assert await second.recv() == b"y"
            assert scene.proxy.sessions == 1


@pytest.mark.parametrize(("why", "code"), [("revoked", 4410), ("replaced", 4409)])
async def test_what_may_not_go_on_is_ended(scene: Scene, why: str, code: int) -> None:
    async with scene.open("good") as socket, scene.open("other") as other:
        for each in (socket, other):
            await each.send(b"x")
            assert await each.recv() == b"x"
        await until(lambda: sorted(scene.held[-1:]) == [["connection-1", "connection-2"]])
        scene.ended["connection-1"] = why
        assert (await end_of(socket))[0] == code
        await other.send(b"y")
        assert await other.recv() == b"y"
        await until(lambda: scene.held[-1] == ["connection-2"])


async def test_sessions_go_on_while_consoleauth_is_away(scene: Scene) -> None:
    async with scene.open("good") as socket:
        await until(lambda: bool(scene.held))
        scene.silent = True
        await asyncio.sleep(0.3)
        await socket.send(b"x")
        assert await socket.recv() == b"x"


async def test_a_session_ends_with_its_time(scene: Scene) -> None:
    scene.answers["good"] = {"seconds": 0.3}
    async with scene.open("good") as socket:
        assert (await end_of(socket))[0] == 4408


async def test_an_idle_session_ends_and_a_viewer_that_polls_is_idle(make: Make) -> None:
    scene = await make(idle_timeout=0.6)
    scene.answers["idle"] = {"kind": "vnc"}
    async with scene.open("idle") as idle, scene.open("busy") as busy:

        async def keep(socket: ClientConnection, message: bytes) -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.send(message)
                    await asyncio.sleep(0.1)

        polling, typing = asyncio.create_task(keep(idle, b"\x03" + bytes(9))), asyncio.create_task(keep(busy, b"a"))
        assert (await end_of(idle))[0] == 4408
        await busy.send(b"")
        assert busy.close_code is None
        for task in (polling, typing):
            task.cancel()
        await asyncio.gather(polling, typing, return_exceptions=True)


async def test_a_stop_tells_the_pages_to_come_back(make: Make) -> None:
    scene = await make()
    async with scene.open("good") as socket:
        await socket.send(b"x")
        assert await socket.recv() == b"x"
        scene.server.should_exit = True
        # `pages/session.js` takes this for a break.
        assert (await end_of(socket))[0] == 1012
    await until(lambda: scene.proxy.sessions == 0)


# -- buffers


async def test_a_browser_that_reads_nothing_makes_the_guest_wait(make: Make) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=0)
        while True:
            writer.write(bytes(64 * 1024))
            await writer.drain()
            sent += 64 * 1024

    scene = await make(flood)
    # It holds little itself: one message, and what its kernel takes.
    async with scene.open("good", max_queue=1, close_timeout=0.5) as socket:
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 16 << 20, "what the kernel holds on the two ways, and little more"
        got = 0
        while got < before + (1 << 20):
            got += len(await socket.recv())
        assert sent > before, "and goes on when it reads again"


async def test_a_guest_that_takes_nothing_makes_the_browser_wait(make: Make) -> None:
    taking = asyncio.Event()
    taken = 0

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await taking.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        while data := await reader.read(65536):
            taken += len(data)

    scene = await make(stubborn)
    async with scene.open("good", write_limit=1) as browser:
        sent, enough = 0, asyncio.Event()

        async def flood() -> None:
            nonlocal sent
            while not enough.is_set():
                await browser.send(bytes(64 * 1024))
                sent += 64 * 1024

        flooding = asyncio.create_task(flood())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 32 << 20, "what the kernel holds on the two ways, and little more"
        enough.set()
        taking.set()
        await flooding
        await until(lambda: taken == sent)


async def test_a_message_beyond_the_limit_ends_the_connection(make: Make) -> None:
    scene = await make(message_limit=1000)
    async with scene.open("good") as socket:
        await socket.send(bytes(1001))
        assert (await end_of(socket))[0] == 1009
    await until(lambda: scene.proxy.sessions == 0)


# -- pages


@pytest.mark.parametrize("path", ["vnc.html", "vnc_auto.html", "vnc_lite.html", "serial.html"])
async def test_looking_at_a_page_uses_no_token_up(scene: Scene, path: str) -> None:
    async with httpx.AsyncClient(base_url=scene.url) as http:
        answer = await http.get(f"/{path}?path=%3Ftoken%3Dgood&token=good")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["referrer-policy"] == "no-referrer"
        again = await http.get(f"/{path}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await http.head(f"/{path}")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))
        assert (await http.post(f"/{path}")).status_code == 405
    assert scene.asked == []


@pytest.mark.parametrize(
    "path", ["/", "/none.html", "/../proxy.py", "/%2e%2e/proxy/proxy.py", "/novnc/../../tokens.py", "//etc/passwd"]
)
async def test_what_is_not_a_page_is_not_found(scene: Scene, path: str) -> None:
    async with asyncio.timeout(20):
        host, port = scene.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 404")


def test_libraries_are_served_where_they_are(tmp_path: Path) -> None:
    core = tmp_path / "usr/share/novnc/core"
    core.mkdir(parents=True)
    (core / "rfb.js").write_text("export default 1;")
    (tmp_path / "usr/share/novnc/vnc.html").write_text("not ours")
    (tmp_path / "xterm").mkdir()
    (tmp_path / "xterm/xterm.css").write_text("a {}")
    found = files.load(tmp_path)
    assert found["/novnc/core/rfb.js"].kind == "text/javascript"
    assert found["/xterm/xterm.css"].kind == "text/css"
    assert "/novnc/vnc.html" not in found
    assert b"not ours" not in found["/vnc.html"].body
