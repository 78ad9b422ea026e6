"""What users and operators do with the cloud of the guide, up to its being empty again."""

from __future__ import annotations

import base64
import json
import re

from tests.guide.chapter import UNITS
from tests.guide.deviations import INSTALLING
from tests.guide.marks import guide, whole
from tests.guide.site import BIN, CHECKOUT, Site, tiny_image
from tests.support.guide import COMPUTE, DOCTOR, PASSWORD

pytestmark = [guide, whole]

_SSH = "ssh -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@"
_KEPT = 512
"""MiB for the host itself, which count as used: the default of `reserved_host_memory_mb`."""
_BOOT = "server create --flavor m1.tiny --image tiny --key-name mykey --security-group guests"


def test_networks_security_group_key_image_and_flavor(site: Site) -> None:
    site.openstack(
        "network create --external --share --provider-network-type flat --provider-physical-network public public"
    )
    site.openstack(
        "subnet create --network public --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 "
        "--allocation-pool start=203.0.113.101,end=203.0.113.200 public"
    )
    site.openstack("network create private")
    site.openstack("subnet create --network private --subnet-range 172.16.1.0/24 private")
    site.openstack("security group create guests")
    site.openstack("router create router")
    site.openstack("router add subnet router private")
    site.openstack("router set --external-gateway public router")
    site.controller.run("ssh-keygen -q -N '' -t ed25519 -f /root/.ssh/id_ed25519")
    site.openstack("keypair create --public-key /root/.ssh/id_ed25519.pub mykey")
    site.user.write("/root/key", site.controller.read("/root/.ssh/id_ed25519"), mode="600")
    site.controller.write("/root/tiny.qcow2.b64", base64.b64encode(tiny_image().read_bytes()).decode())
    site.controller.run("base64 -d /root/tiny.qcow2.b64 >/root/tiny.qcow2; rm /root/tiny.qcow2.b64")
    site.openstack(
        "image create --disk-format qcow2 --container-format bare --public --file /root/tiny.qcow2 tiny", timeout=300
    )
    site.openstack("flavor create --vcpus 1 --ram 512 --disk 1 m1.tiny")


def test_a_server_on_the_provider_network_is_let_in_to_by_its_security_group(site: Site) -> None:
    site.openstack(f"{_BOOT} --network public --wait public-instance", timeout=600)
    address = _address(site, "public-instance", "public", r"203\.0\.113\.\d+")
    site.ready("public-instance", address)
    said = site.user.run(f"ping -c 3 -W 2 {address}", check=False)
    assert "100% packet loss" in said
    for rule in ("--protocol icmp", "--protocol tcp --dst-port 22"):
        site.openstack(f"security group rule create {rule} guests")
    site.user.until(f"ping -c 1 -W 2 {address}", 120)
    (port,) = site.listed("port list --server public-instance")
    assert site.shown(f"port show {port['ID']}")["binding_vif_type"] == "bridge"
    assert f"tap{port['ID'][:11]}" in site.compute.run("ls /sys/class/net")
    assert site.user.until(f"{_SSH}{address} hostname", 120).strip() == "public-instance"


def test_a_server_on_the_self_service_network(site: Site) -> None:
    site.openstack(f"{_BOOT} --network private --wait private-instance", timeout=600)
    shown = site.shown("server show private-instance")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "compute01")
    address = _address(site, "private-instance", "private", r"172\.16\.1\.\d+")
    site.ready("private-instance", address)


def test_a_floating_ip_leads_to_it(site: Site) -> None:
    address = site.shown("floating ip create public")["floating_ip_address"]
    site.openstack(f"server add floating ip private-instance {address}")
    site.user.until(f"ping -c 1 -W 2 {address}", 120)
    assert site.user.until(f"{_SSH}{address} hostname", 120).strip() == "private-instance"
    # Through Neutron's metadata agent, which signs for the guest.
    ask = "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"
    assert json.loads(site.user.run(f"{_SSH}{address} {ask}"))["name"] == "private-instance"


def test_a_browser_sees_the_guests_screen_and_types(site: Site) -> None:
    url = site.shown("console url show --novnc private-instance")["url"]
    assert re.fullmatch(r"http://controller01:6080/vnc_auto\.html\?\S*token\S+", url)
    inside = f"cd {CHECKOUT}; PYTHONPATH={CHECKOUT}/src:{CHECKOUT} {BIN}/python -m tests.guide.browser '{url}'"
    site.user.run(inside, timeout=900)


def test_a_conductor_that_is_killed_loses_nothing(site: Site) -> None:
    site.controller.run("kill -9 -$(cat /run/units/openstack-nova-conductor.service)")
    site.openstack("server stop private-instance")
    assert site.shown("server show private-instance")["OS-EXT-STS:task_state"] == "powering-off"
    site.controller.run("systemctl start openstack-nova-conductor.service", timeout=300)
    site.becomes("server show private-instance", "status", "SHUTOFF")


def test_while_the_broker_is_away_the_api_accepts_and_nothing_is_lost(site: Site) -> None:
    site.controller.run("rabbitmqctl stop_app", timeout=120)
    site.openstack("server start private-instance")
    assert site.shown("server show private-instance")["OS-EXT-STS:task_state"] == "powering-on"
    site.controller.run("rabbitmqctl start_app", timeout=120)
    site.becomes("server show private-instance", "status", "ACTIVE")


def test_a_second_compute_node_joins(site: Site) -> None:
    node = site.second
    site.base.networking.add(node)
    site.put_programs(node)
    site.prepare_libvirt(node)
    # The Networking chapter's part is in the first node's file alone: an agent does without.
    node.write("/etc/nova/nova.conf", COMPUTE.replace(site.compute.address, node.address), mode="640")
    node.run("systemctl enable libvirtd.service openstack-nova-compute.service")
    node.run("systemctl start libvirtd.service openstack-nova-compute.service", timeout=300)
    site.becomes("compute service list --service nova-compute --host compute02", "State", "up", 180)
    found = {each["Hypervisor Hostname"]: each["State"] for each in site.listed("hypervisor list")}
    assert found == {"compute01": "up", "compute02": "up"}


def test_servers_on_both_nodes_reach_each_other(site: Site) -> None:
    site.openstack("compute service set --disable --disable-reason full compute01 nova-compute")
    site.openstack(f"{_BOOT} --network private --wait second-instance", timeout=600)
    site.openstack("compute service set --enable compute01 nova-compute")
    assert site.shown("server show second-instance")["OS-EXT-SRV-ATTR:host"] == "compute02"
    address = _address(site, "second-instance", "private", r"172\.16\.1\.\d+")
    site.ready("second-instance", address)
    (floating,) = site.listed("floating ip list")
    outside = floating["Floating IP Address"]
    site.user.until(f"{_SSH}{outside} ping -c 1 -W 2 {address}", 120)


def test_doctor_finds_nothing_wrong_with_networking_and_on_the_new_node(site: Site) -> None:
    for machine in (site.controller, site.compute, site.second):
        said = machine.run(f"{DOCTOR} --json || true", timeout=300)
        found = {each["check"]: each["result"] for each in json.loads(said)["checks"]}
        # It looks at what the machine's file names.
        named = {"image"} if machine is site.second else {"image", "networking", "networking: agents"}
        assert {check: found.get(check) for check in ("image", "networking", "networking: agents")} == {
            check: "ok" if check in named else None for check in ("image", "networking", "networking: agents")
        }, said
        assert {check for check, result in found.items() if result == "wrong"} <= {"disk"}, said


def test_the_second_compute_node_leaves(site: Site) -> None:
    site.openstack("server delete --wait second-instance", timeout=300)
    assert site.second.run("virsh -q list --all").strip() == ""
    site.openstack("compute service set --disable compute02 nova-compute")
    site.second.run("systemctl stop openstack-nova-compute.service", timeout=120)
    (service,) = site.listed("compute service list --service nova-compute --host compute02")
    site.openstack(f"compute service delete {service['ID']}")
    (agent,) = site.listed("network agent list --host compute02")
    site.second.run("pkill -f neutron-linuxbridge-agent")
    site.openstack(f"network agent delete {agent['ID']}")
    assert {each["Host"] for each in site.listed("compute service list --service nova-compute")} == {"compute01"}
    assert [each["Hypervisor Hostname"] for each in site.listed("hypervisor list")] == ["compute01"]


def test_everything_is_deleted_and_nothing_is_left(site: Site) -> None:
    site.openstack("server delete --wait private-instance public-instance", timeout=300)
    assert site.listed("server list --all-projects") == []
    assert site.compute.run("virsh -q list --all").strip() == ""
    assert site.compute.run("ls /sys/class/net | grep ^tap", check=False) == ""
    assert site.compute.run("ls /var/lib/nova/instances | grep -v ^_base", check=False) == ""
    assert site.listed("port list --device-owner compute:nova") == []
    (hypervisor,) = site.listed("hypervisor list --long")
    assert (hypervisor["vCPUs Used"], hypervisor["Memory MB Used"]) == (0, _KEPT)
    allocated = "SELECT vcpus_used, memory_mb_used, local_gb_used, running_vms FROM nova.compute_nodes"
    assert site.controller.run(f"mysql -N -u root -p'{PASSWORD}'", stdin=allocated).split() == ["0"] * 4
    (floating,) = site.listed("floating ip list")
    for words in (
        f"floating ip delete {floating['ID']}", "router remove subnet router private", "router delete router",
        "network delete private public", "security group delete guests", "image delete tiny", "keypair delete mykey",
        "flavor delete m1.tiny",
    ):  # fmt: skip
        site.openstack(words)
    assert site.listed("port list") == []


def test_rows_of_deleted_servers_are_archived_and_purged(site: Site) -> None:
    for command, said in (
        ("db archive_deleted_rows --until-complete --verbose", r"[\s\S]*\| instances +\| 3 [\s\S]*"),
        ("db purge --all --verbose", r"[\s\S]*instances: 3 rows dropped[\s\S]*"),
    ):
        done = site.controller.run(f'su -s /bin/sh -c "nova-manage {command}" nova')
        assert re.fullmatch(said, done), done


def test_services_stop_in_order_and_no_log_has_a_secret(site: Site) -> None:
    units = " ".join(UNITS)
    site.controller.run(f"systemctl stop {units}", timeout=300)
    assert site.controller.run(f"systemctl is-active {units}", check=False).split() == ["inactive"] * len(UNITS)
    for machine in (site.controller, site.compute):
        assert machine.run("grep -rlF 'Password123$' /var/log/nova /var/log/openstack-nova-*", check=False) == ""


def test_the_installation_page_has_no_command_that_was_not_typed(site: Site) -> None:
    """But for what installs packages; and a test of the page's compares its configuration files with the run's."""
    page = (CHECKOUT / "docs/install/en.md").read_text()
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)).splitlines()
    typed = "\n".join(script for machine in site.lan.machines for script in machine.typed)
    missing = []
    for line in lines:
        words = (r"\S+" if re.fullmatch("[A-Z]+", word) else re.escape(word) for word in line.split())
        if not re.search(".*".join(words), typed):
            missing.append(line)
    assert [line for line in missing if not re.match(INSTALLING, line)] == []


def _address(site: Site, server: str, network: str, pattern: str) -> str:
    found = re.fullmatch(pattern, site.shown(f"server show {server}")["addresses"][network][0])
    assert found is not None
    return found[0]
