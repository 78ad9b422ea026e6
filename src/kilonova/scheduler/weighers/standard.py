"""The usual weighers. (A group's own two count only for servers of groups with a soft policy.)"""

from __future__ import annotations

import numpy as np

from kilonova.pci import PREFIX
from kilonova.scheduler.node import Node
from kilonova.scheduler.picture import Picture
from kilonova.scheduler.request import SOFT_AFFINITY, SOFT_ANTI_AFFINITY, PlacementRequest
from kilonova.scheduler.weighers.base import Numbers, Weigher, counts_on_hosts


class CPUWeigher(Weigher):
    name, option = "CPUWeigher", "cpu_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.free_vcpus


class RAMWeigher(Weigher):
    name, option = "RAMWeigher", "ram_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.free_memory_mb


class DiskWeigher(Weigher):
    name, option = "DiskWeigher", "disk_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.free_disk_gb


class IoOpsWeigher(Weigher):
    name, option = "IoOpsWeigher", "io_ops_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.number("io_ops")


class NumInstancesWeigher(Weigher):
    name, option = "NumInstancesWeigher", "num_instances_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.number("running_vms")


class BuildFailureWeigher(Weigher):
    name, option, sign, decisive = "BuildFailureWeigher", "build_failure_weight_multiplier", -1.0, True

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        return picture.number("failed_builds")


class HypervisorVersionWeigher(Weigher):
    name, option = "HypervisorVersionWeigher", "hypervisor_version_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        versions = picture.column("version", lambda node: node.hypervisor_version)
        return versions.map(float) if len(versions.values) > 1 else None


class ServerGroupSoftAffinityWeigher(Weigher):
    name, option, decisive = "ServerGroupSoftAffinityWeigher", "soft_affinity_weight_multiplier", True

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        group = request.group
        if group is None or group.policy != SOFT_AFFINITY or not group.members:
            return None
        return counts_on_hosts(picture, group.members)


class ServerGroupSoftAntiAffinityWeigher(Weigher):
    name, option, sign, decisive = (
        "ServerGroupSoftAntiAffinityWeigher",
        "soft_anti_affinity_weight_multiplier",
        -1.0,
        True,
    )

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        group = request.group
        if group is None or group.policy != SOFT_ANTI_AFFINITY or not group.members:
            return None
        return counts_on_hosts(picture, group.members)


class PCIWeigher(Weigher):
    """Hosts with the fewest free PCI devices first: those with many are kept for who asks for many."""

    name, option, sign = "PCIWeigher", "pci_weight_multiplier", -1.0

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        pairs = [pair for kind, pair in picture.resources.items() if kind.startswith(PREFIX)]
        if not pairs:
            return None
        free = np.zeros(len(picture), dtype=np.int64)
        for most, used in pairs:
            free += most - used
        return free


class MetricsWeigher(Weigher):
    """The sum of the metrics in `[metrics] weight_setting`, each times its ratio."""

    name, option = "MetricsWeigher", "metrics_weight_multiplier"

    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        if not self.options.metrics_weight_setting:
            return None
        return np.array([self._sum(node) for node in picture.nodes], dtype=np.float64)

    def _sum(self, node: Node) -> float:
        total = 0.0
        for name, ratio in self.options.metrics_weight_setting:
            if name not in node.metrics:
                return self.options.metrics_weight_of_unavailable
            total += node.metrics[name] * ratio
        return total
