"""A connection comes back whatever the library raises while it is being made."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika
import pytest

from kilonova.bus import link
from kilonova.bus.link import Link, RabbitOptions
from kilonova.bus.transport import BrokerAddress

OPTIONS = RabbitOptions(
    brokers=(BrokerAddress(host="127.0.0.1", port=1, user="u", password="p", vhost="/"),), heartbeat=1
)
FAILURES = (
    OSError("refused"), Exception(), asyncio.IncompleteReadError(b"", 1), KeyError("frame"), asyncio.CancelledError(),
)  # fmt: skip


class Connection:
    """What `Link` uses of one."""

    def __init__(self, on_close: BaseException | None = None) -> None:
        self.close_callbacks: set[Any] = set()
        self._on_close = on_close

    async def close(self) -> None:
        if self._on_close is not None:
            raise self._on_close


async def test_every_kind_of_failure_is_followed_by_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = list(FAILURES)
    attempts = 0

    async def connect(*args: Any, **kw: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if failures:
            raise failures.pop()
        return Connection()

    async def opened(connection: Any) -> None:
        return

    monkeypatch.setattr(aio_pika, "connect", connect)
    monkeypatch.setattr(link, "_RETRY", (0.01,))
    made = Link(OPTIONS, "test", opened)
    made.start()
    async with asyncio.timeout(20):
        await made.up.wait()
    assert attempts == len(FAILURES) + 1
    await made.close()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_one_that_cannot_be_closed_or_set_up_is_made_anew(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Connection(failure), Connection()
    coming = [second, first]
    refused = [failure]

    async def connect(*args: Any, **kw: Any) -> Any:
        return coming.pop()

    async def opened(connection: Any) -> None:
        if refused and connection is first:
            raise refused.pop()

    monkeypatch.setattr(aio_pika, "connect", connect)
    monkeypatch.setattr(link, "_RETRY", (0.01,))
    made = Link(OPTIONS, "test", opened)
    made.start()
    async with asyncio.timeout(20):
        await made.up.wait()
    assert made.connection is second  # type: ignore[comparison-overlap]
    await made.close()
