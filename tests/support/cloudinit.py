"""A Debian with cloud-init on a disk that boots, put together from the machine's own package sources (as root)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from kilonova.guest import disk
from kilonova.guest.build import build_image

PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "cloud-init", "openssh-server"),
    *(
        "ifupdown",
        "isc-dhcp-client",
        "netbase",
        "iproute2",
        "iputils-ping",
        "curl",
        "ca-certificates",
        "sudo",
        "procps",
    ),
)
LAYOUT = disk.Layout(
    boot=64, data=1600,
    cmdline="root=LABEL=rootfs rw console=tty0 console=ttyS0,115200 mitigations=off net.ifnames=0 no_timer_check "
    "tsc=reliable random.trust_cpu=on apparmor=0 audit=0 nowatchdog quiet",
)  # fmt: skip
_BEFORE = """\
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nCOMPRESS=gzip\\n' >"$1/etc/initramfs-tools/conf.d/small"
printf '%s\\n' virtio_pci virtio_blk virtio_net virtio_scsi ata_piix sr_mod isofs ext4 >"$1/etc/initramfs-tools/modules"
"""
_AFTER = """\
echo 'datasource_list: [ ConfigDrive, OpenStack, None ]' >"$1/etc/cloud/cloud.cfg.d/90_sources.cfg"
printf 'auto lo\\niface lo inet loopback\\nsource /etc/network/interfaces.d/*\\n' >"$1/etc/network/interfaces"
echo 'LABEL=rootfs / ext4 defaults,noatime 0 1' >"$1/etc/fstab"
rm -f "$1"/etc/ssh/ssh_host_*
: >"$1/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
  chroot "$1" systemctl mask "$unit" >/dev/null 2>&1 || true
done
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
"""
BUILD = 1800.0
"""Seconds; 70 of processor time."""


def missing() -> str | None:
    """What is not here that the building needs."""
    if os.geteuid() != 0:
        return "a Debian guest is built by root"
    return None if shutil.which("mmdebstrap") else "mmdebstrap is not installed (make setup-tests)"


def build_debian(cache: Path) -> Path:
    """A qcow2 image of about 150 MiB in `cache`, made unless one of this recipe is there. Raises BuildError."""
    guest = cache / "guest"
    build_image(guest)
    cache = cache / "cloud-init"
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(repr((PACKAGES, LAYOUT, _BEFORE, _AFTER, _release())).encode()).hexdigest()[:12]
    image = cache / f"debian-{recipe}.qcow2"
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            with tempfile.TemporaryDirectory(prefix=".build-", dir=cache) as scratch:
                work = Path(scratch)
                _assemble(work, guest / "packages").replace(image)
    return image


def _assemble(work: Path, packages: Path) -> Path:
    tree, tools = work / "tree", work / "tools"
    work.chmod(0o755)
    before, after = work / "before.sh", work / "after.sh"
    before.write_text("#!/bin/sh\nset -e\n" + _BEFORE)
    after.write_text("#!/bin/sh\nset -e\n" + _AFTER)
    for script in (before, after):
        script.chmod(0o755)
    disk.run(
        "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}",
        f"--essential-hook={before}", f"--customize-hook={after}",
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
        _release(), str(tree), *_sources(), timeout=BUILD,
    )  # fmt: skip
    for name in disk.TOOLS:
        (package,) = packages.glob(f"{name}_*.deb")
        disk.run("dpkg-deb", "-x", str(package), str(tools))
    (kernel,), (initrd,) = (tree / "boot").glob("vmlinuz-*"), (tree / "boot").glob("initrd.img-*")
    raw, image = work / "disk.raw", work / "disk.qcow2"
    disk.partition(raw, LAYOUT)
    disk.boot_partition(work, tools, raw, LAYOUT, kernel, initrd)
    disk.data_partition(work, raw, LAYOUT, "-L", "rootfs", "-d", str(tree))
    disk.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(image), timeout=BUILD)
    return image


def _release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\S+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise disk.BuildError("/etc/os-release names no release")
    return found[1]


def _sources() -> list[str]:
    """The machine's own, but for third parties'."""
    one = Path("/etc/apt/sources.list")
    files = [*([one] if one.exists() else []), *sorted(Path("/etc/apt/sources.list.d").glob("debian*.sources"))]
    return [str(path) for path in files if path.read_text().strip()]
