"""What each system of the guide's site must show beside the guide's own steps, before a server is there."""

from __future__ import annotations

import json
import re

import pytest

from tests.guide.chapter import UNITS
from tests.guide.marks import WHOLE, guide, whole
from tests.guide.site import CHECKOUT, Site
from tests.support.guide import CONTROLLER, DOCTOR, NEUTRON_OF_COMPUTE, PASSWORD, PROXY_OF_METADATA

pytestmark = guide

CELL = r"[0-9a-f-]{36}"
COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("nova-manage db sync", 0, ""),
    ("nova-manage api_db sync", 0, ""),
    ("nova-manage db version", 0, r"\w+\n"),
    ("nova-manage api_db version", 0, r"\w+\n"),
    ("nova-manage db online_data_migrations", 0, r"Running batches of 50 until complete\n[\s\S]*Total Needed[\s\S]*"),
    ("nova-manage db online_data_migrations --max-count 0", 127, r"Must supply a positive value for max_number\n"),
    ("nova-manage db archive_deleted_rows --verbose", 0, r"Nothing was archived\.\n"),
    ("nova-manage db archive_deleted_rows --max_rows -1", 2, r"Must supply a positive value for max_rows\n"),
    ("nova-manage db purge", 1, r"Either --before or --all is required\n"),
    ("nova-manage db purge --all", 3, ""),
    ("nova-manage cell_v2 map_cell0", 0, r"Cell0 is already setup\n"),
    ("nova-manage cell_v2 simple_cell_setup", 0, r"[\s\S]*"),
    ("nova-manage cell_v2 create_cell --name=cell1 --verbose", 0, rf"{CELL}\n"),
    ("nova-manage cell_v2 discover_hosts --verbose", 0, rf"Found 2 cell mappings\.\n[\s\S]*cell: {CELL}\n"),
    ("nova-manage cell_v2 list_cells", 0, r"[\s\S]*\| cell0 [\s\S]*\| cell1 [\s\S]*"),
    ("nova-manage cell_v2 list_hosts", 0, r"[\s\S]*\| compute01 [\s\S]*"),
    ("nova-status upgrade check", 1, r"[\s\S]*Check: Configuration[\s\S]*Check: Database schema[\s\S]*"),
)
"""Command, exit code, output; nova-status warns of the options that do nothing here."""


@pytest.mark.parametrize(("command", "code", "output"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_the_databases_commands_on_mariadb(site: Site, command: str, code: int, output: str) -> None:
    said = site.controller.run(f'su -s /bin/sh -c "{command}" nova; echo "exit $?"')
    assert re.fullmatch(rf"{output}exit {code}\n", said), said
    assert "Password123" not in said


def test_config_check_accepts_the_guides_files(site: Site) -> None:
    for machine in (site.controller, site.compute):
        said = machine.run("kilonova config check --config-file /etc/nova/nova.conf")
        assert "Password123" not in said


def test_doctor_finds_nothing_wrong_with_what_the_guide_has_made(site: Site) -> None:
    of_both = {"configuration", "broker", "identity", "secrets"}
    if not WHOLE:
        # Debian's Identity, as its chapter starts it, does not say what time it is.
        of_both.add("clock: Identity")
    wanted = {
        site.controller: of_both
        | {"database", "database: schema", "database: grants", "role: nova-conductor", "role: nova-scheduler"}
        | {"role: nova-consoleauth", "hosts", "clock: compute01", "host: compute01", "endpoint: compute"}
        | {"console: page", "console: tokens"},
        site.compute: of_both | {"libvirt", "libvirt: emulator", "libvirt: machine", "console: page"},
    }
    for machine, checks in wanted.items():
        said = machine.run(f"{DOCTOR} --json || true", timeout=300)
        assert "Password123" not in said
        found = json.loads(said)["checks"]
        # An answer that takes seconds on a busy machine makes clocks seem apart.
        fine = {each["check"] for each in found if each["result"] == "ok" or each["check"].startswith("clock: ")}
        assert checks <= fine, said
        wrong = {each["check"] for each in found if each["result"] == "wrong"}
        # How much room this machine has is its own affair; the bounded form has no Image.
        assert wrong <= ({"disk"} if WHOLE else {"disk", "image"}), said
        # The guide has one user for all hosts.
        assert "broker: identities" in {each["check"] for each in found if each["result"] == "warning"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("my_ipp = 10.0.0.1", r"my_ip\b"),
        ("enabled_apis = ec2,osapi_compute,metadata", r"EC2"),
        ("firewall_driver = nova.virt.libvirt.firewall.IptablesFirewallDriver", r"security groups|Networking|Neutron"),
    ],
)
def test_what_is_not_honoured_stops_the_start_and_says_what_to_write(site: Site, option: str, said: str) -> None:
    site.controller.write("/root/other.conf", f"[DEFAULT]\n{option}\n")
    files = "--config-file /etc/nova/nova.conf --config-file /root/other.conf"
    checked = site.controller.run(f"kilonova config check {files}; echo exit $?")
    assert checked.endswith("exit 1\n"), checked
    assert re.search(said, checked), checked
    started = site.controller.run(f"timeout 60 nova-api {files}; echo exit $?")
    assert re.search(r"exit (?!0|124)", started), started
    assert re.search(said, started), started


def test_units_are_sound_and_services_run_as_they_say(site: Site) -> None:
    files = " ".join(f"/lib/systemd/system/{path.name}" for path in (CHECKOUT / "deploy/systemd").iterdir())
    for machine in (site.controller, site.compute):
        # The real one; no unit of another package is looked at.
        assert machine.run(f"/usr/bin/systemd-analyze verify {files} 2>&1 | grep nova", check=False) == ""
    for unit in UNITS:
        assert site.controller.run(f"stat -c %U /proc/$(cat /run/units/{unit})").strip() == "nova"
    assert site.compute.run("stat -c %U /proc/$(cat /run/units/openstack-nova-compute.service)").strip() == "root"


def test_the_authoritys_key_is_for_nova_cert_alone(site: Site) -> None:
    key = "/var/lib/nova/CA/private/cakey.pem"
    assert site.controller.run(f"stat -c '%U %a' {key}").strip() == "nova 600"
    for unit in UNITS:
        inside = f"nsenter --target=$(cat /run/units/{unit}) --mount setpriv --reuid=nova --regid=nova --init-groups"
        said = site.controller.run(f"{inside} cat {key}; echo exit $?")
        assert said.endswith("exit 0\n") == (unit == "openstack-nova-cert.service"), (unit, said)


def test_certificates_are_issued_under_v2_only(site: Site) -> None:
    script = """
. /root/admin-openrc.sh
token=$(openstack token issue -f value -c id)
project=$(openstack token issue -f value -c project_id)
ask() { curl -s -H "X-Auth-Token: $token" "$@"; }
ask http://controller01:8774/v2/$project/os-certificates/root
echo
ask -X POST http://controller01:8774/v2/$project/os-certificates -H 'Content-Type: application/json' -d '{}'
echo
ask -o /dev/null -w '%{http_code}' http://controller01:8774/v2.1/os-certificates/root
"""
    root, made, status = site.controller.run(script).splitlines()
    assert json.loads(root)["certificate"]["data"].startswith("-----BEGIN CERTIFICATE-----")
    issued = json.loads(made)["certificate"]
    assert "PRIVATE KEY" in issued["private_key"]
    site.controller.write("/root/ca.pem", json.loads(root)["certificate"]["data"])
    site.controller.write("/root/issued.pem", issued["data"])
    assert site.controller.run("openssl verify -CAfile /root/ca.pem /root/issued.pem").strip() == "/root/issued.pem: OK"
    assert status == "410"


def test_ports_are_the_guides_and_ec2_is_off(site: Site) -> None:
    listening = set(re.findall(r":(\d+) ", site.controller.run("ss -Hltn")))
    assert {"8774", "8775", "6080"} <= listening
    assert "8773" not in listening


def test_roles_without_database_have_no_connection_to_it(site: Site) -> None:
    connected = site.controller.run("ss -Htnp state established '( dport = :3306 )'")
    for unit in UNITS:
        pid = site.controller.run(f"cat /run/units/{unit}").strip()
        has = f"pid={pid}," in connected
        assert has == (unit.split("-")[2] not in ("cert.service", "novncproxy.service")), (unit, connected)
    assert site.compute.run("ss -Htn state established '( dport = :3306 )'").strip() == ""
    assert "[database]" not in site.compute.read("/etc/nova/nova.conf")


def test_todays_names_of_options_do_the_same(site: Site) -> None:
    """And several brokers in one address, the first of which is not there."""
    today = CONTROLLER
    for old, new in (
        ("auth_uri = ", "www_authenticate_uri = "),
        ("auth_url = http://controller01:35357", "auth_url = http://controller01:5000/v3"),
        ("auth_plugin = ", "auth_type = "),
        ("project_domain_id = default", "project_domain_name = Default"),
        ("user_domain_id = default", "user_domain_name = Default"),
        ("vncserver_listen", "server_listen"),
        ("vncserver_proxyclient_address", "server_proxyclient_address"),
        ("[glance]\nhost = controller01\n", "[glance]\napi_servers = http://controller01:9292\n"),
        (
            "rpc_backend = rabbit\n",
            f"transport_url = rabbit://openstack:{PASSWORD}@controller01:5999,openstack:{PASSWORD}@controller01:5672/\n",
        ),
        ("[oslo_messaging_rabbit]\nrabbit_host = controller01\n", ""),
        (f"rabbit_userid = openstack\nrabbit_password = {PASSWORD}\n", ""),
        ("network_api_class = nova.network.neutronv2.api.API\n", "use_neutron = true\n"),
        ("security_group_api = neutron\n", ""),
        ("linuxnet_interface_driver = nova.network.linux_net.NeutronLinuxBridgeInterfaceDriver\n", ""),
        ("firewall_driver = nova.virt.firewall.NoopFirewallDriver\n", ""),
        ("verbose = True\n", "debug = False\n"),
    ):
        assert old in today, old
        today = today.replace(old, new)
    _configure(site, today)
    site.becomes("compute service list --service nova-compute", "State", "up", 90)
    _configure(site, CONTROLLER)
    site.becomes("compute service list --service nova-compute", "State", "up", 90)


@whole
def test_networking_is_made_known_to_compute(site: Site) -> None:
    """The part of the guide's Networking chapter that is about Compute."""
    site.controller.run("cat >>/etc/nova/nova.conf", stdin=NEUTRON_OF_COMPUTE + PROXY_OF_METADATA)
    site.compute.run("cat >>/etc/nova/nova.conf", stdin=NEUTRON_OF_COMPUTE)
    site.controller.run("systemctl restart openstack-nova-api.service openstack-nova-conductor.service", timeout=300)
    site.compute.run("systemctl restart openstack-nova-compute.service", timeout=300)


@whole
def test_metadata_wants_the_networking_agents_signature(site: Site) -> None:
    headers = (
        "-H 'X-Instance-ID: 8b0f7c3e-0000-4000-8000-000000000000' -H 'X-Tenant-ID: x' -H 'X-Forwarded-For: 172.16.1.9'"
    )
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' {headers} http://controller01:8775/openstack/latest/meta_data.json"
    assert site.user.run(f"{ask} -H 'X-Instance-ID-Signature: {'0' * 64}'") == "403"


def _configure(site: Site, content: str) -> None:
    site.controller.write("/etc/nova/nova.conf", content, mode="640")
    site.controller.run(f"chgrp nova /etc/nova/nova.conf; systemctl restart {' '.join(UNITS)}", timeout=300)
