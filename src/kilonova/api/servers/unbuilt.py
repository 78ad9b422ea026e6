"""What requests may ask for and this release cannot do: recognised, and refused before anything changes."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.errors import Invalid, NotImplementedHere

_HINTS = frozenset({"target_cell", "different_cell"})


def unbuilt(what: str) -> NotImplementedHere:
    return NotImplementedHere(f"{what} is not available in this release. Nothing was changed.")


def check_devices(request: Request, server: dict[str, Any]) -> None:
    """Let pass what comes to the same as no block devices: the image on a local disk. Raises Invalid, Forbidden."""
    old, new = server.get("block_device_mapping"), server.get("block_device_mapping_v2")
    if old and new:
        raise Invalid("Using different block_device_mapping syntaxes is not allowed in the same request.")
    if not old and not new:
        return
    context = request.context
    request.authorize(
        "os_compute_api:servers:create:attach_volume", {"project_id": context.project_id, "user_id": context.user_id}
    )
    if old:
        raise unbuilt("block_device_mapping: booting from volumes and attaching them")
    for device in new or ():
        source, destination = device.get("source_type"), device.get("destination_type", "local")
        if source == "image" and destination == "local":
            image = server.get("imageRef")
            if not image or str(device.get("boot_index")) != "0":
                raise Invalid("Block Device Mapping is Invalid: Mapping image to local is not supported.")
            named = device.get("uuid", device.get("image_id", image))
            if named != image:
                raise Invalid(
                    f"Block Device Mapping is Invalid: the boot device is image {named}, but imageRef is {image}."
                )
            if device.get("tag"):
                raise unbuilt("block_device_mapping_v2: the tag of a disk")
        elif source == "blank" and destination == "local":
            raise unbuilt("block_device_mapping_v2: ephemeral and swap disks other than the flavor's own")
        else:
            raise unbuilt("block_device_mapping_v2: booting from volumes and attaching them")


def check_networks(networks: str | list[dict[str, Any]] | None) -> None:
    """Networks and ports need Networking. 'none', 'auto' and nothing said mean no network as long as there is none."""
    if isinstance(networks, list) and networks:
        first = networks[0]
        named = f"port {first['port']}" if first.get("port") else f"network {first['uuid']}"
        raise Invalid(
            f"networks: {named} cannot be used, since this cloud has no Networking service. "
            "Accepted are 'none' and 'auto' (both without a network), or no networks."
        )


def check_security_groups(server: dict[str, Any]) -> None:
    for group in server.get("security_groups", ()):
        name = group.get("name")
        if name and name != "default":
            raise Invalid(f"Security group {name} not found: this cloud has no Networking service.")


def check_hints(hints: dict[str, Any]) -> None:
    """Hints that would be heeded elsewhere; those unknown everywhere are kept and shown."""
    for name in sorted(_HINTS & hints.keys()):
        raise unbuilt(f"The scheduler hint '{name}'")
