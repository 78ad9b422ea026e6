"""The bus between roles: `memory` for one process, `rabbit` for many.

Addresses: `agent.<host>` one agent; `conductor` any one conductor;
`conductor.<id>` a certain one; `scheduler` any one scheduler.
Delivery is at least once and unordered at best: operations and the agents'
journals, not queues, make work durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from kilonova.bus.messages import Answer, Message

ONE_AT_A_TIME = frozenset({"network"})
"""Addresses of which one listener gets every message, and another one takes over when that has gone."""

Handler = Callable[[Message], Awaitable[Answer | None]]


class Subscription(Protocol):
    async def close(self) -> None: ...


class Bus(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, address: str, message: Message) -> None:
        """Hand over for delivery; a missing receiver is no error. Raises Transient without the broker."""

    async def ask(self, address: str, message: Message, timeout: float) -> Answer:
        """Send and wait for the answer, `timeout` seconds. Raises Unavailable when none comes."""
        ...

    async def listen(self, address: str, handler: Handler, *, concurrency: int = 64) -> Subscription:
        """Call `handler` for every message; it is acknowledged when the handler has returned."""
        ...

    def missed(self, window: float) -> float:
        """Seconds to be forgiven to those who were not heard of.

        How long ago this process became deaf, if it is so or was within the last `window` seconds; else 0.
        """
        ...
