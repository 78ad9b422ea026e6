"""`kilonova` with weather on the bus: `python -m tests.support.weather ROLE ...`.

WEATHER is 'SEED LOST DOUBLED LATE SECONDS': shares of messages, and how late the late ones are at most. What happened
is counted in the file WEATHER_LOG.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

from kilonova.bus.messages import Message
from kilonova.bus.rabbit import RabbitBus
from kilonova.cli import main


class Weather:
    def __init__(self, text: str, log: Path) -> None:
        seed, lost, doubled, late, seconds = text.split()
        self._random = random.Random(f"{seed} {os.getpid()}")
        self._shares = {"lost": float(lost), "doubled": float(doubled), "late": float(late)}
        self._seconds = float(seconds)
        self._log = log
        self.counts: Counter[str] = Counter()

    def draw(self) -> str:
        point = self._random.random()
        for kind, share in self._shares.items():
            point -= share
            if point < 0:
                return kind
        return "sent"

    def late(self) -> float:
        return self._random.uniform(0, self._seconds)

    def count(self, kind: str) -> None:
        self.counts[kind] += 1
        if sum(self.counts.values()) % 50 == 0:
            self._log.write_text(json.dumps(self.counts))


def install(weather: Weather) -> None:
    """All that is sent or asked passes through it; answers are the asker's to lose."""
    send, ask = RabbitBus.send, RabbitBus.ask
    late: set[asyncio.Task[None]] = set()

    async def after(bus: RabbitBus, address: str, message: Message) -> None:
        await asyncio.sleep(weather.late())
        await send(bus, address, message)

    async def weathered_send(self: RabbitBus, address: str, message: Message) -> None:
        kind = weather.draw()
        weather.count(kind)
        if kind == "lost":
            return
        if kind == "late":
            task = asyncio.ensure_future(after(self, address, message))
            late.add(task)
            task.add_done_callback(lambda done: (late.discard(done), done.cancelled() or done.exception()))
            return
        await send(self, address, message)
        if kind == "doubled":
            await send(self, address, message)

    async def weathered_ask(self: RabbitBus, address: str, message: Message, timeout: float) -> Any:
        kind = weather.draw()
        weather.count(kind)
        if kind == "lost":
            await asyncio.sleep(0)
            return await ask(self, address + ".nobody", message, timeout)
        if kind == "late":
            await asyncio.sleep(weather.late())
        if kind == "doubled":
            await send(self, address, message)
        return await ask(self, address, message, timeout)

    RabbitBus.send = weathered_send  # type: ignore[method-assign]
    RabbitBus.ask = weathered_ask  # type: ignore[method-assign]


if __name__ == "__main__":
    install(Weather(os.environ["WEATHER"], Path(os.environ["WEATHER_LOG"])))
    main()
