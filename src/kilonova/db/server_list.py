"""Servers as lists and views read them: chosen columns, filters, sort order and pages.

One statement brings the page, the state of each server's host service along with
it, whatever the page's length.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import msgspec
import sqlalchemy as sa

from kilonova.db import patterns
from kilonova.db.engine import Tx
from kilonova.db.prepared import ROWS
from kilonova.db.tables import instances, services, tags
from kilonova.db.types import database_seconds, joined_by_comma, json_text

Direction = Literal["asc", "desc"]

_c = instances.c


def _text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    text = json_text(column) if isinstance(column.type, sa.JSON) else sa.type_coerce(column, sa.Text)
    return text.label(column.name)


Moment = dt.datetime | str
"""UTC, as the driver gives it: SQLite's `YYYY-MM-DD HH:MM:SS.ffffff` is not made a datetime to become text again."""


class ViewRow(NamedTuple):
    """What a view may show of a server: JSON as JSON text, since most goes out as it came in; 0 and 1 for booleans.

    `service_*` tells of the compute service on the server's host; `service_age` is seconds since it was seen.
    """

    id: int
    uuid: str
    project_id: str
    user_id: str
    display_name: str
    display_description: str | None
    hostname: str
    reservation_id: str
    launch_index: int
    image_ref: str
    image: str | None
    kernel_id: str
    ramdisk_id: str
    flavorid: str
    flavor: str
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int
    vm_state: str
    task_state: str | None
    power_state: int
    progress: int
    host: str | None
    node: str | None
    availability_zone: str | None
    pinned_availability_zone: str | None
    key_name: str | None
    user_data: str | None
    config_drive: str
    access_ip_v4: str | None
    access_ip_v6: str | None
    metadata: str
    disk_config: str
    locked: int
    locked_by: str | None
    locked_reason: str | None
    root_device_name: str | None
    security_groups: str
    addresses: str
    scheduler_hints: str
    server_group: str | None
    trusted_certs: str | None
    fault: str | None
    deleting: int
    created_at: Moment
    updated_at: Moment | None
    launched_at: Moment | None
    terminated_at: Moment | None
    deleted: int
    service_disabled: int | None
    service_forced_down: int | None
    service_age: float | None
    service_zone: str | None
    tags: str | None
    """By commas, in no order; None without."""


_AS_STORED = {
    "image", "flavor", "metadata", "security_groups", "addresses", "scheduler_hints", "trusted_certs", "fault",
    "created_at", "updated_at", "launched_at", "terminated_at",
}  # fmt: skip
_SERVICE: dict[str, sa.ColumnElement[Any]] = {
    "service_disabled": services.c.disabled,
    "service_forced_down": services.c.forced_down,
    "service_age": database_seconds() - services.c.last_seen,
    "service_zone": services.c.availability_zone,
}
# With the row, lest every list be followed by a statement as long as the list.
_TAGS = sa.select(joined_by_comma(tags.c.tag)).where(tags.c.resource_id == _c.uuid).scalar_subquery()


def _as_is(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Booleans stay numbers: a row whose columns all come as they are is made in one step."""
    if not isinstance(column.type, sa.Boolean):
        return column
    return sa.type_coerce(column, sa.Integer).label(column.key)


def _column(name: str) -> sa.ColumnElement[Any]:
    if name == "tags":
        return _TAGS.label(name)
    if name in _SERVICE:
        return _as_is(_SERVICE[name]).label(name)
    return _text(_c[name]) if name in _AS_STORED else _as_is(_c[name])


VIEW_COLUMNS: tuple[sa.ColumnElement[Any], ...] = tuple(_column(name) for name in ViewRow._fields)
_VIEW_FROM = instances.outerjoin(services, sa.and_(services.c.host == _c.host, services.c.binary == "nova-compute"))
_VIEW = sa.select(*VIEW_COLUMNS).select_from(_VIEW_FROM).execution_options(**{ROWS: ViewRow})
_NAMES = sa.select(_c.uuid, _c.display_name)
_make = ViewRow._make

# By the names that the API has for filters and sort keys.
COLUMNS: dict[str, sa.ColumnElement[Any]] = {
    **{
        name: _c[name]
        for name in (
            "access_ip_v4", "access_ip_v6", "availability_zone", "config_drive", "created_at", "display_description",
            "display_name", "host", "hostname", "image_ref", "kernel_id", "key_name", "launch_index", "launched_at",
            "locked_by", "node", "power_state", "progress", "project_id", "ramdisk_id", "reservation_id",
            "root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid", "vm_state", "id",
        )
    },
    "auto_disk_config": sa.case((_c.disk_config == "AUTO", 1), else_=0),
    # A number, since not every database has an order of booleans.
    "locked": sa.case((_c.locked, 1), else_=0),
    "instance_type_id": _c.flavorid,
    "flavor": _c.flavorid,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Which servers, in which order. `exact` and `regex` are keyed by names of COLUMNS.

    `limit` is the page's length; `marker` the id of the server before the page, of whatever project.
    `changes_since` and `changes_before` are UTC, both inclusive. `ip` and `ip6` are regular
    expressions that fixed addresses begin with.
    """

    exact: dict[str, Any] = field(default_factory=dict)
    regex: dict[str, str] = field(default_factory=dict)
    deleted: bool | None = False
    """None: both; True also finds servers that are only marked as deleted."""
    include_soft_deleted: bool = False
    changes_since: dt.datetime | None = None
    changes_before: dt.datetime | None = None
    tags: Sequence[str] | None = None
    tags_any: Sequence[str] | None = None
    not_tags: Sequence[str] | None = None
    not_tags_any: Sequence[str] | None = None
    ip: str | None = None
    ip6: str | None = None
    sort: Sequence[tuple[str, Direction]] = (("created_at", "desc"),)
    limit: int = 1000
    marker: str | None = None

    def is_plain(self) -> bool:
        """Whether it filters by single values of columns only, and starts at the front."""
        others = (
            self.changes_since, self.changes_before, self.tags, self.tags_any, self.not_tags, self.not_tags_any,
            self.ip, self.ip6, self.marker,
        )  # fmt: skip
        return (
            not self.regex
            and others.count(None) == len(others)
            and not any(isinstance(value, list) for value in self.exact.values())
        )


class MarkerNotFound(Exception):
    """The marker names no server."""


async def view_row(tx: Tx, uuid: str, *, project_id: str | None = None, deleted: bool = False) -> ViewRow | None:
    """One server as views read it; with `project_id` only that project's."""
    values = {"uuid": uuid} if project_id is None else {"uuid": uuid, "project_id": project_id}
    row = (await tx.execute(_one(project_id is not None, deleted), values)).first()
    return row if row is None or type(row) is ViewRow else _make(row)


@functools.cache
def _one(of_project: bool, deleted: bool) -> sa.Select[Any]:
    # Kept, since building a statement of that many columns takes longer than running it.
    query = _VIEW.where(_c.uuid == sa.bindparam("uuid"))
    if of_project:
        query = query.where(_c.project_id == sa.bindparam("project_id"))
    return query if deleted else query.where(_c.deleted == 0)


async def view_rows(tx: Tx, query: ListQuery) -> list[ViewRow]:
    """A page of servers. Raises MarkerNotFound."""
    rows = await _page(tx, query, _VIEW)
    if rows and type(rows[0]) is ViewRow:
        return cast(list[ViewRow], rows)
    return [_make(row) for row in rows]


async def names(tx: Tx, query: ListQuery) -> list[tuple[str, str]]:
    """A page of (id, name). Raises MarkerNotFound."""
    rows = await _page(tx, query, _NAMES)
    return [(row[0], row[1]) for row in rows]


async def _page(tx: Tx, query: ListQuery, columns: sa.Select[Any]) -> Sequence[Sequence[Any]]:
    if query.limit == 0:
        return []
    page: Sequence[Sequence[Any]]
    if query.is_plain():
        shape = (tuple(query.exact), tuple(query.sort), query.deleted, query.include_soft_deleted, tx.dialect.name)
        values = {f"exact_{name}": value for name, value in query.exact.items()}
        page = (await tx.execute(_plain_page(columns, *shape), {**values, "page_length": query.limit})).all()
        return page
    order = _order(query.sort)
    conditions = _conditions(query)
    if query.marker is not None:
        conditions.append(await _after(tx, query.marker, order))
    sorting = _sorting(order, tx.dialect.name)
    if query.ip is None and query.ip6 is None:
        page = (await tx.execute(columns.where(*conditions).order_by(*sorting).limit(query.limit))).all()
        return page
    # Addresses are looked through here, before the page is cut.
    found = (await tx.execute(sa.select(_c.uuid, _text(_c.addresses)).where(*conditions).order_by(*sorting))).all()
    uuids = await asyncio.to_thread(_with_address, found, query)
    rows = (await tx.execute(columns.add_columns(_c.uuid.label("place")).where(_c.uuid.in_(uuids)))).all()
    place = {uuid: number for number, uuid in enumerate(uuids)}
    return [tuple(row)[:-1] for row in sorted(rows, key=lambda row: place[row[-1]])]


@functools.lru_cache(maxsize=64)
def _plain_page(
    columns: sa.Select[Any],
    exact: tuple[str, ...],
    sort: tuple[tuple[str, Direction], ...],
    deleted: bool | None,
    include_soft_deleted: bool,
    dialect: str,
) -> sa.Select[Any]:
    # The lists that clients ask for all the time have few shapes.
    conditions = [COLUMNS[name] == sa.bindparam(f"exact_{name}", type_=COLUMNS[name].type) for name in exact]
    conditions += _deleted(deleted, include_soft_deleted)
    sorting = _sorting(_order(sort), dialect)
    return columns.where(*conditions).order_by(*sorting).limit(sa.bindparam("page_length", type_=sa.Integer))


def _with_address(rows: Sequence[Sequence[Any]], query: ListQuery) -> list[str]:
    wanted = {4: query.ip, 6: query.ip6}
    uuids: list[str] = []
    for uuid, text in rows:
        if text == "{}":
            continue
        for addresses in msgspec.json.decode(text).values():
            if any(
                address.get("OS-EXT-IPS:type") != "floating"
                and (expression := wanted[address["version"]]) is not None
                and patterns.search(f"^(?:{expression})", address["addr"])
                for address in addresses
            ):
                uuids.append(uuid)
                break
        if len(uuids) == query.limit:
            break
    return uuids


Order = list[tuple[sa.ColumnElement[Any], Direction]]


def _order(sort: Sequence[tuple[str, Direction]]) -> Order:
    keys = [key for key, _ in sort]
    order: Order = [(COLUMNS[key], direction) for key, direction in sort]
    if "uuid" not in keys and "id" not in keys:
        # Something unique at the end, or pages overlap. Newest first goes along an index.
        order.append((_c.id, "desc" if keys == ["created_at"] and sort[0][1] == "desc" else "asc"))
    return order


def _sorting(order: Order, dialect: str) -> list[sa.ColumnElement[Any]]:
    sorting: list[sa.ColumnElement[Any]] = []
    for column, direction in order:
        key = column.desc() if direction == "desc" else column.asc()
        if dialect == "postgresql":
            # The others have NULL before all values anyway.
            key = key.nulls_last() if direction == "desc" else key.nulls_first()
        sorting.append(key)
    return sorting


async def _after(tx: Tx, marker: str, order: Order) -> sa.ColumnElement[bool]:
    """The condition for 'behind the marker in this order'. NULL sorts before all values."""
    row = (await tx.execute(sa.select(*(column for column, _ in order)).where(_c.uuid == marker))).first()
    if row is None:
        raise MarkerNotFound
    alternatives: list[sa.ColumnElement[bool]] = []
    equal: list[sa.ColumnElement[bool]] = []
    for (column, direction), value in zip(order, row, strict=True):
        behind: sa.ColumnElement[bool] | None
        if direction == "asc":
            behind = column > value if value is not None else column.is_not(None)
        elif value is None:
            behind = None
        else:
            behind = sa.or_(column < value, column.is_(None))
        if behind is not None:
            alternatives.append(sa.and_(*equal, behind))
        equal.append(column == value if value is not None else column.is_(None))
    return sa.or_(*alternatives) if alternatives else sa.false()


def _conditions(query: ListQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    for name, value in query.exact.items():
        column = COLUMNS[name]
        conditions.append(column.in_(value) if isinstance(value, list) else column == value)
    for name, expression in query.regex.items():
        conditions.append(_as_text(COLUMNS[name]).regexp_match(expression))
    conditions += _deleted(query.deleted, query.include_soft_deleted)
    if query.changes_since is not None:
        conditions.append(_c.updated_at >= query.changes_since)
    if query.changes_before is not None:
        conditions.append(_c.updated_at <= query.changes_before)
    if query.tags is not None:
        conditions.append(_has_all(query.tags))
    if query.tags_any is not None:
        conditions.append(_has_any(query.tags_any))
    if query.not_tags is not None:
        conditions.append(~_has_all(query.not_tags))
    if query.not_tags_any is not None:
        conditions.append(~_has_any(query.not_tags_any))
    return conditions


def _deleted(deleted: bool | None, include_soft_deleted: bool) -> list[sa.ColumnElement[bool]]:
    soft_deleted = _c.vm_state == "soft-delete"
    if deleted is None:
        return []
    if deleted:
        return [sa.or_(_c.deleted != 0, soft_deleted)]
    return [_c.deleted == 0] if include_soft_deleted else [_c.deleted == 0, ~soft_deleted]


def _as_text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return column if isinstance(column.type, sa.String) else sa.cast(column, sa.String(64))


def _has_all(wanted: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(_has_any([tag]) for tag in wanted))


def _has_any(wanted: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.exists().where(tags.c.resource_id == _c.uuid, tags.c.tag.in_(wanted))
