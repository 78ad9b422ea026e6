"""The `openstack` command on a cloud of one command, simulated hypervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.cloud import UserCloud

pytestmark = pytest.mark.timeout(1800)


def test_a_server_goes_through_its_life(cloud: UserCloud, image: str, flavor: str, tmp_path: Path) -> None:
    cloud.openstack("keypair", "create", "--private-key", str(tmp_path / "key"), "life")
    assert "life" in cloud.openstack("keypair", "list")
    user_data = tmp_path / "user-data"
    user_data.write_text("#!/bin/sh\n")
    created = cloud.show(
        *("server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--key-name", "life"),
        *("--user-data", str(user_data), "--config-drive", "true", "--property", "purpose=life", "--wait", "life"),
    )
    assert created["status"] == "ACTIVE"
    assert created["adminPass"]
    assert cloud.show("server", "list", "--name", "life")[0]["ID"] == created["id"]
    assert cloud.show("server", "show", "life")["properties"] == {"purpose": "life"}
    assert "guest ready life" in cloud.openstack("console", "log", "show", "life")
    for command, status in (
        (("stop",), "SHUTOFF"),
        (("start",), "ACTIVE"),
        (("pause",), "PAUSED"),
        (("unpause",), "ACTIVE"),
        (("suspend",), "SUSPENDED"),
        (("resume",), "ACTIVE"),
    ):
        cloud.openstack("server", *command, "life")
        wait_for_status(cloud, "life", status)
    cloud.openstack("server", "reboot", "--wait", "life")
    cloud.openstack("server", "reboot", "--hard", "--wait", "life")
    cloud.openstack("server", "rebuild", "--image", image, "--wait", "life")
    actions = [event["Action"] for event in cloud.show("server", "event", "list", "life")]
    assert actions[-1] == "create"
    assert {"stop", "start", "pause", "unpause", "suspend", "resume", "reboot", "rebuild"} <= set(actions)
    cloud.openstack("server", "lock", "life")
    cloud.openstack("server", "unlock", "life")
    cloud.openstack("server", "set", "--name", "renamed", "life")
    cloud.openstack("server", "delete", "--wait", "renamed")
    assert not [server for server in cloud.show("server", "list") if server["ID"] == created["id"]]
    cloud.openstack("keypair", "delete", "life")


def test_an_operator_sees_hosts_services_and_zones(cloud: UserCloud) -> None:
    (hypervisor,) = cloud.show("hypervisor", "list")
    assert (hypervisor["Hypervisor Hostname"], hypervisor["State"]) == ("sim-0001", "up")
    services = {service["Binary"]: service for service in cloud.show("compute", "service", "list")}
    assert services["nova-compute"]["State"] == "up"
    host = services["nova-compute"]["Host"]
    cloud.openstack("compute", "service", "set", "--disable", "--disable-reason", "test", host, "nova-compute")
    assert cloud.show("compute", "service", "list", "--service", "nova-compute")[0]["Status"] == "disabled"
    cloud.openstack("compute", "service", "set", "--enable", host, "nova-compute")
    zones = cloud.show("availability", "zone", "list", "--compute")
    assert {"Zone Name": "nova", "Zone Status": "available"} in zones


def test_flavors_have_extra_specs(cloud: UserCloud) -> None:
    cloud.openstack("flavor", "create", "--vcpus", "2", "--ram", "128", "--disk", "1", "test.specs")
    cloud.openstack("flavor", "set", "--property", "hw_rng:allowed=True", "test.specs")
    assert cloud.show("flavor", "show", "test.specs")["properties"] == {"hw_rng:allowed": "True"}
    cloud.openstack("flavor", "delete", "test.specs")


def test_a_member_of_another_project_sees_nothing_of_ours(cloud: UserCloud, image: str, flavor: str) -> None:
    ours = cloud.value(
        *("server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--wait", "ours"), column="id"
    )
    assert cloud.show("server", "list", cloud="kilonova-demo") == []
    with pytest.raises(AssertionError, match=r"No [Ss]erver|could not be found"):
        cloud.openstack("server", "show", ours, cloud="kilonova-demo")
    with pytest.raises(AssertionError, match=r"[Ff]orbidden|403|[Pp]olicy"):
        cloud.openstack("hypervisor", "list", cloud="kilonova-demo")
    theirs = cloud.show(
        *("server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--wait", "theirs"),
        cloud="kilonova-demo",
    )
    assert theirs["status"] == "ACTIVE"
    cloud.openstack("server", "delete", "--wait", "theirs", cloud="kilonova-demo")
    cloud.openstack("server", "delete", "--wait", "ours")


def test_the_catalog_offers_the_legacy_path_with_the_project(cloud: UserCloud) -> None:
    catalog = {service["Type"]: service["Endpoints"] for service in cloud.show("catalog", "list")}
    project = cloud.value("project", "show", "admin", column="id")
    compute = {endpoint["url"] for endpoint in catalog["compute"]}
    legacy = {endpoint["url"] for endpoint in catalog["compute_legacy"]}
    assert compute == {f"http://127.0.0.1:{8774 + cloud.offset}/v2.1"}
    assert legacy == {f"http://127.0.0.1:{8774 + cloud.offset}/v2/{project}"}


def wait_for_status(cloud: UserCloud, server: str, status: str) -> None:
    for _ in range(100):
        if cloud.value("server", "show", server, column="status") == status:
            return
    raise AssertionError(f"{server} never became {status}")
