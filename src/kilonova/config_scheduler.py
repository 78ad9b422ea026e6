"""The options of scheduling, with the names and groups that operators know."""

from __future__ import annotations

from oslo_config import cfg

from kilonova.errors import Invalid
from kilonova.scheduler.options import ALL_FILTERS, ALL_WEIGHERS, SchedulerOptions

_DEFAULTS = SchedulerOptions()


def _old(name: str) -> list[cfg.DeprecatedOpt]:
    """The name that an option had when all of them stood in [DEFAULT]."""
    return [cfg.DeprecatedOpt(name, group="DEFAULT")]


SCHEDULER: list[cfg.Opt] = [
    cfg.IntOpt(
        "max_attempts",
        default=3,
        min=1,
        deprecated_opts=_old("scheduler_max_attempts"),
        help="Hosts tried for one server",
    ),
    cfg.IntOpt("max_placement_results", default=3, min=1, help="Hosts in a scheduler's answer, the first one chosen"),
    cfg.BoolOpt(
        "limit_tenants_to_placement_aggregate",
        default=False,
        help="Keep projects that aggregates name (filter_tenant_id) within those",
    ),
    cfg.BoolOpt("placement_aggregate_required_for_tenants", default=False, help="With it: other projects find no host"),
    cfg.BoolOpt(
        "enable_isolated_aggregate_filtering",
        default=False,
        help="Keep aggregates with traits for servers that require them all",
    ),
]


def _multiplier(name: str, what: str) -> cfg.FloatOpt:
    return cfg.FloatOpt(
        name,
        default=getattr(_DEFAULTS, name),
        deprecated_opts=_old(name),
        help=f"Weight of {what}; negative: the other way",
    )


FILTER_SCHEDULER: list[cfg.Opt] = [
    cfg.MultiStrOpt(
        "available_filters",
        deprecated_opts=_old("scheduler_available_filters"),
        default=[ALL_FILTERS],
        help="Filters that may be enabled",
    ),
    cfg.ListOpt(
        "enabled_filters",
        deprecated_opts=_old("scheduler_default_filters"),
        default=list(_DEFAULTS.enabled_filters),
        help="Filters in force, in this order",
    ),
    cfg.ListOpt(
        "weight_classes", deprecated_opts=_old("scheduler_weight_classes"), default=[ALL_WEIGHERS], help="Weighers"
    ),
    cfg.IntOpt(
        "host_subset_size",
        deprecated_opts=_old("scheduler_host_subset_size"),
        default=_DEFAULTS.host_subset_size,
        min=1,
        help="Best hosts to choose among",
    ),
    cfg.BoolOpt("shuffle_best_same_weighed_hosts", default=False, help="Choose at random among equally good hosts"),
    cfg.BoolOpt(
        "track_instance_changes",
        deprecated_opts=_old("scheduler_tracks_instance_changes"),
        default=True,
        help="Accepted: the picture of hosts is always kept",
    ),
    cfg.IntOpt(
        "max_instances_per_host",
        deprecated_opts=_old("max_instances_per_host"),
        default=50,
        min=1,
        help="With NumInstancesFilter",
    ),
    cfg.IntOpt(
        "max_io_ops_per_host", deprecated_opts=_old("max_io_ops_per_host"), default=8, min=1, help="With IoOpsFilter"
    ),
    cfg.ListOpt(
        "isolated_images",
        deprecated_opts=_old("isolated_images"),
        default=[],
        help="Images that isolated_hosts are for",
    ),
    cfg.ListOpt("isolated_hosts", deprecated_opts=_old("isolated_hosts"), default=[], help="Hosts for isolated_images"),
    cfg.BoolOpt(
        "restrict_isolated_hosts_to_isolated_images",
        deprecated_opts=_old("restrict_isolated_hosts_to_isolated_images"),
        default=True,
        help="Keep other images off isolated_hosts",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_namespace",
        deprecated_opts=_old("aggregate_image_properties_isolation_namespace"),
        help="Begin of the keys that are compared",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_separator",
        deprecated_opts=_old("aggregate_image_properties_isolation_separator"),
        default=".",
        help="Between it and the rest of the key",
    ),
    cfg.StrOpt("image_properties_default_architecture", help="Of images that tell none"),
    _multiplier("cpu_weight_multiplier", "free vCPUs"),
    _multiplier("ram_weight_multiplier", "free memory"),
    _multiplier("disk_weight_multiplier", "free disk"),
    _multiplier("io_ops_weight_multiplier", "servers being built or moved"),
    _multiplier("num_instances_weight_multiplier", "the number of servers"),
    _multiplier("hypervisor_version_weight_multiplier", "the hypervisor's version"),
    _multiplier("soft_affinity_weight_multiplier", "servers of the same group"),
    _multiplier("soft_anti_affinity_weight_multiplier", "no servers of the same group"),
    _multiplier("build_failure_weight_multiplier", "no failed builds"),
    _multiplier("pci_weight_multiplier", "few free PCI devices"),
]
METRICS: list[cfg.Opt] = [
    cfg.FloatOpt("weight_multiplier", default=1.0, help="Weight of what hosts' monitors measure"),
    cfg.ListOpt("weight_setting", default=[], help="NAME=RATIO of each metric that counts"),
    cfg.BoolOpt("required", default=True, help="Leave out hosts that do not report all of them"),
    cfg.FloatOpt("weight_of_unavailable", default=-10000.0, help="Of hosts that do not, unless required"),
]


def scheduler_options(conf: cfg.ConfigOpts, *, check_rules: bool = True) -> SchedulerOptions:
    """Raises Invalid for a filter, a weigher or a setting that cannot be understood.

    `check_rules`: filters and weighers too, which takes 12 MiB to load.
    """
    if not conf.filter_scheduler.track_instance_changes:
        raise Invalid("Configuration: [filter_scheduler] track_instance_changes: only true is accepted.")
    options = SchedulerOptions(
        max_placement_results=conf.scheduler.max_placement_results,
        limit_tenants_to_placement_aggregate=conf.scheduler.limit_tenants_to_placement_aggregate,
        placement_aggregate_required_for_tenants=conf.scheduler.placement_aggregate_required_for_tenants,
        enable_isolated_aggregate_filtering=conf.scheduler.enable_isolated_aggregate_filtering,
        available_filters=tuple(conf.filter_scheduler.available_filters),
        enabled_filters=tuple(conf.filter_scheduler.enabled_filters),
        weight_classes=tuple(conf.filter_scheduler.weight_classes),
        host_subset_size=conf.filter_scheduler.host_subset_size,
        shuffle_best_same_weighed_hosts=conf.filter_scheduler.shuffle_best_same_weighed_hosts,
        max_instances_per_host=conf.filter_scheduler.max_instances_per_host,
        max_io_ops_per_host=conf.filter_scheduler.max_io_ops_per_host,
        isolated_images=tuple(conf.filter_scheduler.isolated_images),
        isolated_hosts=tuple(conf.filter_scheduler.isolated_hosts),
        restrict_isolated_hosts_to_isolated_images=conf.filter_scheduler.restrict_isolated_hosts_to_isolated_images,
        aggregate_image_properties_isolation_namespace=(
            conf.filter_scheduler.aggregate_image_properties_isolation_namespace
        ),
        aggregate_image_properties_isolation_separator=(
            conf.filter_scheduler.aggregate_image_properties_isolation_separator
        ),
        image_properties_default_architecture=conf.filter_scheduler.image_properties_default_architecture,
        cpu_weight_multiplier=conf.filter_scheduler.cpu_weight_multiplier,
        ram_weight_multiplier=conf.filter_scheduler.ram_weight_multiplier,
        disk_weight_multiplier=conf.filter_scheduler.disk_weight_multiplier,
        io_ops_weight_multiplier=conf.filter_scheduler.io_ops_weight_multiplier,
        num_instances_weight_multiplier=conf.filter_scheduler.num_instances_weight_multiplier,
        hypervisor_version_weight_multiplier=conf.filter_scheduler.hypervisor_version_weight_multiplier,
        soft_affinity_weight_multiplier=conf.filter_scheduler.soft_affinity_weight_multiplier,
        soft_anti_affinity_weight_multiplier=conf.filter_scheduler.soft_anti_affinity_weight_multiplier,
        build_failure_weight_multiplier=conf.filter_scheduler.build_failure_weight_multiplier,
        pci_weight_multiplier=conf.filter_scheduler.pci_weight_multiplier,
        metrics_weight_multiplier=conf.metrics.weight_multiplier,
        metrics_weight_setting=_metrics(conf.metrics.weight_setting),
        metrics_required=conf.metrics.required,
        metrics_weight_of_unavailable=conf.metrics.weight_of_unavailable,
    )
    if check_rules:
        from kilonova.scheduler.registry import make_rules

        make_rules(options)
    return options


def _metrics(settings: list[str]) -> tuple[tuple[str, float], ...]:
    found = []
    for setting in settings:
        name, _, ratio = setting.partition("=")
        try:
            found.append((name.strip(), float(ratio)))
        except ValueError:
            raise Invalid(f"Configuration: [metrics] weight_setting: '{setting}' is no NAME=RATIO.") from None
    return tuple(found)
