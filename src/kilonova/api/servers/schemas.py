"""Request bodies and queries of servers, at every version."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Choice, Field, JsonSchema, Object, Part, QuerySchema, Schema, body

NAME: JsonSchema = {"type": "string", "format": "name", "minLength": 1, "maxLength": 255}
_PADDED_NAME: JsonSchema = {**NAME, "format": "name_with_leading_trailing_spaces"}
# The legacy path takes spaces around names, and strips them where it uses them.
LENIENT_NAME = Choice(Part(_PADDED_NAME, until="2.0"), Part(NAME, since="2.1"))
DESCRIPTION: JsonSchema = {"type": ["string", "null"], "format": "printable", "maxLength": 255}
UUID: JsonSchema = {"type": "string", "format": "uuid"}
IP: JsonSchema = {"type": "string", "oneOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
BOOLEAN: JsonSchema = {
    "type": ["boolean", "string"],
    "enum": [
        True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes",
        False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no",
    ],
}  # fmt: skip
POSITIVE: JsonSchema = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1, "minLength": 1}
METADATA: JsonSchema = {
    "type": "object",
    "patternProperties": {"^[a-zA-Z0-9_:. -]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
TAG: JsonSchema = {"type": "string", "pattern": "^[^,/]*$", "minLength": 1, "maxLength": 60}
MAX_TAGS = 50
TAGS: JsonSchema = {"type": "array", "items": TAG, "maxItems": MAX_TAGS}
FQDN: JsonSchema = {"type": "string", "pattern": "^[a-zA-Z0-9._-]*$", "minLength": 1, "maxLength": 255}
HOST_OR_NONE: JsonSchema = {**FQDN, "type": ["string", "null"]}
_HOST_LABEL: JsonSchema = {
    "type": "string",
    "pattern": "^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$",
    "minLength": 2,
    "maxLength": 63,
}
HOSTNAME = Choice(Part(_HOST_LABEL, until="2.93"), Part(FQDN, since="2.94"))
DISK_CONFIG: JsonSchema = {"type": "string", "enum": ["AUTO", "MANUAL"]}
FLAVOR_REF: JsonSchema = {"type": ["string", "integer"], "minLength": 1}
TEXT: JsonSchema = {"type": "string"}
ANYTHING: JsonSchema = {}
CERTIFICATES: JsonSchema = {
    "type": ["array", "null"],
    "minItems": 1,
    "maxItems": 50,
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1},
}
USER_DATA: JsonSchema = {"type": "string", "format": "base64", "maxLength": 65535}
USER_DATA_OR_NONE: JsonSchema = {**USER_DATA, "type": ["string", "null"]}
PERSONALITY: JsonSchema = {
    "type": "array",
    "items": Object(Field("path", TEXT), Field("contents", {"type": "string", "format": "base64"})),
}
NAME_OR_NONE: JsonSchema = {"oneOf": [{"type": "string", "minLength": 1, "maxLength": 255}, {"type": "null"}]}

_DEVICE = (
    Field("virtual_name", {"type": "string", "maxLength": 255}),
    Field("volume_id", UUID),
    Field("snapshot_id", UUID),
    Field(
        "volume_size", {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1, "maximum": 0x7FFFFFFF}
    ),
    Field(
        "device_name", {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._/-]*$"}
    ),
    Field("delete_on_termination", BOOLEAN),
    Field("no_device", ANYTHING),
    Field("connection_info", {"type": "string", "maxLength": 16777215}),
)  # fmt: skip
_DEVICE_V2 = (
    *_DEVICE,
    Field("source_type", {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]}),
    Field("uuid", {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"}),
    Field("image_id", UUID),
    Field("destination_type", {"type": "string", "enum": ["local", "volume"]}),
    Field("guest_format", {"type": "string", "maxLength": 255}),
    Field("device_type", {"type": "string", "maxLength": 255}),
    Field("disk_bus", {"type": "string", "maxLength": 255}),
    Field("boot_index", {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$"}),
    # A mistake at 2.33 took these away again.
    Field("tag", TAG, since="2.32", until="2.32"),
    Field("tag", TAG, since="2.42"),
    Field("volume_type", {"type": ["string", "null"], "minLength": 0, "maxLength": 255}, since="2.67"),
)

_PORT_OR_NONE: JsonSchema = {"type": ["string", "null"], "format": "uuid"}
_NETWORK_LIST: JsonSchema = {
    "type": "array",
    "items": Object(
        Field("fixed_ip", IP),
        Field("port", _PORT_OR_NONE),
        Field("uuid", TEXT, until="2.36"),
        Field("uuid", UUID, since="2.37"),
        Field("tag", TAG, since="2.32", until="2.36"),
        Field("tag", TAG, since="2.42"),
    ),
}
_NETWORKS = Choice(
    Part(_NETWORK_LIST, until="2.36"),
    Part({"oneOf": [_NETWORK_LIST, {"type": "string", "enum": ["none", "auto"]}]}, since="2.37"),
)

_UUID_OR_UUIDS: JsonSchema = {"oneOf": [{"type": "array", "items": UUID}, UUID]}
_HINTS = Object(
    Field("group", _UUID_OR_UUIDS),
    Field("different_host", _UUID_OR_UUIDS),
    Field("same_host", {"type": ["string", "array"], "items": UUID}),
    Field("query", {"type": ["string", "object"]}),
    Field("target_cell", NAME),
    Field("different_cell", {"type": ["string", "array"], "items": TEXT}),
    Field("build_near_host_ip", IP),
    Field("cidr", {"type": "string", "pattern": "^/[0-9a-f.:]+$"}),
    open_until="2.104",
)

SERVER_CREATE = Schema(
    Object(
        Field(
            "server",
            Object(
                Field("name", LENIENT_NAME, required=True),
                Field("imageRef", {"oneOf": [UUID, {"type": "string", "maxLength": 0}]}),
                Field("flavorRef", FLAVOR_REF, required=True),
                Field("adminPass", TEXT),
                Field("metadata", METADATA),
                Field("networks", _NETWORKS, until="2.36"),
                Field("networks", _NETWORKS, since="2.37", required=True),
                Field("OS-DCF:diskConfig", DISK_CONFIG),
                Field("accessIPv4", {"type": "string", "format": "ipv4"}),
                Field("accessIPv6", {"type": "string", "format": "ipv6"}),
                Field("personality", PERSONALITY, until="2.56"),
                Field("availability_zone", LENIENT_NAME),
                Field("block_device_mapping", {"type": "array", "items": Object(*_DEVICE)}),
                Field("block_device_mapping_v2", {"type": "array", "items": Object(*_DEVICE_V2)}),
                Field("config_drive", BOOLEAN),
                Field("key_name", LENIENT_NAME),
                Field("min_count", POSITIVE),
                Field("max_count", POSITIVE),
                Field("return_reservation_id", BOOLEAN),
                Field("security_groups", {"type": "array", "items": Object(Field("name", LENIENT_NAME))}),
                Field("user_data", USER_DATA_OR_NONE, until="2.0"),
                Field("user_data", USER_DATA, since="2.1"),
                Field("description", DESCRIPTION, since="2.19"),
                Field("tags", TAGS, since="2.52"),
                Field("trusted_image_certificates", CERTIFICATES, since="2.63"),
                Field("host", FQDN, since="2.74"),
                Field("hypervisor_hostname", FQDN, since="2.74"),
                Field("hostname", HOSTNAME, since="2.90"),
            ),
            required=True,
        ),
        Field("os:scheduler_hints", _HINTS),
        Field("OS-SCH-HNT:scheduler_hints", _HINTS),
    )
)

SERVER_UPDATE = body(
    "server",
    Object(
        Field("name", LENIENT_NAME),
        Field("OS-DCF:diskConfig", DISK_CONFIG),
        Field("accessIPv4", {"type": "string", "format": "ipv4"}),
        Field("accessIPv6", {"type": "string", "format": "ipv6"}),
        Field("description", DESCRIPTION, since="2.19"),
        Field("hostname", HOSTNAME, since="2.90"),
        Field("pinned_availability_zone", NAME_OR_NONE, since="2.104"),
    ),
)

SERVER_REBUILD = body(
    "rebuild",
    Object(
        Field("name", LENIENT_NAME),
        Field("imageRef", UUID, required=True),
        Field("adminPass", TEXT),
        Field("metadata", METADATA),
        Field("preserve_ephemeral", BOOLEAN),
        Field("OS-DCF:diskConfig", DISK_CONFIG),
        Field("accessIPv4", {"type": "string", "format": "ipv4"}),
        Field("accessIPv6", {"type": "string", "format": "ipv6"}),
        Field("personality", PERSONALITY, until="2.56"),
        Field("description", DESCRIPTION, since="2.19"),
        Field("key_name", NAME_OR_NONE, since="2.54"),
        Field("user_data", USER_DATA_OR_NONE, since="2.57"),
        Field("trusted_image_certificates", CERTIFICATES, since="2.63"),
        Field("hostname", HOSTNAME, since="2.90"),
    ),
)

SERVER_METADATA = body("metadata", METADATA)
SERVER_META = body("meta", {**METADATA, "minProperties": 1, "maxProperties": 1})
SERVER_TAG = Schema({"type": "null"})
SERVER_TAGS = body("tags", TAGS)


def many(value: JsonSchema) -> dict[str, Any]:
    return {"type": "array", "items": value}


LIMIT: JsonSchema = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0, "minLength": 1}
_PLAIN = many(TEXT)
_REGEX = many({"type": "string", "format": "regex"})
_TIME = many({"type": "string", "format": "date-time"})

SORT_KEYS = (
    "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at",
    "display_description", "display_name", "host", "hostname", "image_ref", "instance_type_id", "kernel_id", "key_name",
    "launch_index", "launched_at", "locked_by", "node", "power_state", "progress", "project_id", "ramdisk_id",
    "root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state",
)  # fmt: skip
IGNORED_SORT_KEYS = (
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted", "deleted_at",
    "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on", "locked", "memory_mb",
    "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode",
)  # fmt: skip
"""Once taken, so taken still below 2.75, but without effect."""
JOINED_TABLES = (
    "block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices",
)  # fmt: skip
"""Parameters that are always refused, lest one filters by the insides of the database."""

REGEX_FILTERS = (
    "kernel_id", "ramdisk_id", "hostname", "key_name", "power_state", "node", "reservation_id", "launched_at",
    "terminated_at", "availability_zone", "name", "display_name", "description", "display_description", "locked_by",
    "root_device_name", "config_drive", "access_ip_v4", "access_ip_v6", "auto_disk_config", "progress", "created_at",
)  # fmt: skip

SERVER_LIST = QuerySchema(
    *(
        Field(name, _PLAIN)
        for name in (
            "user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "vm_state", "task_state",
            "host", "uuid", "sort_dir", "all_tenants", "soft_deleted", "deleted", "status", "marker", *JOINED_TABLES,
        )
    ),
    *(Field(name, _REGEX) for name in (*REGEX_FILTERS, "flavor", "ip", "ip6")),
    *(Field(name, _REGEX, since="2.26") for name in ("tags", "tags-any", "not-tags", "not-tags-any")),
    Field("changes-since", _TIME),
    Field("changes-before", _TIME, since="2.66"),
    Field("locked", _PLAIN, since="2.73"),
    Field("limit", many(LIMIT)),
    Field("sort_key", many({"type": "string", "enum": [*SORT_KEYS, *IGNORED_SORT_KEYS]}), until="2.74"),
    Field("sort_key", many({"type": "string", "enum": [*SORT_KEYS, "locked"]}), since="2.75"),
    open_until="2.74",
    extra={"patternProperties": {"^_": _PLAIN}},
)  # fmt: skip


def _single(value: JsonSchema) -> dict[str, Any]:
    return {"type": "array", "items": value, "maxItems": 1}


INSTANCE_ACTIONS = QuerySchema(
    Field("limit", _single(LIMIT), since="2.58"),
    Field("marker", _single(TEXT), since="2.58"),
    Field("changes-since", _single({"type": "string", "format": "date-time"}), since="2.58"),
    Field("changes-before", _single({"type": "string", "format": "date-time"}), since="2.66"),
    open_until="2.57",
)

INTERFACE_ATTACH = Schema(
    Object(
        Field(
            "interfaceAttachment",
            Object(
                Field("net_id", UUID),
                Field("port_id", UUID),
                Field(
                    "fixed_ips",
                    {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": Object(Field("ip_address", IP, required=True)),
                    },
                ),
                Field("tag", TAG, since="2.49"),
            ),
        )
    )
)

_PROTOCOLS = ("vnc", "spice", "serial", "rdp")
_CONSOLES = ("novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5")
REMOTE_CONSOLE = body(
    "remote_console",
    Object(
        Field("protocol", {"type": "string", "enum": list(_PROTOCOLS)}, until="2.7", required=True),
        Field("protocol", {"type": "string", "enum": [*_PROTOCOLS, "mks"]}, since="2.8", required=True),
        Field("type", {"type": "string", "enum": list(_CONSOLES)}, until="2.7", required=True),
        Field("type", {"type": "string", "enum": [*_CONSOLES, "webmks"]}, since="2.8", until="2.98", required=True),
        Field("type", {"type": "string", "enum": [*_CONSOLES, "webmks", "spice-direct"]}, since="2.99", required=True),
    ),
)
CONSOLE_TOKEN = QuerySchema(open_until="2.98")
