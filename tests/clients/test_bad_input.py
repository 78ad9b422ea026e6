"""Bad requests on a whole cloud: each gets its status and a message that helps, and nothing anywhere has changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.clients.cloud import UserCloud

pytestmark = pytest.mark.timeout(900)

NOBODY = "11111111-2222-4333-8444-555555555555"
REPORTED = ("changed", "disk_available_least", "generation", "metrics", "updated_at", "uptime")
CLOCK = {("services", "last_seen"), *(("compute_nodes", column) for column in REPORTED)}
"""What changes by itself: hosts report, whether or not anybody asks for anything."""


def checksums(cloud: UserCloud) -> dict[str, str]:
    """One checksum for each of Compute's tables, and one for what Image has."""
    sums = {}
    with closing(sqlite3.connect(f"file:{cloud.directory}/kilonova/compute.sqlite?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            fixed = ", ".join(f'"{column}"' for column in columns if (table, column) not in CLOCK)
            rows = sorted(database.execute(f"SELECT {fixed} FROM {table}").fetchall(), key=repr)
            sums[table] = hashlib.sha256(repr(rows).encode()).hexdigest()
    images = cloud.show("image", "list", "--long")
    files = sorted((path.name, path.stat().st_size) for path in (cloud.directory / "image/store").iterdir())
    sums["(images)"] = hashlib.sha256(repr((images, files)).encode()).hexdigest()
    return sums


def server(image: str, flavor: str, **changes: Any) -> dict[str, Any]:
    return {"server": {"name": "bad", "imageRef": image, "flavorRef": flavor, "networks": "none"} | changes}


Ask = Callable[..., httpx.Response]


def test_what_is_refused_says_why_and_changes_nothing(cloud: UserCloud, image: str, flavor: str) -> None:
    mine = cloud.value(
        "server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--wait", "kept", column="id"
    )
    tokens = {name: cloud.token(name) for name in ("kilonova", "kilonova-demo")}

    def ask(
        method: str, path: str, body: Any = None, *, who: str = "kilonova", version: str = "2.90", **more: Any
    ) -> Any:
        headers = {"OpenStack-API-Version": f"compute {version}", "X-Auth-Token": tokens.get(who, who)}
        return httpx.request(
            method, cloud.compute_url + path, json=body, headers=headers | more.pop("headers", {}), **more
        )

    # Compute has not seen it while it was good, so nothing that it remembers can let it in.
    over = cloud.token()
    cloud.openstack("token", "revoke", over)
    new_flavor = {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}}
    action = f"/servers/{mine}/action"
    raw = {"content-type": "application/json"}
    before = checksums(cloud)
    cases: list[tuple[int, str, httpx.Response]] = [
        (400, "unexpected", ask("POST", "/servers", server(image, flavor, surprise=1))),
        (400, "is not of type 'string'", ask("POST", "/servers", server(image, flavor, name=7))),
        (400, "is too long", ask("POST", "/servers", server(image, flavor, name="x" * 256))),
        (400, "None is not of type 'string'", ask("POST", "/servers", server(image, flavor, flavorRef=None))),
        (400, "imageRef", ask("POST", "/servers", server("no-uuid", flavor))),
        (400, NOBODY, ask("POST", "/servers", server(NOBODY, flavor))),
        (400, NOBODY, ask("POST", "/servers", server(image, NOBODY))),
        (400, "key_name", ask("POST", "/servers", server(image, flavor, key_name="nobody's"))),
        (400, "min_count", ask("POST", "/servers", server(image, flavor, min_count=3, max_count=2))),
        (400, "Malformed request body", ask("POST", "/servers", content=b'{"server": {', headers=raw)),
        (401, "", ask("GET", "/servers", who="")),
        (401, "", ask("GET", "/servers", who="gAAAAA-not-a-token")),
        (401, "", ask("GET", "/servers", who=over)),
        (403, "os_compute_api:os-flavor-manage:create", ask("POST", "/flavors", new_flavor, who="kilonova-demo")),
        (403, "Quota exceeded", ask("POST", "/servers", server(image, flavor, min_count=1000), who="kilonova-demo")),
        (404, mine, ask("GET", f"/servers/{mine}", who="kilonova-demo")),
        (404, mine, ask("DELETE", f"/servers/{mine}", who="kilonova-demo")),
        (404, mine, ask("POST", action, {"os-stop": None}, who="kilonova-demo")),
        (404, mine, ask("PUT", f"/servers/{mine}/metadata", {"metadata": {"k": "v"}}, who="kilonova-demo")),
        (404, NOBODY, ask("DELETE", f"/servers/{NOBODY}")),
        (404, "", ask("GET", "/nothing-here")),
        (406, "2.999", ask("GET", "/servers", version="2.999")),
        (409, "active", ask("POST", action, {"os-start": None})),
        (409, "", ask("POST", "/flavors", {"flavor": {"name": "test.small", "ram": 64, "vcpus": 1, "disk": 1}})),
        (413, "", ask("POST", "/servers", content=b'"' + b"x" * 200_000 + b'"', headers=raw)),
        (400, "", ask("POST", action, {"reboot": {"type": "GENTLE"}})),
        (400, "", ask("POST", action, {"rebuild": {"imageRef": NOBODY}})),
        (400, "", ask("POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": "ssh-rsa nonsense"}})),
        (400, "limit", ask("GET", "/servers?limit=-1")),
        (501, "", ask("POST", action, {"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}})),
    ]  # fmt: skip
    assert checksums(cloud) == before
    for status, words, answer in cases:
        assert answer.status_code == status, (answer.request.url, status, answer.text)
        if status == 401:
            assert answer.headers["www-authenticate"]
            continue
        (error,) = answer.json().values()
        told = error["message"]
        assert words in told, (words, told)
        assert len(told) > 10
        assert "Traceback" not in answer.text
    cloud.openstack("server", "delete", "--wait", mine)
