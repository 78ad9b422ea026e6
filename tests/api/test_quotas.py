"""Quotas over HTTP: of projects, of users beside them, of classes; and counting anew."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.conductor.pace import PACE
from kilonova.db import quotas as rows
from kilonova.db.engine import Tx
from kilonova.db.quotas import Usage
from kilonova.db.tables import quota_usages
from kilonova.reconcile.quota_usage import QuotaUsage
from kilonova.testing.api import Client
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from tests.support import server_rows

PATH = f"/os-quota-sets/{PROJECT}"


async def put(api: Client, query: str = "", /, **limits: Any) -> int:
    answer = await api("PUT", PATH + query, {"quota_set": limits}, version="2.57")
    assert answer.status_code in (200, 400), answer.text
    return answer.status_code


async def limits(api: Client, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await api("GET", PATH + query, version="2.57")).json()["quota_set"]
    return found


async def boot(api: Client, token: str = "member", **fields: Any) -> int:
    server = {"name": "vm", "imageRef": server_rows.IMAGE, "flavorRef": "1", "networks": "none"} | fields
    return (await api("POST", "/servers", {"server": server}, token=token, version="2.57")).status_code


@pytest.fixture
async def furnished(api: Client) -> None:
    await server_rows.add_flavor(api.rt.db)
    api.rt.images.add(server_rows.IMAGE)  # type: ignore[attr-defined] # StaticImages


@pytest.mark.usefixtures("furnished")
async def test_a_projects_limit_lies_above_what_it_uses(api: Client) -> None:
    assert [await boot(api) for _ in range(3)] == [202] * 3
    assert await put(api, instances=2) == 400
    assert await put(api, instances=3) == 200
    assert await boot(api) == 403
    assert await put(api, instances=1, force=True) == 200
    assert await put(api, instances=-1) == 200
    assert await boot(api) == 202
    detail = (await api("GET", f"{PATH}/detail", token="reader")).json()["quota_set"]
    assert detail["instances"] == {"limit": -1, "in_use": 4, "reserved": 0}
    assert (await api("DELETE", PATH)).status_code == 202
    assert (await limits(api))["instances"] == 10


@pytest.mark.usefixtures("furnished")
async def test_a_users_limit_counts_beside_the_projects(api: Client) -> None:
    assert await put(api, "?user_id=member", instances=2) == 200
    assert [await boot(api) for _ in range(3)] == [202, 202, 403]
    assert await boot(api, max_count=2) == 403
    assert await boot(api, "manager") == 202
    assert await put(api, "?user_id=member", instances=1) == 400
    shown = (await api("GET", f"{PATH}/detail?user_id=member")).json()["quota_set"]["instances"]
    assert shown == {"limit": 2, "in_use": 2, "reserved": 0}
    assert (await limits(api, "?user_id=manager"))["instances"] == 10
    assert (await api("DELETE", f"{PATH}?user_id=member")).status_code == 202
    assert await boot(api) == 202


async def test_users_are_given_what_the_project_has_left(api: Client) -> None:
    assert await put(api, "?user_id=a", cores=12) == 200
    assert await put(api, "?user_id=b", cores=9) == 400
    assert await put(api, "?user_id=b", cores=8) == 200
    assert await put(api, "?user_id=b", cores=-1) == 400
    assert await put(api, cores=19) == 400
    assert await put(api, cores=20) == 200


@pytest.mark.usefixtures("furnished")
async def test_a_users_own_limits_of_what_stands_in_one_request(api: Client) -> None:
    assert await put(api, "?user_id=member", metadata_items=1) == 200
    assert await boot(api, metadata={"a": "b"}) == 202
    assert await boot(api, metadata={"a": "b", "c": "d"}) == 403
    assert await boot(api, "manager", metadata={"a": "b", "c": "d"}) == 202


@pytest.mark.parametrize("fields", [{"cores": -2}, {"cores": "x"}, {"cores": None}, {"disks": 1}, {"id": "x"}])
async def test_bad_limits_change_nothing(api: Client, fields: dict[str, Any]) -> None:
    before = await server_rows.contents(api.rt.db)
    assert await put(api, **{"ram": 5} | fields) == 400
    body = {"quota_class_set": {"ram": 5} | fields}
    assert (await api("PUT", "/os-quota-class-sets/default", body)).status_code == 400
    assert await server_rows.contents(api.rt.db) == before


async def test_the_default_class_counts_where_a_project_has_nothing_of_its_own(api: Client) -> None:
    answer = await api("PUT", "/os-quota-class-sets/default", {"quota_class_set": {"cores": 7, "ram": 8}})
    assert answer.json()["quota_class_set"]["cores"] == 7
    assert await put(api, ram=9) == 200
    shown = await limits(api)
    assert (shown["cores"], shown["ram"]) == (7, 9)
    assert (await api("PUT", "/os-quota-class-sets/gold", {"quota_class_set": {"cores": 1}})).status_code == 200
    assert (await limits(api))["cores"] == 7


@pytest.mark.parametrize("rest", ["", "/detail"])
async def test_quotas_of_others_are_for_administrators(api: Client, rest: str) -> None:
    path = f"/os-quota-sets/{OTHER_PROJECT}{rest}"
    assert (await api("GET", path, token="member")).status_code == 403
    assert (await api("GET", path)).status_code == 200
    assert (await api("GET", PATH + rest, token="nobody")).status_code == 403


async def test_usage_that_is_wrong_is_counted_anew(api: Client) -> None:
    await server_rows.add(api.rt.db, vcpus=2, memory_mb=1024)
    await server_rows.add(api.rt.db, vcpus=1, memory_mb=512)
    await server_rows.add(api.rt.db, project_id=OTHER_PROJECT)

    async def drift(tx: Tx) -> None:
        await tx.execute(sa.insert(quota_usages).values(project_id=PROJECT, instances=9, cores=9, ram=9))
        await tx.execute(sa.insert(quota_usages).values(project_id="empty", instances=1, cores=1, ram=1))
        await tx.execute(sa.insert(quota_usages).values(project_id="right"))

    await api.rt.db.write(drift)
    reconciler = QuotaUsage(api.rt, PACE)
    assert await reconciler.once() == sorted([PROJECT, OTHER_PROJECT, "empty"])
    assert await api.rt.db.read(lambda tx: rows.usage(tx, PROJECT)) == Usage(2, 3, 1536)
    assert await api.rt.db.read(lambda tx: rows.usage(tx, OTHER_PROJECT)) == Usage(1, 1, 512)
    assert await api.rt.db.read(lambda tx: rows.usage(tx, "empty")) == Usage()
    assert await reconciler.once() == []
