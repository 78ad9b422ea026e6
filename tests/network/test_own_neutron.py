"""A Neutron that somebody else started, as operators have one: `kilonova network` beside it, `kilonova plane` on hosts.

All three are processes by the ordinary commands, on a broker; the hosts are namespaces with a wire between them.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.allinone.services import service_python
from kilonova.network.plane import names
from kilonova.network.plane.apply import remove_everything
from tests.support.neutron import PROJECT, Neutron, eventually
from tests.support.neutron_documents import Json
from tests.support.planes import HOSTS, ip, listening, make_hosts, plug, reaches
from tests.support.processes import accepts, end, free_port, spawn, wait_until
from tests.support.rabbit import Broker
from tests.support.stand_ins import PASSWORD
from tests.support.wheel import install_alone

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0

_CONF = """\
[DEFAULT]
host = {host}
my_ip = {address}
transport_url = {transport_url}
control_exchange = {prefix}
state_path = {directory}/{host}
[neutron]
endpoint_override = {neutron}
auth_url = http://127.0.0.1:{identity}
username = nova
password = {password}
project_name = service
[plane]
hints = {hints}
namespace = {prefix}{host}
[prometheus]
enabled = false
"""


@dataclass(kw_only=True)
class Site:
    """`conf`: configuration files by name; `guests`: namespaces of what has been plugged."""

    prefix: str
    directory: Path
    neutron: Neutron
    conf: dict[str, Path]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    guests: set[str] = field(default_factory=set)

    def start(self, name: str, role: str) -> None:
        """`kilonova ROLE` with the configuration called `name`."""
        command = [sys.executable, "-m", "kilonova.cli", role, "--config-file", str(self.conf[name])]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        self.processes[name] = spawn(command, log=self.log(name), env=environment)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def kill(self, name: str) -> None:
        end(self.processes.pop(name), how=signal.SIGKILL)

    def space(self, host: str) -> str:
        return f"{self.prefix}{host}"

    def guest(self, host: str, port: Json, guest: str = "") -> str:
        """The port's guest is on that host; its namespace."""
        name = f"{self.prefix}{guest or port['name']}"
        self.guests.add(name)
        plug(self.space(host), name, port, port["fixed_ips"][0]["ip_address"])
        return name

    def status(self, port: Json) -> tuple[str, str]:
        """(host, status) as Neutron shows them."""
        shown = self.neutron.show("port", port["id"])
        return shown["binding:host_id"], shown["status"]

    def bindings(self, port: Json) -> dict[str, str]:
        found = self.neutron.call("GET", f"/ports/{port['id']}/bindings")["bindings"]
        return {each["host"]: each["status"] for each in found}

    def has(self, host: str, port: Json) -> bool:
        """Whether the host's rules know the port."""
        shown = ip("netns", "exec", self.space(host), "nft", "list", "ruleset")
        return f'"{names.tap(port["id"])}"' in shown

    def told(self, port: Json) -> int:
        """How often Compute has heard that it is plugged."""
        return self.neutron.receiver.of(port["id"]).count("network-vif-plugged")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed into Neutron's environment, without anything that it depends on."""
    return install_alone(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, broker: Broker, installed: Path) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("own-neutron")
    prefix = f"kt{secrets.token_hex(3)}"
    identity, hints = free_port(), f"127.0.0.1:{free_port()}"
    stand_ins = spawn(
        [sys.executable, "-m", "tests.support.stand_ins", str(identity)], log=directory / "ids.log", env={**os.environ}
    )
    neutron = Neutron(directory / "cloud", hints=hints, driver=installed)
    conf = {}
    for name, number in {"network": 9, **HOSTS}.items():
        conf[name] = directory / f"{name}.conf"
        conf[name].write_text(
            _CONF.format(
                host=name, address=f"192.0.2.{number}", transport_url=broker.transport_url, prefix=prefix,
                directory=directory, neutron=neutron.url, identity=identity, password=PASSWORD, hints=hints,
            )
        )  # fmt: skip
    made = Site(prefix=prefix, directory=directory, neutron=neutron, conf=conf)
    try:
        wait_until(lambda: accepts(identity), stand_ins, what="the stand-ins", log=directory / "ids.log")
        neutron.start()
        make_hosts(prefix)
        made.start("network", "network")
        for host in HOSTS:
            made.start(host, "plane")
        yield made
    finally:
        for process in made.processes.values():
            end(process)
        neutron.close()
        end(stand_ins)
        for host in HOSTS:
            remove_everything(names.Spaces(made.space(host)), directory / host / "plane")
        for name in [*made.guests, made.space("wire")]:
            netns.remove(name)


@dataclass
class World:
    """Guests `a` (on h1), `b` (on h2) and `c` (on h1) on one network; `group`: who may enter."""

    site: Site
    network: Json
    group: Json
    ports: dict[str, Json]
    spaces: dict[str, str]

    def address(self, name: str) -> str:
        return str(self.ports[name]["fixed_ips"][0]["ip_address"])

    def meets(self, one: str, other: str) -> bool:
        with listening(self.spaces[other], 80):
            return reaches(self.spaces[one], self.address(other), 80)


@pytest.fixture(scope="module")
def world(site: Site) -> World:
    neutron = site.neutron
    network, _ = neutron.network()
    group = neutron.create("security_group", name="web")
    wanted = {"a": "h1", "b": "h2", "c": "h1"}
    ports = {
        name: neutron.server_port(network["id"], host, name=name, security_groups=[group["id"]])
        for name, host in wanted.items()
    }
    assert {port["status"] for port in ports.values()} == {"DOWN"}
    spaces = {name: site.guest(wanted[name], port) for name, port in ports.items()}
    return World(site, network, group, ports, spaces)


_LOAD = """
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from neutron.common import config
config.register_common_config_options()
for group, name in (
    ("neutron.ml2.mechanism_drivers", "kilonova"),
    ("neutron.service_plugins", "kilonova"),
    ("neutron.service_plugins", "kilonova-router"),
):
    (entry,) = entry_points(group=group, name=name)
    print(sys.modules[entry.load().__module__].__file__)
# Without which no other part of Kilonova is imported.
print(*(each for each in ("httpx", "msgspec", "structlog") if find_spec(each) is None))
"""


def test_neutrons_environment_needs_nothing_of_kilonovas_but_the_wheel(installed: Path) -> None:
    command = [str(service_python("neutron")), "-P", "-c", _LOAD]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    *files, absent = done.stdout.splitlines()
    assert {Path(file).parent for file in files} == {installed / "kilonova/network"}
    assert absent == "httpx msgspec structlog"


def test_ports_become_active_when_their_hosts_have_wired_them(world: World) -> None:
    site = world.site
    for name, host in (("a", "h1"), ("b", "h2"), ("c", "h1")):
        port = world.ports[name]
        eventually(lambda port=port, host=host: site.status(port) == (host, "ACTIVE"), f"{name} active", PATIENCE)  # type: ignore[misc]
        eventually(lambda port=port: site.told(port) == 1, f"Compute hears of {name}", PATIENCE)  # type: ignore[misc]
    (dhcp,) = site.neutron.call("GET", f"/ports?network_id={world.network['id']}&device_owner=network:dhcp")["ports"]
    assert dhcp["binding:host_id"] in HOSTS


def test_a_rule_opens_the_way_between_the_hosts(world: World) -> None:
    assert not world.meets("a", "b")
    rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    world.site.neutron.create("security_group_rule", security_group_id=world.group["id"], **rule)
    eventually(lambda: world.meets("a", "b"), "the rule is in", PATIENCE)


def test_a_live_migration_by_bindings(world: World) -> None:
    """Made on the destination, activated, deleted on the source: both hosts and all states follow."""
    site, port = world.site, world.ports["a"]
    neutron, path = site.neutron, f"/ports/{port['id']}/bindings"
    eventually(lambda: world.meets("c", "a"), "neighbours on h1", PATIENCE)
    before = site.told(port)
    made = neutron.call("POST", path, {"binding": {"host": "h2", "project_id": PROJECT}})["binding"]
    assert (made["status"], made["vif_type"]) == ("INACTIVE", "bridge")
    # The destination is ready for the guest, which still runs where the port is bound.
    eventually(lambda: site.has("h2", port), "wired on the destination", PATIENCE)
    arrived = site.guest("h2", port, "moved")
    eventually(lambda: site.told(port) > before, "Compute hears of the destination", PATIENCE)
    assert site.has("h1", port)
    assert site.status(port) == ("h1", "ACTIVE")
    assert site.bindings(port) == {"h1": "ACTIVE", "h2": "INACTIVE"}
    neutron.call("PUT", f"{path}/h2/activate")
    netns.remove(world.spaces["a"])
    site.guests.discard(world.spaces["a"])
    world.spaces["a"] = arrived
    assert site.bindings(port) == {"h1": "INACTIVE", "h2": "ACTIVE"}
    eventually(lambda: site.status(port) == ("h2", "ACTIVE"), "active on the destination", PATIENCE)
    # What is sent to it leaves the old host by the tunnel.
    eventually(lambda: world.meets("c", "a"), "from the old host", PATIENCE)
    eventually(lambda: world.meets("b", "a"), "neighbours on h2", PATIENCE)
    neutron.call("DELETE", f"{path}/h1")
    eventually(lambda: not site.has("h1", port), "the old host forgets it", PATIENCE)
    assert site.has("h2", port)
    assert site.status(port) == ("h2", "ACTIVE")


def test_a_migration_that_is_given_up_leaves_nothing_behind(world: World) -> None:
    site, port = world.site, world.ports["b"]
    path = f"/ports/{port['id']}/bindings"
    site.neutron.call("POST", path, {"binding": {"host": "h1", "project_id": PROJECT}})
    eventually(lambda: site.has("h1", port), "wired on the destination", PATIENCE)
    site.neutron.call("DELETE", f"{path}/h1")
    eventually(lambda: not site.has("h1", port), "no more", PATIENCE)
    assert site.status(port) == ("h2", "ACTIVE")
    assert world.meets("c", "b")


def test_processes_that_die_disturb_no_guest_and_go_on_where_they_were(world: World) -> None:
    site = world.site
    for name in ("network", *HOSTS):
        site.kill(name)
    assert world.meets("c", "b")
    late = site.neutron.server_port(world.network["id"], "h2", name=f"late-{uuid.uuid4().hex[:4]}")
    site.guest("h2", late)
    site.start("network", "network")
    for host in HOSTS:
        site.start(host, "plane")
    eventually(lambda: site.status(late) == ("h2", "ACTIVE"), "what was asked meanwhile", PATIENCE)
    assert site.status(world.ports["b"]) == ("h2", "ACTIVE")
    assert world.meets("c", "b")
    site.neutron.call("DELETE", f"/ports/{late['id']}")
    eventually(lambda: not site.has("h2", late), "gone from its host", PATIENCE)


def test_a_host_has_one_plane(world: World) -> None:
    command = [sys.executable, "-m", "kilonova.cli", "plane", "--config-file", str(world.site.conf["h1"])]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode != 0
    assert "Another plane for host 'h1'" in done.stderr
