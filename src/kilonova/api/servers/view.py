"""What a server looks like at a version, to a caller.

`FIELDS` says once which field is shown since when, where, and to whom. A view is
compiled from it per version boundary, kind of answer and caller's rights, and then
makes one dict per row.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from kilonova.api import versions
from kilonova.api.servers.image_properties import KNOWN
from kilonova.api.servers.status import WITH_FAULT, WITH_PROGRESS, status_of
from kilonova.api.versions import Version
from kilonova.db.server_list import Moment, ViewRow

_EMPTY_OBJECT = msgspec.Raw(b"{}")


class Kind(enum.Enum):
    """The answers that show a server."""

    SHOW = "show"
    DETAIL = "detail"
    UPDATE = "update"
    REBUILD = "rebuild"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What policy lets the caller see beyond the plain view."""

    extended: bool = False
    """`os-extended-server-attributes`: host, node, name of the domain and more."""
    host_status: bool = False
    host_unknown: bool = False
    """Of the host's status only that it is unknown."""
    extra_specs: bool = False
    fault_details: bool = False
    """Also of faults that are not the caller's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The beginnings of links, without a slash at the end; `bookmark_base` is the one without a version."""

    self_base: str
    bookmark_base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a view needs besides the row. `service_down_time` is seconds."""

    links: Links
    service_down_time: float = 60.0
    default_zone: str = "nova"
    name_template: str = "instance-%08x"


Getter = Callable[[ViewRow, "View"], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    get: Getter | None = None
    column: str | None = None
    """Instead of `get`, for what is shown as it is stored."""
    since: Version | None = None
    until: Version | None = None
    """The first version that does not have it."""
    kinds: frozenset[Kind] | None = None
    full: bool = False
    """In answers of update and rebuild only since they show all that `show` does."""
    right: Callable[[Rights], bool] | None = None


_PLAIN_KINDS = frozenset({Kind.SHOW, Kind.DETAIL})


@functools.lru_cache(maxsize=4096)
def host_id(project_id: str, host: str | None) -> str:
    """The host as its guests' owners may know it: one name per project, telling nothing. Empty without a host."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def timestamp(moment: Moment) -> str:
    if isinstance(moment, str):
        return f"{moment[:10]}T{moment[11:19]}Z"
    return moment.isoformat(timespec="seconds") + "Z"


def long_timestamp(moment: Moment | None) -> str | None:
    """With microseconds and without a zone, as some fields have it."""
    if moment is None:
        return None
    if isinstance(moment, str):
        return f"{moment[:10]}T{moment[11:26]}"
    return moment.isoformat(timespec="microseconds")


def _raw(text: str | None) -> Any:
    if text is None or text == "null":
        return None
    return _EMPTY_OBJECT if text == "{}" else msgspec.Raw(text.encode())


def _scheduler_hints(row: ViewRow, view: View) -> Any:
    if row.server_group is None and row.scheduler_hints == "{}":
        return _EMPTY_OBJECT
    hints = msgspec.json.decode(row.scheduler_hints)
    if row.server_group is not None:
        hints["group"] = row.server_group
    # However a hint was said, it is shown as a list.
    return {name: value if isinstance(value, list) else [value] for name, value in hints.items()}


@functools.lru_cache(maxsize=1024)
def _embedded_flavor(text: str, extra_specs: bool) -> msgspec.Raw:
    # Servers of a list share few flavors; their view is encoded once.
    flavor = msgspec.json.decode(text)
    view = {
        "vcpus": flavor["vcpus"],
        "ram": flavor["memory_mb"],
        "disk": flavor["root_gb"],
        "ephemeral": flavor["ephemeral_gb"],
        "swap": flavor["swap_mb"],
        "original_name": flavor["name"],
    }
    if extra_specs:
        view["extra_specs"] = flavor["extra_specs"]
    return msgspec.Raw(msgspec.json.encode(view))


@functools.lru_cache(maxsize=1024)
def _flavor_link(flavor_id: str, base: str) -> msgspec.Raw:
    link = {"rel": "bookmark", "href": f"{base}/flavors/{flavor_id}"}
    return msgspec.Raw(msgspec.json.encode({"id": flavor_id, "links": [link]}))


@functools.lru_cache(maxsize=1024)
def _image(image_id: str, base: str, snapshot: str | None) -> Any:
    if not image_id:
        return ""
    view: dict[str, Any] = {"id": image_id, "links": [{"rel": "bookmark", "href": f"{base}/images/{image_id}"}]}
    if snapshot is not None:
        properties = (msgspec.json.decode(snapshot) or {}).get("properties", {})
        view["properties"] = {name: value for name, value in properties.items() if name in KNOWN and value is not None}
    return msgspec.Raw(msgspec.json.encode(view))


def _links(row: ViewRow, view: View) -> msgspec.Raw:
    before, between = view.link_parts
    return msgspec.Raw(f'{before}{row.uuid}{between}{row.uuid}"}}]'.encode())


@functools.lru_cache(maxsize=64)
def _link_parts(links: Links) -> tuple[str, str]:
    """The JSON of a server's links up to its first and to its second id: the rest is the same for all."""
    first, second = (_inside_quotes(base + "/servers/") for base in (links.self_base, links.bookmark_base))
    return f'[{{"rel":"self","href":"{first}', f'"}},{{"rel":"bookmark","href":"{second}'


def _inside_quotes(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _tags(row: ViewRow, view: View) -> list[str]:
    return sorted(row.tags.split(",")) if row.tags else []


def _addresses(row: ViewRow, view: View) -> Any:
    if row.vm_state == "building":
        return _EMPTY_OBJECT
    return _raw(row.addresses)


def _short_addresses(row: ViewRow, view: View) -> Any:
    return {} if row.vm_state == "building" else plain_addresses(msgspec.json.decode(row.addresses))


def plain_addresses(addresses: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Addresses by network with nothing but `version` and `addr`."""
    return {
        network: [{"version": address["version"], "addr": address["addr"]} for address in those]
        for network, those in addresses.items()
    }


def _zone(row: ViewRow, view: View) -> str:
    if row.host is None:
        return row.availability_zone or row.pinned_availability_zone or ""
    return row.availability_zone or row.service_zone or view.around.default_zone


def host_status_of(row: ViewRow, service_down_time: float) -> str:
    """UP, DOWN, MAINTENANCE or UNKNOWN; empty without a host."""
    if row.host is None or row.service_age is None:
        return ""
    if row.service_forced_down:
        return "DOWN"
    if row.service_disabled:
        return "MAINTENANCE"
    return "UP" if row.service_age <= service_down_time else "UNKNOWN"


def fault_of(row: ViewRow, *, details: bool) -> dict[str, Any] | None:
    """The server's fault; `details` of one of ours (code 500) only when asked for."""
    fault = None if row.fault is None else msgspec.json.decode(row.fault)
    if not fault:
        return None
    view = {"code": fault["code"], "created": fault["created"], "message": fault["message"]}
    if fault.get("details") and (details or fault["code"] != 500):
        view["details"] = fault["details"]
    return view


# UNSET: whether a server has the field depends on its state.


def _progress(row: ViewRow, view: View) -> Any:
    return row.progress if status_of(row.vm_state, row.task_state, deleted=row.deleted != 0) in WITH_PROGRESS else UNSET


def _fault(row: ViewRow, view: View) -> Any:
    if status_of(row.vm_state, row.task_state, deleted=row.deleted != 0) not in WITH_FAULT:
        return UNSET
    return fault_of(row, details=view.rights.fault_details) or UNSET


def _host_status(row: ViewRow, view: View) -> Any:
    status = host_status_of(row, view.around.service_down_time)
    return status if view.rights.host_status or status == "UNKNOWN" else UNSET


def _security_groups(row: ViewRow, view: View) -> Any:
    # They belong to ports: a server without one has none to show.
    return UNSET if row.addresses == "{}" or row.security_groups == "[]" else _raw(row.security_groups)


def _extended(
    name: str, source: str | Getter, since: Version | None = None, kinds: frozenset[Kind] | None = None
) -> _Field:
    return _Field(
        name=f"OS-EXT-SRV-ATTR:{name}",
        get=None if isinstance(source, str) else source,
        column=source if isinstance(source, str) else None,
        since=since,
        kinds=kinds,
        full=True,
        right=lambda rights: rights.extended,
    )


_NOT_REBUILD = frozenset({Kind.SHOW, Kind.DETAIL, Kind.UPDATE})

FIELDS: tuple[_Field, ...] = (
    _Field(name="id", column="uuid"),
    _Field(name="name", column="display_name"),
    _Field(name="tenant_id", column="project_id"),
    _Field(name="user_id", column="user_id"),
    _Field(name="metadata", get=lambda row, view: _raw(row.metadata)),
    _Field(name="hostId", get=lambda row, view: host_id(row.project_id, row.host)),
    _Field(
        name="image",
        get=lambda row, view: _image(row.image_ref, view.around.links.bookmark_base, None),
        until=versions.IMAGE_PROPERTIES_SHOWN,
    ),
    _Field(
        name="image",
        get=lambda row, view: _image(row.image_ref, view.around.links.bookmark_base, row.image or "null"),
        since=versions.IMAGE_PROPERTIES_SHOWN,
    ),
    _Field(
        name="flavor",
        get=lambda row, view: _flavor_link(row.flavorid, view.around.links.bookmark_base),
        until=versions.SERVER_FLAVOR_EMBEDDED,
    ),
    _Field(
        name="flavor",
        get=lambda row, view: _embedded_flavor(row.flavor, view.rights.extra_specs),
        since=versions.SERVER_FLAVOR_EMBEDDED,
    ),
    _Field(name="created", get=lambda row, view: timestamp(row.created_at)),
    _Field(name="updated", get=lambda row, view: timestamp(row.updated_at or row.created_at)),
    _Field(name="addresses", get=_addresses, full=True),
    _Field(
        name="addresses",
        get=_short_addresses,
        kinds=frozenset({Kind.UPDATE, Kind.REBUILD}),
        until=versions.UNIFORM_VIEWS,
    ),
    _Field(name="accessIPv4", get=lambda row, view: row.access_ip_v4 or ""),
    _Field(name="accessIPv6", get=lambda row, view: row.access_ip_v6 or ""),
    _Field(name="links", get=_links),
    _Field(name="OS-DCF:diskConfig", column="disk_config"),
    _Field(name="OS-EXT-AZ:availability_zone", get=_zone, full=True),
    _Field(name="config_drive", column="config_drive", full=True),
    _Field(name="key_name", column="key_name", kinds=_NOT_REBUILD, full=True),
    _Field(
        name="key_name",
        column="key_name",
        since=versions.REBUILD_KEY_NAME,
        kinds=frozenset({Kind.REBUILD}),
    ),
    _Field(name="OS-SRV-USG:launched_at", get=lambda row, view: long_timestamp(row.launched_at), full=True),
    _Field(name="OS-SRV-USG:terminated_at", get=lambda row, view: long_timestamp(row.terminated_at), full=True),
    _extended("host", "host"),
    _extended("instance_name", lambda row, view: view.around.name_template % row.id),
    _extended("hypervisor_hostname", "node"),
    _extended("hostname", "hostname", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("kernel_id", "kernel_id", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("launch_index", "launch_index", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("ramdisk_id", "ramdisk_id", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("reservation_id", "reservation_id", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("root_device_name", "root_device_name", versions.SERVER_EXTENDED_ATTRIBUTES),
    _extended("user_data", "user_data", versions.SERVER_EXTENDED_ATTRIBUTES, _NOT_REBUILD),
    _Field(
        name="user_data",
        column="user_data",
        since=versions.NO_PERSONALITY,
        kinds=frozenset({Kind.REBUILD}),
    ),
    _Field(
        name="OS-EXT-SRV-ATTR:hostname",
        column="hostname",
        since=versions.SERVER_HOSTNAME,
        right=lambda rights: not rights.extended,
    ),
    _Field(name="adminPass", get=lambda row, view: view.admin_password or UNSET, kinds=frozenset({Kind.REBUILD})),
    _Field(name="status", get=lambda row, view: status_of(row.vm_state, row.task_state, deleted=row.deleted != 0)),
    _Field(name="progress", get=_progress),
    _Field(name="fault", get=_fault),
    _Field(
        name="host_status",
        get=_host_status,
        since=versions.SERVER_HOST_STATUS,
        full=True,
        right=lambda rights: rights.host_status or rights.host_unknown,
    ),
    _Field(name="security_groups", get=_security_groups, full=True),
    _Field(name="OS-EXT-STS:task_state", column="task_state", full=True),
    _Field(name="OS-EXT-STS:vm_state", column="vm_state", full=True),
    _Field(name="OS-EXT-STS:power_state", column="power_state", full=True),
    # Volumes come with the Block Storage client; until then a server has none.
    _Field(name="os-extended-volumes:volumes_attached", get=lambda row, view: [], full=True),
    _Field(name="locked", get=lambda row, view: bool(row.locked), since=versions.SERVER_LOCKED),
    _Field(name="description", column="display_description", since=versions.SERVER_DESCRIPTION),
    _Field(name="tags", get=_tags, since=versions.SERVER_TAGS),
    _Field(
        name="trusted_image_certificates",
        get=lambda row, view: _raw(row.trusted_certs),
        since=versions.TRUSTED_CERTIFICATES,
    ),
    _Field(
        name="server_groups",
        get=lambda row, view: [row.server_group] if row.server_group else [],
        since=versions.SERVER_GROUPS_SHOWN,
        kinds=frozenset({Kind.SHOW, Kind.UPDATE, Kind.REBUILD}),
    ),
    _Field(name="locked_reason", column="locked_reason", since=versions.LOCKED_REASON),
    _Field(
        name="pinned_availability_zone",
        column="pinned_availability_zone",
        since=versions.PINNED_ZONE_SHOWN,
        full=True,
    ),
    _Field(
        name="scheduler_hints",
        get=_scheduler_hints,
        since=versions.SCHEDULER_HINTS_SHOWN,
    ),
)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A struct with the view's fields: first those shown as stored, then those computed."""

    struct: Callable[..., msgspec.Struct]
    stored: Callable[[ViewRow], tuple[Any, ...]]
    computed: tuple[Getter, ...]


@functools.lru_cache(maxsize=512)
def _compile(version: Version, kind: Kind, rights: Rights) -> _Compiled:
    answers_are_full = kind in _PLAIN_KINDS or version >= versions.UNIFORM_VIEWS
    fields = [
        field
        for field in FIELDS
        if (field.since is None or version >= field.since)
        and (field.until is None or version < field.until)
        and (field.kinds is None or kind in field.kinds)
        and (not field.full or answers_are_full)
        and (field.right is None or field.right(rights))
    ]
    stored = [(field.name, field.column) for field in fields if field.column is not None]
    computed = [(field.name, field.get) for field in fields if field.get is not None]
    names = [name for name, _ in stored] + [name for name, _ in computed]
    struct = msgspec.defstruct(
        "Server",
        [(f"field_{number}", Any) for number in range(len(names))],
        rename={f"field_{number}": name for number, name in enumerate(names)},
        gc=False,
    )
    return _Compiled(
        struct=struct,
        stored=operator.itemgetter(*(ViewRow._fields.index(column) for _, column in stored)),
        computed=tuple(get for _, get in computed),
    )


class View:
    """Makes servers' bodies of rows: for one version, one kind of answer and one caller."""

    rights: Rights
    around: Surroundings
    admin_password: str | None

    def __init__(
        self,
        version: Version,
        kind: Kind,
        rights: Rights,
        around: Surroundings,
        admin_password: str | None = None,
    ) -> None:
        self.rights = rights
        self.around = around
        self.admin_password = admin_password
        self.link_parts = _link_parts(around.links)
        self._compiled = _compile(version, kind, rights)

    def one(self, row: ViewRow) -> msgspec.Struct:
        compiled = self._compiled
        return compiled.struct(*compiled.stored(row), *[get(row, self) for get in compiled.computed])

    def many(self, rows: Iterable[ViewRow]) -> list[msgspec.Struct]:
        return [self.one(row) for row in rows]
