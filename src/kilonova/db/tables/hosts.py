from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Json, Name, Uuid

services = sa.Table(
    "services",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("host", Name, nullable=False),
    sa.Column("binary", sa.String(64), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("disabled_reason", Name),
    sa.Column("forced_down", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("availability_zone", Name, comment="Of its aggregate; None: the default zone"),
    sa.Column("incarnation", sa.String(64), nullable=False, server_default=""),
    sa.Column("boot_id", sa.String(64), nullable=False, server_default="", comment="Of the host's machine"),
    sa.Column("report", sa.String(80), nullable=False, server_default="", comment="Digest of the host's last report"),
    sa.Column("last_seen", sa.Double, nullable=False, server_default="0", comment="Database clock, seconds"),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.UniqueConstraint("host", "binary"),
    sqlite_autoincrement=True,
)

compute_nodes = sa.Table(
    "compute_nodes",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("service_id", sa.BigInteger, nullable=False),
    sa.Column("host", Name, nullable=False),
    sa.Column("hypervisor_hostname", Name, nullable=False),
    sa.Column("hypervisor_type", sa.String(64), nullable=False),
    sa.Column("hypervisor_version", sa.Integer, nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("local_gb", sa.Integer, nullable=False),
    sa.Column("vcpus_max", sa.Integer, nullable=False, comment="(vcpus - reserved) x allocation ratio"),
    sa.Column("memory_mb_max", sa.Integer, nullable=False),
    sa.Column("local_gb_max", sa.Integer, nullable=False),
    sa.Column("vcpus_used", sa.Integer, nullable=False, server_default="0"),
    sa.Column("memory_mb_used", sa.Integer, nullable=False, server_default="0"),
    sa.Column("local_gb_used", sa.Integer, nullable=False, server_default="0"),
    sa.Column("running_vms", sa.Integer, nullable=False, server_default="0", comment="Servers that hold a claim"),
    sa.Column("failed_builds", sa.Integer, nullable=False, server_default="0", comment="Since one went well"),
    sa.Column("cpu_allocation_ratio", sa.Double, nullable=False, server_default="1"),
    sa.Column("ram_allocation_ratio", sa.Double, nullable=False, server_default="1"),
    sa.Column("disk_allocation_ratio", sa.Double, nullable=False, server_default="1"),
    sa.Column("disk_available_least", sa.Integer),
    sa.Column("cpu_info", Json, nullable=False),
    sa.Column("traits", Json, nullable=False),
    sa.Column("supported_instances", Json, comment="[architecture, hypervisor type, VM mode] of guests"),
    sa.Column("metrics", Json),
    sa.Column("numa_cells", Json, comment="CPUs, memory and huge pages by NUMA cell"),
    sa.Column("host_ip", sa.String(45)),
    sa.Column("uptime", Name),
    sa.Column(
        "generation", sa.BigInteger, nullable=False, server_default="0", comment="Grows with every change but claims"
    ),
    sa.Column(
        "aggregates_generation",
        sa.BigInteger,
        nullable=False,
        server_default="0",
        comment="Grows with every change of what its host's aggregates say",
    ),
    sa.Column(
        "changed",
        sa.Double,
        nullable=False,
        server_default="0",
        comment="At the last change, claims too; database clock",
    ),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.UniqueConstraint("host", "hypervisor_hostname"),
    sa.Index("ix_compute_nodes_changed", "changed"),
    sqlite_autoincrement=True,
)

node_resources = sa.Table(
    "compute_node_resources",
    metadata,
    sa.Column("node_id", sa.BigInteger, primary_key=True),
    sa.Column("resource_class", Name, primary_key=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("max", sa.Integer, nullable=False, comment="(total - reserved) x allocation ratio"),
    sa.Column("used", sa.Integer, nullable=False, server_default="0"),
    comment="Resources of other classes than vCPUs, memory and disk",
)

pci_devices = sa.Table(
    "pci_devices",
    metadata,
    sa.Column("node_id", sa.BigInteger, primary_key=True),
    sa.Column("address", sa.String(16), primary_key=True),
    sa.Column("resource_class", Name, nullable=False),
    sa.Column("present", sa.Boolean, nullable=False, comment="Its host still gives it away"),
    sa.Column("server_uuid", Uuid, comment="Who has it; no two servers have the same"),
    sa.Index("ix_pci_devices_server_uuid", "server_uuid"),
    comment="PCI devices that hosts give to guests",
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("host", Name, primary_key=True),
    sa.Column("server_uuid", Uuid, primary_key=True),
    sa.Column("operation_id", sa.BigInteger, nullable=False),
    sa.Column("created_at", DateTime, nullable=False),
    comment="Servers deleted while their host was away: the guest may still be there",
)
