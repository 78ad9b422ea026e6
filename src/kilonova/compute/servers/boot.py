"""Create servers: everything is checked first, then rows, quota and operations come in one transaction."""

from __future__ import annotations

import re
import secrets as secure
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.agent.wanted import read_wanted
from kilonova.compute import networks, placing, quota_usage, server_groups, signatures, states
from kilonova.compute.needs import read_needs
from kilonova.compute.quota_usage import Amount, Limits
from kilonova.compute.servers.submit import wake, write_once
from kilonova.context import RequestContext
from kilonova.db import flavors, key_pairs, servers
from kilonova.db.engine import Tx
from kilonova.db.flavors import Flavor
from kilonova.db.key_pairs import KeyPair
from kilonova.db.tables import compute_nodes, services, tags
from kilonova.engine import store
from kilonova.errors import Forbidden, Invalid, NotFound
from kilonova.runtime import Image, Runtime
from kilonova.settings import ComputeSettings

GIB = 1 << 30
LONGEST_NAME = 255
MOST_AT_ONCE = 1000
"""Servers of one request, where quota would allow more: they are rows of one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRequest:
    """One `POST /servers`, its schema checked. `networks`: None (not said), 'auto', 'none' or a list."""

    name: str
    image_ref: str
    flavor_ref: str
    hostname: str | None = None
    description: str | None = None
    key_name: str | None = None
    user_data: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    config_drive: bool | None = None
    availability_zone: str | None = None
    min_count: int = 1
    max_count: int = 1
    networks: str | list[dict[str, Any]] | None = None
    security_groups: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    admin_password: str | None = None
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    disk_config: str = "MANUAL"
    scheduler_hints: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    trusted_certs: list[str] | None = None
    token: str = field(default="", repr=False)
    """The caller's."""
    host: str | None = None
    hypervisor_hostname: str | None = None
    host_forced: bool = False
    """Whether these go before filters (`zone:host:node`), or are a wish that filters may refuse."""
    external_networks_allowed: bool = False
    """Whether policy lets the caller's servers have ports on external networks."""
    zero_disk_allowed: bool = True
    """Whether policy lets the caller use a flavor without a disk of its own with an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """`uuids` in launch order; the first one's password is `admin_password`."""

    uuids: list[str]
    reservation_id: str
    admin_password: str


async def create(rt: Runtime, ctx: RequestContext, request: BootRequest) -> Created:
    """Accept new servers; once this returns they are never lost.

    Raises Invalid, NotFound or Forbidden with the field that is wrong, OverQuota, Unavailable
    when Image does not answer. Nothing has changed then.
    """
    image = await _image(rt, ctx, request.image_ref) if request.image_ref else None
    request = replace(request, trusted_certs=request.trusted_certs or signatures.trusted_by_default(rt.settings))
    if image is not None:
        image = await signatures.demand(rt, image, request.token, request.trusted_certs)
    plan = await networks.plan(
        rt,
        ctx,
        request.networks,
        request.security_groups,
        min_count=request.min_count,
        max_count=request.max_count,
        external_allowed=request.external_networks_allowed,
    )
    kind = "boot_with_ports" if plan.has_ports else "boot"
    most = request.max_count if plan.max_count is None else min(plan.max_count, request.max_count)
    password = request.admin_password or new_password(rt)
    reservation_id = "r-" + "".join(rt.world.random.choices(string.ascii_lowercase + string.digits, k=8))
    # Kept over a deadlock's second try, which must not change what was said to whom.
    uuids: list[str] = []

    async def work(tx: Tx) -> list[tuple[str, int]]:
        flavor = await _flavor(tx, ctx, request.flavor_ref)
        if image is not None and flavor.root_gb == 0 and not request.zero_disk_allowed:
            raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
        check_asked(rt.settings, flavor, image, request.scheduler_hints)
        key = await _key(tx, ctx, request.key_name) if request.key_name else None
        await _check_zone_and_host(rt, tx, request)
        limits = await quota_usage.read_limits(tx, ctx.project_id, ctx.user_id, rt.settings.quota)
        _check_items(request, limits.of_user)
        count = await _take_quota(tx, ctx, flavor, request, most, limits)
        if count > MOST_AT_ONCE:
            raise Invalid(f"min_count: {count} servers are asked for; one request makes at most {MOST_AT_ONCE}.")
        uuids.extend(rt.world.uuid() for _ in range(count - len(uuids)))
        group = request.scheduler_hints.get("group") or None
        if group is not None:
            group = await server_groups.join(tx, ctx, str(group), count, limits.of_user)
        rows = []
        for index, uuid in enumerate(uuids[:count]):
            values = _values(rt, ctx, request, flavor, image, key, uuid, index, count, reservation_id)
            values |= _networks_of(plan) | {"server_group": group}
            rows.append((uuid, await _insert(rt, tx, ctx, request, values, password, kind, plan)))
        return rows

    async def find(tx: Tx) -> list[tuple[str, int]] | None:
        return await store.started(tx, uuids, kind, ctx.request_id) or None

    rows = await write_once(rt.db, work, find)
    for _, operation_id in rows:
        await wake(rt, operation_id)
    return Created(uuids=[uuid for uuid, _ in rows], reservation_id=reservation_id, admin_password=password)


def new_password(rt: Runtime) -> str:
    """Letters and digits that cannot be mistaken for each other, one of each kind at least."""
    kinds = ("23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz")
    length = max(rt.settings.password_length, len(kinds))
    alphabets = [*kinds, *["".join(kinds)] * (length - len(kinds))]
    # One draw for all, since each lets other threads go first. A sign and its place need 10 bits, the rest keeps
    # the choice even.
    drawn = secure.randbits(16 * length + 64)
    signs: list[str] = []
    for alphabet in alphabets:
        drawn, sign = divmod(drawn, len(alphabet))
        drawn, place = divmod(drawn, len(signs) + 1)
        signs.insert(place, alphabet[sign])
    return "".join(signs)


async def _image(rt: Runtime, ctx: RequestContext, image_id: str) -> Image:
    try:
        image = await rt.images.get(image_id, project_id=ctx.project_id)
    except NotFound as error:
        raise Invalid(f"Can not find requested image '{image_id}'.") from error
    if image.status != "active":
        raise Invalid(f"Image {image_id} is unacceptable: Image is not active.")
    return image


def check_asked(settings: ComputeSettings, flavor: Flavor, image: Image | None, hints: Mapping[str, Any]) -> None:
    """What would fail on any host is refused here and not by one minutes later. Raises Invalid."""
    if image is not None:
        check_image_fits(image, flavor.memory_mb, flavor.root_gb)
    properties = image.spec.properties if image is not None else {}
    read_wanted(flavor.vcpus, flavor.extra_specs, properties)
    read_needs(flavor.vcpus, flavor.memory_mb, flavor.root_gb, flavor.extra_specs, properties, settings.pci_aliases)
    placing.check_wishes(settings, hints, flavor.extra_specs, properties)


def check_image_fits(image: Image, memory_mb: int, root_gb: int) -> None:
    """Raises Invalid when a flavor of that memory (MiB) and root disk (GiB, 0: as the image) is too small."""
    if image.min_ram > memory_mb:
        raise Invalid("Flavor's memory is too small for requested image.")
    if root_gb and ((image.size or 0) > root_gb * GIB or image.min_disk > root_gb):
        wanted = max(image.min_disk * GIB, image.size or 0)
        raise Invalid(
            "Flavor's disk is too small for requested image. "
            f"Flavor disk is {root_gb * GIB} bytes, image is {wanted} bytes."
        )


async def _flavor(tx: Tx, ctx: RequestContext, flavor_ref: str) -> Flavor:
    flavor = await flavors.get(tx, flavor_ref, project_id=None if ctx.is_admin else ctx.project_id)
    if flavor is None or flavor.disabled:
        raise Invalid(f"Flavor {flavor_ref} could not be found.")
    return flavor


async def _key(tx: Tx, ctx: RequestContext, name: str) -> KeyPair:
    key = await key_pairs.get(tx, ctx.user_id, name)
    if key is None:
        raise Invalid("Invalid key_name provided.")
    return key


async def _check_zone_and_host(rt: Runtime, tx: Tx, request: BootRequest) -> None:
    zone = request.availability_zone
    if zone is not None and zone != rt.settings.default_availability_zone:
        # A zone of disabled hosts alone takes no servers, unless a host is forced.
        query = sa.select(services.c.id).where(services.c.availability_zone == zone)
        if not request.host_forced:
            query = query.where(sa.not_(services.c.disabled))
        known = (await tx.execute(query)).first()
        if known is None:
            raise Invalid("The requested availability zone is not available")
    if request.host is None and request.hypervisor_hostname is None:
        return
    query = sa.select(compute_nodes.c.id)
    if request.host is not None:
        query = query.where(compute_nodes.c.host == request.host)
    if request.hypervisor_hostname is not None:
        query = query.where(compute_nodes.c.hypervisor_hostname == request.hypervisor_hostname)
    if (await tx.execute(query)).first() is None:
        wanted = " / ".join(name for name in (request.host, request.hypervisor_hostname) if name)
        raise Invalid(f"Compute host {wanted} could not be found.")


def _check_items(request: BootRequest, limits: dict[str, int]) -> None:
    allowed = limits["metadata_items"]
    if 0 <= allowed < len(request.metadata):
        raise Forbidden(f"Maximum number of metadata items exceeds {allowed}")
    allowed = limits["injected_files"]
    if 0 <= allowed < len(request.files):
        raise Forbidden("Personality file limit exceeded")
    for path, content in request.files.items():
        if 0 <= limits["injected_file_path_bytes"] < len(path.encode()):
            raise Forbidden("Personality file path exceeds maximum length")
        if 0 <= limits["injected_file_content_bytes"] < len(content) * 3 // 4:
            raise Forbidden("Personality file content exceeds maximum length")


async def _take_quota(
    tx: Tx, ctx: RequestContext, flavor: Flavor, request: BootRequest, most: int, limits: Limits
) -> int:
    """As many servers as quota allows between `min_count` and `most`."""
    each = Amount(1, flavor.vcpus, flavor.memory_mb)
    most = max(request.min_count, min(most, MOST_AT_ONCE))
    if most > request.min_count:
        # Others wait from here on, so that what fits is taken.
        fits = await quota_usage.room(tx, ctx.project_id, ctx.user_id, each, limits)
        most = max(request.min_count, most if fits is None else min(most, fits))
    amount = Amount(most, most * each.cores, most * each.ram)
    await quota_usage.take_for(tx, ctx.project_id, ctx.user_id, amount, limits)
    return most


def hostname_of(name: str, uuid: str, suffix: str = "") -> str:
    """A DNS label made of a server's name: at most 63 letters, digits and hyphens; else one made of its id.

    `suffix` (of one of several servers) is kept whole.
    """
    label = re.sub(r"[^a-zA-Z0-9-]+", "", re.sub(r"[ _.]", "-", name)).lower()
    label = label.strip("-")[: 63 - len(suffix)].strip("-")
    return label + suffix if label else f"Server-{uuid}"


def _values(
    rt: Runtime,
    ctx: RequestContext,
    request: BootRequest,
    flavor: Flavor,
    image: Image | None,
    key: KeyPair | None,
    uuid: str,
    index: int,
    count: int,
    reservation_id: str,
) -> dict[str, Any]:
    suffix = "" if count == 1 else f"-{index + 1}"
    name = request.name + suffix
    if len(name) > LONGEST_NAME:
        raise Invalid(f"name: of {count} servers the last is called '{name}', which is longer than {LONGEST_NAME}.")
    zone = request.availability_zone or rt.settings.default_schedule_zone
    return {
        "uuid": uuid,
        "project_id": ctx.project_id,
        "user_id": ctx.user_id,
        "display_name": name,
        "display_description": request.description,
        "hostname": request.hostname or hostname_of(request.name, uuid, suffix),
        "reservation_id": reservation_id,
        "launch_index": index,
        "image_ref": request.image_ref,
        "image": image_snapshot(image),
        "kernel_id": image.properties.get("kernel_id", "") if image else "",
        "ramdisk_id": image.properties.get("ramdisk_id", "") if image else "",
        "flavorid": flavor.flavorid,
        "flavor": flavor_snapshot(flavor),
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.memory_mb,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap_mb": flavor.swap_mb,
        "vm_state": states.BUILDING,
        "task_state": states.SCHEDULING,
        "pinned_availability_zone": zone,
        "key_name": key.name if key else None,
        "key_data": key.public_key if key else None,
        "key_type": key.type if key else None,
        "user_data": request.user_data,
        "config_drive": "True" if request.config_drive else "",
        "access_ip_v4": request.access_ip_v4,
        "access_ip_v6": request.access_ip_v6,
        "metadata": request.metadata,
        "disk_config": request.disk_config,
        "root_device_name": "/dev/vda",
        "addresses": {},
        # Whose group it is in stands in a column of its own, which changes with the group.
        "scheduler_hints": {name: hint for name, hint in request.scheduler_hints.items() if name != "group"},
        "trusted_certs": request.trusted_certs,
        "desired_power": states.POWER_RUNNING,
        "created_at": rt.world.now(),
        "updated_at": rt.world.now(),
    }


def _requested_place(request: BootRequest) -> dict[str, Any]:
    place = {"requested_host": request.host, "requested_node": request.hypervisor_hostname}
    return place | {"forced_host": True} if request.host_forced else place


def _networks_of(plan: networks.Plan) -> dict[str, Any]:
    """The columns that say which networks were asked for."""
    return {
        "security_groups": [{"name": name} for name in plan.group_names],
        "requested_networks": "auto" if plan.auto else list(plan.ports) or None,
    }


def image_snapshot(image: Image | None) -> dict[str, Any] | None:
    """What is kept of an image with a server made from it."""
    if image is None:
        return None
    return {"name": image.name, "spec": msgspec.to_builtins(image.spec), "properties": image.properties}


def flavor_snapshot(flavor: Flavor) -> dict[str, Any]:
    """What is kept of a flavor with a server made by it; the flavor itself may change or go."""
    return {
        "id": flavor.id,
        "flavorid": flavor.flavorid,
        "name": flavor.name,
        "description": flavor.description,
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.memory_mb,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap_mb": flavor.swap_mb,
        "rxtx_factor": flavor.rxtx_factor,
        "is_public": flavor.is_public,
        "disabled": flavor.disabled,
        "extra_specs": flavor.extra_specs,
    }


async def _insert(
    rt: Runtime,
    tx: Tx,
    ctx: RequestContext,
    request: BootRequest,
    values: dict[str, Any],
    password: str,
    kind: str,
    plan: networks.Plan,
) -> int:
    operation_id = await store.insert(
        tx,
        kind=kind,
        action="create",
        server_uuid=values["uuid"],
        project_id=ctx.project_id,
        user_id=ctx.user_id,
        request_id=ctx.request_id,
        now=values["created_at"],
        data=_requested_place(request) | ({"groups": list(plan.group_ids)} if plan.has_ports else {}),
        secrets={"admin_password": password, "files": request.files},
    )
    await servers.insert(tx, {**values, "operation_id": operation_id})
    if request.tags:
        await tx.execute(
            sa.insert(tags), [{"resource_id": values["uuid"], "tag": tag} for tag in sorted(set(request.tags))]
        )
    return operation_id
