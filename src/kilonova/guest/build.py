"""Build the tiny guest image: Debian's cloud kernel, busybox and dropbear on one small disk.

Needs `apt-get` with package lists (no root, no mount, no loop device) plus `mke2fs` and `qemu-img`; everything else
comes out of the downloaded packages. The disk boots by BIOS (syslinux) and by UEFI (systemd-boot).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.resources
import io
import lzma
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kilonova.guest import disk
from kilonova.guest.disk import BuildError

LAYOUT = disk.Layout(boot=36, data=8)

FRESH = 86400.0
"""Seconds that an image is used without asking the package lists again."""

KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    "busybox-static",
    "dropbear-bin",
    "libc6",
    "libcrypt1",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "zlib1g",
    "wide-dhcpv6-client",
    "libfl2",
    *disk.TOOLS,
)

# Debian's kernel modules of the devices that our domains (pc and q35) may have, with the file systems of their disks.
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_blk"),
    *("virtio_net", "net_failover", "failover", "virtio_balloon", "virtio_input", "virtio-rng", "rng-core"),
    *("virtio_console", "scsi_mod", "scsi_common", "virtio_scsi", "sd_mod", "sr_mod", "cdrom", "libata", "ata_piix"),
    *("ata_generic", "t10-pi", "crc-t10dif", "crct10dif_common", "crct10dif_generic", "crc64-rocksoft", "crc64"),
    *("crc64-rocksoft_generic", "isofs", "fat", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1"),
    *("button", "evdev", "ext4", "jbd2", "mbcache", "crc16", "crc32c_generic", "libcrc32c"),
)

# What the packaged dropbear and dhcp6c are linked with (ldd would need to run them).
LIBRARIES = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libcrypt.so.1",
    "libfl.so.2",
    "libgmp.so.10",
    "libtomcrypt.so.1",
    "libtommath.so.1",
    "libz.so.1",
)

_SIGNED = b"~Module signature appended~\n"
LIBRARY_DIR = "lib/x86_64-linux-gnu"
"""Where Debian's dynamic linker looks (not in lib64, where it lives itself)."""

SCRIPTS = ("init.sh", "flatten.awk", "udhcpc.sh", "dhcp6c.sh")


@dataclass(frozen=True, slots=True)
class Download:
    """One package as `apt-get download --print-uris` names it."""

    filename: str
    sha256: str


def build_image(cache_dir: Path) -> Path:
    """A bootable qcow2 image of about 15 MiB in `cache_dir`, built unless one of the same inputs is there.

    Blocks for a few seconds (and a download of about 20 MB the first time). Where the package lists cannot be read
    the newest image that our own scripts went into is used. Raises BuildError.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir):
        built = sorted(cache_dir.glob(f"guest-{_scripts_id()}-*.qcow2"), key=lambda path: path.stat().st_mtime)
        if built and time.time() - built[-1].stat().st_mtime < FRESH:
            return built[-1]
        try:
            downloads = _resolve(cache_dir)
        except BuildError:
            if not built:
                raise
            return built[-1]
        image = cache_dir / f"guest-{_scripts_id()}-{_packages_id(downloads)}.qcow2"
        if image.exists():
            os.utime(image)
            return image
        packages = _fetch(cache_dir, downloads)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=cache_dir) as scratch:
            work = Path(scratch)
            built_image = _assemble(work, packages)
            built_image.replace(image)
        return image


@contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    with (cache_dir / ".guest-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _script(name: str) -> bytes:
    return importlib.resources.files("kilonova.guest").joinpath(name).read_bytes()


def _scripts_id() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes() + Path(disk.__file__).read_bytes())
    for name in SCRIPTS:
        digest.update(_script(name))
    return digest.hexdigest()[:12]


def _packages_id(downloads: list[Download]) -> str:
    return hashlib.sha256("\n".join(sorted(item.sha256 for item in downloads)).encode()).hexdigest()[:12]


def _resolve(cache_dir: Path) -> list[Download]:
    """The exact files of all packages, by the machine's package lists."""
    depends = disk.run("apt-cache", "depends", "--important", KERNEL)
    kernel = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if kernel is None:
        raise BuildError(
            f"the package lists do not know {KERNEL}: run 'apt-get update' as root "
            "(the guest image is made of Debian packages)"
        )
    listing = disk.run("apt-get", "download", "--print-uris", kernel[1], *PACKAGES, cwd=cache_dir)
    downloads = [
        Download(filename=match[1], sha256=match[2])
        for match in re.finditer(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", listing, re.MULTILINE)
    ]
    if len(downloads) != len(PACKAGES) + 1:
        raise BuildError(
            f"the package lists name no SHA256 for all of {kernel[1]} {' '.join(PACKAGES)}: {listing[-500:]}"
        )
    return downloads


def _fetch(cache_dir: Path, downloads: list[Download]) -> list[Path]:
    """Download what is not yet there, and verify every file."""
    store = cache_dir / "packages"
    store.mkdir(exist_ok=True)
    paths = [store / item.filename for item in downloads]
    missing = [item for item, path in zip(downloads, paths, strict=True) if not _matches(path, item.sha256)]
    if missing:
        names = ["=".join(_name_and_version(item.filename)) for item in missing]
        disk.run("apt-get", "-q", "-o", "Acquire::Retries=3", "download", *names, cwd=store, timeout=600)
    for item, path in zip(downloads, paths, strict=True):
        if not _matches(path, item.sha256):
            raise BuildError(f"the downloaded {item.filename} has another checksum than the package lists name")
    keep = {path.name for path in paths}
    for old in store.glob("*.deb"):
        if old.name not in keep:
            old.unlink()
    return paths


def _name_and_version(filename: str) -> tuple[str, str]:
    name, version, _architecture = filename.removesuffix(".deb").split("_")
    return name, version.replace("%3a", ":")


def _matches(path: Path, sha256: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _assemble(work: Path, packages: list[Path]) -> Path:
    tree = work / "tree"
    for package in packages:
        disk.run("dpkg-deb", "-x", str(package), str(tree))
    release = next(path.name for root in ("usr/lib/modules", "lib/modules") for path in (tree / root).glob("*"))
    kernel = tree / "boot" / f"vmlinuz-{release}"
    initrd = work / "initrd"
    # not compressed: the image is, and unpacking would be the guest's work at every boot
    initrd.write_bytes(_initramfs(work, tree, release))
    raw = work / "disk.raw"
    disk.partition(raw, LAYOUT)
    disk.boot_partition(work, tree, raw, LAYOUT, kernel, initrd)
    disk.data_partition(work, raw, LAYOUT, "-O", "^has_journal", "-L", "data")
    image = work / "guest.qcow2"
    disk.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    return image


# -- initramfs


def _library(tree: Path, name: str) -> Path:
    for path in tree.rglob(name):
        # an absolute link would lead to this machine's own library
        if path.resolve().is_relative_to(tree.resolve()) and path.is_file():
            return path
    raise BuildError(f"the downloaded packages hold no {name}")


def _initramfs(work: Path, tree: Path, release: str) -> bytes:
    root = work / "root"
    for directory in (
        "bin",
        "sbin",
        "etc",
        "root",
        "proc",
        "sys",
        "dev",
        "usr/bin",
        "usr/sbin",
        "lib64",
        LIBRARY_DIR,
        "lib/modules",
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy(disk.find(tree, "bin/busybox", "usr/bin/busybox"), root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    for program in ("dropbear", "dhcp6c"):
        shutil.copy(disk.find(tree, f"usr/sbin/{program}"), root / "sbin" / program)
    for library in LIBRARIES:
        shutil.copy(_library(tree, library), root / LIBRARY_DIR / library)
    (root / "lib64/ld-linux-x86-64.so.2").symlink_to(f"/{LIBRARY_DIR}/ld-linux-x86-64.so.2")
    for name in SCRIPTS:
        target = "init" if name == "init.sh" else f"etc/{name}"
        (root / target).write_bytes(_script(name))
        (root / target).chmod(0o755)
    _copy_modules(tree, root, release)
    disk.run(
        "busybox",
        "depmod",
        "-b",
        str(root),
        release,
        path=str(disk.find(tree, "bin/busybox", "usr/bin/busybox").parent),
    )
    for name, text in {
        "passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "shadow": "root:*:19000:0:99999:7:::\n",
        "group": "root:x:0:\n",
        "shells": "/bin/sh\n",
        "issue": "Kilonova test guest: user root, the admin password, or 'kilonova' without one  \\l\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    }.items():
        (root / "etc" / name).write_text(text)
    return _cpio(root)


def _copy_modules(tree: Path, root: Path, release: str) -> None:
    base = next(tree / prefix for prefix in ("usr/lib/modules", "lib/modules") if (tree / prefix / release).is_dir())
    target = root / "lib/modules" / release
    files = {re.sub(r"\.ko(\.xz)?$", "", path.name): path for path in (base / release).rglob("*.ko*")}
    for name in MODULES:
        source = files.get(name)
        if source is None:
            # built into this kernel, or gone in a later one
            continue
        module = target / source.relative_to(base / release).with_name(f"{name}.ko")
        module.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        module.write_bytes(_unsigned(lzma.decompress(content) if source.suffix == ".xz" else content))
    for name in ("modules.builtin", "modules.order"):
        shutil.copy(base / release / name, target / name)


def _unsigned(module: bytes) -> bytes:
    """A module without its signature: checking thirty of them takes an emulated CPU two seconds."""
    if not module.endswith(_SIGNED):
        return module
    # struct module_signature: its last field is the length of the signature before it
    end = len(module) - len(_SIGNED) - 12
    (length,) = struct.unpack_from(">I", module, end + 8)
    return module[: end - length]


def _cpio(root: Path) -> bytes:
    """The tree as an archive the kernel unpacks (format newc, all owned by root, all dated 1970)."""
    out = io.BytesIO()
    paths = sorted(root.rglob("*"), key=lambda path: path.as_posix())
    for number, path in enumerate([*paths, None], start=1):
        if path is None:
            name, mode, content = "TRAILER!!!", 0, b""
        else:
            name, mode = path.relative_to(root).as_posix(), path.lstat().st_mode
            content = (
                os.readlink(path).encode() if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else b""
            )
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        out.write(b"\0" * (-out.tell() % 4))
        out.write(content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache_dir", type=Path)
    try:
        print(build_image(parser.parse_args().cache_dir))
    except BuildError as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
