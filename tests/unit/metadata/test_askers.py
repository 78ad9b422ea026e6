"""Whose question it is: signed by a proxy, by a provider's address, or by the peer's own address; and refusals."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from kilonova.errors import Unavailable
from kilonova.metadata import who
from kilonova.metadata.signing import sign, verify
from kilonova.runtime import Runtime
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support import server_rows as rows
from tests.unit.metadata.conftest import SECRET, Asking, signed

Headers = list[tuple[str, str]]
PATH = "/openstack/latest/meta_data.json"
INSTANCE, TENANT, SIGNATURE, FORWARDED = "X-Instance-ID", "X-Tenant-ID", "X-Instance-ID-Signature", "X-Forwarded-For"


def test_signatures_are_those_of_neutron_s_agents() -> None:
    made = sign("secret", "instance")
    # printf instance | openssl dgst -sha256 -hmac secret
    assert made == "fac450cbc556373851e9f5755126936b598b1749a007d96b7e0b7f1a5cd274e9"
    assert verify("secret", "instance", made)
    for wrong in ("", made[:-1], made + "0", made.upper(), sign("other", "instance"), sign("secret", "other"), "é"):
        assert not verify("secret", "instance", wrong)


async def test_a_signed_question_is_answered(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    assert (await ask(PATH, server)).json()["uuid"] == server


def _without(name: str) -> Callable[[Headers], Headers]:
    return lambda headers: [header for header in headers if header[0] != name]


def _with(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: [(key, value if key == name else kept) for key, kept in headers]


def _twice(name: str) -> Callable[[Headers], Headers]:
    return lambda headers: [*headers, next(header for header in headers if header[0] == name)]


def _then(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: [*headers, (name, value)]


REFUSED = [
    ("nothing", lambda headers: [], 400, "x-instance-id"),
    ("no instance", _without(INSTANCE), 400, "x-instance-id"),
    ("no signature", _without(SIGNATURE), 400, "x-instance-id-signature"),
    ("no tenant", _without(TENANT), 400, "x-tenant-id"),
    ("instance twice", _twice(INSTANCE), 400, "x-instance-id"),
    ("another instance beside", _then(INSTANCE, "other"), 400, "x-instance-id"),
    ("signature twice", _twice(SIGNATURE), 400, "x-instance-id-signature"),
    ("tenant twice", _then(TENANT, "other"), 400, "x-tenant-id"),
    ("empty signature", _with(SIGNATURE, ""), 403, "signature"),
    ("wrong signature", _with(SIGNATURE, "0" * 64), 403, "signature"),
    ("signature no ASCII", _with(SIGNATURE, "\xe9" * 64), 403, "signature"),
    ("signature of another key", _with(SIGNATURE, sign("guess", "instance")), 403, "signature"),
    ("instance exchanged", _with(INSTANCE, str(uuid.uuid4())), 403, "signature"),
    ("empty instance", _with(INSTANCE, ""), 403, "signature"),
    ("other tenant", _with(TENANT, "0123456789abcdef0123456789abcdef"), 404, ""),
    ("empty tenant", _with(TENANT, ""), 404, ""),
]


@pytest.mark.parametrize(
    ("change", "status", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
async def test_a_question_that_is_not_in_order_is_refused(
    rt: Runtime, ask: Asking, change: Callable[[Headers], Headers], status: int, said: str
) -> None:
    server = await rows.add(rt.db)
    sent = [(name, value.encode("latin-1")) for name, value in change(signed(server))]
    answer = await ask.plain(PATH, sent)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert said in answer.text.lower()
    assert server not in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def test_without_the_check_of_signatures_the_refusals_are_missed(
    rt: Runtime, ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the table above is known to see it."""
    monkeypatch.setattr(who, "verify", lambda secret, message, signature: True)
    headers = _with(SIGNATURE, "0" * 64)(signed(await rows.add(rt.db)))
    assert (await ask.plain(PATH, headers)).status_code == 200


async def test_a_refusal_is_not_a_matter_of_the_cache(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    assert (await ask(PATH, server)).status_code == 200
    assert (await ask(PATH, server, project="other")).status_code == 404
    assert (await ask.plain(PATH, _with(SIGNATURE, "x")(signed(server)))).status_code == 403
    assert (await ask(PATH, server)).status_code == 200


@pytest.mark.parametrize("id", ["0a9f4a6e-3f6c-4d8b-9a1c-3d2e1f405162", "x", "x" * 5000, "'; drop table instances"])
async def test_an_unknown_server_is_not_found(ask: Asking, id: str) -> None:
    assert (await ask(PATH, id)).status_code == 404


async def test_a_deleted_server_is_not_found(rt: Runtime, ask: Asking) -> None:
    assert (await ask(PATH, await rows.add(rt.db, deleted=7, vm_state="deleted"))).status_code == 404


async def test_a_failure_inside_says_nothing_of_it(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, network_info=[{"wrong": 1}])
    answer = await ask(PATH, server)
    assert answer.status_code == 500
    assert "wrong" not in answer.text
    assert "port_id" not in answer.text


# -- by the peer's address


async def _with_port(rt: Runtime, network: FakeNetworking, cidr: str = "10.0.0.0/24", **more: Any) -> tuple[str, str]:
    """A server with a port; its id and the port's address."""
    made = network.add_network(project_id=PROJECT, cidrs=(cidr,))
    server = await rows.add(rt.db)
    port = {"network_id": made["id"], "device_id": server, "device_owner": "compute:nova", "project_id": PROJECT}
    (made_port,) = await network.create("ports", [port | more])
    return server, made_port["fixed_ips"][0]["ip_address"]


async def test_the_peer_s_address_says_who_asks(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    ask = asking(service_metadata_proxy=False)
    server, address = await _with_port(rt, network)
    assert (await ask.plain(PATH, peer=address)).json()["uuid"] == server
    assert (await ask.plain(PATH, peer="10.0.0.200")).status_code == 404


async def test_headers_do_not_say_who_asks_there(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    ask = asking(service_metadata_proxy=False)
    server, address = await _with_port(rt, network)
    other = await rows.add(rt.db, "other")
    headers = [
        *signed(other, address="10.0.0.77"),
        ("X-Metadata-Provider", "p"),
        (INSTANCE, "x"),
        (FORWARDED, "1.1.1.1"),
    ]
    assert (await ask.plain(PATH, headers, peer=address)).json()["uuid"] == server
    assert (await ask.plain(PATH, signed(other, address=address), peer="10.0.0.200")).status_code == 404


async def test_who_made_the_port_does_not_matter(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    ask = asking(service_metadata_proxy=False)
    server, address = await _with_port(rt, network, project_id="an administrator's")
    assert (await ask.plain(PATH, peer=address)).json()["uuid"] == server


async def test_an_address_that_two_servers_have_tells_of_neither(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    ask = asking(service_metadata_proxy=False)
    _, address = await _with_port(rt, network)
    assert (await _with_port(rt, network))[1] == address
    assert (await ask.plain(PATH, peer=address)).status_code in (404, 500)


async def test_routers_and_dhcp_servers_are_no_servers(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    ask = asking(service_metadata_proxy=False)
    _, address = await _with_port(rt, network, device_owner="network:dhcp")
    assert (await ask.plain(PATH, peer=address)).status_code == 404
    server, same = await _with_port(rt, network)
    assert same == address
    assert (await ask.plain(PATH, peer=address)).json()["uuid"] == server


async def test_when_networking_fails_the_guest_is_told_to_come_again(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asking(service_metadata_proxy=False)
    server, address = await _with_port(rt, network)

    async def fail(*rest: Any) -> Any:
        raise Unavailable("Networking is away", details="the secret address")

    with monkeypatch.context() as patch:
        patch.setattr(network, "find", fail)
        answer = await ask.plain(PATH, peer=address)
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert (await ask.plain(PATH, peer=address)).json()["uuid"] == server


# -- through a load balancer


async def _behind(rt: Runtime, network: FakeNetworking, provider: str, networks: int = 1) -> tuple[str, str]:
    """A server on one of `networks` networks of a metadata provider."""
    for number in range(1, networks):
        network.add_network(project_id=PROJECT, cidrs=(f"10.{number // 250 + 1}.{number % 250}.0/24",))
    server, address = await _with_port(rt, network)
    for subnet in network.collections["subnets"].values():
        subnet.setdefault("advanced_service_providers", provider)
    return server, address


def _from_lb(address: str, provider: str = "edge", secret: str | None = SECRET) -> Headers:
    headers = [("X-Metadata-Provider", provider), (FORWARDED, f"{address}, 192.0.2.7")]
    return headers if secret is None else [*headers, ("X-Metadata-Provider-Signature", sign(secret, provider))]


@pytest.mark.parametrize("networks", [1, 161])
async def test_a_load_balancer_s_address_says_who_asks(
    rt: Runtime, ask: Asking, network: FakeNetworking, networks: int
) -> None:
    server, address = await _behind(rt, network, "edge", networks)
    await _behind(rt, network, "another edge")
    answer = await ask.plain(PATH, _from_lb(address))
    assert answer.json()["uuid"] == server
    # 160 networks at most in one question
    asked = network.calls["GET ports"]
    assert asked == (2 if networks == 161 else 1)


async def test_the_load_balancer_s_refusals(
    rt: Runtime, asking: Callable[..., Asking], network: FakeNetworking
) -> None:
    server, address = await _behind(rt, network, "edge")
    ask = asking()
    right = _from_lb(address)
    for headers, status in (
        (right, 200),
        (_without("X-Metadata-Provider-Signature")(right), 403),
        (_from_lb(address, secret="guess"), 403),
        (_with("X-Metadata-Provider-Signature", "")(right), 403),
        (_without(FORWARDED)(right), 400),
        (_twice("X-Metadata-Provider")(right), 400),
        (_then(FORWARDED, "10.0.0.250")(right), 400),
        (_from_lb("10.0.0.250"), 400),
        (_from_lb(address, "unknown"), 400),
        (signed(server), 200),
        ([*signed(server), ("X-Metadata-Provider", "")], 200),
    ):
        assert (await ask.plain(PATH, headers)).status_code == status, headers
    open_to_all = asking(shared_secret="")
    assert (await open_to_all.plain(PATH, _from_lb(address, secret=None))).json()["uuid"] == server


async def test_the_port_s_project_is_the_server_s(rt: Runtime, ask: Asking, network: FakeNetworking) -> None:
    network.add_network(project_id=PROJECT)
    _, address = await _with_port(rt, network, project_id="other")
    for subnet in network.collections["subnets"].values():
        subnet["advanced_service_providers"] = "edge"
    assert (await ask.plain(PATH, _from_lb(address))).status_code == 404
