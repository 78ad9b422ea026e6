"""`POST /servers`."""

from __future__ import annotations

from typing import Any, NamedTuple

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.responses import Response
from kilonova.api.servers import certificates, unbuilt
from kilonova.api.types import whole
from kilonova.compute.servers.boot import BootRequest
from kilonova.compute.servers.boot import create as create_servers
from kilonova.errors import Invalid

_RULE = "os_compute_api:servers:create"
_TRUE = frozenset({"true", "1", "on", "yes"})


async def create(request: Request) -> Response:
    server = request.body["server"]
    minimum = whole(server.get("min_count", 1))
    maximum = whole(server.get("max_count", minimum))
    if minimum > maximum:
        raise Invalid("min_count must be <= max_count")
    place = _place(request, server)
    networks = _networks(request, server)
    unbuilt.check_devices(request, server)
    if request.runtime.network is None:
        unbuilt.check_networks(networks)
        unbuilt.check_security_groups(server)
    trusted = certificates.trusted(request, server, _RULE)
    hints = request.body.get("os:scheduler_hints", request.body.get("OS-SCH-HNT:scheduler_hints", {}))
    unbuilt.check_hints(hints)
    if not server.get("imageRef"):
        raise Invalid("Missing imageRef attribute")
    if server.get("hostname") and maximum > 1:
        raise Invalid("Unable to allocate a single hostname to multiple instances")

    name = server["name"].strip()
    created = await create_servers(
        request.runtime,
        request.context,
        BootRequest(
            name=name,
            image_ref=server["imageRef"],
            flavor_ref=str(server["flavorRef"]).rstrip("/").rsplit("/", 1)[-1],
            hostname=server.get("hostname"),
            description=server.get("description") if request.version >= versions.SERVER_DESCRIPTION else name,
            key_name=server.get("key_name"),
            user_data=server.get("user_data"),
            metadata=server.get("metadata", {}),
            config_drive=boolean(server.get("config_drive")),
            availability_zone=place.zone,
            min_count=minimum,
            max_count=maximum,
            networks=networks,
            security_groups=_group_names(server),
            files={item["path"]: item["contents"] for item in server.get("personality", [])},
            admin_password=server.get("adminPass"),
            access_ip_v4=server.get("accessIPv4"),
            access_ip_v6=server.get("accessIPv6"),
            disk_config=server.get("OS-DCF:diskConfig", "MANUAL"),
            scheduler_hints=hints,
            tags=server.get("tags", []),
            trusted_certs=trusted,
            token=certificates.token_of(request),
            host=place.host,
            hypervisor_hostname=place.node,
            host_forced=place.forced,
            external_networks_allowed=request.allowed("network:attach_external_network"),
            zero_disk_allowed=request.allowed(f"{_RULE}:zero_disk_flavor"),
        ),
    )
    if boolean(server.get("return_reservation_id")):
        return Response({"reservation_id": created.reservation_id})
    links = request.links("servers", created.uuids[0])
    view: dict[str, Any] = {
        "id": created.uuids[0],
        "links": links,
        "OS-DCF:diskConfig": server.get("OS-DCF:diskConfig", "MANUAL"),
        "security_groups": server.get("security_groups", [{"name": "default"}]),
    }
    if request.runtime.settings.enable_instance_password:
        view["adminPass"] = created.admin_password
    return Response({"server": view}, headers={"Location": links[0]["href"]})


def boolean(value: bool | str | None) -> bool | None:
    """A boolean in one of the forms that bodies may have it in."""
    return value.lower() in _TRUE if isinstance(value, str) else value


class _Place(NamedTuple):
    zone: str | None
    host: str | None
    node: str | None
    forced: bool


def _place(request: Request, server: dict[str, Any]) -> _Place:
    """Where the server shall run, as far as the caller may say. Raises Invalid, Forbidden."""
    context = request.context
    asked = server.get("availability_zone")
    target = {"project_id": context.project_id, "user_id": context.user_id, "availability_zone": asked or ""}
    request.authorize(_RULE, target)
    zone, host, node = _parse_zone(asked)
    forced = bool(host or node)
    if forced:
        request.authorize(f"{_RULE}:forced_host", target)
    wanted_host, wanted_node = server.get("host"), server.get("hypervisor_hostname")
    if wanted_host or wanted_node:
        request.authorize("compute:servers:create:requested_destination", target)
        if forced:
            raise Invalid(
                "One mechanism with host and/or hypervisor_hostname and another mechanism "
                "with zone:host:node are mutually exclusive."
            )
        host, node = wanted_host, wanted_node
    return _Place(zone or None, host or None, node or None, forced)


def _parse_zone(asked: str | None) -> tuple[str | None, str | None, str | None]:
    """`ZONE`, `ZONE:HOST`, `ZONE:HOST:NODE` or `ZONE::NODE`."""
    parts = (asked or "").strip().split(":")
    if len(parts) > 3:
        raise Invalid("Invalid input received: Unable to parse availability_zone")
    zone, host, node = (*parts, "", "")[:3]
    return zone or None, host or None, node or None


def _networks(request: Request, server: dict[str, Any]) -> str | list[dict[str, Any]] | None:
    """The networks asked for, sound in themselves. Raises Invalid, Forbidden."""
    asked: str | list[dict[str, Any]] | None = server.get("networks")
    if isinstance(asked, list):
        ports: set[str] = set()
        for network in asked:
            port, address = network.get("port"), network.get("fixed_ip")
            if not port:
                if "uuid" not in network:
                    raise Invalid("Bad network format: missing 'uuid'")
                continue
            if port in ports:
                raise Invalid(f"Port ID '{port}' was specified twice: you cannot attach a port multiple times.")
            if address is not None:
                raise Invalid(
                    f"Specified Fixed IP '{address}' cannot be used with port '{port}': "
                    "the two cannot be specified together."
                )
            ports.add(port)
    if asked and asked != "none":
        context = request.context
        request.authorize(f"{_RULE}:attach_network", {"project_id": context.project_id, "user_id": context.user_id})
    return asked


def _group_names(server: dict[str, Any]) -> list[str]:
    return sorted({group["name"] for group in server.get("security_groups", []) if group.get("name")})
