"""The installation guide's chapter from its first line to its last, with Kilonova in place of the packages it installs.

The steps are in the guide's order and build on each other: `make guide`. `chapter.py` has them as they are printed,
`deviations.py` all that differs; `test_systems.py` and `test_use.py` go on with the same machines.
"""

from __future__ import annotations

import re

from tests.guide import chapter
from tests.guide.deviations import COMMANDS, FIELDS, GUIDES_TABLES, KEPT_TABLES, MORE, NEW_TABLES, VIRTUALISATION, WORDS
from tests.guide.marks import guide
from tests.guide.site import Site
from tests.support.guide import COMPUTE, CONTROLLER, PASSWORD

pytestmark = guide

PROMPT = "MariaDB [(none)]> "


def test_the_database_is_created(site: Site) -> None:
    site.perform(chapter.DATABASE, [("Enter password:", PASSWORD), *((PROMPT, line) for line in chapter.SQL)])


def test_the_administrators_credentials_are_read(site: Site) -> None:
    site.perform(chapter.CREDENTIALS)


def test_the_service_user_is_created(site: Site) -> None:
    site.perform(chapter.USER, [("User Password:", PASSWORD), ("Repeat User Password:", PASSWORD)])


def test_the_service_user_gets_its_role(site: Site) -> None:
    site.perform(chapter.ROLE)


def test_the_service_and_its_endpoints_are_created(site: Site) -> None:
    service = _value(site.perform(chapter.SERVICE), "id")
    for step in chapter.ENDPOINTS:
        assert _value(site.perform(step), "service_id") == service


def test_the_controllers_packages_are_installed(site: Site) -> None:
    site.install(chapter.PACKAGES)


def test_the_controllers_configuration_is_edited(site: Site) -> None:
    site.put(chapter.EDIT, "/etc/nova/nova.conf", CONTROLLER)


def test_the_database_is_populated_by_the_service_user(site: Site) -> None:
    site.perform(chapter.SYNC)


def test_the_tables_are_shown_to_the_service_user_over_the_network(site: Site) -> None:
    show, use, tables, leave = chapter.LOOK_SQL
    inside = PROMPT.replace("(none)", "nova")
    said = site.perform(
        chapter.LOOK,
        [("Enter password:", PASSWORD), (PROMPT, show), (PROMPT, use), (inside, tables), (inside, leave)],
    )
    found = set(re.findall(r"^\| (\w+) +\|$", said.partition("Tables_in_nova")[2], flags=re.MULTILINE))
    assert found == KEPT_TABLES | NEW_TABLES
    assert f"{len(found)} rows in set" in said
    assert len(GUIDES_TABLES) == 105


def test_the_controllers_services_are_enabled(site: Site) -> None:
    site.perform(chapter.ENABLE)
    for unit in chapter.UNITS:
        link = f"/etc/systemd/system/multi-user.target.wants/{unit}"
        assert site.controller.run(f"readlink -f {link}").strip() == f"/usr/lib/systemd/system/{unit}"


def test_the_controllers_services_are_started(site: Site) -> None:
    site.perform(chapter.START)
    assert site.controller.run(f"systemctl is-active {' '.join(chapter.UNITS)}").split() == ["active"] * 6


def test_the_compute_nodes_packages_are_installed(site: Site) -> None:
    site.install(chapter.COMPUTE_PACKAGES)
    site.prepare_libvirt(site.compute)
    if site.whole:
        # Of sysfsutils: it shows what sysfs has.
        assert "Class = " in site.compute.run("systool -c net")


def test_the_compute_nodes_configuration_is_edited(site: Site) -> None:
    assert COMPUTE.endswith(VIRTUALISATION)
    site.put(chapter.COMPUTE_EDIT, "/etc/nova/nova.conf", COMPUTE)


def test_the_compute_nodes_processor_flags_are_counted(site: Site) -> None:
    # grep fails where it counts none; the guide goes on with QEMU then.
    site.perform(chapter.FLAGS, check=False)


def test_the_compute_nodes_services_are_enabled(site: Site) -> None:
    site.perform(chapter.COMPUTE_ENABLE)


def test_the_compute_nodes_services_are_started(site: Site) -> None:
    site.perform(chapter.COMPUTE_START)
    units = "libvirtd.service openstack-nova-compute.service"
    assert site.compute.run(f"systemctl is-active {units}").split() == ["active"] * 2


def test_nothing_else_differed_from_the_guide(site: Site) -> None:
    assert site.performed == [
        (step.machine, COMMANDS[step].here if step in COMMANDS else step.command) for step in chapter.STEPS
    ]
    assert set(COMMANDS) | set(WORDS) | set(MORE) | set(FIELDS) <= set(chapter.STEPS)
    assert site.controller.read("/etc/nova/nova.conf") == CONTROLLER
    assert site.compute.read("/etc/nova/nova.conf") == COMPUTE


def test_every_service_reports(site: Site) -> None:
    listed = ". /root/admin-openrc.sh; openstack compute service list"
    site.controller.until(f"test $({listed} -f value -c State | grep -c up) = 5", 180, listed)
    found = {
        (each["Binary"], each["Host"], each["Zone"], each["Status"], each["State"])
        for each in site.listed("compute service list")
    }
    internal = {
        (f"nova-{name}", "controller01", "internal", "enabled", "up")
        for name in ("cert", "conductor", "consoleauth", "scheduler")
    }
    assert found == internal | {("nova-compute", "compute01", "nova", "enabled", "up")}
    (hypervisor,) = site.listed("hypervisor list")
    assert (hypervisor["Hypervisor Hostname"], hypervisor["State"]) == ("compute01", "up")


def _value(said: str, field: str) -> str:
    found = re.search(rf"^\| {field} +\| (\S+)", said, flags=re.MULTILINE)
    assert found is not None, said
    return found[1]
