"""The state directory: everything that one cloud owns, with a version, and used by one `kilonova up` at a time."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets as random
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from kilonova.allinone import processes
from kilonova.allinone.errors import CloudError
from kilonova.allinone.files import write_private
from kilonova.allinone.secrets import Secrets

T = TypeVar("T")

LAYOUT_VERSION = 1
"""Of the directory's parts and their files; a release that changes them raises it and converts older ones."""

LEAST_FREE = 512
"""MiB that must be free to start: databases, logs and one small guest."""

_NEW = "use another --state-dir, or remove this one if nothing in it is needed"

_DAMAGED_DATABASE = "restore that file from a backup, or start with a new --state-dir"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The directory's own description, in `layout.json`."""

    version: int
    cloud_id: str


class StateDir:
    """One state directory that has been checked (see `open_state_dir`)."""

    def __init__(self, path: Path, layout: Layout, secrets: Secrets) -> None:
        self.path = path
        self.layout = layout
        self.secrets = secrets

    @property
    def run(self) -> Path:
        """What names living processes; worth nothing after a reboot."""
        return self.path / "run"


def stored_cloud_id(path: Path) -> str:
    """The id of the cloud that was prepared there, whatever room there is and whoever runs. Raises CloudError."""
    return _read(path / "layout.json", Layout).cloud_id


def exists(path: Path) -> bool:
    """Whether a cloud has ever been prepared there."""
    return (path / "layout.json").is_file()


def open_state_dir(path: Path) -> StateDir:
    """Create the directory or check an existing one.

    Raises CloudError when it is damaged, was written by a newer release, belongs to something else, or has no room.
    """
    path = path.resolve()
    odd = sorted(set(str(path)) & set("$%?#\n\\'\""))
    if odd:  # the path stands in other programs' configuration files and in URLs
        raise CloudError(f"{path} holds {' '.join(odd)!r}", remedy="use a --state-dir without such characters")
    if path.exists() and not path.is_dir():
        raise CloudError(f"{path} is not a directory", remedy="use another --state-dir")
    if not exists(path):
        _create(path)
    _check_room(path)
    layout = _read(path / "layout.json", Layout)
    if layout.version > LAYOUT_VERSION:
        raise CloudError(
            f"{path} was written by a newer release (layout {layout.version}; this one knows {LAYOUT_VERSION})",
            remedy="use that release, or another --state-dir",
        )
    if layout.version < 1:
        raise CloudError(f"{path} is damaged: layout.json names version {layout.version}", remedy=_NEW)
    for part in ("run", "log", "kilonova", "identity", "image"):
        (path / part).mkdir(exist_ok=True)
    return StateDir(path, layout, _read_secrets(path / "secrets.json"))


def _create(path: Path) -> None:
    # A run that was interrupted here leaves the secrets without a layout: such a directory is still new.
    leftovers = {entry.name for entry in path.iterdir()} - {"secrets.json", "run"} if path.exists() else set()
    if leftovers:
        known = {"identity", "image", "network", "kilonova"} & leftovers
        if known:
            raise CloudError(f"{path} is damaged: layout.json is missing", remedy=_NEW)
        raise CloudError(
            f"{path} holds other files ({', '.join(sorted(leftovers)[:3])}) and is no state directory",
            remedy="name an empty or new directory with --state-dir",
        )
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    _check_room(path)
    write_private(path / "secrets.json", msgspec.json.encode(Secrets()))
    layout = Layout(version=LAYOUT_VERSION, cloud_id=_new_cloud_id())
    write_private(path / "layout.json", msgspec.json.encode(layout))


def _new_cloud_id() -> str:
    """One whose external network none of this machine's addresses is in: those of other clouds begin the same."""
    from kilonova.allinone.external import external_range

    ours = {
        ipaddress.IPv4Address(address.address)
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    }
    made = [random.token_hex(4) for _ in range(100)]
    free = [cloud_id for cloud_id in made if not any(each in external_range(cloud_id).cidr for each in ours)]
    return (free or made)[0]


def _check_room(path: Path) -> None:
    free = shutil.disk_usage(path).free >> 20
    if free < LEAST_FREE:
        raise CloudError(
            f"the disk that holds {path} is full: {free} MiB free, {LEAST_FREE} MiB needed",
            remedy="free some space, or use another --state-dir",
        )


def check_databases(path: Path) -> None:
    """Raise CloudError when one of Compute's databases cannot be read; Keystone, Glance and Neutron look at theirs."""
    for file in sorted((path / "kilonova").glob("*.sqlite")):
        try:
            with closing(sqlite3.connect(file, timeout=10)) as database:
                (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise CloudError(f"{path} is damaged: {file.relative_to(path)}: {found}", remedy=_DAMAGED_DATABASE)


def _read_secrets(path: Path) -> Secrets:
    """Those of an older release get the passwords that they lack."""
    stored = _read(path, dict[str, str])
    secrets = _read(path, Secrets)
    if set(stored) != set(secrets.__struct_fields__):
        write_private(path, msgspec.json.encode(secrets))
    return secrets


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise CloudError(f"{path.parent} is damaged: {path.name} is missing", remedy=_NEW) from None
    except msgspec.DecodeError as error:
        raise CloudError(f"{path.parent} is damaged: {path.name}: {error}", remedy=_NEW) from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the directory for this process. Raises CloudError when another `kilonova up` has it.

    The kernel gives the lock back when the process ends, however it ends.
    """
    (path / "run").mkdir(parents=True, exist_ok=True)
    with (path / "run/up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = processes.recall(path / "run/up.json")
            by = f" by process {owner.pid}" if owner else ""
            raise CloudError(
                f"{path} is in use{by}", remedy=f"'kilonova down --state-dir {path}' ends it; 'kilonova status' asks it"
            ) from None
        identity = processes.identify(os.getpid())
        if identity is not None:
            processes.remember(path / "run/up.json", identity)
        yield
