"""What an image's file is, found out without trusting it, and its conversion to raw."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from kilonova.agent import qcow2, tools
from kilonova.agent.driver import ImageSpec, Progress
from kilonova.agent.threads import in_thread
from kilonova.errors import HostFailure, Invalid

FORMATS = ("raw", "qcow2")
_CPU_SECONDS = 30
_MEMORY_BYTES = 1024**3
"""Both for tools that read a tenant's file: a crafted one must not eat the host."""


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A cached image. `virtual_size` in bytes: what a guest sees."""

    image_id: str
    format: str
    virtual_size: int
    signed: bool = False
    """Whether its signature was verified when it came."""


def check_wanted(image: ImageSpec) -> None:
    """Raises Invalid for an image that no host of this kind could boot, or could not verify."""
    if image.disk_format not in FORMATS:
        raise Invalid(
            f"Image {image.id} has disk_format '{image.disk_format}'; this hypervisor boots {' and '.join(FORMATS)}."
        )
    if image.container_format not in ("bare", ""):
        raise Invalid(f"Image {image.id} has container_format '{image.container_format}'; 'bare' is accepted.")
    if image.hash_value is not None:
        algorithm = image.hash_algo or "sha512"
        if algorithm not in hashlib.algorithms_available or algorithm.startswith("shake"):
            raise Invalid(f"Image {image.id} states a checksum by '{algorithm}', which is not known here.")


async def examine(image: ImageSpec, path: Path) -> Base:
    """What the downloaded file is. Raises Invalid unless it is what Image states, complete and undamaged."""
    if image.disk_format == "raw":
        if await in_thread(lambda: qcow2.is_qcow2(path)):
            raise Invalid(f"Image {image.id} is a qcow2 file, but Image states disk_format raw.")
        if image.size == 0:
            raise Invalid(f"Image {image.id} is empty.")
        return Base(image_id=image.id, format="raw", virtual_size=image.size)
    header = await in_thread(lambda: qcow2.check_self_contained(path))
    try:
        output = await _look("info", "--output=json", "-U", "-f", "qcow2", str(path))
        await _check_tables(image.id, path)
    except tools.ToolFailed as error:
        if error.exit_status is None:
            raise
        raise Invalid(f"Image {image.id} cannot be read as qcow2: {error.message}") from error
    info = msgspec.json.decode(output)
    if info.get("backing-filename") or info.get("format-specific", {}).get("data", {}).get("data-file"):
        raise Invalid(f"Image {image.id} names other files; images must be complete.")
    if info["virtual-size"] != header.virtual_size:
        raise Invalid(f"Image {image.id} is damaged: its header and its tables disagree about the size.")
    return Base(image_id=image.id, format="qcow2", virtual_size=header.virtual_size)


async def raw_bytes(path: Path) -> int:
    """How much a qcow2 file takes as a sparse raw one, at most: its clusters in use, uncompressed. Bytes."""
    measured = await _look("measure", "--output=json", "-f", "qcow2", "-O", "qcow2", str(path))
    return int(msgspec.json.decode(measured)["required"])


async def _look(*arguments: str) -> bytes:
    return await tools.run("qemu-img", *arguments, cpu_seconds=_CPU_SECONDS, address_space=_MEMORY_BYTES)


async def _check_tables(image_id: str, path: Path) -> None:
    """Raises Invalid for broken tables. Clusters that nothing refers to (status 3) do no harm."""
    try:
        await _look("check", "-q", "-f", "qcow2", str(path))
    except tools.ToolFailed as error:
        if error.exit_status == 2:
            raise Invalid(
                f"Image {image_id} is damaged: its qcow2 tables have errors.", details=error.stderr
            ) from error
        if error.exit_status != 3:
            raise


async def convert(source: Path, target: Path, progress: Progress) -> None:
    """qcow2 to raw; `target` is whole or absent. Raises HostFailure, or Invalid when the image is at fault."""

    async def said(output: bytes) -> None:
        # "    (12.34/100%)\r"
        found = re.findall(rb"\((\d+)\.\d+/100%\)", output)
        if found:
            await progress("image_convert", int(found[-1]))

    try:
        await tools.run(
            *("qemu-img", "convert", "-p", "-f", "qcow2", "-O", "raw", str(source), str(target)),
            timeout=3600,
            on_output=said,
        )
    except tools.ToolFailed as error:
        await in_thread(lambda: target.unlink(missing_ok=True))
        if error.exit_status is None:
            raise
        if error.disk_full:
            raise HostFailure(
                f"The host's disk became full while an image was converted in {target.parent}."
            ) from error
        raise Invalid(f"The image cannot be converted: {error.message}") from error
    except BaseException:
        await in_thread(lambda: target.unlink(missing_ok=True))
        raise
