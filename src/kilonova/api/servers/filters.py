"""From the query of `GET /servers` to the list that it asks for."""

from __future__ import annotations

import datetime as dt
from typing import cast

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.servers.schemas import IGNORED_SORT_KEYS, JOINED_TABLES, REGEX_FILTERS
from kilonova.api.servers.status import states_of
from kilonova.api.validation import parse_time
from kilonova.db import patterns
from kilonova.db.server_list import Direction, ListQuery
from kilonova.errors import Forbidden, Invalid

_PAGING = frozenset({"sort_key", "sort_dir", "limit", "marker"})

# What a caller without `allow_all_filters` may filter by; anything else is passed over.
_FOR_ALL = frozenset(
    {"reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants"}
    | {"tags", "tags-any", "not-tags", "not-tags-any", "changes-before", "locked"}
)
_MORE_FOR_ALL = frozenset(
    {
        "availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at", "power_state",
        "task_state", "vm_state", "progress", "user_id",
    }
)  # fmt: skip

_EXACT = {
    "user_id": "user_id",
    "uuid": "uuid",
    "host": "host",
    "task_state": "task_state",
    "vm_state": "vm_state",
    "image": "image_ref",
    "image_ref": "image_ref",
    "flavor": "flavor",
}
# `description` was taken and never did anything; `display_description` is the one that works.
_REGEX = {name: name for name in (*REGEX_FILTERS, "launch_index") if name not in ("name", "description")} | {
    "name": "display_name"
}
_TAGS = {"tags": "tags", "tags-any": "tags_any", "not-tags": "not_tags", "not-tags-any": "not_tags_any"}

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def _boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    accepted = ", ".join(repr(word) for word in sorted(_TRUE | _FALSE))
    raise Invalid(f"Unrecognized value '{value}', acceptable values are: {accepted}")


def list_query(request: Request, *, detail: bool) -> ListQuery | None:
    """What to list; None where the query can match nothing. Raises Invalid, Forbidden."""
    options = _options(request)
    for name in options:
        if name in JOINED_TABLES or name.startswith("_"):
            raise Invalid(f"Invalid filter field: {name}.")
    exact: dict[str, object] = {_EXACT[name]: value for name, value in options.items() if name in _EXACT}
    regex = {_REGEX[name]: value for name, value in options.items() if name in _REGEX}
    for name, expression in (*regex.items(), *((name, options[name]) for name in ("ip", "ip6") if name in options)):
        if not patterns.is_valid(expression):
            raise Invalid(f"Invalid input for query parameters {name}. Value: {expression}. It is not a 'regex'")

    deleted: bool | None = False
    if "status" in request.query:
        vm_states, task_states = states_of(request.query.all("status"))
        if not vm_states:
            if request.version >= versions.INVALID_STATUS_REFUSED:
                raise Invalid("Invalid status value")
            return None
        exact["vm_state"] = vm_states
        if task_states is not None:
            exact["task_state"] = task_states
    since, before = _times(options)
    if "deleted" in options:
        deleted = options["deleted"].strip().lower() in _TRUE
    elif since is not None or before is not None:
        deleted = None
    if exact.get("vm_state") == ["deleted"]:
        if not request.context.is_admin:
            raise Forbidden("Only administrators may list deleted instances")
        deleted = True
    if "locked" in options:
        exact["locked"] = int(_boolean(options["locked"]))
    _scope(request, options, exact, detail=detail)
    return ListQuery(
        exact=exact,
        regex=regex,
        deleted=deleted,
        include_soft_deleted=bool(options.get("soft_deleted")),
        changes_since=since,
        changes_before=before,
        ip=options.get("ip"),
        ip6=options.get("ip6"),
        sort=_sort(request),
        limit=request.page_limit(),
        marker=request.query.last("marker") or None,
        **{field: options[name].split(",") for name, field in _TAGS.items() if name in options},
    )


def _options(request: Request) -> dict[str, str]:
    """The filters that count, each with its last value."""
    given = {name: values[-1] for name, values in request.query.items() if name not in _PAGING}
    if request.allowed("os_compute_api:servers:allow_all_filters"):
        return given
    known = _FOR_ALL
    if request.version >= versions.IP6_FILTER_FOR_ALL:
        known |= {"ip6"}
    if request.version >= versions.FILTERS_FOR_ALL:
        known |= _MORE_FOR_ALL
    if request.version >= versions.SERVER_HOSTNAME:
        known |= {"hostname"}
    return {name: value for name, value in given.items() if name in known}


def _times(options: dict[str, str]) -> tuple[dt.datetime | None, dt.datetime | None]:
    since = parse_time(options["changes-since"]) if "changes-since" in options else None
    before = parse_time(options["changes-before"]) if "changes-before" in options else None
    if since is not None and before is not None and before < since:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    return since, before


def _scope(request: Request, options: dict[str, str], exact: dict[str, object], *, detail: bool) -> None:
    """Whose servers: the caller's project's, or all projects' where policy has it so."""
    everybody = "all_tenants" in options and (not options["all_tenants"] or _boolean(options["all_tenants"]))
    if not everybody:
        exact["project_id"] = request.context.project_id
        return
    request.authorize(f"os_compute_api:servers:{'detail' if detail else 'index'}:get_all_tenants")
    project = options.get("project_id", options.get("tenant_id"))
    if project is not None:
        exact["project_id"] = project


def _sort(request: Request) -> list[tuple[str, Direction]]:
    keys = [key.strip() for key in request.query.all("sort_key")]
    directions = [direction.strip() for direction in request.query.all("sort_dir")]
    ignored = set(IGNORED_SORT_KEYS)
    if request.version >= versions.LOCKED_REASON:
        ignored.discard("locked")
    kept: list[str] = []
    for position, key in reversed(list(enumerate(keys))):
        if key in ignored:
            del directions[position : position + 1]
            continue
        if key in ("host", "node") and not request.context.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}")
        kept.insert(0, key)
    kept = kept or ["created_at"]
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise Invalid("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'")
    if len(directions) > len(kept):
        if keys:
            raise Invalid("Invalid input received: Sort direction size exceeds sort key size")
        directions = directions[:1]
    default = directions[0] if directions else "desc"
    directions += [default] * (len(kept) - len(directions))
    return [(key, cast(Direction, direction)) for key, direction in zip(kept, directions, strict=True)]
