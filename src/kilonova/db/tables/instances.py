"""Servers. What is shown with a server stands in its row, so that a list costs one statement."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Json, LongText, Name, Tag, Uuid

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("display_name", Name, nullable=False),
    sa.Column("display_description", Name),
    sa.Column("hostname", Name, nullable=False),
    sa.Column("reservation_id", sa.String(64), nullable=False),
    sa.Column("launch_index", sa.Integer, nullable=False, server_default="0"),
    sa.Column("image_ref", Name, nullable=False, server_default="", comment="Empty when booted from a volume"),
    sa.Column("image", Json, comment="Name, properties and hash of the image at creation"),
    sa.Column("kernel_id", Name, nullable=False, server_default=""),
    sa.Column("ramdisk_id", Name, nullable=False, server_default=""),
    sa.Column("flavorid", Name, nullable=False),
    sa.Column("flavor", Json, nullable=False, comment="The flavor at creation, extra specs included"),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("root_gb", sa.Integer, nullable=False),
    sa.Column("ephemeral_gb", sa.Integer, nullable=False, server_default="0"),
    sa.Column("swap_mb", sa.Integer, nullable=False, server_default="0"),
    sa.Column("vm_state", sa.String(32), nullable=False),
    sa.Column("task_state", sa.String(32)),
    sa.Column("power_state", sa.Integer, nullable=False, server_default="0"),
    sa.Column("progress", sa.Integer, nullable=False, server_default="0"),
    sa.Column("host", Name),
    sa.Column("node", Name),
    sa.Column("claimed", sa.Boolean, nullable=False, server_default=sa.false(), comment="Holds resources of its node"),
    sa.Column("availability_zone", Name),
    sa.Column("pinned_availability_zone", Name),
    sa.Column("key_name", Name),
    sa.Column("key_data", LongText),
    sa.Column("key_type", sa.String(16)),
    sa.Column("user_data", LongText, comment="Base64"),
    sa.Column(
        "config_drive", sa.String(16), nullable=False, server_default="", comment="As the API shows it: 'True' or ''"
    ),
    sa.Column("access_ip_v4", sa.String(45)),
    sa.Column("access_ip_v6", sa.String(45)),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("disk_config", sa.String(16), nullable=False, server_default="MANUAL"),
    sa.Column("locked", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("locked_by", sa.String(16), comment="'owner' or 'admin'"),
    sa.Column("locked_reason", Name),
    sa.Column("root_device_name", Name),
    sa.Column("security_groups", Json, nullable=False),
    sa.Column("addresses", Json, nullable=False, comment="Cached from the ports"),
    sa.Column("network_info", Json, comment="Cached from the ports, as hosts need it"),
    sa.Column("requested_networks", Json),
    sa.Column("scheduler_hints", Json, nullable=False),
    sa.Column("server_group", Uuid, comment="Of which it is a member"),
    sa.Column("trusted_certs", Json),
    sa.Column("fault", Json, comment="code, message, details, created"),
    sa.Column("machine_type", Name),
    sa.Column("cpu_model", Name),
    sa.Column("guest_password", LongText, comment="As the guest has posted it, encrypted"),
    sa.Column(
        "desired_power", sa.Integer, comment="What the owner asked for last: 1 running, 3 paused, 4 off, 7 suspended"
    ),
    sa.Column("operation_id", sa.BigInteger, comment="The slot: the exclusive operation under way"),
    sa.Column("deleting", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.Column("launched_at", DateTime),
    sa.Column("terminated_at", DateTime),
    sa.Column("deleted_at", DateTime),
    sa.Column("deleted", sa.BigInteger, nullable=False, server_default="0", comment="The row's id once deleted"),
    sa.Index("ix_instances_project_created", "project_id", "deleted", "created_at", "id"),
    sa.Index("ix_instances_created", "deleted", "created_at", "id"),
    sa.Index("ix_instances_host", "host", "deleted"),
    sa.Index("ix_instances_updated", "project_id", "updated_at"),
    sa.Index("ix_instances_reservation", "reservation_id"),
    sa.Index("ix_instances_server_group", "server_group", "deleted"),
    sqlite_autoincrement=True,
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("resource_id", Uuid, primary_key=True),
    sa.Column("tag", Tag, primary_key=True),
)
