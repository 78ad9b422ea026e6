"""The operations on servers."""

from __future__ import annotations

from collections.abc import Mapping

from kilonova.api.fields import OPEN_QUERY, Schema
from kilonova.api.routing import Action, Handler, Route, action, route
from kilonova.api.servers import (
    consoles,
    create,
    diagnostics,
    instance_actions,
    interfaces,
    ips,
    metadata,
    password,
    schemas,
    show,
    tags,
    update,
)
from kilonova.api.servers.actions import network, power, rebuild, refused, state
from kilonova.api.servers.actions import schemas as bodies

_SERVERS = "/servers"
_SERVER = "/servers/{id}"
_METADATA = "/servers/{server_id}/metadata"
_TAGS = "/servers/{server_id}/tags"
_IPS = "/servers/{server_id}/ips"
_INTERFACES = "/servers/{server_id}/os-interface"
_GROUPS = "/servers/{server_id}/os-security-groups"
_ACTIONS = "/servers/{server_id}/os-instance-actions"
_PASSWORD = "/servers/{server_id}/os-server-password"


def _action(key: str, handler: Handler, body: Schema, status: int = 202, until: str | None = None) -> Action:
    return action(f"{_SERVER}/action", key, handler, f"servers:{key}", body=body, status=status, until=until)


def _plain(keys: Mapping[str, Handler]) -> tuple[Action, ...]:
    return tuple(_action(key, handler, bodies.empty(key)) for key, handler in keys.items())


ROUTES: tuple[Route | Action, ...] = (
    route(
        "GET",
        _SERVERS,
        show.index,
        "servers:index",
        query=schemas.SERVER_LIST,
        policy="os_compute_api:servers:index",
    ),
    route("POST", _SERVERS, create.create, "servers:create", body=schemas.SERVER_CREATE, status=202),
    route(
        "GET",
        "/servers/detail",
        show.detail,
        "servers:detail",
        query=schemas.SERVER_LIST,
        policy="os_compute_api:servers:detail",
    ),
    route("GET", _SERVER, show.show, "servers:show"),
    route("PUT", _SERVER, update.update, "servers:update", body=schemas.SERVER_UPDATE),
    route("DELETE", _SERVER, update.delete, "servers:delete", status=204),
    _action("reboot", power.reboot, bodies.REBOOT),
    _action("rebuild", rebuild.rebuild, schemas.SERVER_REBUILD),
    _action("lock", state.lock, bodies.LOCK),
    _action("os-getConsoleOutput", state.console_output, bodies.CONSOLE_OUTPUT, status=200),
    _action(
        "os-getVNCConsole",
        consoles.action("os-getVNCConsole", "vnc"),
        bodies.VNC_CONSOLE,
        status=200,
        until="2.5",
    ),
    _action(
        "os-getSPICEConsole",
        consoles.action("os-getSPICEConsole", "spice"),
        bodies.SPICE_CONSOLE,
        status=200,
        until="2.5",
    ),
    _action(
        "os-getSerialConsole",
        consoles.action("os-getSerialConsole", "serial"),
        bodies.SERIAL_CONSOLE,
        status=200,
        until="2.5",
    ),
    _action("os-resetState", state.reset_state, bodies.RESET_STATE),
    _action("addSecurityGroup", network.add_security_group, bodies.ADD_SECURITY_GROUP),
    _action("removeSecurityGroup", network.remove_security_group, bodies.REMOVE_SECURITY_GROUP),
    _action("addFixedIp", network.add_fixed_ip, bodies.ADD_FIXED_IP, until="2.43"),
    _action("removeFixedIp", network.remove_fixed_ip, bodies.REMOVE_FIXED_IP, until="2.43"),
    _action("addFloatingIp", network.add_floating_ip, bodies.ADD_FLOATING_IP, until="2.43"),
    _action("removeFloatingIp", network.remove_floating_ip, bodies.REMOVE_FLOATING_IP, until="2.43"),
    *_plain(
        {
            "os-start": power.start,
            "os-stop": power.stop,
            "pause": power.pause,
            "unpause": power.unpause,
            "suspend": power.suspend,
            "resume": power.resume,
            "forceDelete": power.force_delete,
            "restore": power.restore,
            "unlock": state.unlock,
        }
    ),
    *(
        action(
            f"{_SERVER}/action",
            refusal.key,
            refused.refuse(refusal),
            f"servers:{refusal.key}",
            body=bodies.schema_of(refusal.key),
            since=refusal.since,
            until=refusal.until,
        )
        for refusal in refused.ACTIONS
    ),
    action(f"{_SERVER}/action", "resetNetwork", refused.gone, "servers:resetNetwork"),
    action(f"{_SERVER}/action", "os-getRDPConsole", refused.no_rdp, "servers:os-getRDPConsole", until="2.5"),
    route(
        "POST",
        "/servers/{server_id}/remote-consoles",
        consoles.create,
        "remote-consoles:create",
        since="2.6",
        body=schemas.REMOTE_CONSOLE,
    ),
    route(
        "GET",
        "/os-console-auth-tokens/{id}",
        consoles.show_token,
        "console-auth-tokens:show",
        query=schemas.CONSOLE_TOKEN,
    ),
    route("GET", _METADATA, metadata.index, "server-metadata:index"),
    route("POST", _METADATA, metadata.create, "server-metadata:create", body=schemas.SERVER_METADATA),
    route("PUT", _METADATA, metadata.update_all, "server-metadata:update_all", body=schemas.SERVER_METADATA),
    route("GET", _METADATA + "/{key}", metadata.show, "server-metadata:show"),
    route("PUT", _METADATA + "/{key}", metadata.update, "server-metadata:update", body=schemas.SERVER_META),
    route("DELETE", _METADATA + "/{key}", metadata.delete, "server-metadata:delete", status=204),
    route("GET", _TAGS, tags.index, "server-tags:index", since="2.26", query=OPEN_QUERY),
    route("PUT", _TAGS, tags.update_all, "server-tags:update_all", since="2.26", body=schemas.SERVER_TAGS),
    route("DELETE", _TAGS, tags.delete_all, "server-tags:delete_all", since="2.26", status=204),
    route("GET", _TAGS + "/{tag}", tags.show, "server-tags:show", since="2.26", status=204, query=OPEN_QUERY),
    route(
        "PUT", _TAGS + "/{tag}", tags.update, "server-tags:update", since="2.26", body=schemas.SERVER_TAG, status=201
    ),
    route("DELETE", _TAGS + "/{tag}", tags.delete, "server-tags:delete", since="2.26", status=204),
    route("GET", "/servers/{server_id}/diagnostics", diagnostics.show, "server-diagnostics:show"),
    route("GET", "/servers/{server_id}/topology", diagnostics.show_topology, "server-topology:show", since="2.78"),
    route("GET", _IPS, ips.index, "server-ips:index"),
    route("GET", _IPS + "/{network}", ips.show, "server-ips:show"),
    route("GET", _INTERFACES, interfaces.index, "interfaces:index"),
    route("GET", _INTERFACES + "/{id}", interfaces.show, "interfaces:show"),
    route("POST", _INTERFACES, interfaces.create, "interfaces:create", body=schemas.INTERFACE_ATTACH),
    route("DELETE", _INTERFACES + "/{id}", interfaces.delete, "interfaces:delete", status=202),
    route("GET", _GROUPS, interfaces.security_groups, "server-security-groups:index"),
    route("GET", _PASSWORD, password.show, "server-password:show"),
    route("DELETE", _PASSWORD, password.clear, "server-password:clear", status=204),
    route("GET", _ACTIONS, instance_actions.index, "instance-actions:index", query=schemas.INSTANCE_ACTIONS),
    route("GET", _ACTIONS + "/{id}", instance_actions.show, "instance-actions:show"),
)
