"""What must hold at every commit, and what must hold once the cloud has come to rest."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kilonova.compute import states
from tests.simulation.cloud import Cloud
from tests.simulation.parts import INJECTED
from tests.simulation.story import Known
from tests.workflows.harness.audit import GONE, WANTED, judge

_ALWAYS = {
    "a host is over-committed": """
        SELECT host, vcpus_used, vcpus_max, memory_mb_used, memory_mb_max, local_gb_used, local_gb_max
        FROM compute_nodes WHERE vcpus_used > vcpus_max OR memory_mb_used > memory_mb_max
        OR local_gb_used > local_gb_max OR vcpus_used < 0 OR memory_mb_used < 0 OR local_gb_used < 0""",
    "claims are not the sum of the servers'": """
        SELECT n.host, n.running_vms, n.vcpus_used, n.memory_mb_used, s.many, s.vcpus, s.memory FROM compute_nodes n
        LEFT JOIN (SELECT host, node, count(*) AS many, sum(CASE flavorid WHEN 'own' THEN 0 ELSE vcpus END) AS vcpus,
                   sum(memory_mb) AS memory FROM instances WHERE claimed GROUP BY host, node) s
        ON s.host = n.host AND s.node = n.hypervisor_hostname
        WHERE n.running_vms != coalesce(s.many, 0) OR n.vcpus_used != coalesce(s.vcpus, 0)
        OR n.memory_mb_used != coalesce(s.memory, 0)""",
    "a host's rare resource is over-committed, or not the sum of the servers'": """
        SELECT n.host, r.used, r.max, coalesce(s.many, 0) FROM compute_node_resources r
        JOIN compute_nodes n ON n.id = r.node_id
        LEFT JOIN (SELECT host, node, flavorid, count(*) AS many FROM instances WHERE claimed
                   GROUP BY host, node, flavorid) s
        ON s.host = n.host AND s.node = n.hypervisor_hostname
        AND s.flavorid = CASE r.resource_class WHEN 'PCPU' THEN 'own' ELSE 'gold' END
        WHERE r.used > r.max OR r.used != coalesce(s.many, 0)""",
    "a CPU of their own is given to two servers, or to none": """
        SELECT i.host, p.value, count(*)
        FROM instances i, json_each(i.claim, '$.numa') n, json_each(n.value, '$.pins') p
        WHERE i.claimed GROUP BY i.host, p.value HAVING count(*) > 1
        UNION ALL
        SELECT host, NULL, 0 FROM instances WHERE claimed AND flavorid = 'own'
        AND json_extract(claim, '$.numa[0].pins[0]') IS NULL""",
    "a group's places are not its members'": """
        SELECT g.policy, p.host, p.servers, coalesce(s.many, 0) FROM instance_group_hosts p
        JOIN instance_groups g ON g.id = p.group_id
        LEFT JOIN (SELECT server_group, host, count(*) AS many FROM instances WHERE claimed
                   GROUP BY server_group, host) s
        ON s.server_group = g.uuid AND s.host = p.host
        WHERE p.servers != coalesce(s.many, 0)""",
    "a group's policy is broken": """
        SELECT g.policy, i.host, count(*) FROM instance_groups g JOIN instances i ON i.server_group = g.uuid
        WHERE i.claimed AND g.policy = 'anti-affinity' GROUP BY g.uuid, i.host
        HAVING count(*) > json_extract(g.rules, '$.max_server_per_host')
        UNION ALL
        SELECT g.policy, NULL, count(DISTINCT i.host) FROM instance_groups g
        JOIN instances i ON i.server_group = g.uuid
        WHERE i.claimed AND g.policy = 'affinity' GROUP BY g.uuid HAVING count(DISTINCT i.host) > 1""",
    "quota is not the sum of the servers": """
        SELECT q.*, s.* FROM quota_usages q,
        (SELECT count(*) AS many, coalesce(sum(vcpus), 0) AS cores, coalesce(sum(memory_mb), 0) AS memory
         FROM instances WHERE deleted = 0 AND vm_state != 'soft-delete') s
        WHERE q.instances != s.many OR q.cores != s.cores OR q.ram != s.memory""",
    "an open operation has not got its server's slot": """
        SELECT o.id, o.kind, o.state, i.operation_id, i.deleted FROM instance_actions o
        LEFT JOIN instances i ON i.uuid = o.server_uuid
        WHERE o.state IN ('ready', 'running') AND (i.operation_id IS NOT o.id OR i.deleted != 0)""",
    "a slot is held by an operation that has ended": """
        SELECT i.uuid, i.operation_id, o.state FROM instances i
        LEFT JOIN instance_actions o ON o.id = i.operation_id
        WHERE i.operation_id IS NOT NULL AND coalesce(o.state, '') NOT IN ('ready', 'running')""",
}
_ANY = "SELECT " + " OR ".join(f"EXISTS ({query})" for query in _ALWAYS.values())


class Broken(Exception):
    """An invariant does not hold."""


class Commits:
    """Looks after each commit of a run."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._before: dict[str, tuple[int, int | None]] = {}
        """Of each server its power state and its operation."""
        self._free_since: dict[str, float] = {}

    def check(self, work: str) -> None:
        """`work`: what was committed. Raises Broken."""
        cloud, raw = self._cloud, self._cloud.store.raw
        if raw.execute(_ANY).fetchone()[0]:
            for name, query in _ALWAYS.items():
                rows = raw.execute(query).fetchall()
                if rows:
                    raise Broken(f"{name}: {rows[0]}")
        limits = [limit for limit in (cloud.plan.quota, cloud.plan.own_quota) if limit >= 0]
        if limits:
            (used,) = raw.execute("SELECT coalesce(max(instances), 0) FROM quota_usages").fetchone()
            if used > min(limits):
                raise Broken(f"{used} servers with a quota of {min(limits)}")
        self._check_power(work)

    def _check_power(self, work: str) -> None:
        """What a report made of a server was so after the last operation on it had ended."""
        cloud = self._cloud
        now: dict[str, tuple[int, int | None]] = {
            uuid: (power, operation)
            for uuid, power, operation in cloud.store.raw.execute(
                "SELECT uuid, power_state, operation_id FROM instances"
            )
        }
        for uuid, (power, operation) in now.items():
            before = self._before.get(uuid)
            since = self._free_since.get(uuid)
            if work == "PowerStates._differs" and before and since is not None and before[0] != power:
                history = cloud.hypervisor.states.get(uuid, [])
                ends = [start for start, _ in history[1:]] + [float("inf")]
                seen = {int(state) for (_, state), end in zip(history, ends, strict=False) if end >= since}
                if power not in seen:
                    raise Broken(
                        f"a report of before the last operation counted: server {uuid} is said to have power state"
                        f" {power}, its guest had {sorted(seen)} since {since:.4f}"
                    )
            if operation is not None:
                self._free_since.pop(uuid, None)
            elif before is not None and before[1] is not None:
                self._free_since[uuid] = cloud.loop.now
        self._before = now


STATES = {
    states.ACTIVE,
    states.STOPPED,
    states.PAUSED,
    states.SUSPENDED,
    states.ERROR,
    states.SOFT_DELETED,
    GONE,
    "absent",
}

_EXCUSES = (
    "No valid host",
    INJECTED,
    "does not answer",
    "did not end within",
    "did not report port",
    "its journal cannot be written",
    "are missing on host",
)
_UNFORESEEN = "The host failed in an unexpected way."
"""Excused where a driver was made to fail like that."""


async def at_rest(cloud: Cloud, known: Known) -> list[str]:
    """What is wrong."""
    faulty = any(cloud.trace.counts.values())
    all_servers = await cloud.all_servers()
    rows = {table.name: _rows(cloud, f"SELECT * FROM {table.name}") for table in WANTED}
    for group in rows["instance_groups"]:
        group["rules"] = json.loads(group["rules"])
    wrong = judge(cloud, rows, all_servers, STATES, guest_may_differ=faulty)  # type: ignore[arg-type]
    servers = {server.uuid: server for server in all_servers}
    for uuid in sorted(known.created - servers.keys()):
        wrong.append(f"server {uuid} was lost: its create was answered")
    for uuid in sorted(known.deleted & servers.keys()):
        if not servers[uuid].deleted:
            wrong.append(f"server {uuid} is there: its delete was answered")
    for server in servers.values():
        message = (server.fault or {}).get("message", "")
        if message == _UNFORESEEN and cloud.trace.counts["verb fails"]:
            continue
        if server.vm_state == states.SOFT_DELETED and not server.deleted:
            wrong.append(f"server {server.uuid} was deleted at {server.deleted_at}, and is not reclaimed")
        if server.vm_state == states.ERROR and not server.deleted and not any(e in message for e in _EXCUSES):
            wrong.append(f"server {server.uuid} is in error for no injected reason: {message!r}")
    return wrong + _effects(cloud)


def _rows(cloud: Cloud, query: str) -> list[dict[str, Any]]:
    cursor = cloud.store.raw.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _effects(cloud: Cloud) -> list[str]:
    """Nothing took effect more often than it was asked for."""
    wrong = []
    asked: Counter[tuple[str, str]] = Counter()
    done: Counter[tuple[str, str]] = Counter()
    for uuid, kind, state in cloud.store.raw.execute("SELECT server_uuid, kind, state FROM instance_actions"):
        asked[uuid, kind] += 1
        done[uuid, kind] += state == "done"
    total: Counter[tuple[str, str]] = Counter()
    uuids: set[str] = set()
    for host in cloud.hosts.values():
        for guest in host.driver._host.guests.values():
            uuids.add(guest.uuid)
            for verb, times in guest.effects.items():
                total[guest.uuid, verb] += times

    def compare(uuid: str, verb: str, kinds: tuple[str, ...], more: int = 0) -> None:
        most = sum(asked[uuid, kind] for kind in kinds) + more
        if total[uuid, verb] > most:
            wrong.append(f"{uuid}: '{verb}' took effect {total[uuid, verb]} times, was asked for {most} times")

    for (uuid, marker), times in cloud.hypervisor.reboots.items():
        if times > 1:
            wrong.append(f"{uuid}: reboot {marker} took effect {times} times")
    attempts = cloud.plan.max_attempts - 1
    for uuid in sorted(uuids):
        compare(uuid, "rebooted", ("reboot",))
        compare(uuid, "stopped", ("stop", "soft_delete"))
        compare(uuid, "paused", ("pause",))
        compare(uuid, "suspended", ("suspend",))
        compare(uuid, "disks", ("boot", "boot_with_ports", "rebuild"), attempts)
        if total[uuid, "rebooted"] < done[uuid, "reboot"]:
            wrong.append(f"{uuid}: rebooted {total[uuid, 'rebooted']} times, {done[uuid, 'reboot']} reboots are done")
    return wrong


def describe(cloud: Cloud) -> list[str]:
    """The rows that matter, for whoever reads a bad end."""
    lines = []

    def rows(query: str) -> None:
        lines.extend(f"  {row}" for row in _rows(cloud, query))

    rows(
        "SELECT uuid, vm_state, task_state, power_state, host, claimed, operation_id, deleting, deleted, fault"
        " FROM instances"
    )
    rows("SELECT id, kind, server_uuid, state, phase, step, attempt, owner, epoch, error FROM instance_actions")
    rows("SELECT * FROM tombstones")
    for name, host in cloud.hosts.items():
        for guest in host.driver._host.guests.values():
            lines.append(
                f"  {name}: {guest.uuid} defined={guest.defined} disks={guest.disks} power={guest.power_state} "
                f"taps={guest.taps} nics={guest.nics} effects={guest.effects}"
            )
    return lines
