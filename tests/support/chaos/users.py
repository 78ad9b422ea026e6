"""Users of the chaos run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import httpx

from tests.support.chaos.plan import Plan, Report
from tests.support.cluster import IMAGE
from tests.support.load import Load, server
from tests.support.networking import NETWORK


class Client:
    """What users do. Requests whose answer is lost are looked up or done again, as a careful client would."""

    def __init__(self, load: Load, plan: Plan, report: Report) -> None:
        self.load = load
        self.random = random.Random(f"client {plan.seed}")
        self.report = report
        self.acknowledged: set[str] = set()
        self.deleted: set[str] = set()

    async def ask(self, what: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        """None when nobody said what became of it."""
        try:
            answer = await self.load.ask(method, path, body)
        except httpx.HTTPError:
            self.report.asked[f"{what}: no answer"] += 1
            return None
        self.report.asked[f"{what}: {answer.status_code}"] += 1
        return answer

    def networks(self, number: int) -> Any:
        """Every other server has a port, where there is Networking."""
        return [{"uuid": NETWORK}] if self.load.cluster.networking and number % 2 else "none"

    async def life(self, number: int, start: float, actions: list[tuple[float, str]]) -> None:
        await asyncio.sleep(start)
        uuid = None
        while uuid is None:
            answer = await self.ask("create", "POST", "/servers", server(f"s{number}", networks=self.networks(number)))
            if answer is not None and answer.status_code == 202:
                uuid = str(answer.json()["server"]["id"])
                self.acknowledged.add(uuid)
            else:
                await asyncio.sleep(1.0)
        for wait, action in actions:
            await asyncio.sleep(wait)
            if action == "delete":
                await self.delete(uuid)
                return
            body: dict[str, Any] = {"rebuild": {"imageRef": IMAGE}}
            if action != "rebuild":
                body = {"reboot": {"type": action}}
            await self.ask(action, "POST", f"/servers/{uuid}/action", body)

    async def delete(self, uuid: str) -> None:
        while True:
            answer = await self.ask("delete", "DELETE", f"/servers/{uuid}")
            if answer is not None and answer.status_code in (204, 404):
                self.deleted.add(uuid)
                return
            await asyncio.sleep(1.0)

    def lives(self, plan: Plan) -> list[Awaitable[None]]:
        chance = self.random
        made = []
        for number in range(plan.servers):
            actions = []
            for _ in range(chance.randint(1, 4)):
                kind = chance.choices(("SOFT", "HARD", "rebuild"), (3, 3, 4))[0]
                actions.append((chance.uniform(1, plan.seconds / 4), kind))
            if chance.random() < 0.5:
                actions.append((chance.uniform(0, plan.seconds / 8), "delete"))
            made.append(self.life(number, chance.uniform(0, plan.seconds / 2), actions))
        return made
