"""What `/healthcheck` says of a role, at the metrics' port and at the role's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from kilonova.health import STARTING, STOPPING, Answering, Health, HealthSettings
from kilonova.metrics import MetricsSettings, serving


async def test_it_says_what_keeps_the_role_from_its_work() -> None:
    broker_up = False

    async def broker() -> bool:
        return broker_up

    async def database() -> bool:
        raise RuntimeError("away")

    health = Health(waived=frozenset({"DATABASE"}), phase=STARTING)
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


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the role's"})


def client(health: Health) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=Answering(app, health)), base_url="http://role.test")


JSON = {"Accept": "application/json"}


async def away() -> bool:
    raise RuntimeError("away\nand more")


async def there() -> bool:
    return True


async def test_beside_a_roles_own_answers_it_says_so_too() -> None:
    health = Health()
    async with client(health) as http:
        assert (await http.get("/other")).text == "the role's"
        assert (await http.get("/healthcheck")).text == "OK"
        assert (await http.head("/healthcheck")).content == b""
        assert (await http.post("/healthcheck")).status_code == 405
        assert (await http.get("/healthcheck", headers=JSON)).json() == {"detailed": False, "reasons": ["OK"]}
        health.add("DATABASE", away)
        answer = await http.get("/healthcheck")
        assert (answer.status_code, answer.text) == (503, "DATABASE")
        assert (await http.get("/healthcheck", headers=JSON)).json()["reasons"] == ["DATABASE"]


@pytest.mark.parametrize("serves", [True, False])
async def test_details_are_told_where_the_file_says_so(serves: bool) -> None:
    health = Health(settings=HealthSettings(detailed=True), phase=None if serves else STOPPING)
    health.add("DATABASE", away)
    health.add("BROKER", there)
    async with client(health) as http:
        document = (await http.get("/healthcheck", headers=JSON)).json()
        assert (await http.get("/healthcheck")).text == ("DATABASE" if serves else "STOPPING")
    assert document["detailed"] is True
    said = [(each["class"], each["reason"], each["details"]) for each in document["reasons"]]
    wanted = [("DATABASE", "DATABASE", "away"), ("BROKER", "OK", "")]
    assert said == (wanted if serves else [("STOPPING", "STOPPING", "")])


async def test_a_file_takes_a_process_out_of_service(tmp_path: Path) -> None:
    off = tmp_path / "off"
    health = Health(settings=HealthSettings(off_file=off))
    async with client(health) as http:
        assert (await http.get("/healthcheck")).status_code == 200
        off.touch()
        answer = await http.get("/healthcheck")
        assert (answer.status_code, answer.text) == (503, "DISABLED BY FILE")
