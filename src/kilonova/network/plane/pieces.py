"""The namespaces of a plane, each compared with its part of the plan and changed where it differs. All block."""

from __future__ import annotations

import ipaddress
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from kilonova import netns
from kilonova.network.plan import DhcpPlan, Plan, RouterPlan, RouterPort
from kilonova.network.plane import advertise, dhcp, firewall, garp, inner, links, names, nat
from kilonova.network.plane.daemon import Daemon
from kilonova.network.plane.nft import Nft
from kilonova.network.plane.shell import Shell

_NO_IPV6 = "net.ipv6.conf.default.disable_ipv6=1"
"""Bridges and taps are no hosts: without it each would speak on guests' networks."""

_BRIDGED = ("net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
"""Bridged packets are shown to rules that track connections."""

_ROUTING = (
    *("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_ra=0"),
    *("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"),
)


class HostSpace:
    """The namespace with bridges, tunnels and guests' taps."""

    def __init__(self, shell: Shell, space: str, site: links.Site) -> None:
        self._shell = shell
        self._space = space
        self._site = site
        self._nft = Nft(shell, space)
        self.plugged: set[str] = set()

    def prepare(self) -> None:
        """Raises HostFailure, e.g. when the kernel cannot show bridged packets to its rules."""
        netns.ensure(self._space)
        if not netns.in_namespace(netns.path_of(self._space), _shows_bridged_packets):
            self._shell.run("modprobe", "br_netfilter")
            # For the machine's own bridges nothing is to change: without the module no rule sees their packets.
            self._shell.run("sysctl", "-q", "-w", *(setting.replace("=1", "=0") for setting in _BRIDGED))
        self.settle()

    def settle(self) -> None:
        """Its kernel settings are as they were at the start. Raises OSError."""
        netns.settle(self._space, _BRIDGED if self._site.shared else (_NO_IPV6, *_BRIDGED))

    def bridges(self, plan: Plan) -> None:
        found = self._shell.show(self._space, "-d", "link", "show")
        work = links.work(plan, found, self._site)
        self._shell.change(self._space, work.commands)
        if any(network.vni is not None for network in plan.networks) and self._site.tunnel_ip is not None:
            entries = self._shell.forwarding(self._space)
            commands = links.forwarding_work(plan, entries, self._site)
            self._shell.change(self._space, commands, program="bridge")
        if self._site.shared:
            there = [link["ifname"] for link in self._shell.show(self._space, "link", "show")]
            ours = links.devices(plan, there, self._site)
            netns.settle(self._space, [f"net.ipv6.conf.{device}.disable_ipv6=1" for device in ours])
        self.plugged = work.plugged

    def rules(self, plan: Plan) -> None:
        self._nft.apply(firewall.ruleset(plan))


def _shows_bridged_packets() -> bool:
    return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()


class DhcpSpace:
    """DHCP of one network, and where its guests find the metadata service."""

    proxy = (dhcp.METADATA, 80)

    def __init__(self, shell: Shell, host: str, space: str, directory: Path) -> None:
        self._shell = shell
        self._host = host
        self.space = space
        self.daemons = [Daemon(directory, space)]

    def apply(self, plan: DhcpPlan) -> None:
        inner.make_space(self.space, "net.ipv6.conf.default.accept_ra=0")
        found = inner.devices(self._shell, self.space)
        inner.ensure_device(
            self._shell, self._host, self.space, found, device=names.DHCP_DEVICE, port_id=plan.port_id,
            network_id=plan.network_id, mac=plan.mac, mtu=plan.mtu,
        )  # fmt: skip
        wanted = [f"{subnet.address}/{subnet.cidr.rpartition('/')[2]}" for subnet in plan.subnets]
        commands = inner.address_commands(
            names.DHCP_DEVICE, found.get(names.DHCP_DEVICE), [*wanted, f"{dhcp.METADATA}/32"]
        )
        self._shell.change(self.space, commands)
        (daemon,) = self.daemons
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={daemon.directory / 'dnsmasq.conf'}"]
        daemon.ensure(
            command,
            {"dnsmasq.conf": dhcp.fixed(plan, daemon.directory)},
            {"hosts": dhcp.hosts(plan), "options": dhcp.options(plan)},
        )

    def remove(self) -> None:
        remove(self.space, self.daemons)


class RouterSpace:
    """One router: its links, addresses, routes, translations and advertisements."""

    proxy = ("0.0.0.0", nat.PROXY_PORT)

    def __init__(self, shell: Shell, host: str, space: str, directory: Path) -> None:
        self._shell = shell
        self._host = host
        self.space = space
        self.daemons = [Daemon(directory, space)]
        self._nft = Nft(shell, space)

    def apply(self, plan: RouterPlan) -> None:
        inner.make_space(self.space, *_ROUTING)
        found = inner.devices(self._shell, self.space)
        wanted = {names.INSIDE + port.id[:11]: port for port in plan.ports}
        if plan.gateway is not None:
            wanted[names.OUTSIDE + plan.gateway.id[:11]] = plan.gateway
        self._shell.change(self.space, inner.strays(found, wanted, (names.INSIDE, names.OUTSIDE)))
        for device, port in wanted.items():
            self._device(plan, device, port, found)
        self._routes(plan)
        self._nft.apply(nat.ruleset(plan))
        (daemon,) = self.daemons
        text = advertise.configuration(plan)
        if text is None:
            daemon.end()
        else:
            path = daemon.directory / "radvd.conf"
            pid = daemon.directory / "radvd.pid"
            command = ["radvd", "--nodaemon", "--logmethod", "stderr", "--config", str(path), "--pidfile", str(pid)]
            daemon.ensure(command, {}, {path.name: text})

    def _device(self, plan: RouterPlan, device: str, port: RouterPort, found: dict[str, inner.Device]) -> None:
        inner.ensure_device(
            self._shell, self._host, self.space, found, device=device, port_id=port.id,
            network_id=port.network_id, mac=port.mac, mtu=port.mtu, up=port.up,
        )  # fmt: skip
        addresses = list(port.addresses)
        outside = device.startswith(names.OUTSIDE)
        if outside:
            addresses += [f"{each.address}/32" for each in plan.floating]
        commands = inner.address_commands(device, found.get(device), addresses)
        self._shell.change(self.space, commands)
        added = [words[2].partition("/")[0] for words in map(str.split, commands) if words[1] == "add"]
        if outside:
            # Who has talked to the address before may know it by another router's MAC.
            garp.announce(self.space, device, port.mac, [each for each in added if ":" not in each])

    def _routes(self, plan: RouterPlan) -> None:
        wanted = {("default" if version == 4 else "default6"): hop for version, hop in _by_version(plan.next_hops)}
        wanted |= {_destination(to): hop for to, hop in plan.routes}
        have = {}
        for family in ("-4", "-6"):
            for each in self._shell.show(self.space, family, "route", "show", "proto", "static"):
                key = "default6" if family == "-6" and each["dst"] == "default" else each["dst"]
                have[key] = each.get("gateway")
        outside = names.OUTSIDE + plan.gateway.id[:11] if plan.gateway is not None else ""
        commands = []
        for to in sorted(set(have) - set(wanted)):
            commands.append(f"{_family(to)} route del {_destination(to)} proto static")
        for to, hop in sorted(wanted.items()):
            if have.get(to) != hop:
                through = f" dev {outside} onlink" if to in ("default", "default6") else ""
                commands.append(f"{_family(to)} route replace {_destination(to)} via {hop}{through} proto static")
        for command in commands:
            # Batches cannot change the family from line to line.
            self._shell.run("ip", "-n", self.space, *command.split())

    def remove(self) -> None:
        remove(self.space, self.daemons)


def _by_version(hops: Iterable[str]) -> list[tuple[int, str]]:
    return [(6 if ":" in hop else 4, hop) for hop in hops]


def _family(to: str) -> str:
    return "-6" if to == "default6" or ":" in to else "-4"


def _destination(to: str) -> str:
    """As `ip` shows it: a host's route has no length."""
    if to in ("default", "default6"):
        return "default"
    network = ipaddress.ip_network(to)
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def remove(space: str, daemons: Iterable[Daemon]) -> None:
    """The namespace, what serves in it and its files are gone."""
    for daemon in daemons:
        daemon.end()
        shutil.rmtree(daemon.directory, ignore_errors=True)
    netns.remove(space)


def listener(space: str, address: tuple[str, int]) -> socket.socket:
    """A socket of the namespace that takes connections there. Raises OSError."""

    return netns.in_namespace(netns.path_of(space), lambda: socket.create_server(address, backlog=256))
