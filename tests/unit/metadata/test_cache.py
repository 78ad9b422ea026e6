"""What is kept of an answer, for how long, and what an answer costs."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from kilonova.db import servers
from kilonova.metadata import service
from kilonova.runtime import Runtime
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support import server_rows as rows
from tests.unit.metadata.conftest import Asking, Clock

NAME = "/latest/meta-data/hostname"


class Statements:
    def __init__(self, rt: Runtime) -> None:
        self._db = rt.db
        self._before = rt.db.statements

    def since(self) -> int:
        """Those sent since the last time this was asked."""
        now = self._db.statements
        found, self._before = now - self._before, now
        return found


async def _rename(rt: Runtime, server: str, name: str) -> None:
    assert await rt.db.write(lambda tx: servers.update(tx, server, hostname=name))


async def test_an_answer_is_one_statement_and_a_kept_one_none(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, user_data=base64.b64encode(b"x").decode(), key_name="k", key_data="ssh-ed25519 A")
    await ask(NAME, server, address="10.9.9.8")  # the first statement of a connection brings others along
    counted = Statements(rt)
    for path in (
        NAME, "/openstack/latest/meta_data.json", "/openstack/latest/network_data.json", "/openstack/latest/user_data",
        "/openstack/latest/vendor_data2.json", "/openstack", "/latest/user-data", "/latest/meta-data/public-keys/0",
    ):  # fmt: skip
        other = await rows.add(rt.db)
        counted.since()
        assert (await ask(path, other)).status_code in (200, 404)
        assert counted.since() <= 1, path
        assert (await ask(path, other)).status_code in (200, 404)
        assert counted.since() == 0, path


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, True), (14.9, True), (15.1, False)])
async def test_answers_are_kept_for_a_while(rt: Runtime, ask: Asking, clock: Clock, seconds: float, kept: bool) -> None:
    server = await rows.add(rt.db, hostname="before")
    assert (await ask(NAME, server)).text == "before.novalocal"
    await _rename(rt, server, "after")
    clock.seconds += seconds
    assert (await ask(NAME, server)).text == f"{'before' if kept else 'after'}.novalocal"


async def test_the_operator_says_for_how_long(rt: Runtime, asking: Callable[..., Asking], clock: Clock) -> None:
    server = await rows.add(rt.db, hostname="before")
    ask = asking(cache_expiration=100.0)
    await ask(NAME, server)
    await _rename(rt, server, "after")
    clock.seconds += 99
    assert (await ask(NAME, server)).text == "before.novalocal"


async def test_nothing_is_kept_when_the_time_is_zero(rt: Runtime, asking: Callable[..., Asking]) -> None:
    server = await rows.add(rt.db, hostname="before")
    ask = asking(cache_expiration=0.0)
    assert (await ask(NAME, server)).text == "before.novalocal"
    await _rename(rt, server, "after")
    assert (await ask(NAME, server)).text == "after.novalocal"
    assert len(ask.service.kept) == 0


async def test_a_deleted_server_is_forgotten_in_time(rt: Runtime, ask: Asking, clock: Clock) -> None:
    server = await rows.add(rt.db)
    assert (await ask(NAME, server)).status_code == 200
    assert await rt.db.write(lambda tx: servers.update(tx, server, deleted=1))
    clock.seconds += 16
    assert (await ask(NAME, server)).status_code == 404


async def test_what_is_kept_is_bounded_in_number_and_size(
    rt: Runtime, ask: Asking, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_KEPT", 3)
    monkeypatch.setattr(service, "MOST_BYTES", 100_000)
    ids = [await rows.add(rt.db) for _ in range(5)]
    for each in ids:
        assert (await ask(NAME, each)).status_code == 200
        assert len(ask.service.kept) <= 3
    counted = Statements(rt)
    await ask(NAME, ids[-1])
    assert counted.since() == 0, "the newest stays"
    clock.seconds += 20
    large = base64.b64encode(bytes(45_000)).decode()
    big = [await rows.add(rt.db, user_data=large) for _ in range(3)]
    for each in big:
        for path in ("/latest/user-data", "/openstack/latest/user_data", "/2009-04-04/user-data", NAME):
            assert (await ask(path, each)).status_code == 200
        assert ask.service.kept_bytes <= 100_000


async def test_paths_that_lead_nowhere_or_are_written_oddly_are_not_kept(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    await ask(NAME, server)
    before = ask.service.kept_bytes
    for number in range(200):
        await ask(f"/latest/meta-data/{number}", server)
        await ask("/" * (number + 1) + "latest/meta-data/hostname", server)
    assert ask.service.kept_bytes - before < 4096


async def test_an_address_is_looked_up_once(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking, clock: Clock
) -> None:
    made = network.add_network(project_id=PROJECT)
    server = await rows.add(rt.db)
    port = {"network_id": made["id"], "device_id": server, "device_owner": "compute:nova", "project_id": PROJECT}
    (port,) = await network.create("ports", [port])
    ask = asking(service_metadata_proxy=False)
    for _ in range(3):
        assert (await ask.plain(NAME, peer=port["fixed_ips"][0]["ip_address"])).status_code == 200
    assert network.calls["GET ports"] == 1
    clock.seconds += 16
    await ask.plain(NAME, peer=port["fixed_ips"][0]["ip_address"])
    assert network.calls["GET ports"] == 2
