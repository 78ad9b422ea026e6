"""What an operator can say about scheduling; names and defaults as in [filter_scheduler], [scheduler], [metrics]."""

from __future__ import annotations

from dataclasses import dataclass

ALL_FILTERS = "nova.scheduler.filters.all_filters"
ALL_WEIGHERS = "nova.scheduler.weights.all_weighers"

DEFAULT_FILTERS = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
    "SameHostFilter",
    "DifferentHostFilter",
    "SimpleCIDRAffinityFilter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    enabled_filters: tuple[str, ...] = DEFAULT_FILTERS
    available_filters: tuple[str, ...] = (ALL_FILTERS,)
    weight_classes: tuple[str, ...] = (ALL_WEIGHERS,)
    host_subset_size: int = 4
    """The host is chosen at random among this many of the best, so that schedulers do not all take the same."""
    shuffle_best_same_weighed_hosts: bool = False
    max_placement_results: int = 3
    """Candidates in an answer: the chosen host and those to try when its claim fails."""
    max_instances_per_host: int = 50
    max_io_ops_per_host: int = 8
    isolated_images: tuple[str, ...] = ()
    isolated_hosts: tuple[str, ...] = ()
    restrict_isolated_hosts_to_isolated_images: bool = True
    aggregate_image_properties_isolation_namespace: str | None = None
    aggregate_image_properties_isolation_separator: str = "."
    image_properties_default_architecture: str | None = None
    limit_tenants_to_placement_aggregate: bool = False
    placement_aggregate_required_for_tenants: bool = False
    enable_isolated_aggregate_filtering: bool = False
    cpu_weight_multiplier: float = 1.0
    ram_weight_multiplier: float = 1.0
    disk_weight_multiplier: float = 1.0
    io_ops_weight_multiplier: float = -1.0
    num_instances_weight_multiplier: float = 0.0
    hypervisor_version_weight_multiplier: float = 1.0
    soft_affinity_weight_multiplier: float = 1.0
    soft_anti_affinity_weight_multiplier: float = 1.0
    build_failure_weight_multiplier: float = 1_000_000.0
    pci_weight_multiplier: float = 1.0
    metrics_weight_multiplier: float = 1.0
    metrics_weight_setting: tuple[tuple[str, float], ...] = ()
    """Names of metrics with their ratios."""
    metrics_required: bool = True
    metrics_weight_of_unavailable: float = -10_000.0
