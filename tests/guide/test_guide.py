"""The installation guide from its first line to its last, with Kilonova in place of the packages it installs.

The steps are in the guide's order and build on each other. What differs from the guide stands in `deviations.toml`.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.guide.base import PASSWORD
from tests.guide.site import CONTROLLER_UNITS, Site, table
from tests.support.guide import COMPUTE, CONTROLLER

pytestmark = pytest.mark.timeout(900)

ENDPOINT = r"http://controller01:8774/v2/%\(tenant_id\)s"


def test_the_database_is_created(site: Site) -> None:
    grant = "GRANT ALL PRIVILEGES ON nova.* TO 'nova'@'{}' IDENTIFIED BY 'Password123$';"
    sql = f"CREATE DATABASE nova;\n{grant.format('localhost')}\n{grant.format('%')}\nexit\n"
    said = site.controller.run("mysql -u root -p'Password123$' -vv", stdin=sql)
    assert "Query OK, 1 row affected" in said
    assert said.count("Query OK, 0 rows affected") == 2


def test_the_service_user_is_created(site: Site) -> None:
    said = site.controller.run(
        f". /root/admin-openrc.sh; {site.base.client} user create --domain default --password-prompt nova",
        stdin=f"{PASSWORD}\n{PASSWORD}\n",
    )
    shown = table(said)
    assert (shown["domain_id"], shown["enabled"], shown["name"]) == ("default", "True", "nova")
    assert re.fullmatch(r"[0-9a-f]{32}", shown["id"])
    assert site.openstack("role add --project service --user nova admin") == ""


def test_the_service_and_its_endpoints_are_created(site: Site) -> None:
    shown = site.fields('service create --name nova --description "OpenStack Compute" compute')
    assert (shown["description"], shown["enabled"], shown["name"], shown["type"]) == (
        "OpenStack Compute", "True", "nova", "compute",
    )  # fmt: skip
    for interface in ("public", "internal", "admin"):
        endpoint = site.fields(f"endpoint create --region RegionOne compute {interface} {ENDPOINT}")
        assert endpoint["url"] == "http://controller01:8774/v2/%(tenant_id)s"
        assert (endpoint["interface"], endpoint["region"], endpoint["region_id"]) == (
            interface, "RegionOne", "RegionOne",
        )  # fmt: skip
        assert (endpoint["service_id"], endpoint["service_name"], endpoint["service_type"]) == (
            shown["id"], "nova", "compute",
        )  # fmt: skip


def test_the_controller_is_installed_and_configured(site: Site) -> None:
    site.install(site.controller)
    site.controller.write("/etc/nova/nova.conf", CONTROLLER, mode="640")
    site.controller.run("chgrp nova /etc/nova/nova.conf")


def test_the_schema_is_made_by_the_service_user_and_again_nothing_happens(site: Site) -> None:
    sync = 'su -s /bin/sh -c "nova-manage db sync" nova'
    site.controller.run(sync, timeout=300)
    tables = site.controller.run(f"mysql -u nova -h controller01 -p'{PASSWORD}' -N -e 'SHOW TABLES' nova").split()
    assert {"instances", "compute_nodes", "services", "key_pairs", "instance_actions", "quotas"} <= set(tables)
    shown = site.controller.run(f"mysql -u nova -h controller01 -p'{PASSWORD}' -N -e 'SHOW DATABASES'").split()
    assert shown == ["information_schema", "nova"]
    site.controller.run(sync, timeout=300)
    again = site.controller.run(f"mysql -u nova -h controller01 -p'{PASSWORD}' -N -e 'SHOW TABLES' nova").split()
    assert again == tables


def test_the_controllers_services_are_enabled_and_started(site: Site) -> None:
    units = " ".join(f"{unit}.service" for unit in CONTROLLER_UNITS)
    said = site.controller.run(f"systemctl enable {units}")
    for unit in CONTROLLER_UNITS:
        assert f"multi-user.target.wants/{unit}.service" in said
    site.controller.run(f"systemctl start {units}", timeout=300)
    assert site.controller.run(f"systemctl is-active {units}").split() == ["active"] * len(CONTROLLER_UNITS)


def test_compute01_is_installed_configured_and_started(site: Site) -> None:
    site.install(site.compute)
    site.compute.write("/etc/nova/nova.conf", COMPUTE, mode="640")
    assert site.compute.run("dpkg -s sysfsutils | grep ^Status").strip().endswith("installed")
    site.libvirt(site.compute)
    site.compute.run("systemctl enable openstack-nova-compute.service")
    site.compute.run("systemctl start openstack-nova-compute.service", timeout=300)


def test_every_service_reports(site: Site) -> None:
    site.controller.until(
        f". /root/admin-openrc.sh; {site.base.client} compute service list -f value -c Binary | grep nova-compute", 60
    )
    listed = json.loads(site.openstack("compute service list -f json"))
    found = {(each["Binary"], each["Host"], each["Zone"], each["Status"], each["State"]) for each in listed}
    internal = {
        (f"nova-{name}", "controller01", "internal", "enabled", "up")
        for name in ("cert", "conductor", "consoleauth", "scheduler")
    }
    assert found == internal | {("nova-compute", "compute01", "nova", "enabled", "up")}
    (hypervisor,) = json.loads(site.openstack("hypervisor list -f json"))
    assert (hypervisor["Hypervisor Hostname"], hypervisor["State"]) == ("compute01", "up")
