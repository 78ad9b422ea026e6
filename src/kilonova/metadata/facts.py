"""What the service tells of a server, from its row. Pure."""

from __future__ import annotations

import hashlib

from kilonova.compute import network_info
from kilonova.db.servers import Server
from kilonova.metadata.content import ServerFacts, decode_user_data
from kilonova.metadata.network_data import devices, network_data


def of_server(server: Server, *, dhcp_domain: str, address: str = "") -> ServerFacts:
    """`address`: the caller's, should the server have none of its own. No secret of the server's is in here."""
    nics = network_info.nics_of(server.network_info)
    fixed = [ip for nic in nics for subnet in nic.subnets if subnet.version == 4 for ip in subnet.ips]
    return ServerFacts(
        uuid=server.uuid,
        display_name=server.display_name,
        hostname=server.hostname,
        dhcp_domain=dhcp_domain,
        number=server.id,
        project_id=server.project_id,
        launch_index=server.launch_index,
        availability_zone=server.availability_zone,
        flavor_name=str(server.flavor.get("name", "")),
        reservation_id=server.reservation_id,
        metadata=server.metadata,
        key_name=server.key_name,
        key_type=server.key_type or "ssh",
        public_key=server.key_data,
        user_data=decode_user_data(server.user_data),
        security_groups=tuple(str(group["name"]) for group in server.security_groups),
        local_ipv4=fixed[0].address if fixed else address,
        public_ipv4=next((floating for ip in fixed for floating in ip.floating), ""),
        image_number=image_number(server.image_ref),
        kernel_number=image_number(server.kernel_id) if server.kernel_id else None,
        ramdisk_number=image_number(server.ramdisk_id) if server.ramdisk_id else None,
        root_device=server.root_device_name or "/dev/vda",
        block_devices=_block_devices(server),
        network=network_data(nics),
        devices=devices(nics),
    )


def image_number(image_ref: str) -> int:
    """The number of which an image's EC2 id is made: of 31 bits, the same for the same image."""
    return int.from_bytes(hashlib.sha256(image_ref.encode()).digest()[:4]) >> 1


def _block_devices(server: Server) -> dict[str, str]:
    prefix = (server.root_device_name or "/dev/vda")[:-1]
    names = [*(["ephemeral0"] if server.ephemeral_gb else []), *(["swap"] if server.swap_mb else [])]
    return {name: f"{prefix}{chr(ord('b') + number)}" for number, name in enumerate(names)}
