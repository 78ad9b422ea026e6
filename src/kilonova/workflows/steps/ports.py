"""A server's ports: made, bound, waited for, given back. All may be done twice, by two processes at once.

Networking allows a MAC only once per network, and ours follow from the server and the port's place: of two processes
that make the same port one is refused, and finds the other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from kilonova.compute import network_info
from kilonova.compute.networks import PortRequest
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.engine.model import Aborted, Data, Failure, Fenced, Run
from kilonova.errors import HostFailure, Invalid, KilonovaError, NotFound, Transient, Unavailable
from kilonova.networking import Document, NetworkConflict, Networking
from kilonova.nic import Nic
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared

log = structlog.get_logger()

SALTS = 4
"""MACs that are tried for one port, should a stranger on the network have ours."""
UNBOUND = ("binding_failed", "unbound")
"""VIF types of ports that nobody can plug."""
LOOKS = (1.0, 2.0, 4.0, 8.0, 10.0)
"""Seconds between looks at ports that are not wired yet; the last one repeats. Events make them come earlier."""


def mac_of(server_uuid: str, place: str, salt: int = 0) -> str:
    """The MAC of a server's port: `place` is its number, or what names it among the server's ports."""
    digest = hashlib.sha256(f"{server_uuid}/{place}/{salt}".encode()).digest()
    return "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def networking(run: Run[Env]) -> Networking:
    if run.env.rt.network is None:
        raise Invalid("This cloud has no Networking service.")
    return run.env.rt.network


@contextlib.asynccontextmanager
async def patiently(run: Run[Env] | None = None, what: str = "") -> AsyncIterator[None]:
    """Networking that does not answer is asked again later. With a run, the step has waited for it."""
    try:
        with run.waiting(run.env.rt.world, "networking", what) if run else contextlib.nullcontext():
            yield
    except Unavailable as error:
        raise Transient(error.message, details=error.details) from error


def foreign_ports(server: Server) -> set[str]:
    """Ports that are the user's own, whether they are bound by now or not."""
    asked = server.requested_networks if isinstance(server.requested_networks, list) else []
    return {request["port_id"] for request in asked if request.get("port_id")}


def requests_of(server: Server) -> list[PortRequest]:
    """What the server's ports were asked for as, each with the `place` that names it for its MAC."""
    asked = server.requested_networks
    if asked == "auto":
        known = network_info.nics_of(server.network_info)
        asked = [{"network_id": nic.network_id, "port_id": None, "fixed_ip": None, "tag": nic.tag} for nic in known]
    if not isinstance(asked, list):
        return []
    return [{"place": str(number), **request} for number, request in enumerate(asked)]


def is_of(server_uuid: str, request: PortRequest, port_id: str, mac: str) -> bool:
    """Whether this port is what the request came to."""
    if request["port_id"]:
        return bool(request["port_id"] == port_id)
    return mac in (mac_of(server_uuid, request["place"], salt) for salt in range(SALTS))


def may_have_ports(server: Server) -> bool:
    return server.requested_networks not in (None, "none", []) or bool(server.network_info)


# -- making and binding


async def ensure(
    run: Run[Env], server: Server, requests: Sequence[PortRequest], groups: Sequence[str], places: Sequence[str]
) -> list[Document]:
    """The ports asked for, bound to the server's host, in that order. `places` name them for their MACs."""
    api = networking(run)
    known = [] if _first(run) else await api.find("ports", {"device_id": server.uuid})
    found: list[Document | None] = []
    for salt in range(SALTS):
        found = _mine(server.uuid, requests, places, known)
        missing = [n for n, request in enumerate(requests) if found[n] is None and request["port_id"] is None]
        if not missing:
            break
        wanted = [_new_port(server, requests[n], mac_of(server.uuid, places[n], salt), groups) for n in missing]
        try:
            made = await api.create("ports", wanted)
        except NetworkConflict as error:
            if error.reason != "MacAddressInUse":
                raise Invalid(error.message, details=error.details) from error
            # An earlier run's, or a stranger's.
            known = await api.find("ports", {"device_id": server.uuid})
            continue
        for n, port in zip(missing, made, strict=True):
            found[n] = port
        break
    else:
        raise Transient(f"No MAC address was to be had on the networks of server {server.uuid}.")
    bound = await asyncio.gather(
        *(_bound(api, server, request, port) for request, port in zip(requests, found, strict=True))
    )
    for port in bound:
        if port.get("binding:vif_type") in UNBOUND:
            raise HostFailure(f"Networking could not bind port {port['id']} to host '{server.host}'.")
    return list(bound)


def _first(run: Run[Env]) -> bool:
    """Nobody can have made anything for this operation yet."""
    return run.operation.epoch == 1 and run.attempt == 0 and run.tries == 0


def _mine(
    server_uuid: str, requests: Sequence[PortRequest], places: Sequence[str], known: Sequence[Document]
) -> list[Document | None]:
    by_mac = {(port["network_id"], port["mac_address"]): port for port in known}
    found: list[Document | None] = []
    for request, place in zip(requests, places, strict=True):
        macs = [mac_of(server_uuid, place, salt) for salt in range(SALTS)]
        mine = [by_mac[request["network_id"], mac] for mac in macs if (request["network_id"], mac) in by_mac]
        found.append(mine[0] if mine and request["port_id"] is None else None)
    return found


def _owner(server: Server) -> str:
    return f"compute:{server.availability_zone or 'nova'}"


def _new_port(server: Server, request: PortRequest, mac: str, groups: Sequence[str]) -> Document:
    port: Document = {
        "network_id": request["network_id"],
        "project_id": server.project_id,
        "tenant_id": server.project_id,
        "admin_state_up": True,
        "mac_address": mac,
        "device_id": server.uuid,
        "device_owner": _owner(server),
        "binding:host_id": server.host,
    }
    if groups:
        port["security_groups"] = list(groups)
    if request["fixed_ip"]:
        port["fixed_ips"] = [{"ip_address": request["fixed_ip"]}]
    return port


async def _bound(api: Networking, server: Server, request: PortRequest, port: Document | None) -> Document:
    if port is None:
        try:
            port = await api.show("ports", request["port_id"])
        except NotFound:
            raise Invalid(f"Port {request['port_id']} was deleted meanwhile.") from None
        if port["device_id"] not in ("", server.uuid):
            raise Invalid(f"Port {port['id']} is in use by another device meanwhile.")
    there = port["binding:host_id"] == server.host and port["device_id"] == server.uuid
    # Networking stores a port first and binds it then: should it have died between, an update makes it try again.
    if there and port.get("binding:vif_type") not in UNBOUND:
        return port
    changes = {"device_id": server.uuid, "device_owner": _owner(server), "binding:host_id": server.host}
    return await api.update("ports", port["id"], changes)


# -- describing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What Networking tells of ports beside the ports themselves: by id, groups by their names."""

    networks: dict[str, Document]
    subnets: dict[str, Document]
    groups: dict[str, str]
    floating: list[Document]


async def look_up(api: Networking, ports: Sequence[Document], *, floating: bool) -> Facts:
    """`floating`: look for floating IPs too."""
    network_ids = sorted({port["network_id"] for port in ports})
    subnet_ids = sorted({ip["subnet_id"] for port in ports for ip in port["fixed_ips"]})
    group_ids = sorted({group for port in ports for group in port.get("security_groups") or ()})
    port_ids = [port["id"] for port in ports]
    networks, subnets, groups, ips = await asyncio.gather(
        api.find("networks", {"id": network_ids}),
        api.find("subnets", {"id": subnet_ids}),
        api.find("security-groups", {"id": group_ids, "fields": ["id", "name"]}) if group_ids else _nothing(),
        api.find("floatingips", {"port_id": port_ids}) if floating and port_ids else _nothing(),
    )
    return Facts(
        networks={network["id"]: network for network in networks},
        subnets={subnet["id"]: subnet for subnet in subnets},
        groups={group["id"]: group["name"] for group in groups},
        floating=ips,
    )


def told(server: Server, ports: Sequence[Document], facts: Facts) -> tuple[tuple[Nic, ...], list[str]]:
    """What is cached of these ports, and the names of their security groups."""
    ids = {group for port in ports for group in port.get("security_groups") or ()}
    nics = network_info.make_nics(
        ports,
        networks=facts.networks,
        subnets=facts.subnets,
        floating=facts.floating,
        tags=_tags(server, ports),
        foreign=foreign_ports(server),
    )
    return nics, sorted({facts.groups[id] for id in ids if id in facts.groups})


async def describe(
    api: Networking, server: Server, ports: Sequence[Document], *, floating: bool
) -> tuple[tuple[Nic, ...], list[str]]:
    """What is cached of these ports, and the names of their security groups. `floating`: look for floating IPs too."""
    return told(server, ports, await look_up(api, ports, floating=floating))


async def _nothing() -> list[Document]:
    return []


def _tags(server: Server, ports: Iterable[Document]) -> dict[str, str | None]:
    known = {nic.port_id: nic.tag for nic in network_info.nics_of(server.network_info)}
    asked = requests_of(server)
    places = {
        mac_of(server.uuid, request["place"], salt): request.get("tag") for request in asked for salt in range(SALTS)
    }
    own = {request["port_id"]: request.get("tag") for request in asked if request.get("port_id")}
    return {p["id"]: known.get(p["id"]) or own.get(p["id"]) or places.get(p["mac_address"]) for p in ports}


def with_nics(server: Server, nics: Sequence[Nic], **changes: Any) -> Server:
    return dataclasses.replace(server, network_info=msgspec.to_builtins(list(nics)), **changes)


# -- waiting


async def wait_wired(run: Run[Env], server: Server, port_ids: Sequence[str], news: asyncio.Event) -> None:
    """Until Networking says that all of them are wired. Events only make us look earlier: what counts is the port.

    `news`: as `Plugging.expect` gives it. Raises Aborted of kind `host` when it takes longer than
    `vif_plugging_timeout` and that is fatal.
    """
    settings = run.env.rt.settings
    if not port_ids or settings.vif_plugging_timeout <= 0:
        return
    api = networking(run)
    until = run.env.rt.world.monotonic() + settings.vif_plugging_timeout
    looks = 0
    waiting = set(port_ids)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKS[min(looks, len(LOOKS) - 1)]):
                await news.wait()
        news.clear()
        looks += 1
        try:
            found = await api.find("ports", {"device_id": server.uuid})
        except Unavailable as error:
            log.info("ports not looked at", server=server.uuid, reason=error.message)
        else:
            waiting = set(port_ids) - {port["id"] for port in found if port["status"] == "ACTIVE"}
            gone = set(port_ids) - {port["id"] for port in found}
            if gone:
                raise Aborted(Failure(f"Port {min(gone)} was deleted while the server was being built.", "invalid"))
            if not waiting:
                await _drop(api, server, found, port_ids)
                return
        if run.env.rt.world.monotonic() >= until:
            break
    message = (
        f"Networking did not report port {', '.join(sorted(waiting))} as plugged on host '{server.host}' "
        f"within {settings.vif_plugging_timeout:.0f} seconds."
    )
    if settings.vif_plugging_is_fatal:
        raise Aborted(Failure(message, kind="host"))
    log.warning("ports not plugged in time", server=server.uuid, ports=sorted(waiting))


# -- giving back


async def _drop(api: Networking, server: Server, found: Sequence[Document], keep: Sequence[str]) -> None:
    """Those of the server's ports that are not to be there: an earlier run's, which nobody knew of."""
    own = foreign_ports(server)
    for port in found:
        if port["id"] not in keep and port["id"] not in own:
            async with patiently():
                await api.delete("ports", port["id"])


async def release(api: Networking, server_uuid: str, foreign: Iterable[str], *, keep: Iterable[str] = ()) -> None:
    """Networking knows no port of the server but `keep`: ours are deleted, the user's own unbound."""
    own, kept = set(foreign), set(keep)
    found = await api.find("ports", {"device_id": server_uuid})
    await asyncio.gather(
        *(
            unbind(api, port["id"], server_uuid) if port["id"] in own else api.delete("ports", port["id"])
            for port in found
            if port["id"] not in kept
        )
    )


async def unbind(api: Networking, port_id: str, server_uuid: str) -> None:
    """A user's own port is as free as before. Not touched when it is meanwhile another server's."""
    with contextlib.suppress(NotFound):
        port = await api.show("ports", port_id)
        if port["device_id"] == server_uuid:
            await api.update("ports", port_id, {"device_id": "", "device_owner": "", "binding:host_id": ""})


async def delete_ours(api: Networking, port_id: str, server_uuid: str) -> None:
    """A port that we made is gone, unless it is meanwhile another device's."""
    with contextlib.suppress(NotFound):
        port = await api.show("ports", port_id)
        if port["device_id"] in ("", server_uuid):
            await api.delete("ports", port_id)


async def release_all(run: Run[Env]) -> Data:
    """Undo: the server has no ports."""
    server = await shared.load(run)
    async with patiently(run, "to let the ports go"):
        await release(networking(run), server.uuid, foreign_ports(server))
    return {}


async def cache(tx: Tx, run: Run[Env], nics: Sequence[Nic], names: Iterable[str] | None = None, **more: Any) -> None:
    """Write to the server's row what is cached of its ports. Raises Fenced.

    Its generation tells a refresh that was under way that it is out of date.
    """
    c = instances.c
    values = network_info.columns(nics, names) | {"generation": c.generation + 1} | more
    values["updated_at"] = run.env.rt.world.now()
    if not await servers.update(tx, run.server_uuid, c.operation_id == run.id, **values):
        raise Fenced


async def let_go(run: Run[Env], server: Server) -> str | None:
    """As `release`, for a server that goes whatever happens. Returns 'left' when Networking did not answer in time."""
    shortest, longest = run.env.pace.retry
    try:
        async with asyncio.timeout(run.env.pace.release):
            while True:
                try:
                    await release(networking(run), server.uuid, foreign_ports(server))
                    return None
                except KilonovaError as error:
                    log.warning("ports not released", server=server.uuid, reason=error.message, details=error.details)
                run.tries += 1
                await run.env.rt.world.sleep(min(shortest * 2.0 ** min(run.tries, 16), longest))
    except TimeoutError:
        return "left"
