"""What `/healthcheck` at the metrics' port says of a role."""

from __future__ import annotations

import httpx

from kilonova.health import STOPPING, Health
from kilonova.metrics import MetricsSettings, serving


async def test_it_says_what_keeps_the_role_from_its_work() -> None:
    broker_up = False

    async def broker() -> bool:
        return broker_up

    async def database() -> bool:
        raise RuntimeError("away")

    health = Health(waived=frozenset({"DATABASE"}))
    health.add("BROKER", broker)
    health.add("DATABASE", database)
    async with serving(MetricsSettings(port=0), "cert", health=health) as listener, httpx.AsyncClient() as http:
        assert listener is not None

        async def said() -> tuple[int, str]:
            answer = await http.get(f"http://127.0.0.1:{listener.address[1]}/healthcheck")
            return answer.status_code, answer.text

        assert await said() == (503, "STARTING")
        health.phase = None
        assert await said() == (503, "BROKER")
        broker_up = True
        assert await said() == (200, "OK")
        health.add("OTHER", database)
        assert await said() == (503, "OTHER")
        health.phase = STOPPING
        assert await said() == (503, "STOPPING")
