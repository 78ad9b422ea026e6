"""Our driver inside a real Neutron: binding, the way to ACTIVE, events to Compute, hints."""

from __future__ import annotations

import socket
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from kilonova.network import hints
from tests.support.neutron import PROJECT, Neutron, eventually

HOST = "host-1"


def received(listener: socket.socket, until: hints.Hint, timeout: float = 30.0) -> list[hints.Hint]:
    """All hints up to one that is expected."""
    found = []
    listener.settimeout(timeout)
    while True:
        hint = hints.decode(listener.recv(hints.LARGEST))
        assert hint is not None
        found.append(hint)
        if hint == until:
            return found


def test_a_port_on_a_host_is_bound_as_a_bridge_vif_and_waits_for_its_plane(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    assert port["binding:vif_type"] == "bridge"
    assert port["binding:vif_details"]["port_filter"] is True
    assert port["status"] == "DOWN"


def test_a_port_without_a_host_stays_unbound(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.create("port", network_id=network["id"])
    assert (port["binding:vif_type"], port["status"]) == ("unbound", "DOWN")


@pytest.mark.parametrize("vnic_type", ["direct", "macvtap"])
def test_a_vnic_that_the_plane_cannot_give_is_not_bound(neutron: Neutron, vnic_type: str) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST, **{"binding:vnic_type": vnic_type})
    assert port["binding:vif_type"] == "binding_failed"


def test_a_report_makes_the_port_active_and_compute_hears_of_it(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    assert neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "ACTIVE"}]) == []
    assert neutron.show("port", port["id"])["status"] == "ACTIVE"
    eventually(lambda: "network-vif-plugged" in neutron.receiver.of(port["id"]), "network-vif-plugged")
    event = next(e for e in neutron.receiver.events if e["tag"] == port["id"] and e["name"] == "network-vif-plugged")
    assert (event["server_uuid"], event["status"]) == (port["device_id"], "completed")


def test_a_report_of_another_host_does_not_make_the_port_active(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    neutron.report(ports=[{"id": port["id"], "host": "host-2", "status": "ACTIVE"}])
    assert neutron.show("port", port["id"])["status"] == "DOWN"


def test_a_live_migrations_destination_is_told_to_compute_before_the_port_moves(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "ACTIVE"}])
    eventually(lambda: neutron.receiver.of(port["id"]).count("network-vif-plugged") == 1, "the source's event")
    binding = neutron.call(
        "POST", f"/ports/{port['id']}/bindings", {"binding": {"host": "host-2", "project_id": PROJECT}}
    )["binding"]
    assert (binding["status"], binding["vif_type"]) == ("INACTIVE", "bridge")
    neutron.report(ports=[{"id": port["id"], "host": "host-2", "status": "ACTIVE"}])
    eventually(lambda: neutron.receiver.of(port["id"]).count("network-vif-plugged") == 2, "the destination's event")
    neutron.call("PUT", f"/ports/{port['id']}/bindings/host-2/activate")
    assert neutron.show("port", port["id"])["binding:host_id"] == "host-2"
    neutron.report(ports=[{"id": port["id"], "host": "host-2", "status": "ACTIVE"}])
    assert neutron.show("port", port["id"])["status"] == "ACTIVE"


def test_a_port_that_is_gone_from_its_host_goes_down_and_one_that_moved_on_does_not(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "ACTIVE"}])
    neutron.report(ports=[{"id": port["id"], "host": "host-2", "status": "DOWN"}])
    assert neutron.show("port", port["id"])["status"] == "ACTIVE"
    neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "DOWN"}])
    assert neutron.show("port", port["id"])["status"] == "DOWN"


def test_a_port_moved_to_another_host_waits_anew(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "ACTIVE"}])
    moved = neutron.call("PUT", f"/ports/{port['id']}", {"port": {"binding:host_id": "host-2"}})["port"]
    assert (moved["binding:vif_type"], moved["status"]) == ("bridge", "DOWN")
    neutron.report(ports=[{"id": port["id"], "host": "host-2", "status": "ACTIVE"}])
    assert neutron.show("port", port["id"])["status"] == "ACTIVE"


def test_compute_hears_of_changed_and_deleted_ports(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    neutron.call("PUT", f"/ports/{port['id']}", {"port": {"name": "renamed"}})
    eventually(lambda: "network-changed" in neutron.receiver.of(port["id"]), "network-changed")
    neutron.call("DELETE", f"/ports/{port['id']}")
    eventually(lambda: "network-vif-deleted" in neutron.receiver.of(port["id"]), "network-vif-deleted")


def test_a_network_that_goes_is_no_failure(neutron: Neutron) -> None:
    network, _ = neutron.network()
    neutron.call("DELETE", f"/networks/{network['id']}")
    # The thread that would tell Placement has begun, and said what it had to say, before this one.
    neutron.call("DELETE", f"/networks/{neutron.network()[0]['id']}")
    time.sleep(1)
    assert "Traceback" not in neutron.log.read_text()


def test_routers_and_floating_ips_take_the_state_reported(neutron: Neutron) -> None:
    outside = neutron.create("network", **{"router:external": True, "provider:network_type": "flat",
                                           "provider:physical_network": "public"})  # fmt: skip
    neutron.create("subnet", network_id=outside["id"], cidr="172.24.9.0/24", ip_version=4, enable_dhcp=False)
    network, subnet = neutron.network()
    router = neutron.create("router", external_gateway_info={"network_id": outside["id"]})
    neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    port = neutron.server_port(network["id"], HOST)
    floating = neutron.create("floatingip", floating_network_id=outside["id"], port_id=port["id"])
    assert floating["status"] == "DOWN"
    neutron.report(routers={router["id"]: "ERROR"}, floatingips={floating["id"]: "ACTIVE"})
    assert neutron.show("router", router["id"])["status"] == "ERROR"
    assert neutron.show("floatingip", floating["id"])["status"] == "ACTIVE"
    # A router's own port is active as soon as its host says so; nobody waits for it.
    [interface] = neutron.call("GET", f"/ports?device_id={router['id']}&device_owner=network:router_interface")["ports"]
    neutron.call("PUT", f"/ports/{interface['id']}", {"port": {"binding:host_id": HOST}})
    neutron.report(ports=[{"id": interface["id"], "host": HOST, "status": "ACTIVE"}])
    assert neutron.show("port", interface["id"])["status"] == "ACTIVE"


def test_what_is_not_known_any_more_is_told_to_the_reporter(neutron: Neutron) -> None:
    gone = [str(uuid.uuid4()) for _ in range(3)]
    unknown = neutron.report(
        ports=[{"id": gone[0], "host": HOST, "status": "ACTIVE"}],
        routers={gone[1]: "ACTIVE"},
        floatingips={gone[2]: "DOWN"},
    )
    assert unknown == gone


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"plane_report": []},
        {"plane_report": {"networks": {}}},
        {"plane_report": {"ports": [{"id": "x"}]}},
        {"plane_report": {"ports": [{"id": "x", "host": "h", "status": "BUILD"}]}},
        {"plane_report": {"routers": {"x": "GREEN"}}},
    ],
)
def test_a_malformed_report_is_refused(neutron: Neutron, body: object) -> None:
    neutron.call("POST", "/plane-reports", body, expect=400)


def test_every_change_is_hinted_at_but_not_what_is_reported(neutron: Neutron) -> None:
    with hints.listen(neutron.hints) as listener:
        network, subnet = neutron.network()
        port = neutron.server_port(network["id"], HOST)
        until = received(listener, hints.Hint("ports", (port["id"],)))
        assert {hints.Hint("networks", (network["id"],)), hints.Hint("subnets", (subnet["id"],))} <= set(until)
        group = neutron.create("security_group", name="g")
        received(listener, hints.Hint("security-groups", (group["id"],)))
        rule = neutron.create("security_group_rule", security_group_id=group["id"], direction="ingress")
        received(listener, hints.Hint("security-groups", (group["id"],)))
        neutron.call("DELETE", f"/security-group-rules/{rule['id']}")
        received(listener, hints.Hint("security-groups", (group["id"],)))
        router = neutron.create("router")
        received(listener, hints.Hint("routers", (router["id"],)))
        neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
        received(listener, hints.Hint("routers", (router["id"],)))
        addresses = neutron.create("address_group", name="a", addresses=["10.1.0.0/16"])
        received(listener, hints.Hint("address-groups", (addresses["id"],)))
        policy = neutron.create("policy", name="slow")
        received(listener, hints.Hint("policies", (policy["id"],)))
        neutron.call(
            "POST", f"/qos/policies/{policy['id']}/bandwidth_limit_rules", {"bandwidth_limit_rule": {"max_kbps": 100}}
        )
        received(listener, hints.Hint("policies", (policy["id"],)))
        drain(listener)
        neutron.report(ports=[{"id": port["id"], "host": HOST, "status": "ACTIVE"}])
        neutron.call("DELETE", f"/security-groups/{group['id']}")
        assert all(hint.kind != "ports" for hint in received(listener, hints.Hint("security-groups", (group["id"],))))


def test_a_binding_that_comes_goes_or_is_activated_is_hinted_at(neutron: Neutron) -> None:
    """Of a port's second binding ML2 tells its drivers nothing."""
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    path, until = f"/ports/{port['id']}/bindings", hints.Hint(hints.BINDINGS)
    with hints.listen(neutron.hints) as listener:
        neutron.call("POST", path, {"binding": {"host": "host-2", "project_id": PROJECT}})
        received(listener, until)
        assert inactive(neutron, port) == ["host-2"]
        neutron.call("PUT", f"{path}/host-2/activate")
        received(listener, until)
        assert inactive(neutron, port) == [HOST]
        drain(listener)
        neutron.call("DELETE", f"{path}/{HOST}")
        received(listener, until)
        assert inactive(neutron, port) == []
        drain(listener)
        neutron.server_port(network["id"], HOST)
        drain(listener, none_of=hints.BINDINGS)


def inactive(neutron: Neutron, port: dict[str, Any]) -> list[str]:
    bindings = neutron.call("GET", "/plane-bindings")["plane_bindings"]
    return [each["host"] for each in bindings if each["port_id"] == port["id"]]


def drain(listener: socket.socket, *, none_of: str = "") -> None:
    """Until it is silent for a second. No hint is of the kind `none_of`."""
    listener.settimeout(1.0)
    while True:
        try:
            hint = hints.decode(listener.recv(hints.LARGEST))
        except TimeoutError:
            return
        assert hint is not None
        assert hint.kind != none_of


def test_rules_that_the_plane_cannot_enforce_are_refused(neutron: Neutron) -> None:
    network, _ = neutron.network()
    port = neutron.server_port(network["id"], HOST)
    policy = neutron.create("policy", name="marks")
    neutron.call("PUT", f"/ports/{port['id']}", {"port": {"qos_policy_id": policy["id"]}})
    rule = {"dscp_marking_rule": {"dscp_mark": 26}}
    neutron.call("POST", f"/qos/policies/{policy['id']}/dscp_marking_rules", rule, expect=409)


def test_a_database_of_another_release_is_refused_by_name(tmp_path: Path) -> None:
    other = Neutron(tmp_path / "cloud")
    try:
        other.start()
        other.stop()
        with sqlite3.connect(Path(other.spec.stdin["directory"]) / "neutron.sqlite") as database:
            database.execute("UPDATE alembic_version SET version_num = 'elsewhere'")
        database.close()
        with pytest.raises(AssertionError, match="another release of Neutron"):
            other.start()
    finally:
        other.close()


def test_it_comes_back_with_what_it_had(tmp_path: Path) -> None:
    other = Neutron(tmp_path / "cloud")
    try:
        other.start()
        network, _ = other.network()
        other.stop()
        began = time.monotonic()
        other.start()
        assert other.show("network", network["id"])["id"] == network["id"]
        print(f"ready again after {time.monotonic() - began:.1f} s")
    finally:
        other.close()
