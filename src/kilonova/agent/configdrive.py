"""Writing a config drive: an ISO 9660 image labelled `config-2`, with Rock Ridge and Joliet names."""

from __future__ import annotations

import base64
import binascii
import io
import os
import uuid
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pycdlib

from kilonova.agent.driver import Secrets, ServerSpec
from kilonova.errors import Invalid, Transient, Unavailable
from kilonova.metadata import content
from kilonova.metadata.network_data import devices, network_data
from kilonova.metadata.vendor import VendorData

LABEL = "config-2"
SIZE_LIMIT = 64 * 1024**2
"""Bytes. The reference's vfat drives are as large; more is no metadata."""
_SEED_BYTES = 512


def facts_of(spec: ServerSpec, secrets: Secrets, *, dhcp_domain: str = "novalocal") -> content.ServerFacts:
    """What a config drive says of a server. Raises Invalid for user data or files that are no base64."""
    try:
        files = {path: base64.b64decode(data) for path, data in spec.files.items()}
    except binascii.Error:
        raise Invalid("The contents of injected files must be base64 encoded.") from None
    fixed = [ip for nic in spec.nics for subnet in nic.subnets if subnet.version == 4 for ip in subnet.ips]
    return content.ServerFacts(
        uuid=spec.uuid,
        display_name=spec.display_name,
        hostname=spec.hostname,
        dhcp_domain=dhcp_domain,
        number=content.server_number(spec.name),
        project_id=spec.project_id,
        launch_index=spec.launch_index,
        availability_zone=spec.availability_zone,
        flavor_name=spec.flavor_name,
        reservation_id=spec.reservation_id,
        metadata=spec.metadata,
        key_name=spec.key_name,
        key_type=spec.key_type,
        public_key=spec.public_key,
        user_data=content.decode_user_data(spec.user_data),
        admin_password=secrets.admin_password,
        random_seed=os.urandom(_SEED_BYTES),
        files=files,
        local_ipv4=fixed[0].address if fixed else "",
        network=network_data(spec.nics),
        devices=devices(spec.nics),
    )


async def with_vendor_data(facts: content.ServerFacts, vendor: VendorData, spec: ServerSpec) -> content.ServerFacts:
    """What the operator adds. Raises Transient when that is not to be had and must be there."""
    try:
        found = await vendor.of(facts, spec.image.id if spec.image is not None else "")
    except Unavailable as error:
        raise Transient(error.message, details=error.details) from error
    return replace(facts, vendor_data=found.static, vendor_services=found.dynamic or {})


def write(path: Path, facts: content.ServerFacts) -> None:
    """Write the drive to `path` in one step, readable by the owner only: it holds the admin password.

    Blocks for some tens of milliseconds: call it in a thread. Raises Invalid when it would be too large.
    """
    files = list(content.config_drive_files(facts))
    size = sum(len(data) for _name, data in files)
    if size > SIZE_LIMIT:
        raise Invalid(f"The config drive would hold {size} bytes; {SIZE_LIMIT} fit.")
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        made: dict[str, str] = {"": ""}
        for number, (name, data) in enumerate(files):
            folder = _make_folders(iso, PurePosixPath(name).parent, made)
            iso.add_fp(
                io.BytesIO(data),
                len(data),
                # ISO names are a fallback that nobody reads: short, and unlike each other
                iso_path=f"{folder}/F{number:05}.;1",
                rr_name=PurePosixPath(name).name,
                joliet_path=f"/{name}",
            )
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            iso.write_fp(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        iso.close()
        temporary.unlink(missing_ok=True)


def _make_folders(iso: pycdlib.PyCdlib, folder: PurePosixPath, made: dict[str, str]) -> str:
    """The ISO path of a folder, made with its parents unless it was."""
    name = "" if folder == PurePosixPath(".") else str(folder)
    if name not in made:
        parent = _make_folders(iso, folder.parent, made)
        made[name] = f"{parent}/D{len(made):05}"
        iso.add_directory(made[name], rr_name=folder.name, joliet_path=f"/{name}")
    return made[name]
