"""All hosts as columns, so that a filter is a mask and a weigher a vector.

What changes with every server stands in arrays. What hardly ever changes (zone,
traits, aggregates, hardware) is looked at by its distinct values, of which even
10,000 hosts have few: a predicate is asked once per value, and a vector of codes
spreads the verdicts over the hosts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kilonova.scheduler.node import Aggregate, Node
from kilonova.scheduler.request import PlacementRequest

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ZONE_KEY = "availability_zone"
DISABLED, DOWN = "disabled", "down"


NUMBERS = (
    "vcpus_max", "vcpus_used", "memory_mb_max", "memory_mb_used", "disk_gb_max", "disk_gb_used", "running_vms",
    "failed_builds",
)  # fmt: skip
_LASTING = operator.attrgetter(
    "host", "node", "service_id", "uuid", "hypervisor_type", "hypervisor_version", "vcpus", "memory_mb", "local_gb",
    "vcpus_ratio", "memory_ratio", "disk_ratio", "host_ip", "cpu_info", "supported", "traits", "metrics",
    "numa_cells",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coded:
    """A column by its distinct values: row `r` has `values[codes[r]]`."""

    values: list[Any]
    codes: Ints

    def where(self, predicate: Callable[[Any], bool]) -> Bools:
        """The rows whose value passes; the predicate is asked once per value."""
        verdicts = np.fromiter((predicate(value) for value in self.values), dtype=np.bool_, count=len(self.values))
        return verdicts[self.codes]

    def map(self, number: Callable[[Any], float]) -> Floats:
        found = np.fromiter((number(value) for value in self.values), dtype=np.float64, count=len(self.values))
        return found[self.codes]

    def of(self, row: int) -> Any:
        return self.values[self.codes[row]]


def coded(values: Iterable[Any], key: Callable[[Any], Hashable] = lambda value: value) -> Coded:
    """A column of any values; `key` makes one that cannot be hashed comparable."""
    known: dict[Hashable, int] = {}
    distinct: list[Any] = []
    codes: list[int] = []
    for value in values:
        name = key(value)
        code = known.get(name)
        if code is None:
            code = known[name] = len(distinct)
            distinct.append(value)
        codes.append(code)
    return Coded(distinct, np.array(codes, dtype=np.int64))


class Picture:
    """The hosts, kept in step by `put`, `keep`, `set_unusable`, `set_aggregates` and `set_io_ops`.

    `take` deducts what was just given away until the database shows it.
    """

    def __init__(
        self, nodes: Iterable[Node] = (), aggregates: Sequence[Aggregate] = (), *, default_zone: str = "nova"
    ) -> None:
        self.default_zone = default_zone
        self.nodes: list[Node] = []
        self._rows: dict[int, int] = {}
        self._numbers: dict[str, Ints] = {name: np.zeros(0, dtype=np.int64) for name in (*NUMBERS, "id", "io_ops")}
        self.resources: dict[str, tuple[Ints, Ints]] = {}
        """By class: max and used."""
        self._unusable: dict[int, str] = {}
        self._usable: Bools | None = None
        self._io_ops: dict[str, int] = {}
        self._host_rows: dict[str, list[int]] | None = None
        self._columns: dict[str, Coded] = {}
        self._aggregates: list[Aggregate] = []
        self._of_host: dict[str, tuple[Aggregate, ...]] = {}
        self._generations: dict[str, int] = {}
        self.taken: dict[int, float] = {}
        """Nodes of which something was given away that the database may not show yet, and when (`take`'s `now`)."""
        self.put(nodes)
        self.set_aggregates(aggregates)

    def __len__(self) -> int:
        return len(self.nodes)

    def number(self, name: str) -> Ints:
        """One of NUMBERS, `id` or `io_ops`."""
        return self._numbers[name]

    @property
    def free_vcpus(self) -> Ints:
        return self._numbers["vcpus_max"] - self._numbers["vcpus_used"]

    @property
    def free_memory_mb(self) -> Ints:
        return self._numbers["memory_mb_max"] - self._numbers["memory_mb_used"]

    @property
    def free_disk_gb(self) -> Ints:
        return self._numbers["disk_gb_max"] - self._numbers["disk_gb_used"]

    # -- keeping in step
    def put(self, nodes: Iterable[Node]) -> None:
        """Add nodes, or replace what is known of them."""
        new: list[Node] = []
        for node in nodes:
            row = self._rows.get(node.id)
            if row is None:
                new.append(node)
                continue
            old, self.nodes[row] = self.nodes[row], node
            self._set(row, node)
            if _LASTING(old) != _LASTING(node):
                self._forget()
        if new:
            start = len(self.nodes)
            for name, values in self._numbers.items():
                self._numbers[name] = np.concatenate([values, np.zeros(len(new), dtype=np.int64)])
            for kind, pair in self.resources.items():
                more = [np.concatenate([values, np.zeros(len(new), dtype=np.int64)]) for values in pair]
                self.resources[kind] = (more[0], more[1])
            for row, node in enumerate(new, start):
                self.nodes.append(node)
                self._rows[node.id] = row
                self._set(row, node)
            self._forget()

    def _set(self, row: int, node: Node) -> None:
        self.taken.pop(node.id, None)
        self._numbers["id"][row] = node.id
        self._numbers["io_ops"][row] = self._io_ops.get(node.host, 0)
        for name in NUMBERS:
            self._numbers[name][row] = getattr(node, name)
        for kind in node.resources:
            if kind not in self.resources:
                zeros = np.zeros(len(self._numbers["id"]), dtype=np.int64)
                self.resources[kind] = (zeros, zeros.copy())
        for kind, (most, used) in self.resources.items():
            most[row], used[row] = node.resources.get(kind, (0, 0))

    def keep(self, ids: Iterable[int]) -> None:
        """Forget all nodes but these."""
        wanted = set(ids)
        rows = [row for row, node in enumerate(self.nodes) if node.id in wanted]
        if len(rows) == len(self.nodes):
            return
        chosen = np.array(rows, dtype=np.int64)
        self.nodes = [self.nodes[row] for row in rows]
        self._rows = {node.id: row for row, node in enumerate(self.nodes)}
        self._numbers = {name: values[chosen] for name, values in self._numbers.items()}
        self.resources = {kind: (most[chosen], used[chosen]) for kind, (most, used) in self.resources.items()}
        self.taken = {node_id: when for node_id, when in self.taken.items() if node_id in wanted}
        self._forget()

    def set_unusable(self, reasons: Mapping[int, str]) -> None:
        """Services that take no servers now, with why: DISABLED or DOWN."""
        if reasons != self._unusable:
            self._unusable = dict(reasons)
            self._usable = None

    def set_aggregates(self, aggregates: Sequence[Aggregate], generations: Mapping[str, int] | None = None) -> None:
        """`generations`: by host, how often what its aggregates say had changed before they were read."""
        self._aggregates = list(aggregates)
        self._generations = dict(generations or {})
        found: dict[str, list[Aggregate]] = {}
        for aggregate in aggregates:
            for host in aggregate.hosts:
                found.setdefault(host, []).append(aggregate)
        self._of_host = {host: tuple(mine) for host, mine in found.items()}
        self._forget()

    def set_io_ops(self, counts: Mapping[str, int]) -> None:
        """How many servers of each host are being built or moved; hosts not named have none."""
        if counts == self._io_ops:
            return
        column = self._numbers["io_ops"]
        for host in self._io_ops.keys() | counts.keys():
            if counts.get(host) != self._io_ops.get(host):
                for row in self.rows_of_host(host):
                    column[row] = counts.get(host, 0)
        self._io_ops = dict(counts)

    def take(self, row: int, request: PlacementRequest, now: float = 0.0) -> None:
        self._add(row, request, 1)
        self._numbers["io_ops"][row] += 1
        self.taken.setdefault(self.nodes[row].id, now)

    def give_back(self, row: int, request: PlacementRequest) -> None:
        """As if a server that is there were not."""
        self._add(row, request, -1)

    def _add(self, row: int, request: PlacementRequest, sign: int) -> None:
        numbers = self._numbers
        numbers["vcpus_used"][row] += sign * request.vcpus
        numbers["memory_mb_used"][row] += sign * request.memory_mb
        numbers["disk_gb_used"][row] += sign * request.disk_gb
        numbers["running_vms"][row] += sign
        for kind, amount in request.resources.items():
            if kind in self.resources:
                self.resources[kind][1][row] += sign * amount

    def _forget(self) -> None:
        self._columns.clear()
        self._host_rows = None
        self._usable = None

    # -- looking
    @property
    def usable(self) -> Bools:
        """Rows whose service is enabled and up."""
        if self._usable is None:
            unusable = self._unusable
            self._usable = np.array([node.service_id not in unusable for node in self.nodes], dtype=np.bool_)
        return self._usable

    def why_unusable(self, row: int) -> str | None:
        return self._unusable.get(self.nodes[row].service_id)

    def rows_of_host(self, host: str) -> list[int]:
        if self._host_rows is None:
            self._host_rows = {}
            for row, node in enumerate(self.nodes):
                self._host_rows.setdefault(node.host, []).append(row)
        return self._host_rows.get(host, [])

    def on_hosts(self, hosts: Iterable[str]) -> Bools:
        mask = np.zeros(len(self.nodes), dtype=np.bool_)
        for host in hosts:
            mask[self.rows_of_host(host)] = True
        return mask

    def column(self, name: str, make: Callable[[Node], Any], key: Callable[[Any], Hashable] | None = None) -> Coded:
        """A column of what hardly ever changes; made at its first use after a change."""
        found = self._columns.get(name)
        if found is None:
            values = map(make, self.nodes)
            found = self._columns[name] = coded(values) if key is None else coded(values, key)
        return found

    def aggregates(self) -> Coded:
        """Of each row the tuple of aggregates that its host is in."""
        return self.column(
            "aggregates", lambda node: self._of_host.get(node.host, ()), lambda mine: tuple(one.id for one in mine)
        )

    def aggregates_of(self, host: str) -> tuple[Aggregate, ...]:
        return self._of_host.get(host, ())

    def aggregates_generation(self, host: str) -> int:
        return self._generations.get(host, 0)

    def zones(self) -> Coded:
        return self.column("zone", lambda node: self.zone_of(node.host))

    def zone_of(self, host: str) -> str:
        zones = [one.metadata[ZONE_KEY] for one in self._of_host.get(host, ()) if ZONE_KEY in one.metadata]
        return min(zones, default=self.default_zone)

    def traits(self) -> Coded:
        return self.column("traits", lambda node: node.traits)


def merged_metadata(aggregates: Iterable[Aggregate]) -> dict[str, set[str]]:
    """All values that each key has in these aggregates; a value with commas counts as several."""
    found: dict[str, set[str]] = {}
    for aggregate in aggregates:
        for key, value in aggregate.metadata.items():
            found.setdefault(key, set()).update(part.strip() for part in value.split(","))
    return found


def smallest_number(aggregates: Iterable[Aggregate], key: str, default: float) -> float:
    """The smallest number that the key has in these aggregates; what is no number does not count."""
    numbers = []
    for value in merged_metadata(aggregates).get(key, ()):
        try:
            numbers.append(float(value))
        except ValueError:
            continue
    return min(numbers, default=default)
