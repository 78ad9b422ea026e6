"""Bodies of actions on servers, at every version."""

from __future__ import annotations

from typing import Any, Final

from kilonova.api.fields import Choice, Field, JsonSchema, Object, Part, Schema, body
from kilonova.api.servers.schemas import (
    ANYTHING,
    BOOLEAN,
    DISK_CONFIG,
    FLAVOR_REF,
    FQDN,
    HOST_OR_NONE,
    IP,
    LENIENT_NAME,
    METADATA,
    NAME,
    TEXT,
    UUID,
)


def empty(key: str) -> Schema:
    """An action without parameters; what stands in their place does not matter."""
    return body(key, ANYTHING)


REBOOT: Final = body(
    "reboot",
    Object(Field("type", {"type": "string", "enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}, required=True)),
)
LOCK: Final = body(
    "lock",
    Choice(
        Part(ANYTHING, until="2.72"),
        Part(
            Object(Field("locked_reason", {"type": "string", "minLength": 1, "maxLength": 255}), nullable=True),
            since="2.73",
        ),
    ),
)
CONSOLE_OUTPUT: Final = body(
    "os-getConsoleOutput",
    Object(Field("length", {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1})),
)
RESET_STATE: Final = body(
    "os-resetState", Object(Field("state", {"type": "string", "enum": ["active", "error"]}, required=True))
)


def _address(key: str) -> Schema:
    return body(key, Object(Field("address", IP, required=True)))


def _group(key: str) -> Schema:
    # Other keys beside this one are let pass here, but an action's body has but one.
    return Schema(
        Object(
            Field(key, Object(Field("name", {"type": "string", "minLength": 1}, required=True)), required=True),
            open_until="2.104",
        )
    )


ADD_FIXED_IP: Final = body(
    "addFixedIp",
    Object(Field("networkId", {"type": ["string", "number"], "minLength": 1, "maxLength": 36}, required=True)),
)
REMOVE_FIXED_IP: Final = _address("removeFixedIp")
ADD_FLOATING_IP: Final = body("addFloatingIp", Object(Field("address", IP, required=True), Field("fixed_address", IP)))
REMOVE_FLOATING_IP: Final = _address("removeFloatingIp")
ADD_SECURITY_GROUP: Final = _group("addSecurityGroup")
REMOVE_SECURITY_GROUP: Final = _group("removeSecurityGroup")


def _console(key: str, *types: str) -> Schema:
    return body(key, Object(Field("type", {"type": "string", "enum": list(types)}, required=True)))


VNC_CONSOLE: Final = _console("os-getVNCConsole", "novnc", "xvpvnc")
SPICE_CONSOLE: Final = _console("os-getSPICEConsole", "spice-html5")
SERIAL_CONSOLE: Final = _console("os-getSerialConsole", "serial")

# Of actions that are recognised and refused.

_COUNT: JsonSchema = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0, "minLength": 1}
_BOOLEAN_OR_AUTO: JsonSchema = {**BOOLEAN, "enum": [*BOOLEAN["enum"], "auto"]}


_UNSHELVE = Choice(
    Part(ANYTHING, until="2.76"),
    Part(Object(Field("availability_zone", NAME, required=True), nullable=True), since="2.77", until="2.90"),
    Part(
        Object(Field("availability_zone", {"type": ["string", "null"]}), Field("host", TEXT), nullable=True),
        since="2.91",
    ),
)

REFUSED: Final[dict[str, Schema]] = {
    "changePassword": body("changePassword", Object(Field("adminPass", TEXT, required=True))),
    "createBackup": body(
        "createBackup",
        Object(
            Field("name", LENIENT_NAME, required=True),
            Field("backup_type", TEXT, required=True),
            Field("rotation", _COUNT, required=True),
            Field("metadata", METADATA),
        ),
    ),
    "createImage": body("createImage", Object(Field("name", NAME, required=True), Field("metadata", METADATA))),
    "evacuate": body(
        "evacuate",
        Object(
            Field("host", FQDN),
            Field("onSharedStorage", BOOLEAN, until="2.13", required=True),
            Field("adminPass", TEXT),
            Field("force", BOOLEAN, since="2.29", until="2.67"),
        ),
    ),
    "migrate": body(
        "migrate",
        Choice(Part(ANYTHING, until="2.55"), Part(Object(Field("host", HOST_OR_NONE), nullable=True), since="2.56")),
    ),
    "os-migrateLive": body(
        "os-migrateLive",
        Object(
            Field("block_migration", BOOLEAN, until="2.24", required=True),
            Field("block_migration", _BOOLEAN_OR_AUTO, since="2.25", required=True),
            Field("disk_over_commit", BOOLEAN, until="2.24", required=True),
            Field("host", HOST_OR_NONE, required=True),
            Field("force", BOOLEAN, since="2.30", until="2.67"),
        ),
    ),
    "rescue": body(
        "rescue", Object(Field("adminPass", TEXT), Field("rescue_image_ref", UUID), nullable=True)
    ),
    "resize": body(
        "resize", Object(Field("flavorRef", FLAVOR_REF, required=True), Field("OS-DCF:diskConfig", DISK_CONFIG))
    ),
    "trigger_crash_dump": body("trigger_crash_dump", {"type": "null"}),
    "unshelve": body("unshelve", _UNSHELVE),
}  # fmt: skip


def schema_of(key: str) -> Any:
    return REFUSED.get(key) or empty(key)
