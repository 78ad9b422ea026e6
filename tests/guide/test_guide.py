"""The installation guide from its first line to its last, with Kilonova in place of the packages it installs.

The steps are in the guide's order and build on each other: `make guide`. `docs/install.md` says what differs.
"""

from __future__ import annotations

import base64
import json
import os
import re

import pytest

from tests.guide.base import PASSWORD, SECRET
from tests.guide.site import CONTROLLER_UNITS, Site, table, tiny_image
from tests.support.guide import COMPUTE, CONTROLLER

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("GUIDE"), reason="make guide: it installs Debian's Identity, Image, Networking"
    ),
]

ENDPOINT = r"http://controller01:8774/v2/%\(tenant_id\)s"


def test_the_database_is_created(site: Site) -> None:
    grant = "GRANT ALL PRIVILEGES ON nova.* TO 'nova'@'{}' IDENTIFIED BY 'Password123$';"
    sql = f"CREATE DATABASE nova;\n{grant.format('localhost')}\n{grant.format('%')}\nexit\n"
    said = site.controller.run("mysql -u root -p'Password123$' -vv", stdin=sql)
    assert "Query OK, 1 row affected" in said
    assert said.count("Query OK, 0 rows affected") == 2


def test_the_service_user_is_created(site: Site) -> None:
    said = site.controller.converse(
        f". /root/admin-openrc.sh; {site.base.client} user create --domain default --password-prompt nova",
        [("User Password:", PASSWORD), ("Repeat User Password:", PASSWORD)],
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
    site.compute.run("systemctl enable libvirtd.service openstack-nova-compute.service")
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


def test_networking_is_made_known_to_compute(site: Site) -> None:
    """The part of the Networking chapter that is about Compute."""
    section = f"""
[neutron]
url = http://controller01:9696
auth_url = http://controller01:35357
auth_plugin = password
project_domain_id = default
user_domain_id = default
region_name = RegionOne
project_name = service
username = neutron
password = {PASSWORD}
"""
    proxy = f"service_metadata_proxy = True\nmetadata_proxy_shared_secret = {SECRET}\n"
    site.controller.run("cat >>/etc/nova/nova.conf", stdin=section + proxy)
    site.compute.run("cat >>/etc/nova/nova.conf", stdin=section)
    site.controller.run("systemctl restart openstack-nova-api.service openstack-nova-conductor.service", timeout=300)
    site.compute.run("systemctl restart openstack-nova-compute.service", timeout=300)


def test_networks_key_image_and_flavor(site: Site) -> None:
    site.openstack(
        "network create --external --share --provider-network-type flat --provider-physical-network public public"
    )
    site.openstack(
        "subnet create --network public --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 "
        "--allocation-pool start=203.0.113.101,end=203.0.113.200 public"
    )
    site.openstack("network create private")
    site.openstack("subnet create --network private --subnet-range 172.16.1.0/24 private")
    site.openstack("router create router")
    site.openstack("router add subnet router private")
    site.openstack("router set --external-gateway public router")
    for rule in ("--protocol icmp", "--protocol tcp --dst-port 22"):
        site.openstack(f"security group rule create {rule} default", check=False)
    site.controller.run("ssh-keygen -q -N '' -t ed25519 -f /root/.ssh/id_ed25519")
    site.openstack("keypair create --public-key /root/.ssh/id_ed25519.pub mykey")
    site.controller.write("/root/tiny.qcow2.b64", base64.b64encode(tiny_image().read_bytes()).decode())
    site.controller.run("base64 -d /root/tiny.qcow2.b64 >/root/tiny.qcow2; rm /root/tiny.qcow2.b64")
    site.openstack(
        "image create --disk-format qcow2 --container-format bare --public --file /root/tiny.qcow2 tiny", timeout=300
    )
    site.openstack("flavor create --vcpus 1 --ram 128 --disk 1 m1.nano")


def test_a_server_on_the_self_service_network(site: Site) -> None:
    site.openstack(
        "server create --flavor m1.nano --image tiny --nic net-id=private --security-group default --key-name mykey "
        "--wait private-instance",
        timeout=600,
    )
    shown = site.fields("server show private-instance")
    assert shown["status"] == "ACTIVE"
    assert shown["OS-EXT-SRV-ATTR:host"] == "compute01"
    assert "private=172.16.1." in shown["addresses"]
    site.ready("private-instance", "172.16.1.")


def test_a_floating_ip_leads_to_it(site: Site) -> None:
    address = site.fields("floating ip create public")["floating_ip_address"]
    site.openstack(f"server add floating ip private-instance {address}")
    site.user.until(f"ping -c 1 -W 2 {address}", 120)
    key = site.controller.read("/root/.ssh/id_ed25519")
    site.user.write("/root/key", key, mode="600")
    ssh = (
        f"ssh -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@{address}"
    )
    assert site.user.until(f"{ssh} hostname", 120).strip() == "private-instance"
    # Through Neutron's metadata agent, which signs for the guest.
    said = site.user.run(f"{ssh} wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json", timeout=120)
    assert json.loads(said)["name"] == "private-instance"


def test_a_server_on_the_provider_network(site: Site) -> None:
    site.openstack(
        "server create --flavor m1.nano --image tiny --nic net-id=public --security-group default --key-name mykey "
        "--wait public-instance",
        timeout=600,
    )
    address = re.search(r"public=(203\.0\.113\.\d+)", site.fields("server show public-instance")["addresses"])
    assert address is not None
    site.user.until(f"ping -c 1 -W 2 {address[1]}", 300)


def test_a_console_has_an_address_at_the_proxy(site: Site) -> None:
    url = site.fields("console url show --novnc private-instance")["url"]
    page, token = url.split("?", 1)
    assert page == "http://controller01:6080/vnc_auto.html"
    assert "token" in token
    said = site.user.run(f"curl -s -o /dev/null -w '%{{http_code}} %{{content_type}}' {page}")
    assert said.startswith("200 text/html")


def test_a_role_that_is_killed_goes_on(site: Site) -> None:
    site.controller.run("kill -9 $(cat /run/units/openstack-nova-conductor.service)")
    site.openstack("server stop private-instance")
    site.controller.run("systemctl start openstack-nova-conductor.service", timeout=300)
    status = f". /root/admin-openrc.sh; {site.base.client} server show private-instance -f value -c status"
    site.controller.until(f"test $({status}) = SHUTOFF", 240, status)


def test_everything_is_deleted_and_nothing_is_left(site: Site) -> None:
    site.openstack("server delete --wait private-instance public-instance", timeout=300)
    assert json.loads(site.openstack("server list --all-projects -f json")) == []
    assert site.compute.run("virsh -q list --all").strip() == ""
    assert "tap" not in site.compute.run("ls /sys/class/net")
    assert json.loads(site.openstack("port list --device-owner compute:nova -f json")) == []
    (hypervisor,) = json.loads(site.openstack("hypervisor list --long -f json"))
    assert (hypervisor["vCPUs Used"], hypervisor["Memory MB Used"]) == (0, 0)
