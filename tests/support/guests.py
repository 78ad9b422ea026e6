"""Real guests on a cloud with networks: booted by the SDK, asked over SSH from inside their own network."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
import openstack.config

from kilonova.allinone.settings import netns_name
from kilonova.allinone.state import open_state_dir
from kilonova.cli.guest_image import guest_cache
from kilonova.guest.build import build_image
from kilonova.network.plane.names import Spaces
from tests.support.allinone import Cloud

PATIENCE = 240.0
"""Seconds for a guest to start, or for what is asked of it to come about: they are emulated, and others compute too."""


class Lab:
    """A libvirt cloud with Neutron. `admin` and `demo`: connections of two projects."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.cloud = Cloud(directory, "--hypervisor", "libvirt", "--networking", "neutron", *options)
        self.key = directory.parent / "key"

    def start(self, image: Path | None = None, *, ram: int = 128, disk: int = 1) -> None:
        """With the tiny image unless another one is given."""
        self.cloud.up()
        self.admin, self.demo = self._connect("kilonova"), self._connect("kilonova-demo")
        self.spaces = Spaces(netns_name(open_state_dir(self.cloud.directory).layout.cloud_id))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        public = self.key.with_suffix(".pub").read_text()
        for who in (self.admin, self.demo):
            who.compute.create_keypair(name="lab", public_key=public)
        self.image = self.admin.image.create_image(
            name="tiny", data=(image or build_image(guest_cache())).read_bytes(),
            disk_format="qcow2", container_format="bare",
            visibility="public", allow_duplicates=True,
        )  # fmt: skip
        self.flavor = self.admin.compute.create_flavor(name="nano", ram=ram, vcpus=1, disk=disk)

    def _connect(self, name: str) -> Any:
        config = openstack.config.OpenStackConfig(
            config_files=[str(self.cloud.directory / "clouds.yaml")], load_envvars=False
        )
        return openstack.connection.Connection(config=config.get_one(name))

    # -- networks
    def network(
        self, who: Any, name: str, cidr: str, *, router: bool = False, v6: str | None = None, mode: str = "slaac",
        dns: tuple[str, ...] = (),
    ) -> Any:  # fmt: skip
        """A network with one subnet, and one of IPv6 (`mode`, `dns`); with `router`, linked to the external network."""
        network = who.network.create_network(name=name)
        subnets = [who.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr, name=name)]
        if v6 is not None:
            more = {"ipv6_address_mode": mode, "ipv6_ra_mode": mode, "dns_nameservers": list(dns)}
            subnets.append(who.network.create_subnet(network_id=network.id, ip_version=6, cidr=v6, **more))
        if router:
            external = {"network_id": who.network.find_network("public").id}
            made = who.network.create_router(name=name, external_gateway_info=external)
            for subnet in subnets:
                who.network.add_interface_to_router(made, subnet=subnet.id)
        return network

    def group(self, who: Any, name: str, *rules: dict[str, Any]) -> Any:
        """A security group: all may leave, SSH and what `rules` say may enter."""
        group = who.network.create_security_group(name=name)
        for rule in ({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}, *rules):
            self.allow(who, group, **rule)
        return group

    def allow(self, who: Any, group: Any, **rule: Any) -> Any:
        rule = {"direction": "ingress", "ethertype": "IPv4"} | rule
        return who.network.create_security_group_rule(security_group_id=group.id, **rule)

    # -- guests
    def boot(
        self, who: Any, name: str, network: Any, address: str, *groups: str, also: tuple[Any, ...] = (), **more: Any
    ) -> Any:
        """Ask for a server with this address, and with NICs in the other networks; `wait` for it."""
        return who.compute.create_server(
            name=name, image_id=self.image.id, flavor_id=self.flavor.id, key_name="lab",
            networks=[{"uuid": network.id, "fixed_ip": address}, *({"uuid": each.id} for each in also)],
            security_groups=[{"name": group} for group in groups], **more,
        )  # fmt: skip

    def encoded(self, user_data: str) -> str:
        return base64.b64encode(user_data.encode()).decode()

    def wait(self, who: Any, *servers: Any, patience: float = PATIENCE) -> list[Any]:
        """Until all have said that they are ready. Raises AssertionError with the fault or the console."""
        found = []
        for server in servers:
            until = time.monotonic() + patience
            while "guest ready" not in (console := self.console(who, server)):
                now = who.compute.get_server(server)
                assert now.status in ("BUILD", "ACTIVE"), now.fault
                assert time.monotonic() < until, console[-3000:]
                time.sleep(0.5)
            found.append(who.compute.get_server(server))
        return found

    def console(self, who: Any, server: Any) -> str:
        if who.compute.get_server(server).status != "ACTIVE":
            return ""
        return str(who.compute.get_server_console_output(server)["output"])

    def port(self, who: Any, server: Any) -> Any:
        (port,) = who.network.ports(device_id=server.id)
        return port

    # -- inside
    def inside(self, network: Any, address: str, command: str, *, user: str = "root") -> str:
        """What a command prints on the guest with this address, asked from the network's DHCP namespace."""
        return self.ssh(["ip", "netns", "exec", self.spaces.dhcp(network.id)], address, command, user=user)

    def ssh(self, before: list[str], address: str, command: str, *, user: str = "root") -> str:
        """Tries again as long as the guest's SSH does not answer."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10", "LogLevel=ERROR"]
        words = [*before, "ssh", "-i", str(self.key), *(f"-o{each}" for each in options), f"{user}@{address}", command]
        until = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
            if done.returncode != 255:
                return done.stdout
            assert time.monotonic() < until, done.stderr
            time.sleep(1)


def eventually(check: Callable[[], bool]) -> None:
    """Raises AssertionError when it does not become true."""
    until = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < until
        time.sleep(0.3)
