"""Vendor data: an operator's document, and services of the operator's that answer, fail, dribble and flood."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kilonova import config
from kilonova.errors import Invalid
from kilonova.runtime import Runtime
from kilonova.testing.identity import PROJECT
from tests.support import server_rows as rows
from tests.unit.metadata.conftest import Asking

ONE, TWO = "/openstack/latest/vendor_data.json", "/openstack/latest/vendor_data2.json"
BOTH = ("StaticJSON", "DynamicJSON")
Reply = Callable[[asyncio.StreamWriter], Any]


def _answer(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def _fine(writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(b'{"role": "web"}'))


async def _silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _dribbling(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _flooding(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


def _saying(body: bytes, status: str = "200 OK", more: str = "") -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(body, status, more))

    return reply


class Vendor:
    """One HTTP server for each reply, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @contextlib.asynccontextmanager
    async def serving(self, reply: Reply) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[Any]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length")
                )
                self.asked.append((head, json.loads(await reader.readexactly(length))))
                await reply(writer)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


async def test_without_a_document_there_is_an_empty_one(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    assert (await ask(ONE, server)).json() == {}
    assert (await ask(TWO, server)).json() == {"static": {}}


async def test_the_document_is_the_operator_s(rt: Runtime, asking: Callable[..., Asking], tmp_path: Path) -> None:
    server = await rows.add(rt.db)
    file = tmp_path / "vendor.json"
    assert (await asking(vendordata_file=file)(ONE, server)).json() == {}, "absent"
    file.write_text('{"motd": "é"}')
    ask = asking(vendordata_file=file)
    assert (await ask(ONE, server)).json() == {"motd": "é"}
    assert (await ask(TWO, server)).json() == {"static": {"motd": "é"}}
    without = asking(vendordata_file=file, vendordata_providers=())
    assert (await without(ONE, server)).status_code == 404
    assert (await without(TWO, server)).json() == {}


async def test_a_document_that_is_no_json_stops_the_start(asking: Callable[..., Asking], tmp_path: Path) -> None:
    for text in ("{", "[]", "\udcff"):
        file = tmp_path / "vendor.json"
        file.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(Invalid, match="vendordata_jsonfile_path"):
            asking(vendordata_file=file)


async def test_services_are_told_of_the_server_and_answer(
    rt: Runtime, asking: Callable[..., Asking], vendor: Vendor
) -> None:
    encoded = base64.b64encode(b"\xff\x00").decode()
    server = await rows.add(rt.db, hostname="h", metadata={"k": "v"}, user_data=encoded)
    async with vendor.serving(_fine) as url, vendor.serving(_saying(b'["list"]')) as other:
        ask = asking(vendordata_providers=BOTH, vendordata_targets=(("one", url), ("two", other + "path?x=y")))
        for _ in range(2):
            assert (await ask(TWO, server)).json() == {"static": {}, "one": {"role": "web"}, "two": ["list"]}
        assert (await ask(ONE, server)).json() == {}
    assert len(vendor.asked) == 2, "kept with the rest of the answer"
    for head, body in vendor.asked:
        assert body == {
            "project-id": PROJECT,
            "instance-id": server,
            "image-id": rows.IMAGE,
            "user-data": encoded,
            "hostname": "h",
            "metadata": {"k": "v"},
            "boot-roles": "",
        }
        assert "\r\nuser-agent: openstack-nova-vendordata\r\n" in head.lower()
        assert "\r\ncontent-type: application/json\r\n" in head.lower()
        assert "x-auth-token" not in head.lower(), "a token goes to those services only that are to have it"
    assert {head.split("\r\n")[0] for head, _ in vendor.asked} == {"POST / HTTP/1.1", "POST /path?x=y HTTP/1.1"}


BAD: dict[str, Reply] = {
    "silent": _silent,
    "dribbling": _dribbling,
    "flooding": _flooding,
    "no JSON": _saying(b"<html>"),
    "no UTF-8": _saying(b'"\xff"'),
    "an error": _saying(b"{}", "500 Internal Server Error"),
    "not allowed": _saying(b"{}", "401 Unauthorized"),
    "elsewhere": _saying(b"{}", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
    "no HTTP": lambda writer: _rubbish(writer),
}


async def _rubbish(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail ready\r\n")


@pytest.mark.parametrize("name", BAD)
async def test_a_service_that_fails_is_left_out_unless_that_is_fatal(
    rt: Runtime, asking: Callable[..., Asking], vendor: Vendor, name: str
) -> None:
    server = await rows.add(rt.db)
    async with vendor.serving(BAD[name]) as bad, vendor.serving(_fine) as fine:
        settings = {
            "vendordata_providers": BOTH,
            "vendordata_targets": (("bad", bad), ("fine", fine)),
            "vendordata_connect_timeout": 0.3,
            "vendordata_read_timeout": 0.3,
        }
        answer = await asyncio.wait_for(asking(**settings)(TWO, server), 10)
        assert answer.json() == {"static": {}, "bad": {}, "fine": {"role": "web"}}
        fatal = asking(**settings, vendordata_failure_fatal=True)
        answer = await asyncio.wait_for(fatal(TWO, server), 10)
        assert answer.status_code == 500
        assert bad not in answer.text
        assert (await fatal("/openstack/latest/meta_data.json", server)).status_code == 200, "others are not concerned"


async def test_nobody_there_is_a_failure_too(rt: Runtime, asking: Callable[..., Asking]) -> None:
    targets = (("gone", "http://127.0.0.1:1/"),)
    ask = asking(vendordata_providers=("DynamicJSON",), vendordata_targets=targets)
    assert (await ask(TWO, await rows.add(rt.db))).json() == {"gone": {}}


async def test_nothing_answered_is_an_empty_document(
    rt: Runtime, asking: Callable[..., Asking], vendor: Vendor
) -> None:
    async with vendor.serving(_saying(b"")) as url:
        ask = asking(vendordata_providers=BOTH, vendordata_targets=(("none", url),), vendordata_failure_fatal=True)
        assert (await ask(TWO, await rows.add(rt.db))).json() == {"static": {}, "none": {}}


async def test_the_first_of_a_name_counts(rt: Runtime, asking: Callable[..., Asking], vendor: Vendor) -> None:
    server = await rows.add(rt.db)
    async with vendor.serving(_fine) as fine, vendor.serving(_saying(b'"other"')) as other:
        targets = (("a", fine), ("a", other), ("static", other))
        ask = asking(vendordata_providers=BOTH, vendordata_targets=targets)
        assert (await ask(TWO, server)).json() == {"static": {}, "a": {"role": "web"}}
        assert len(vendor.asked) == 1
        ask = asking(vendordata_providers=("DynamicJSON",), vendordata_targets=targets)
        assert (await ask(TWO, server)).json() == {"a": {"role": "web"}, "static": "other"}


async def test_services_are_asked_side_by_side(rt: Runtime, asking: Callable[..., Asking], vendor: Vendor) -> None:
    met: list[asyncio.StreamWriter] = []
    both = asyncio.Event()

    async def meet(writer: asyncio.StreamWriter) -> None:
        met.append(writer)
        if len(met) == 2:
            both.set()
        await both.wait()
        writer.write(_answer(b"1"))

    async with vendor.serving(meet) as one, vendor.serving(meet) as two:
        ask = asking(vendordata_providers=("DynamicJSON",), vendordata_targets=(("one", one), ("two", two)))
        assert (await ask(TWO, await rows.add(rt.db))).json() == {"one": 1, "two": 1}


async def test_a_slow_service_keeps_no_other_question_waiting(
    rt: Runtime, asking: Callable[..., Asking], vendor: Vendor
) -> None:
    server = await rows.add(rt.db)
    async with vendor.serving(_silent) as url:
        ask = asking(vendordata_providers=BOTH, vendordata_targets=(("slow", url),), vendordata_read_timeout=30.0)
        waiting = asyncio.create_task(ask(TWO, server))
        while not vendor.asked:
            await asyncio.sleep(0.01)
        assert (await ask("/openstack/latest/meta_data.json", server)).status_code == 200
        assert (await ask(ONE, server)).status_code == 200
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vendordata_providers = Other", "vendordata_providers"),
        ("vendordata_dynamic_targets = noname", "vendordata_dynamic_targets"),
        ("vendordata_dynamic_targets = @http://x/", "vendordata_dynamic_targets"),
        ("vendordata_dynamic_targets = a@ftp://x/", "vendordata_dynamic_targets"),
        ("vendordata_dynamic_connect_timeout = 2", "connect_timeout"),
        ("metadata_cache_expiration = -1", "metadata_cache_expiration"),
    ],
)
def test_options_that_cannot_be_honoured_stop_the_start(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "nova.conf"
    file.write_text(f"[api]\n{text}\n")
    with pytest.raises(Invalid, match=said):
        config.metadata_settings(config.load([file]))


def test_the_options_become_settings(tmp_path: Path) -> None:
    file = tmp_path / "nova.conf"
    file.write_text(
        "[api]\nvendordata_providers = StaticJSON,DynamicJSON\nvendordata_dynamic_targets = a@http://x/@y,b@https://z\n"
        "vendordata_dynamic_read_timeout = 7\nmetadata_cache_expiration = 3\ndhcp_domain =\n"
        "[neutron]\nservice_metadata_proxy = true\nmetadata_proxy_shared_secret = Password123$\n"
    )
    settings = config.metadata_settings(config.load([file]))
    assert settings.vendordata_targets == (("a", "http://x/@y"), ("b", "https://z"))
    assert (settings.vendordata_connect_timeout, settings.vendordata_read_timeout) == (5.0, 7.0)
    assert (settings.cache_expiration, settings.dhcp_domain) == (3.0, "")
    assert (settings.service_metadata_proxy, settings.shared_secret) == (True, "Password123$")


def test_the_reference_s_time_limits_are_the_default() -> None:
    settings = config.metadata_settings(config.load([]))
    assert (settings.vendordata_connect_timeout, settings.vendordata_read_timeout) == (5.0, 5.0)
