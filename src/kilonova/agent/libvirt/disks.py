"""The files of guests on this host: one directory per server, made and removed in one step each.

<uuid>/kilonova.json   whose it is
<uuid>/disk            root: qcow2 on a cached base, or empty
<uuid>/disk.eph0       ephemeral disk, raw, ext4 labelled ephemeral0
<uuid>/disk.swap       swap disk, raw
<uuid>/disk.config     config drive
<uuid>/console.log     what the guest said on its serial port
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid as uuids
from pathlib import Path

import msgspec

from kilonova.agent import qcow2, tools
from kilonova.agent.driver import ServerSpec
from kilonova.agent.image_file import Base
from kilonova.agent.libvirt.domain_xml import Drive
from kilonova.agent.threads import in_thread
from kilonova.errors import HostFailure, Invalid, Transient

GIB = 1024**3
MIB = 1024**2
BASE = "_base"
_OWNER = "kilonova.json"
_ROOT, _EPHEMERAL, _SWAP, _CONFIG, CONSOLE = "disk", "disk.eph0", "disk.swap", "disk.config", "console.log"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    deployment: str
    server: str


class Disks:
    """All servers' files under `directory` (`instances_path`). Only directories of our deployment are touched."""

    def __init__(self, directory: Path, deployment_id: str) -> None:
        self.directory = directory
        self.deployment_id = deployment_id

    def of(self, uuid: str) -> Path:
        return self.directory / uuid

    def console_log(self, uuid: str) -> Path:
        return self.of(uuid) / CONSOLE

    async def ensure(self, spec: ServerSpec, base: Base | None, base_path: Path | None) -> bool:
        """Root, ephemeral and swap disks. `base` is the image in the cache; None: an empty root disk.

        Returns whether the root disk had to be made.

        Raises Invalid when the image does not fit, HostFailure when the disks cannot be made.
        """
        size = root_bytes(spec, base)
        await in_thread(lambda: self._ensure_directory(spec.uuid))
        directory = self.of(spec.uuid)
        made = bool(size) and not _exists(directory / _ROOT)
        try:
            if made:
                await self._make_root(directory / _ROOT, base, base_path, size)
            if spec.ephemeral_gb and not _exists(directory / _EPHEMERAL):
                await _make(
                    directory / _EPHEMERAL,
                    spec.ephemeral_gb * GIB,
                    *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "ephemeral0"),
                    *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
                )
            if spec.swap_mb and not _exists(directory / _SWAP):
                await _make(directory / _SWAP, spec.swap_mb * MIB, "mkswap")
        except tools.ToolFailed as error:
            if error.disk_full:
                raise HostFailure(f"The host's disk is full: server {spec.uuid} cannot have its disks.") from error
            raise
        except OSError as error:
            raise HostFailure(f"The host cannot make the disks of server {spec.uuid}: {error.strerror}.") from error
        return made

    async def ensure_directory(self, uuid: str) -> Path:
        """The server's directory. Raises HostFailure."""
        try:
            await in_thread(lambda: self._ensure_directory(uuid))
        except OSError as error:
            raise HostFailure(f"The host cannot make files for server {uuid}: {error.strerror}.") from error
        return self.of(uuid)

    def drives(self, uuid: str) -> list[Drive]:
        """What the server has, in the order guests see it; its config drive last."""
        directory = self.of(uuid)
        found = []
        for name in (_ROOT, _EPHEMERAL, _SWAP):
            path = directory / name
            if path.exists():
                found.append(Drive(path=path, format="qcow2" if name == _ROOT else "raw"))
        if (directory / _CONFIG).exists():
            found.append(Drive(path=directory / _CONFIG, format="raw", cdrom=True))
        return found

    def config_drive(self, uuid: str) -> Path:
        return self.of(uuid) / _CONFIG

    def missing(self, uuid: str) -> str | None:
        """Why the server's disks cannot be opened; None when all is there."""
        root = self.of(uuid) / _ROOT
        if not self.of(uuid).is_dir():
            return f"its directory {self.of(uuid)} is missing"
        if not root.exists():
            return None if self.drives(uuid) else f"its root disk {root} is missing"
        try:
            backing = qcow2.read(root).backing
        except Invalid:
            return f"its root disk {root} is damaged"
        if backing is not None and not Path(backing).exists():
            return f"the base image {backing} of its root disk is missing"
        return None

    def bases_in_use(self) -> set[str]:
        """Keys of the cached images that any disk here is based on, whoever owns it."""
        used = set()
        for disk in self.directory.glob(f"*/{_ROOT}*"):
            with contextlib.suppress(Invalid, OSError):
                backing = qcow2.read(disk).backing
                if backing is not None:
                    used.add(Path(backing).name)
        return used

    def promised_bytes(self) -> int:
        """How much guests may still write into disks that grow: their size less what they take now."""
        promised = 0
        for disk in self.directory.glob("*/disk*"):
            with contextlib.suppress(Invalid, OSError):
                status = disk.stat()
                size = qcow2.read(disk).virtual_size if qcow2.is_qcow2(disk) else status.st_size
                promised += max(0, size - status.st_blocks * 512)
        return promised

    async def remove(self, uuid: str, *, keep_console_log: bool) -> None:
        """Everything of the server, or all but its console's log. Raises HostFailure."""
        try:
            await in_thread(lambda: self._remove(uuid, keep_console_log), patience=600)
        except OSError as error:
            raise HostFailure(f"The host cannot remove the disks of server {uuid}: {error}.") from error

    def sweep(self) -> None:
        """Drop what a crash left half made or half removed."""
        for path in self.directory.glob(".gone-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob("*/.*.new"):
            if self._is_ours(path.parent):
                path.unlink(missing_ok=True)

    # -- inside

    def _is_ours(self, directory: Path) -> bool:
        try:
            owner = msgspec.json.decode((directory / _OWNER).read_bytes(), type=Owner)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return False
        return owner.deployment == self.deployment_id

    def _ensure_directory(self, uuid: str) -> None:
        directory = self.of(uuid)
        if directory.exists():
            if not self._is_ours(directory):
                raise HostFailure(f"The directory {directory} exists and belongs to nobody we know; it is not touched.")
            return
        new = self.directory / f".new-{uuids.uuid4().hex}"
        new.mkdir(parents=True, mode=0o711)
        (new / _OWNER).write_bytes(msgspec.json.encode(Owner(deployment=self.deployment_id, server=uuid)))
        new.rename(directory)

    def _remove(self, uuid: str, keep_console_log: bool) -> None:
        directory = self.of(uuid)
        if not self._is_ours(directory):
            return
        if keep_console_log:
            for path in directory.iterdir():
                if path.name != _OWNER and not path.name.startswith(CONSOLE):
                    path.unlink()
            return
        # away at once for everybody who looks; a crash meanwhile leaves work for sweep()
        gone = self.directory / f".gone-{uuids.uuid4().hex}"
        directory.rename(gone)
        shutil.rmtree(gone)

    async def _make_root(self, path: Path, base: Base | None, base_path: Path | None, size: int) -> None:
        temporary = _new(path)
        backing: tuple[str, ...] = ()
        if base is not None and base_path is not None:
            backing = ("-b", str(base_path), "-F", base.format)
        try:
            await tools.run(
                *("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(temporary), str(size)), umask=0o077
            )
            await in_thread(lambda: _publish(temporary, path))
        except BaseException:
            _unlink(temporary)
            raise
        if base_path is not None and not _exists(base_path):
            # evicted in between, before anything pointed at it
            _unlink(path)
            raise Transient("The image was dropped from the host's cache; it has to be fetched again.")


def root_bytes(spec: ServerSpec, base: Base | None) -> int:
    """The root disk's size. Raises Invalid when the image is larger than the flavor allows."""
    if base is None:
        return spec.root_gb * GIB
    size = spec.root_gb * GIB or base.virtual_size
    if base.virtual_size > size:
        raise Invalid(
            f"The image {base.image_id} needs a root disk of {-(-base.virtual_size // GIB)} GiB; "
            f"the flavor's has {spec.root_gb} GiB."
        )
    return size


async def _make(path: Path, size: int, *tool: str) -> None:
    """A sparse raw file that a tool has formatted, under its name only when it is whole."""
    temporary = _new(path)
    try:
        await in_thread(lambda: _sparse(temporary, size))
        await tools.run(*tool, str(temporary), timeout=300)
        await in_thread(lambda: _publish(temporary, path))
    except BaseException:
        _unlink(temporary)
        raise


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuids.uuid4().hex}.new")


def _exists(path: Path) -> bool:
    return path.exists()


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sparse(path: Path, size: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.truncate(size)


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)
