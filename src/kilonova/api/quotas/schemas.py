"""Bodies and queries of quotas."""

from __future__ import annotations

from kilonova.api.fields import OPEN_QUERY, Field, JsonSchema, Object, QuerySchema, body
from kilonova.api.types import BOOLEAN, MAX_INT, TEXT, multi

_LIMIT: JsonSchema = {"type": ["integer", "string"], "pattern": "^-?[0-9]+$", "minimum": -1, "maximum": MAX_INT}
ALWAYS = ("instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members")
FILES = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
"""Shown and set up to 2.56."""
NETWORK = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
"""Of projects up to 2.35, of classes up to 2.49."""


def _limits(network_until: str) -> list[Field]:
    return [
        *(Field(name, _LIMIT) for name in ALWAYS),
        *(Field(name, _LIMIT, until="2.56") for name in FILES),
        *(Field(name, _LIMIT, until=network_until) for name in NETWORK),
    ]


UPDATE = body("quota_set", Object(*_limits("2.35"), Field("force", BOOLEAN)))
UPDATE_CLASS = body("quota_class_set", Object(*_limits("2.49")))
OF_USER = QuerySchema(Field("user_id", multi(TEXT)), open_until="2.74")
DEFAULTS = OPEN_QUERY
