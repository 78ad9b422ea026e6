"""Options of nova.conf that are not ours: those without effect here, and those that promise what is not kept here.

The first kind is named once in the log; the second stops the start with what replaces it, unless its value asks for
what Kilonova does anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fixed:
    """`accepts`: a pattern of the values that are honoured. `instead`: what to do about any other one."""

    accepts: str
    instead: str

    def honoured(self, value: str) -> bool:
        return re.fullmatch(self.accepts, value.strip(), re.IGNORECASE) is not None


_NO = r"|0|no|off|false|none"
_YES = r"1|yes|on|true"
_OWN_CLAIMS = "Kilonova claims resources in its own database"

FIXED: dict[str, dict[str, Fixed]] = {
    "filter_scheduler": {
        "image_props_weight_multiplier": Fixed(r"0(\.0*)?", "there is no such weigher; remove it"),
        "pci_in_placement": Fixed(_NO, _OWN_CLAIMS),
    },
    "DEFAULT": {
        "auth_strategy": Fixed("keystone", "Identity is always Keystone; remove it"),
        "rpc_backend": Fixed(r"(.*[._])?(rabbit|kombu)", "the broker is RabbitMQ: transport_url = rabbit://..."),
        "network_api_class": Fixed(r".*neutron.*", "Networking is Neutron: see [neutron]"),
        "security_group_api": Fixed("neutron|nova.*neutron.*", "security groups are Neutron's: see [neutron]"),
        "use_neutron": Fixed(_YES, "Networking is Neutron: see [neutron]"),
        "linuxnet_interface_driver": Fixed(
            r"|.*NeutronLinuxBridge.*|.*LinuxBridgeInterfaceDriver",
            "ports are plugged as Neutron binds them; remove it",
        ),
        "firewall_driver": Fixed(r"|.*Noop.*", "security groups are Neutron's: nova.virt.firewall.NoopFirewallDriver"),
        "volume_api_class": Fixed(r".*cinder.*", "Block Storage is Cinder; remove it"),
        "image_service": Fixed(r".*glance.*", "Image is Glance: see [glance]"),
        "use_cow_images": Fixed(_YES, "disks are always overlays over cached images; remove it"),
        "preallocate_images": Fixed("|none", "disks grow as they are written to; remove it"),
        "use_syslog": Fixed(_NO, "logs go to standard error (the journal) or to log_file"),
        "log_config_append": Fixed("", "say debug, verbose, log_file"),
        "default_floating_pool": Fixed("|public|nova", "floating IPs are Neutron's; remove it"),
        "use_forwarded_for": Fixed(_NO, "[oslo_middleware] enable_proxy_headers_parsing"),
        "quota_driver": Fixed(r"|.*DbQuotaDriver", "limits are in [quota] and in the database"),
        "api_paste_config": Fixed(r"(.*/)?api-paste\.ini", "what the API is made of cannot be chosen; remove it"),
        "allow_resize_to_same_host": Fixed(_NO, "remove it: a resize never stays on its host here"),
    },
    "glance": {
        "enable_rbd_download": Fixed(_NO, "images are downloaded from Image: turn it off"),
        "allowed_direct_url_schemes": Fixed("", "images are downloaded from Image; remove it"),
    },
    "key_manager": {
        "backend": Fixed(r"|barbican|castellan\.key_manager\.barbican_.*", "the key manager is Barbican; remove it"),
    },
    "barbican": {
        "barbican_api_version": Fixed("|v1", "the key manager speaks v1; remove it"),
    },
    "keystone_authtoken": {
        "delay_auth_decision": Fixed(_NO, "a request without a good token is refused at once; turn it off"),
        "auth_section": Fixed("", "say it in [keystone_authtoken] itself"),
        "service_token_roles_required": Fixed(_YES, "a service token needs such a role: turn it on"),
        "enforce_token_bind": Fixed("|disabled|permissive", "tokens bound to a network name are not known here"),
        "auth_version": Fixed("|v?3(.0)?", "Identity speaks v3"),
        "memcache_security_strategy": Fixed("|none|mac|encrypt", "remove it: no token is kept outside of the process"),
    },
    "libvirt": {
        "images_type": Fixed("|default|qcow2|raw|flat", "disks are qcow2 files in instances_path; remove it"),
        "images_rbd_pool": Fixed("", "disks are files in instances_path; remove it"),
        "images_volume_group": Fixed("", "disks are files in instances_path; remove it"),
        "inject_password": Fixed(_NO, "nothing is written into images: use a config drive"),
        "inject_key": Fixed(_NO, "nothing is written into images: use a config drive"),
        "inject_partition": Fixed(r"|-2", "nothing is written into images: use a config drive"),
        "use_usb_tablet": Fixed(_YES, "guests with a screen have a tablet; remove it"),
        "disk_cachemodes": Fixed("", "the cache mode is chosen by what the file system can; remove it"),
        "volume_use_multipath": Fixed(_NO, "volumes are not attached by this release"),
        "rx_queue_size": Fixed("", "queues have their default size; remove it"),
        "tx_queue_size": Fixed("", "queues have their default size; remove it"),
        "swtpm_enabled": Fixed(_NO, "guests have no TPM in this release: turn it off"),
    },
    "vnc": {
        "keymap": Fixed("|en-us", "remove it: the browser's keyboard is used"),
    },
    "spice": {"enabled": Fixed(_NO, "consoles are VNC and serial: [spice] enabled = false")},
    "rdp": {"enabled": Fixed(_NO, "consoles are VNC and serial: [rdp] enabled = false")},
    "mks": {"enabled": Fixed(_NO, "consoles are VNC and serial: [mks] enabled = false")},
    "cells": {"enable": Fixed(_NO, "there is one cell: turn it off")},
    "ephemeral_storage_encryption": {"enabled": Fixed(_NO, "disks are not encrypted by this release: turn it off")},
    "database": {"backend": Fixed("|sqlalchemy", "the database is MariaDB or PostgreSQL: see connection")},
    "oslo_messaging_rabbit": {
        "fake_rabbit": Fixed(_NO, "the broker is RabbitMQ; remove it"),
    },
    "oslo_policy": {
        "enforce_scope": Fixed(_YES, "scopes are always enforced: write other rules into policy_file"),
        "enforce_new_defaults": Fixed(_YES, "the old defaults are gone: write other rules into policy_file"),
        "policy_default_rule": Fixed("default", "write rules into policy_file"),
        "policy_dirs": Fixed(r"|policy\.d", "write rules into policy_file"),
    },
    "oslo_messaging_notifications": {
        "driver": Fixed("|noop", "no notifications are sent by this release; remove it"),
    },
    "notifications": {"notify_on_state_change": Fixed("", "no notifications are sent by this release; remove it")},
    "quota": {
        "driver": Fixed(r"|.*DbQuotaDriver", "limits are in [quota] and in the database: no Unified Limits"),
        "count_usage_from_placement": Fixed(_NO, "what counts is in Kilonova's own database; turn it off"),
    },
    "api": {"auth_strategy": Fixed("keystone", "Identity is always Keystone; remove it")},
    "healthcheck": {
        "path": Fixed("|/healthcheck", "health is told at /healthcheck; remove it"),
        "allowed_source_ranges": Fixed("", "restrict who may ask in front of it; remove it"),
        "ignore_proxied_requests": Fixed(_NO, "restrict who may ask in front of it; remove it"),
        "enable_by_file_paths": Fixed("", "say disable_by_file_path"),
        "disable_by_file_paths": Fixed("", "say disable_by_file_path"),
    },
    "wsgi": {"ssl_ca_file": Fixed("", "certificates of clients are not asked for; remove it")},
}

WITHOUT_EFFECT: dict[str, str] = {
    "placement": _OWN_CLAIMS,
    "placement_database": _OWN_CLAIMS,
    "api_database": "there is one database",
    "upgrade_levels": "roles of two releases understand each other",
    "cache": "each process keeps its own",
    "cinder": "volumes are refused before anything changes",
    "vault": "certificates are the key manager's (Barbican): see [barbican]",
    "barbican_service_user": "certificates are asked for with the caller's token",
    "service_user": "the service user's own token is used",
    "ironic": "there is no such hypervisor here",
    "vmware": "there is no such hypervisor here",
    "xenserver": "there is no such hypervisor here",
    "hyperv": "there is no such hypervisor here",
    "zvm": "there is no such hypervisor here",
    "spice": "consoles are VNC and serial",
    "rdp": "consoles are VNC and serial",
    "mks": "consoles are VNC and serial",
    "cells": "there is one cell",
    "ephemeral_storage_encryption": "turned off",
    "osapi_v21": "every version is served",
    "osapi_v3": "every version is served",
    "oslo_messaging_amqp": "the broker is RabbitMQ",
    "oslo_messaging_kafka": "the broker is RabbitMQ",
    "oslo_messaging_qpid": "the broker is RabbitMQ",
    "oslo_messaging_zmq": "the broker is RabbitMQ",
    "oslo_messaging_notifications": "no notifications are sent",
    "notifications": "no notifications are sent",
    "oslo_reports": "no reports are written",
    "oslo_limit": "limits are in [quota]",
    "os_vif_linux_bridge": "ports are plugged by Kilonova itself",
    "os_vif_ovs": "ports are plugged by Kilonova itself",
    "privsep": "the agent runs as root",
    "profiler": "there is no such profiler",
    "remote_debug": "there is no such debugger",
    "cors": "no headers for foreign pages are sent",
    "guestfs": "nothing is written into images",
    "devices": "there are none of these devices",
}
"""Whole sections."""

_HARMLESS = """
[DEFAULT]
api_rate_limit backdoor_port backdoor_socket bandwidth_poll_interval bindir block_device_allocate_retries
cert_manager compute_manager conductor_manager console_manager consoleauth_manager db_driver
default_log_levels dhcpbridge dhcpbridge_flagfile ec2_private_dns_show_ip executor_thread_pool_size
fatal_deprecations force_dhcp_release heal_instance_info_cache_interval injected_network_template
instance_delete_interval instance_format instance_uuid_format iscsi_helper libvirt_nonblocking
libvirt_use_virtio_for_bridges log_date_format log_options log_rotation_type logging_context_format_string
logging_debug_format_suffix logging_default_format_string logging_exception_prefix
logging_user_identity_format max_logfile_count max_logfile_size_mb memcached_servers network_allocate_retries
max_age network_manager notification_topics notify_api_faults osapi_volume_listen periodic_enable periodic_fuzzy_delay
publish_errors pybasedir quota_fixed_ips quota_floating_ips quota_networks quota_security_group_rules
quota_security_groups rate_limit_burst rate_limit_except_level rate_limit_interval reservation_expire rootwrap_config
rpc_conn_pool_size rpc_response_timeout rpc_thread_pool_size run_external_periodic_tasks
scheduler_host_manager scheduler_manager servicegroup_driver syslog_log_facility tempdir
until_refresh update_resources_interval use_journal use_json use_rootwrap_daemon use_stderr volume_usage_poll_interval
volumes_path watch_log_file
[database]
connection_debug connection_trace db_inc_retry_interval db_max_retries db_max_retry_interval db_retry_interval
max_retries min_pool_size mysql_sql_mode mysql_wsrep_sync_wait pool_timeout retry_interval slave_connection
sqlite_db sqlite_synchronous use_db_reconnect
[oslo_messaging_rabbit]
amqp_auto_delete amqp_durable_queues direct_mandatory_flag enable_cancel_on_failover heartbeat_in_pthread
heartbeat_rate kombu_compression kombu_failover_strategy kombu_missing_consumer_retry_timeout
kombu_reconnect_delay rabbit_ha_queues rabbit_interval_max rabbit_login_method rabbit_max_retries
rabbit_qos_prefetch_count rabbit_quorum_delivery_limit rabbit_quorum_queue rabbit_retry_backoff
rabbit_retry_interval rabbit_stream_fanout rabbit_transient_queues_ttl rabbit_transient_quorum_queue
rpc_conn_pool_size socket_timeout ssl_version tcp_user_timeout use_queue_manager
[keystone_authtoken]
auth_host auth_port auth_protocol cache check_revocations_for_cached domain_id domain_name hash_algorithms
http_connect_timeout http_request_max_retries include_service_catalog interface memcache_pool_conn_get_timeout
memcache_pool_dead_retry memcache_pool_maxsize memcache_pool_socket_timeout memcache_pool_unused_timeout
memcache_secret_key memcache_use_advanced_pool memcached_servers revocation_cache_time service_type
signing_dir system_scope trust_id user_id
[neutron]
admin_tenant_id admin_user_id allow_duplicate_networks auth_strategy collect_timing connect_retries
default_floating_pool extension_sync_interval http_retries ovs_bridge physnets retriable_status_codes
service_name service_type split_loggers timeout url_timeout valid_interfaces
[glance]
debug num_retries region_name service_name service_type timeout valid_interfaces
[crypto]
ca_file crl_file key_file keys_path project_cert_subject use_project_ca user_cert_subject
[barbican]
auth_endpoint number_of_retries retry_delay send_service_user_token
[key_manager]
auth_type auth_url fixed_key password project_domain_id project_domain_name project_id project_name token
user_domain_id user_domain_name user_id username
[oslo_concurrency]
disable_process_locking
[healthcheck]
backends
[quota]
max_age recheck_quota reservation_expire until_refresh
[libvirt]
block_migration_flag checksum_base_images checksum_interval_seconds iscsi_use_multipath
libvirt_inject_partition live_migration_bandwidth live_migration_flag live_migration_inbound_addr
live_migration_permit_auto_converge live_migration_permit_post_copy live_migration_scheme
live_migration_tunnelled live_migration_uri nfs_mount_point_base remove_unused_base_images
remove_unused_kernels remove_unused_resized_minimum_age_seconds rescue_image_id rescue_kernel_id
rescue_ramdisk_id snapshots_directory sparse_logical_volumes vif_driver
[vnc]
vnc_keymap xvpvncproxy_base_url xvpvncproxy_host xvpvncproxy_port
[serial_console]
port_range serialproxy_host serialproxy_port
[consoleauth]
manager
[conductor]
manager topic use_local
[wsgi]
api_paste_config default_pool_size keep_alive max_header_line tcp_keepidle
wsgi_log_format
[scheduler]
discover_hosts_in_cells_interval driver host_manager image_metadata_prefilter manager periodic_task_interval
query_placement_for_availability_zone query_placement_for_image_type_support topic
[filter_scheduler]
baremetal_enabled_filters cross_cell_move_weight_multiplier use_baremetal_filters
[image_cache]
precache_concurrency subdirectory_name
[workarounds]
disable_group_policy_check_upcall disable_libvirt_livesnapshot disable_rootwrap enable_consoleauth
handle_virt_lifecycle_events rbd_volume_local_attach skip_cpu_compare_on_dest
"""


def _read(text: str) -> dict[str, frozenset[str]]:
    sections = (part.partition("]") for part in text.split("[")[1:])
    return {section: frozenset(names.split()) for section, _, names in sections}


HARMLESS = _read(_HARMLESS)
"""Options whose absence changes nothing that a user or an attacker would notice."""
