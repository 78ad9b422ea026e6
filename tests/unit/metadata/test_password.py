"""The password that a guest makes, encrypts and posts: stored once, read and cleared by the server's owner."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kilonova.db import servers
from kilonova.runtime import Runtime
from tests.support import server_rows as rows
from tests.unit.metadata.conftest import Asking

PASSWORD = "/openstack/latest/password"


async def test_a_password_is_stored_once_and_shown_at_once(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    assert (await ask(PASSWORD, server)).content == b""
    posted = await ask(PASSWORD, server, method="POST", body=b"c2VjcmV0")
    assert (posted.status_code, posted.content) == (200, b"")
    for path in (PASSWORD, "/openstack/2013-04-04/password"):
        shown = await ask(path, server)
        assert (shown.status_code, shown.text) == (200, "c2VjcmV0")
        assert shown.headers["content-type"].startswith("text/plain")
    again = await ask(PASSWORD, server, method="POST", body=b"other")
    assert again.status_code == 409
    assert (await rows.get(rt.db, server)).guest_password == "c2VjcmV0"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * 1020, 200),
        (b"x" * 1021, 400),
        (b"x" * 5_000_000, 400),
        ("é".encode() * 510, 200),
        (b"\xff", 400),
        (b"a\x00b", 400),
    ],
)
async def test_what_is_taken_as_a_password(rt: Runtime, ask: Asking, body: bytes, status: int) -> None:
    server = await rows.add(rt.db)
    assert (await ask(PASSWORD, server, method="POST", body=body)).status_code == status
    stored = (await rows.get(rt.db, server)).guest_password
    assert stored == (body.decode() if status == 200 else None)


async def test_nothing_posted_takes_no_place(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    for body in (b"", None):
        assert (await ask(PASSWORD, server, method="POST", body=body)).status_code == 200
    assert (await ask(PASSWORD, server, method="POST", body=b"real")).status_code == 200
    assert (await rows.get(rt.db, server)).guest_password == "real"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_password_is_read_or_posted(rt: Runtime, ask: Asking, method: str) -> None:
    assert (await ask(PASSWORD, await rows.add(rt.db), method=method)).status_code == 400


async def test_the_first_version_knows_no_password(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    for version in ("2012-08-10", "2013-04-05", "content"):
        for method in ("GET", "POST"):
            answer = await ask(f"/openstack/{version}/password", server, method=method, body=b"x")
            assert answer.status_code == 404, version
    assert (await rows.get(rt.db, server)).guest_password is None


async def test_a_password_needs_a_signature_as_everything_does(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    headers = [("X-Instance-ID", server), ("X-Tenant-ID", rows.PROJECT), ("X-Instance-ID-Signature", "0" * 64)]
    assert (await ask.plain(PASSWORD, headers, method="POST", body=b"x")).status_code == 403
    assert (await ask(PASSWORD, server, project="other", method="POST", body=b"x")).status_code == 404
    assert (await rows.get(rt.db, server)).guest_password is None


async def test_two_services_store_one_password(rt: Runtime, asking: Callable[..., Asking]) -> None:
    server = await rows.add(rt.db)
    one, two = asking(), asking()
    for each in (one, two):
        assert (await each(PASSWORD, server)).text == ""
    assert (await one(PASSWORD, server, method="POST", body=b"first")).status_code == 200
    assert (await two(PASSWORD, server, method="POST", body=b"second")).status_code == 409
    assert (await rows.get(rt.db, server)).guest_password == "first"


async def test_a_server_that_has_just_gone_is_not_found(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    assert (await ask(PASSWORD, server)).status_code == 200
    assert await rt.db.write(lambda tx: servers.update(tx, server, deleted=1))
    assert (await ask(PASSWORD, server, method="POST", body=b"x")).status_code == 404
