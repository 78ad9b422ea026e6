"""All tables, one module per resource; `metadata` is what migrations are checked against."""

from __future__ import annotations

from kilonova.db.tables.aggregates import aggregate_hosts, aggregate_metadata, aggregates
from kilonova.db.tables.base import metadata
from kilonova.db.tables.console_tokens import console_tokens
from kilonova.db.tables.flavors import instance_type_projects, instance_types
from kilonova.db.tables.hosts import compute_nodes, node_resources, pci_devices, services, tombstones
from kilonova.db.tables.instances import instances, tags
from kilonova.db.tables.key_pairs import key_pairs
from kilonova.db.tables.migrations import migrations
from kilonova.db.tables.operations import operation_steps, operations
from kilonova.db.tables.quotas import quota_classes, quota_usages, quotas
from kilonova.db.tables.server_groups import instance_group_hosts, instance_groups
from kilonova.db.tables.shadow import shadow_rows

__all__ = [
    "aggregate_hosts",
    "aggregate_metadata",
    "aggregates",
    "compute_nodes",
    "console_tokens",
    "instance_group_hosts",
    "instance_groups",
    "instance_type_projects",
    "instance_types",
    "instances",
    "key_pairs",
    "metadata",
    "migrations",
    "node_resources",
    "operation_steps",
    "operations",
    "pci_devices",
    "quota_classes",
    "quota_usages",
    "quotas",
    "services",
    "shadow_rows",
    "tags",
    "tombstones",
]
