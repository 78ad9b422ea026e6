"""Cached answers of the metadata service beside the bare floor: an ASGI application that returns the same bytes.

`python -m bench.metadata` prints the rates of both sides, turn by turn in one run, and how often the server's processor
time would do for the other's: at least half the floor's rate is the goal. Neighbours disturb the first, not the second.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from bench import scene
from bench.processes import Client, Server
from bench.web import serve
from kilonova.compute.servers import boot
from kilonova.context import RequestContext
from kilonova.metadata.service import MetadataService
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.signing import sign
from kilonova.testing.cloud import make_cloud

SECRET = "bench"
UUID_FILE = "uuid"
DOCUMENTS = ("user_data", "network_data.json", "meta_data.json")
ROUNDS, SECONDS, CONNECTIONS = 7, 0.4, 8
PORTS = {"ours": 18611, "floor": 18612}


def request(uuid: str, document: str) -> bytes:
    lines = [
        f"GET /openstack/latest/{document} HTTP/1.1",
        "Host: 169.254.169.254",
        f"X-Instance-ID: {uuid}",
        "X-Tenant-ID: p",
        f"X-Instance-ID-Signature: {sign(SECRET, uuid)}",
        "X-Forwarded-For: 10.0.0.5",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def ours(directory: Path) -> None:
    async with make_cloud(directory, settings=scene.SETTINGS) as cloud:
        scene.add_image(cloud.images)
        await scene.add_flavors(cloud.rt.db)
        context = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-1")
        asked = boot.BootRequest(
            name="bench", image_ref=scene.IMAGE, flavor_ref=scene.FLAVOR, networks="none", user_data="IyEvYmluL3NoCg=="
        )
        created = await boot.create(cloud.rt, context, asked)
        (directory / UUID_FILE).write_text(created.uuids[0])
        settings = MetadataSettings(service_metadata_proxy=True, shared_secret=SECRET, cache_expiration=3600.0)
        await serve(MetadataService(cloud.rt, settings), PORTS["ours"])


async def floor(directory: Path) -> None:
    bodies = {f"/openstack/latest/{name}": (directory / name).read_bytes() for name in DOCUMENTS}

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body = bodies.get(scope["path"], b"")
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    await serve(answer, PORTS["floor"])


def measure() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        client = Client()
        sides = {"ours": _start("ours", directory)}
        try:
            uuid = (directory / UUID_FILE).read_text()
            for name in DOCUMENTS:
                found = client.send(PORTS["ours"], [request(uuid, name)], count=1, keep=True)
                assert found["statuses"] == {"200": 1}, found
                (directory / name).write_text(found["bodies"][0])
            sides["floor"] = _start("floor", directory)
            for name in DOCUMENTS:
                rates: dict[str, list[float]] = {side: [] for side in sides}
                costs: dict[str, list[float]] = {side: [] for side in sides}
                for _ in range(ROUNDS):
                    for side in sides:
                        before = sides[side].cpu()
                        sent = client.send(PORTS[side], [request(uuid, name)], connections=CONNECTIONS, seconds=SECONDS)
                        assert set(sent["statuses"]) == {"200"}, sent["statuses"]
                        rates[side].append(sent["count"] / sent["elapsed"])
                        costs[side].append((sides[side].cpu() - before) / sent["count"])
                here, bare = (statistics.median(rates[side]) for side in ("ours", "floor"))
                cost, least = (statistics.median(costs[side]) for side in ("ours", "floor"))
                print(
                    f"{name:20} {here:7.0f}/s   floor {bare:7.0f}/s   of its rate {here / bare:.2f}"
                    f"   CPU {cost * 1e6:5.0f} µs   floor {least * 1e6:5.0f} µs   of its rate {least / cost:.2f}"
                )
        finally:
            for server in sides.values():
                server.stop()
            client.close()


def _start(side: str, directory: Path) -> Server:
    return Server("bench.metadata", [side, str(directory)], PORTS[side], directory / f"{side}.log", path="/")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        measure()
    else:
        uvloop.run({"ours": ours, "floor": floor}[sys.argv[1]](Path(sys.argv[2])))
