"""What a change costs the network plane of a host with many ports: CPU of the plane and of the programs it runs.

`python -m bench.plane [PORTS]` (root). The ports' taps are there, as guests' would be; each network of
50 has its DHCP. Goal at 1,000 ports: a rule's change under a second of CPU, and costs that follow what changed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kilonova import netns
from kilonova.log import configure
from kilonova.network.desired import plans
from kilonova.network.plan import Plan
from kilonova.network.plane import names
from kilonova.network.plane.apply import Applier, remove_everything
from kilonova.network.plane.links import Site
from kilonova.network.role import PlaneHost
from tests.support.neutron_documents import Documents, uid

PER_NETWORK, PER_GROUP = 50, 100


class World:
    def __init__(self, ports: int) -> None:
        self.documents = Documents()
        self.ports = 0
        for _ in range(ports):
            self.add_port()

    def add_port(self) -> str:
        number, self.ports = self.ports, self.ports + 1
        documents = self.documents
        which, place = divmod(number, PER_NETWORK)
        group_name = f"g{number // PER_GROUP}"
        group = documents.kinds["security-groups"].get(uid(group_name)) or documents.group(
            group_name,
            {"direction": "egress"},
            {"remote_group_id": uid(group_name)},
            *({"protocol": "tcp", "port_range_min": port, "port_range_max": port} for port in (22, 80, 443)),
        )
        network = documents.kinds["networks"].get(uid(f"n{which}"))
        if network is None:
            network = documents.network(f"n{which}", which + 1)
            subnet = documents.subnet(f"s{which}", network, "10.0.0.0/24")
            documents.dhcp_port(network, "h", (subnet, "10.0.0.2"))
        subnet = documents.kinds["subnets"][uid(f"s{which}")]
        name = f"p{number}"
        documents.port(name, network, "h", (subnet, f"10.0.0.{place + 10}"), security_groups=[group["id"]])
        return uid(name)

    def plan(self) -> Plan:
        return plans(self.documents.kinds, {"h": PlaneHost(host="h", incarnation="1")})["h"]


def cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def plug(space: str, ports: list[str]) -> None:
    lines = [f"tuntap add dev {names.tap(port)} mode tap" for port in ports]
    text = "\n".join([*lines, *(f"link set {names.tap(port)} up" for port in ports)])
    subprocess.run(["ip", "-n", space, "-batch", "-"], input=text + "\n", text=True, check=True)


def measure(ports: int) -> None:
    with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory() as scratch:
        configure(nowhere)
        spaces = names.Spaces(f"kb{secrets.token_hex(3)}")
        directory = Path(scratch) / "plane"
        applier = Applier(spaces, directory, Site())
        applier.prepare()
        world = World(ports)
        try:
            plug(
                spaces.host,
                [port["id"] for port in world.documents.kinds["ports"].values() if "compute" in port["device_owner"]],
            )
            group = world.documents.kinds["security-groups"][uid("g0")]

            def step(what: str, touched: set[str], change: Callable[[], object] = lambda: None) -> None:
                change()
                commands, began, wall = applier.shell.count, cpu(), time.perf_counter()
                plan = world.plan()
                planned = cpu()
                outcome = applier.apply(plan, touched)
                assert not outcome.failed, outcome.failed
                done = f"{len(outcome.ports)} ports wired, {applier.shell.count - commands} commands"
                print(
                    f"{what:44} plan {planned - began:6.3f} s   apply {cpu() - planned:6.3f} s of CPU   "
                    f"{time.perf_counter() - wall:6.2f} s   {done}"
                )

            step("everything, from nothing", set())
            step("nothing has changed", set())
            step(
                "one rule more in a group",
                set(),
                lambda: group["security_group_rules"].append(
                    {**group["security_group_rules"][-1], "port_range_min": 8080, "port_range_max": 8080}
                ),
            )
            step("one member more in a group", set(), lambda: plug(spaces.host, [world.add_port()]))
            step("a tap came or went", {spaces.host})
            step("everything is looked at", {spaces.host, *applier.inner})
        finally:
            remove_everything(spaces, directory)
            netns.remove(spaces.host)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
