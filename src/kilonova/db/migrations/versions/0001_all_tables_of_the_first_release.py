"""All tables of the first release"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kilonova.db.types import DateTime, ExactName, Id, Json, LongText, Tag

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aggregate_hosts",
        sa.Column("aggregate_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("aggregate_id", "host", name=op.f("pk_aggregate_hosts")),
    )
    op.create_index("ix_aggregate_hosts_host", "aggregate_hosts", ["host"], unique=False)
    op.create_table(
        "aggregate_metadata",
        sa.Column("aggregate_id", sa.BigInteger(), nullable=False),
        sa.Column("key", ExactName, nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("aggregate_id", "key", name=op.f("pk_aggregate_metadata")),
    )
    op.create_table(
        "aggregates",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", ExactName, nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False, comment="Grows with every change"),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aggregates")),
        sa.UniqueConstraint("name", name=op.f("uq_aggregates_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_aggregates_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "compute_nodes",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("service_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("hypervisor_hostname", sa.String(length=255), nullable=False),
        sa.Column("hypervisor_type", sa.String(length=64), nullable=False),
        sa.Column("hypervisor_version", sa.Integer(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("local_gb", sa.Integer(), nullable=False),
        sa.Column("vcpus_max", sa.Integer(), nullable=False, comment="(vcpus - reserved) x allocation ratio"),
        sa.Column("memory_mb_max", sa.Integer(), nullable=False),
        sa.Column("local_gb_max", sa.Integer(), nullable=False),
        sa.Column("vcpus_used", sa.Integer(), server_default="0", nullable=False),
        sa.Column("memory_mb_used", sa.Integer(), server_default="0", nullable=False),
        sa.Column("local_gb_used", sa.Integer(), server_default="0", nullable=False),
        sa.Column("running_vms", sa.Integer(), server_default="0", nullable=False, comment="Servers that hold a claim"),
        sa.Column("failed_builds", sa.Integer(), server_default="0", nullable=False, comment="Since one went well"),
        sa.Column("cpu_allocation_ratio", sa.Double(), server_default="1", nullable=False),
        sa.Column("ram_allocation_ratio", sa.Double(), server_default="1", nullable=False),
        sa.Column("disk_allocation_ratio", sa.Double(), server_default="1", nullable=False),
        sa.Column("disk_available_least", sa.Integer(), nullable=True),
        sa.Column("cpu_info", Json, nullable=False),
        sa.Column("traits", Json, nullable=False),
        sa.Column(
            "supported_instances", Json, nullable=True, comment="[architecture, hypervisor type, VM mode] of guests"
        ),
        sa.Column("metrics", Json, nullable=True),
        sa.Column("numa_cells", Json, nullable=True, comment="CPUs, memory and huge pages by NUMA cell"),
        sa.Column("host_ip", sa.String(length=45), nullable=True),
        sa.Column("uptime", sa.String(length=255), nullable=True),
        sa.Column(
            "generation",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Grows with every change but claims",
        ),
        sa.Column(
            "aggregates_generation",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Grows with every change of what its host's aggregates say",
        ),
        sa.Column(
            "changed",
            sa.Double(),
            server_default="0",
            nullable=False,
            comment="At the last change, claims too; database clock",
        ),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compute_nodes")),
        sa.UniqueConstraint("host", "hypervisor_hostname", name=op.f("uq_compute_nodes_host_hypervisor_hostname")),
        sa.UniqueConstraint("uuid", name=op.f("uq_compute_nodes_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_compute_nodes_changed", "compute_nodes", ["changed"], unique=False)
    op.create_table(
        "compute_node_resources",
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("resource_class", sa.String(length=255), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("max", sa.Integer(), nullable=False, comment="(total - reserved) x allocation ratio"),
        sa.Column("used", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("node_id", "resource_class", name=op.f("pk_compute_node_resources")),
        comment="Resources of other classes than vCPUs, memory and disk",
    )
    op.create_table(
        "pci_devices",
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(length=16), nullable=False),
        sa.Column("resource_class", sa.String(length=255), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False, comment="Its host still gives it away"),
        sa.Column(
            "server_uuid", sa.String(length=36), nullable=True, comment="Who has it; no two servers have the same"
        ),
        sa.PrimaryKeyConstraint("node_id", "address", name=op.f("pk_pci_devices")),
        comment="PCI devices that hosts give to guests",
    )
    op.create_index("ix_pci_devices_server_uuid", "pci_devices", ["server_uuid"], unique=False)
    op.create_table(
        "console_auth_tokens",
        sa.Column("id", Id, nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False, comment="SHA-256; the token is kept nowhere"),
        sa.Column("server_uuid", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False, comment="Of the server when the token was issued"),
        sa.Column("console_type", sa.String(length=16), nullable=False, comment="novnc or serial"),
        sa.Column("address", sa.String(length=255), nullable=False, comment="Of the console when the token was issued"),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False, comment="Database clock, seconds"),
        sa.Column(
            "session_hash",
            sa.String(length=64),
            nullable=True,
            comment="Who consumed it; empty: somebody who cannot come back",
        ),
        sa.Column(
            "connection",
            sa.String(length=36),
            nullable=True,
            comment="The connection that has the console, or had it last",
        ),
        sa.Column("reconnect_until", sa.Double(), nullable=True, comment="Database clock, seconds"),
        sa.Column("revoked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_auth_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_console_auth_tokens_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_console_auth_tokens_connection", "console_auth_tokens", ["connection"], unique=False)
    op.create_index("ix_console_auth_tokens_expires_at", "console_auth_tokens", ["expires_at"], unique=False)
    op.create_index("ix_console_auth_tokens_server", "console_auth_tokens", ["server_uuid"], unique=False)
    op.create_table(
        "instance_actions",
        sa.Column("id", Id, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False, comment="Workflow"),
        sa.Column("action", sa.String(length=64), nullable=False, comment="Name in os-instance-actions"),
        sa.Column("server_uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column(
            "state", sa.String(length=16), nullable=False, comment="queued ready running done failed superseded stuck"
        ),
        sa.Column("phase", sa.String(length=8), server_default="do", nullable=False, comment="do or undo"),
        sa.Column(
            "step", sa.Integer(), server_default="0", nullable=False, comment="Index of the step to do or undo next"
        ),
        sa.Column(
            "attempt", sa.Integer(), server_default="0", nullable=False, comment="Grows when steps are done anew"
        ),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column(
            "epoch", sa.BigInteger(), server_default="0", nullable=False, comment="Grows with every claim; the fence"
        ),
        sa.Column("lease_until", sa.Double(), server_default="0", nullable=False, comment="Database clock, seconds"),
        sa.Column("wake_at", sa.Double(), server_default="0", nullable=False, comment="Database clock, seconds"),
        sa.Column("data", Json, nullable=False, comment="Parameters and results of steps"),
        sa.Column("secrets", Json, nullable=True, comment="Erased at the end"),
        sa.Column("progress", Json, nullable=True, comment="stage and percent of the step under way"),
        sa.Column("error", sa.Text(), nullable=True, comment="What the owner of the server is told"),
        sa.Column(
            "traceparent",
            sa.String(length=55),
            nullable=True,
            comment="W3C, of the request; empty for those that are not traced",
        ),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.Column("finished_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_actions")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_instance_actions_open", "instance_actions", ["state", "wake_at"], unique=False)
    op.create_index("ix_instance_actions_server", "instance_actions", ["server_uuid", "id"], unique=False)
    op.create_table(
        "instance_actions_events",
        sa.Column("id", Id, nullable=False),
        sa.Column("operation_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=8), nullable=False, comment="do or undo"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("result", sa.String(length=16), nullable=True, comment="Success or Error; empty while under way"),
        sa.Column("details", LongText, nullable=True, comment="For the owner of the server"),
        sa.Column("traceback", LongText, nullable=True),
        sa.Column(
            "epoch", sa.BigInteger(), server_default="0", nullable=False, comment="The operation's, of who did it"
        ),
        sa.Column(
            "waits",
            Json,
            nullable=True,
            comment="What it waited for: [what, details, from, seconds], in seconds from its start",
        ),
        sa.Column("started_at", DateTime, nullable=False),
        sa.Column("finished_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_actions_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_instance_actions_events_operation", "instance_actions_events", ["operation_id", "id"], unique=False
    )
    op.create_table(
        "instance_group_hosts",
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column(
            "servers", sa.Integer(), server_default="0", nullable=False, comment="Members with a claim on the host"
        ),
        sa.PrimaryKeyConstraint("group_id", "host", name=op.f("pk_instance_group_hosts")),
    )
    op.create_table(
        "instance_groups",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "policy",
            sa.String(length=32),
            nullable=False,
            comment="affinity, anti-affinity, soft-affinity, soft-anti-affinity",
        ),
        sa.Column("rules", Json, nullable=False, comment="max_server_per_host, with anti-affinity only"),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_groups")),
        sa.UniqueConstraint("uuid", name=op.f("uq_instance_groups_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_instance_groups_project", "instance_groups", ["project_id", "id"], unique=False)
    op.create_table(
        "instance_type_projects",
        sa.Column("instance_type_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("instance_type_id", "project_id", name=op.f("pk_instance_type_projects")),
    )
    op.create_table(
        "instance_types",
        sa.Column("id", Id, nullable=False),
        sa.Column("flavorid", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", LongText, nullable=True),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("root_gb", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("swap_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rxtx_factor", sa.Float(), server_default="1", nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("is_public", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("extra_specs", Json, nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_types")),
        sa.UniqueConstraint("flavorid", name=op.f("uq_instance_types_flavorid")),
        sa.UniqueConstraint("name", name=op.f("uq_instance_types_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instances",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("display_description", sa.String(length=255), nullable=True),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("reservation_id", sa.String(length=64), nullable=False),
        sa.Column("launch_index", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "image_ref",
            sa.String(length=255),
            server_default="",
            nullable=False,
            comment="Empty when booted from a volume",
        ),
        sa.Column("image", Json, nullable=True, comment="Name, properties and hash of the image at creation"),
        sa.Column("kernel_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("ramdisk_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("flavorid", sa.String(length=255), nullable=False),
        sa.Column("flavor", Json, nullable=False, comment="The flavor at creation, extra specs included"),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("root_gb", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("swap_mb", sa.Integer(), server_default="0", nullable=False),
        sa.Column("vm_state", sa.String(length=32), nullable=False),
        sa.Column("task_state", sa.String(length=32), nullable=True),
        sa.Column("power_state", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress", sa.Integer(), server_default="0", nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column(
            "claimed", sa.Boolean(), server_default=sa.false(), nullable=False, comment="Holds resources of its node"
        ),
        sa.Column(
            "claim", Json, nullable=True, comment="What is claimed, where that is not what the flavor's columns say"
        ),
        sa.Column("availability_zone", sa.String(length=255), nullable=True),
        sa.Column("pinned_availability_zone", sa.String(length=255), nullable=True),
        sa.Column("key_name", sa.String(length=255), nullable=True),
        sa.Column("key_data", LongText, nullable=True),
        sa.Column("key_type", sa.String(length=16), nullable=True),
        sa.Column("user_data", LongText, nullable=True, comment="Base64"),
        sa.Column(
            "config_drive",
            sa.String(length=16),
            server_default="",
            nullable=False,
            comment="As the API shows it: 'True' or ''",
        ),
        sa.Column("access_ip_v4", sa.String(length=45), nullable=True),
        sa.Column("access_ip_v6", sa.String(length=45), nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("disk_config", sa.String(length=16), server_default="MANUAL", nullable=False),
        sa.Column("locked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("locked_by", sa.String(length=16), nullable=True, comment="'owner' or 'admin'"),
        sa.Column("locked_reason", sa.String(length=255), nullable=True),
        sa.Column("root_device_name", sa.String(length=255), nullable=True),
        sa.Column("security_groups", Json, nullable=False),
        sa.Column("addresses", Json, nullable=False, comment="Cached from the ports"),
        sa.Column("network_info", Json, nullable=True, comment="Cached from the ports, as hosts need it"),
        sa.Column("requested_networks", Json, nullable=True),
        sa.Column("scheduler_hints", Json, nullable=False),
        sa.Column("server_group", sa.String(length=36), nullable=True, comment="Of which it is a member"),
        sa.Column("trusted_certs", Json, nullable=True),
        sa.Column("fault", Json, nullable=True, comment="code, message, details, created"),
        sa.Column("machine_type", sa.String(length=255), nullable=True),
        sa.Column("cpu_model", sa.String(length=255), nullable=True),
        sa.Column("guest_password", LongText, nullable=True, comment="As the guest has posted it, encrypted"),
        sa.Column(
            "desired_power",
            sa.Integer(),
            nullable=True,
            comment="What the owner asked for last: 1 running, 3 paused, 4 off, 7 suspended",
        ),
        sa.Column(
            "operation_id", sa.BigInteger(), nullable=True, comment="The slot: the exclusive operation under way"
        ),
        sa.Column("deleting", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.Column("launched_at", DateTime, nullable=True),
        sa.Column("terminated_at", DateTime, nullable=True),
        sa.Column("deleted_at", DateTime, nullable=True),
        sa.Column("deleted", sa.BigInteger(), server_default="0", nullable=False, comment="The row's id once deleted"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("uuid", name=op.f("uq_instances_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_instances_created", "instances", ["deleted", "created_at", "id"], unique=False)
    op.create_index("ix_instances_host", "instances", ["host", "deleted"], unique=False)
    op.create_index(
        "ix_instances_project_created", "instances", ["project_id", "deleted", "created_at", "id"], unique=False
    )
    op.create_index("ix_instances_reservation", "instances", ["reservation_id"], unique=False)
    op.create_index("ix_instances_server_group", "instances", ["server_group", "deleted"], unique=False)
    op.create_index("ix_instances_updated", "instances", ["project_id", "updated_at"], unique=False)
    op.create_table(
        "key_pairs",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("fingerprint", sa.String(length=255), nullable=False),
        sa.Column("public_key", LongText, nullable=False),
        sa.Column("created_at", DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_pairs")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_key_pairs_user_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "migrations",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("instance_uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column(
            "migration_type",
            sa.String(length=16),
            nullable=False,
            comment="migration, resize, live-migration or evacuation",
        ),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("source_compute", sa.String(length=255), nullable=True),
        sa.Column("source_node", sa.String(length=255), nullable=True),
        sa.Column("dest_compute", sa.String(length=255), nullable=True),
        sa.Column("dest_node", sa.String(length=255), nullable=True),
        sa.Column("dest_host", sa.String(length=255), nullable=True, comment="The destination's address"),
        sa.Column("old_instance_type_id", sa.BigInteger(), nullable=True),
        sa.Column("new_instance_type_id", sa.BigInteger(), nullable=True),
        sa.Column("hidden", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("memory_total", sa.BigInteger(), nullable=True, comment="Bytes; of live migrations"),
        sa.Column("memory_processed", sa.BigInteger(), nullable=True),
        sa.Column("memory_remaining", sa.BigInteger(), nullable=True),
        sa.Column("disk_total", sa.BigInteger(), nullable=True, comment="Bytes; of live migrations"),
        sa.Column("disk_processed", sa.BigInteger(), nullable=True),
        sa.Column("disk_remaining", sa.BigInteger(), nullable=True),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migrations")),
        sa.UniqueConstraint("uuid", name=op.f("uq_migrations_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_migrations_created", "migrations", ["created_at", "id"], unique=False)
    op.create_index("ix_migrations_instance", "migrations", ["instance_uuid", "id"], unique=False)
    op.create_table(
        "quota_classes",
        sa.Column("class_name", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False, comment="-1: unlimited"),
        sa.PrimaryKeyConstraint("class_name", "resource", name=op.f("pk_quota_classes")),
    )
    op.create_table(
        "quota_usages",
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("instances", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cores", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ram", sa.BigInteger(), server_default="0", nullable=False, comment="MiB"),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_quota_usages")),
    )
    op.create_table(
        "quotas",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column(
            "user_id",
            sa.String(length=255),
            server_default="",
            nullable=False,
            comment="Empty: the whole project's limit",
        ),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False, comment="-1: unlimited"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotas")),
        sa.UniqueConstraint("project_id", "user_id", "resource", name=op.f("uq_quotas_project_id_user_id_resource")),
    )
    op.create_table(
        "services",
        sa.Column("id", Id, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("binary", sa.String(length=64), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("forced_down", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column(
            "availability_zone",
            sa.String(length=255),
            nullable=True,
            comment="Of its aggregate; None: the default zone",
        ),
        sa.Column("incarnation", sa.String(length=64), server_default="", nullable=False),
        sa.Column("boot_id", sa.String(length=64), server_default="", nullable=False, comment="Of the host's machine"),
        sa.Column(
            "report",
            sa.String(length=80),
            server_default="",
            nullable=False,
            comment="Digest of the host's last report",
        ),
        sa.Column("last_seen", sa.Double(), server_default="0", nullable=False, comment="Database clock, seconds"),
        sa.Column("created_at", DateTime, nullable=False),
        sa.Column("updated_at", DateTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        sa.UniqueConstraint("host", "binary", name=op.f("uq_services_host_binary")),
        sa.UniqueConstraint("uuid", name=op.f("uq_services_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "shadow_rows",
        sa.Column("id", Id, nullable=False),
        sa.Column("table_name", sa.String(length=255), nullable=False),
        sa.Column("server_uuid", sa.String(length=36), nullable=True),
        sa.Column("deleted_at", DateTime, nullable=False, comment="The server"),
        sa.Column("archived_at", DateTime, nullable=False),
        sa.Column("document", Json, nullable=False, comment="The row"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_rows")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_shadow_rows_deleted_at", "shadow_rows", ["deleted_at"])
    op.create_table(
        "tags",
        sa.Column("resource_id", sa.String(length=36), nullable=False),
        sa.Column("tag", Tag, nullable=False),
        sa.PrimaryKeyConstraint("resource_id", "tag", name=op.f("pk_tags")),
    )
    op.create_table(
        "tombstones",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("server_uuid", sa.String(length=36), nullable=False),
        sa.Column("operation_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", DateTime, nullable=False),
        sa.PrimaryKeyConstraint("host", "server_uuid", name=op.f("pk_tombstones")),
        comment="Servers deleted while their host was away: the guest may still be there",
    )
