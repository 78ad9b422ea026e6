"""Exactly one of each, or a clean slate: what must hold of a cloud at rest, whatever happened to it before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from kilonova.agent.driver import PowerState
from kilonova.compute import states
from kilonova.compute.needs import Needs, claimed_by
from kilonova.db.servers import Server
from kilonova.db.tables import (
    compute_nodes,
    instance_group_hosts,
    instance_groups,
    instances,
    node_resources,
    operation_steps,
    operations,
    pci_devices,
    quota_usages,
    tombstones,
)
from kilonova.db.tables import metadata as tables
from kilonova.numa import read_placed
from kilonova.workflows import ALL
from tests.workflows.harness.cloud import PASSWORD, TOKEN, FaultCloud, Host

POWER = {
    states.ACTIVE: PowerState.RUNNING,
    states.STOPPED: PowerState.SHUTDOWN,
    states.PAUSED: PowerState.PAUSED,
    states.SUSPENDED: PowerState.SUSPENDED,
    states.SOFT_DELETED: PowerState.SHUTDOWN,
}
WANTED = (
    *(instances, operations, operation_steps, compute_nodes, node_resources, quota_usages, tombstones),
    *(instance_groups, instance_group_hosts, pci_devices),
)
GONE = "gone"
ABSENT = "absent"
"""No row was ever made: the create was cut off before its commit."""


async def audit(
    cloud: FaultCloud, expected: Collection[str], *, stuck: bool = False, guest_may_differ: bool = False
) -> list[str]:
    """What is wrong; nothing in a sound cloud. `expected`: the states in which the servers may have ended.

    `stuck`: operations may have ended as stuck. `guest_may_differ`: after an injected failure the
    server's state may be another than its guest's power state would suggest, but that must be recorded.
    """
    rows = await cloud.db.read(_everything)
    return judge(
        cloud, rows, await cloud.all_servers(), expected, stuck=stuck, guest_may_differ=guest_may_differ
    )  # fmt: skip


def judge(
    cloud: FaultCloud,
    rows: dict[str, list[dict[str, Any]]],
    all_servers: list[Server],
    expected: Collection[str],
    *,
    stuck: bool = False,
    guest_may_differ: bool = False,
) -> list[str]:
    """The same, of rows that were read already: those of the `WANTED` tables, by their names."""
    wrong: list[str] = []
    if not all_servers and ABSENT not in expected:
        wrong.append("no server")
    for server in all_servers:
        wrong += _server(cloud, server, expected, stuck, guest_may_differ)
    wrong += _strays(cloud, {server.uuid for server in all_servers})
    wrong += _ports(cloud, all_servers, guest_may_differ)
    wrong += _usage(rows, all_servers)
    wrong += _operations(rows, stuck)
    wrong += _secrets(rows)
    if rows[tombstones.name]:
        wrong.append(f"tombstones left: {rows[tombstones.name]}")
    return wrong


def left(host: Host) -> set[str]:
    """The servers of which anything exists on a host."""
    return {what.split()[-1] for what in host.driver.left()}


async def _everything(tx: Any) -> dict[str, list[dict[str, Any]]]:
    return {t.name: [dict(row._mapping) for row in await tx.execute(sa.select(t))] for t in WANTED}


def _server(
    cloud: FaultCloud, server: Server, expected: Collection[str], stuck: bool, guest_may_differ: bool
) -> list[str]:
    wrong = []
    state = GONE if server.deleted else server.vm_state
    if state not in expected:
        wrong.append(f"server is {state} ({server.fault}), expected {' or '.join(sorted(expected))}")
    if server.operation_id is not None or server.task_state is not None or server.deleting:
        wrong.append(f"slot taken: {server.operation_id} {server.task_state} deleting={server.deleting}")
    holders = [name for name, host in cloud.hosts.items() if server.uuid in left(host)]
    if server.deleted or (server.host is None and not server.claimed):
        if holders or server.claimed:
            wrong.append(f"{state} server left on {holders}, claimed={server.claimed}")
        return wrong
    if stuck and state == states.ERROR:
        return wrong
    if guest_may_differ and state == states.ERROR and server.claimed and set(holders) <= {server.host}:
        # A rebuild that failed half way: what there is of the guest is where the server's claim is.
        return wrong
    if holders != [server.host] or not server.claimed:
        wrong.append(f"server of {server.host} (claimed={server.claimed}) is on {holders}")
        return wrong
    guest = cloud.hosts[holders[0]].driver._host.guests[server.uuid]
    if not (guest.defined and guest.disks):
        wrong.append(f"half a guest: defined={guest.defined} disks={guest.disks}")
    if guest.power_state != server.power_state:
        wrong.append(f"guest's power state is {guest.power_state}, recorded {server.power_state}")
    if not guest_may_differ and guest.power_state != POWER.get(server.vm_state, guest.power_state):
        wrong.append(f"{server.vm_state} server's guest has power state {guest.power_state}")
    return wrong


def _strays(cloud: FaultCloud, known: set[str]) -> list[str]:
    return [f"{uuid} on {name}" for name, h in cloud.hosts.items() for uuid in left(h) if uuid not in known]


def _ports(cloud: FaultCloud, all_servers: list[Server], guest_may_differ: bool) -> list[str]:
    """A server that is somewhere has the ports it asked for, there; nobody else has any."""
    wrong = []
    should = {s.uuid: s for s in all_servers if s.claimed and not s.deleted and s.requested_networks}
    for port in cloud.network.collections["ports"].values():
        if port["device_id"] not in should:
            wrong.append(f"port {port['id']} of {port['device_id']} is left")
    for uuid, server in should.items():
        ports = cloud.network.ports_of(uuid)
        if len(ports) != len(server.requested_networks) or {p["binding:host_id"] for p in ports} != {server.host}:
            wrong.append(f"server on {server.host} has ports {[(p['id'], p['binding:host_id']) for p in ports]}")
        if {nic["port_id"] for nic in server.network_info or ()} != {port["id"] for port in ports}:
            wrong.append(f"what is cached of the ports is {server.network_info}")
        if server.vm_state == states.ACTIVE and any(port["status"] != "ACTIVE" for port in ports):
            wrong.append("the guest runs, and its ports are not wired")
        guest = cloud.hosts[server.host].driver._host.guests.get(server.uuid) if server.host in cloud.hosts else None
        ids = sorted(port["id"] for port in ports)
        if guest is not None and not guest_may_differ and (sorted(guest.nics), sorted(guest.taps)) != (ids, ids):
            wrong.append(f"ports are {ids}, the guest has {guest.nics} on taps {guest.taps}")
    return wrong


def _usage(rows: dict[str, list[dict[str, Any]]], all_servers: list[Server]) -> list[str]:
    wrong = []
    for node in rows[compute_nodes.name]:
        mine = [s for s in all_servers if s.claimed and (s.host, s.node) == (node["host"], node["hypervisor_hostname"])]
        held = [claimed_by(server) for server in mine]
        should = (len(mine), sum(h.vcpus for h in held), sum(h.memory_mb for h in held), sum(h.disk_gb for h in held))
        has = (node["running_vms"], node["vcpus_used"], node["memory_mb_used"], node["local_gb_used"])
        if has != should:
            wrong.append(f"allocations of {node['host']} are {has}, its servers' sum is {should}")
        limits = (node["vcpus_max"], node["memory_mb_max"], node["local_gb_max"])
        if any(used > most for used, most in zip(has[1:], limits, strict=True)):
            wrong.append(f"{node['host']} is over-committed: {has[1:]} of {limits}")
        wrong += _other_resources(rows, node, held)
        cells = [one for server in mine for one in read_placed((server.claim or {}).get("numa"))]
        cpus = Counter(cpu for one in cells for cpu in (*one.pins, *one.kept_free))
        if twice := [cpu for cpu, owners in cpus.items() if owners > 1]:
            wrong.append(f"CPUs {twice} of {node['host']} are more than one server's")
    wrong += _devices(rows, all_servers)
    wrong += _groups(rows, all_servers)
    used: Counter[str] = Counter()
    for server in all_servers:
        if not server.deleted and server.vm_state != states.SOFT_DELETED:
            used.update(instances=1, cores=server.vcpus, ram=server.memory_mb)
    counted: Counter[str] = Counter()
    for row in rows[quota_usages.name]:
        counted.update({name: row[name] for name in ("instances", "cores", "ram")})
    if +counted != +used or any(value < 0 for value in counted.values()):
        wrong.append(f"quota counts {dict(counted)}, the servers' sum is {dict(used)}")
    return wrong


def _other_resources(rows: dict[str, list[dict[str, Any]]], node: dict[str, Any], held: list[Needs]) -> list[str]:
    should: Counter[str] = Counter()
    for needs in held:
        should.update(needs.resources)
    mine = [row for row in rows[node_resources.name] if row["node_id"] == node["id"]]
    has = Counter({row["resource_class"]: row["used"] for row in mine})
    wrong = []
    if +has != +should:
        wrong.append(f"{node['host']} has given {dict(has)}, its servers hold {dict(should)}")
    return wrong + [f"{node['host']} is over-committed: {row}" for row in mine if not 0 <= row["used"] <= row["max"]]


def _devices(rows: dict[str, list[dict[str, Any]]], all_servers: list[Server]) -> list[str]:
    """Each has its devices on its own host, and nobody else has any."""
    nodes = {node["id"]: node["host"] for node in rows[compute_nodes.name]}
    has = sorted(
        (row["server_uuid"], nodes[row["node_id"]], row["address"])
        for row in rows[pci_devices.name]
        if row["server_uuid"] is not None
    )
    should = sorted(
        (server.uuid, server.host or "", address)
        for server in all_servers
        if server.claimed
        for address in (server.claim or {}).get("pci_devices", ())
    )
    return [] if has == should else [f"PCI devices are given as {has}, servers have {should}"]


def _groups(rows: dict[str, list[dict[str, Any]]], all_servers: list[Server]) -> list[str]:
    """Counters are the members with a claim, and within what the policy says."""
    wrong = []
    for group in rows[instance_groups.name]:
        mine = Counter(s.host for s in all_servers if s.server_group == group["uuid"] and s.claimed and not s.deleted)
        has = {row["host"]: row["servers"] for row in rows[instance_group_hosts.name] if row["group_id"] == group["id"]}
        if {host: count for host, count in has.items() if count} != dict(mine):
            wrong.append(f"group {group['name']} counts {has}, its members are on {dict(mine)}")
        if group["policy"] == "affinity" and len(mine) > 1:
            wrong.append(f"members of an affinity group are on {dict(mine)}")
        most = group["rules"].get("max_server_per_host", 1)
        if group["policy"] == "anti-affinity" and any(count > most for count in mine.values()):
            wrong.append(f"members of an anti-affinity group are on {dict(mine)}")
    return wrong


def _operations(rows: dict[str, list[dict[str, Any]]], stuck: bool) -> list[str]:
    wrong = []
    ended = {"done", "failed", "superseded"} | ({"stuck"} if stuck else set())
    steps = rows[operation_steps.name]
    for operation in rows[operations.name]:
        about = f"operation {operation['id']} ({operation['kind']})"
        if operation["state"] not in ended:
            wrong.append(f"{about} is {operation['state']}, owner {operation['owner']}")
            continue
        if operation["secrets"] is not None:
            wrong.append(f"{about} kept its secrets")
        if operation["owner"] is not None or operation["finished_at"] is None:
            wrong.append(f"{about} has owner {operation['owner']}, ended at {operation['finished_at']}")
        mine = [step for step in steps if step["operation_id"] == operation["id"]]
        keys = Counter((step["name"], step["phase"], step["attempt"]) for step in mine)
        wrong += [f"{about}: event {key} {count} times" for key, count in keys.items() if count > 1]
        if any(step["finished_at"] is None or step["finished_at"] < step["started_at"] for step in mine):
            wrong.append(f"{about}: an event without end")
        if operation["state"] == "done" and operation["kind"] in ALL:
            last = [
                s["name"]
                for s in mine
                if (s["phase"], s["result"], s["attempt"]) == ("do", "Success", operation["attempt"])
            ]
            before = [s["name"] for s in mine if (s["phase"], s["result"]) == ("do", "Success")]
            names = [step.name for step in ALL[operation["kind"]].steps]
            if [n for n in names if n not in before] or not set(last) <= set(names) or names[-1] not in last:
                wrong.append(f"{about}: events {before} (last attempt {last}) of steps {names}")
        if operation["state"] == "failed" and not any(step["result"] == "Error" for step in mine):
            wrong.append(f"{about} failed without an event that says why")
    return wrong


def _secrets(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [
        f"a secret stands in {name}"
        for name, found in rows.items()
        if PASSWORD in (text := repr(found)) or TOKEN in text
    ]


ALL_TABLES = tables.sorted_tables
