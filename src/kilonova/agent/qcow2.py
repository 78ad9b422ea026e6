"""What a qcow2 file says of itself, read without any tool.

An image from a tenant may name other files (a backing file, an external data file) that a tool would open with the
host's rights just by looking. So the header is read here first, and what names another file is refused.
Source: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from kilonova.errors import Invalid

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_EXTERNAL_DATA = 1 << 2
_EXTENSION_END = 0
_EXTENSION_EXTERNAL_DATA = 0x44415441
_HEADER_LIMIT = 64 * 1024
_SIZE_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Qcow2:
    """`virtual_size` in bytes; `backing` as it stands in the file, None without one."""

    version: int
    virtual_size: int
    backing: str | None
    encrypted: bool
    external_data: bool


def is_qcow2(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == MAGIC


def read(path: Path) -> Qcow2:
    """The header of a qcow2 file. Raises Invalid when it is none, or is damaged."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_LIMIT)
        if len(head) < _HEADER.size or head[:4] != MAGIC:
            raise Invalid("The image is no qcow2 file: it does not begin with a qcow2 header.")
        fields = _HEADER.unpack_from(head)
        _magic, version, backing_offset, backing_length, cluster_bits, size, crypt, *_rest = fields
        if version not in (2, 3) or not 9 <= cluster_bits <= 21 or size > _SIZE_LIMIT:
            raise Invalid(
                f"The image's qcow2 header is damaged (version {version}, cluster bits {cluster_bits}, size {size})."
            )
        incompatible, header_length = 0, _HEADER.size
        if version == 3:
            if len(head) < _HEADER.size + _FEATURES.size:
                raise Invalid("The image's qcow2 header is cut off.")
            incompatible, _compatible, _autoclear, _order, header_length = _FEATURES.unpack_from(head, _HEADER.size)
        external = bool(incompatible & _EXTERNAL_DATA) or _has_extension(head, header_length, _EXTENSION_EXTERNAL_DATA)
        backing = None
        if backing_offset:
            stream.seek(backing_offset)
            backing = stream.read(min(backing_length, 1023)).decode(errors="replace")
    return Qcow2(version=version, virtual_size=size, backing=backing, encrypted=crypt != 0, external_data=external)


def _has_extension(head: bytes, offset: int, wanted: int) -> bool:
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == wanted:
            return True
        if kind == _EXTENSION_END:
            return False
        offset += 8 + (length + 7) // 8 * 8
    return False


def check_self_contained(path: Path) -> Qcow2:
    """The header of a tenant's image that names no other file and needs no key. Raises Invalid."""
    header = read(path)
    if header.backing is not None:
        raise Invalid("The image has a backing file; images must be complete (flatten it with qemu-img convert).")
    if header.external_data:
        raise Invalid(
            "The image has an external data file; images must be complete (flatten it with qemu-img convert)."
        )
    if header.encrypted:
        raise Invalid("The image is encrypted by qcow2's own scheme, which is not supported.")
    return header
