"""Serve the reference implementation's API on a loopback port; runs in the oracle's own environment.

It stands on the functional-test fixtures that the reference package ships: the real API, conductor,
scheduler and two hosts with a simulated hypervisor, SQLite in memory, a real Placement, simulated Image,
Networking and Block Storage. There is no Identity: the token's own name picks user and roles.

    python oracle_server.py PORT

Prints one line of JSON (base URL, project, images, hosts) when it serves, and ends when its input ends.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import unittest
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
os.environ["OS_TEST_TIMEOUT"] = "0"

from nova import monkey_patch  # type: ignore[import-not-found]  # only the oracle's own environment has it

monkey_patch.patch()

from futurist._thread import ThreadWorker  # type: ignore[import-not-found]  # noqa: E402
from neutronclient.common import exceptions as neutron_exceptions  # type: ignore[import-not-found]  # noqa: E402
from nova import policy  # noqa: E402, what comes before decides how this is loaded
from nova.tests.functional import integrated_helpers  # type: ignore[import-not-found]  # noqa: E402
from nova.virt import fake  # type: ignore[import-not-found]  # noqa: E402

ROLES = {
    "admin": "reader,member,manager,admin",
    "manager": "reader,member,manager",
    "member": "reader,member",
    "other": "reader,member",
    "reader": "reader",
}
PUBLIC = "7d5a0fb0-4c8e-4a57-8d4d-0b6ad9a5f001"
"""The external network; ours has the same id."""
PORTS = [f"ce531f90-199f-48c0-816c-13e38010b44{number}" for number in range(4, 7)]
"""Ours has these, too."""
OTHER_PROJECT = "0123456789abcdef0123456789abcdef"
NO_ROLE = "nobody"

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def as_identity(application: Application, project: str) -> Application:
    """What the token middleware would have put into the request."""

    def identified(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        environ["HTTP_X_AUTH_USER"] = token
        environ["HTTP_X_AUTH_PROJECT_ID"] = OTHER_PROJECT if token == "other" else project
        environ["HTTP_X_ROLES"] = ROLES.get(token, NO_ROLE)
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        return application(environ, start_response)

    return identified


def more_of_networking(fixture: Any) -> None:
    """What the simulated Networking lacks: an external network, floating IPs, changes of security groups."""

    def missing(status: int = 404, message: str = "It could not be found.") -> Exception:
        error: Exception = neutron_exceptions.NeutronClientException(message=message, status_code=status)
        return error

    project = fixture.network_1["project_id"]
    public = {**fixture.network_1, "id": PUBLIC, "name": "public", "router:external": True, "shared": False}
    fixture._networks = {**fixture._networks, PUBLIC: {**public, "project_id": "", "tenant_id": ""}}
    # Else the first port that is made is always this one, and Compute remembers it from servers long gone.
    fixture._ports[fixture.default_port["id"]] = {**fixture.default_port, "device_id": "somebody"}
    for number, id in enumerate(PORTS):
        own = {"id": id, "mac_address": f"fa:16:3e:4c:2c:{40 + number}"}
        address = {**fixture.port_1["fixed_ips"][0], "ip_address": f"192.168.1.{40 + number}"}
        fixture._ports[id] = {**fixture.port_1, **own, "fixed_ips": [address]}
    floating: dict[str, Any] = {}
    default = fixture.security_group
    ingress = [fixture.security_group_rule_ip4_ingress, fixture.security_group_rule_ip6_ingress]
    groups = fixture._security_groups = {default["id"]: {**default, "security_group_rules": ingress}}
    extensions = [*fixture.list_extensions()["extensions"], {"alias": "fip-port-details", "name": "details"}]
    fixture.list_extensions = lambda *args, **kwargs: {"extensions": extensions}

    def the(known: dict[str, Any], key: str) -> Any:
        if key not in known:
            raise missing()
        return known[key]

    def create_floatingip(body: Any) -> Any:
        made = {
            "id": str(uuid.uuid4()), "floating_ip_address": f"203.0.113.{10 + len(floating)}", "fixed_ip_address": None,
            "port_id": None, "port_details": None, "project_id": project, "tenant_id": project, "status": "DOWN",
            **body["floatingip"],
        }  # fmt: skip
        floating[made["id"]] = made
        return {"floatingip": dict(made)}

    def update_floatingip(id: str, body: Any) -> Any:
        port = fixture._ports.get(body["floatingip"]["port_id"])
        the(floating, id).update({"fixed_ip_address": None, **body["floatingip"], "port_details": port})
        return {"floatingip": dict(floating[id])}

    def list_floatingips(retrieve_all: bool = True, **params: Any) -> Any:
        return {"floatingips": fixture._list_resource(floating, retrieve_all, **params)}

    def create_security_group(body: Any) -> Any:
        made = {
            "id": str(uuid.uuid4()), "project_id": project, "tenant_id": project, "security_group_rules": [],
            **body["security_group"],
        }  # fmt: skip
        groups[made["id"]] = made
        return {"security_group": made}

    def update_security_group(id: str, body: Any) -> Any:
        the(groups, id).update(body["security_group"])
        return {"security_group": groups[id]}

    def delete_security_group(id: str) -> None:
        if any(id in port.get("security_groups", ()) for port in fixture._ports.values()):
            raise missing(409, f"Security Group {id} in use.")
        del groups[the(groups, id)["id"]]

    def find_resource(resource: str, name_or_id: str, project_id: Any = None, *more: Any, **fields: Any) -> Any:
        found = [group for group in groups.values() if name_or_id in (group["id"], group["name"])]
        if not found:
            raise neutron_exceptions.NotFound(message=f"Unable to find {resource} '{name_or_id}'")
        if len(found) > 1:
            raise neutron_exceptions.NeutronClientNoUniqueMatch(resource=resource, name=name_or_id)
        return found[0]

    def rules() -> dict[str, Any]:
        return {rule["id"]: rule for group in groups.values() for rule in group["security_group_rules"]}

    def create_security_group_rule(body: Any) -> Any:
        made = [
            {"port_range_min": None, "port_range_max": None, **rule, "id": str(uuid.uuid4())}
            for rule in body["security_group_rules"]
        ]
        for rule in made:
            the(groups, rule["security_group_id"])["security_group_rules"].append(rule)
        return {"security_group_rules": made}

    def delete_security_group_rule(id: str) -> None:
        rule = the(rules(), id)
        groups[rule["security_group_id"]]["security_group_rules"].remove(rule)

    for function in (
        create_floatingip, update_floatingip, list_floatingips, create_security_group, update_security_group,
        delete_security_group, create_security_group_rule, delete_security_group_rule, find_resource,
    ):  # fmt: skip
        setattr(fixture, function.__name__, function)
    fixture.show_floatingip = lambda id: {"floatingip": dict(the(floating, id))}
    fixture.delete_floatingip = lambda id: floating.pop(the(floating, id)["id"])
    fixture.show_security_group = lambda id: {"security_group": the(groups, id)}
    fixture.show_security_group_rule = lambda id: {"security_group_rule": the(rules(), id)}


def more_of_hypervisor() -> None:
    """A PCI device of each host."""
    device = {
        "address": "0000:81:00.0", "vendor_id": "8086", "product_id": "10fb", "dev_type": "type-PCI", "numa_node": None,
        "status": "available", "parent_addr": None, "label": "label_8086_10fb",
    }  # fmt: skip
    plain = fake.SmallFakeDriver.get_available_resource

    def with_device(driver: Any, nodename: str) -> dict[str, Any]:
        return {**plain(driver, nodename), "pci_passthrough_devices": json.dumps([device])}

    fake.SmallFakeDriver.get_available_resource = with_device


def with_options(application: Application, flags: Callable[..., None]) -> Application:
    """`PUT /options` with JSON sets options of the reference's [DEFAULT]."""

    def changing(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/options":
            return application(environ, start_response)
        flags(**json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        start_response("204 No Content", [])
        return []

    return changing


class Oracle(integrated_helpers._IntegratedTestBase):  # type: ignore[misc]
    ADMIN_API = True
    CAST_AS_CALL = False

    def _setup_services(self) -> None:
        # Each of its many worker threads wakes once a second, which is most of what a small machine can do.
        ThreadWorker.MAX_IDLE_FOR = 60
        self.flags(default_thread_pool_size=8, cell_worker_thread_pool_size=4)
        super()._setup_services()

    def _setup_compute_service(self) -> Any:
        self.flags(allow_resize_to_same_host=True)
        ids = {"vendor_id": "8086", "product_id": "10fb"}
        alias = {"name": "nic", "device_type": "type-PCI", **ids}
        self.flags(device_spec=[json.dumps(ids)], alias=[json.dumps(alias)], group="pci")
        more_of_hypervisor()
        self._start_compute("host-2")
        return self._start_compute("host-1")

    def test_serve(self) -> None:
        # Off unless asked for; ours are on.
        self.flags(enabled=True, base_url="http://127.0.0.1:6080/serial.html", group="serial_console")
        # The fixtures fall back to the rules of releases long gone; operators have today's.
        self.flags(enforce_new_defaults=True, group="oslo_policy")
        # A deployment does not check its own answers; its tests do, and refuse what would have been accepted.
        self.flags(response_validation="ignore", group="api")
        more_of_networking(self.neutron)
        policy.reset()
        policy.init(suppress_deprecation_warnings=True)
        project = self.api_fixture.project_id
        port = int(os.environ["ORACLE_PORT"])
        application = with_options(as_identity(self.api_fixture.app(), project), self.flags)
        server = make_server("127.0.0.1", port, application, _Server, _Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        about = {
            "base": f"http://127.0.0.1:{server.server_port}",
            "project": project,
            "images": [image["id"] for image in self.glance.detail(None)],
            "hosts": ["host-1", "host-2"],
            "network": self.neutron.network_1["id"],
            "ports": PORTS,
            "group": self.neutron.security_group["id"],
        }
        sys.__stdout__.write(json.dumps(about) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        sys.__stdin__.read()  # type: ignore[union-attr]
        os._exit(0)


if __name__ == "__main__":
    os.environ["ORACLE_PORT"] = sys.argv[1]
    unittest.main(module="__main__", argv=["oracle", "Oracle.test_serve"])
