"""A guest's disk: a FAT partition with kernel and RAM disk that boots by BIOS and by UEFI, then one of Linux.

Needs no root, no mount and no loop device; the tools come out of unpacked Debian packages (TOOLS) or from PATH.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kilonova.errors import KilonovaError

MIB = 1024 * 1024
SECTOR = 512
BOOT_START = 2048
"""First sector of the FAT partition: the customary 1 MiB."""
TOOLS = ("syslinux", "syslinux-common", "mtools", "dosfstools", "systemd-boot-efi")
"""Debian packages that `boot_partition` takes programs and files from."""
CMDLINE = (
    "console=tty0 console=ttyS0,115200 mitigations=off net.ifnames=0 panic=5 no_timer_check tsc=reliable "
    "lsm= audit=0 cryptomgr.notests nowatchdog loglevel=4"
)
"""What an emulated guest on a busy machine would lose time with, or its clock, is left out."""


class BuildError(KilonovaError):
    """The guest image cannot be built; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the two partitions in MiB, and what the kernel is told."""

    boot: int
    data: int
    cmdline: str = CMDLINE

    @property
    def data_start(self) -> int:
        return BOOT_START + self.boot * MIB // SECTOR

    @property
    def sectors(self) -> int:
        return self.data_start + self.data * MIB // SECTOR


def run(*command: str, cwd: Path | None = None, path: str | None = None, timeout: float = 120.0) -> str:
    """What it prints. Raises BuildError."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": (path + ":" if path else "") + _search_path()}
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        raise BuildError(f"{command[0]} is not installed; on Debian: apt-get install apt e2fsprogs qemu-utils")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} did not end within {timeout:g} s") from None
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def _search_path() -> str:
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def find(tree: Path, *candidates: str) -> Path:
    """The first of the files that is in unpacked packages. Raises BuildError."""
    for candidate in candidates:
        path = tree / candidate
        if path.is_file():
            return path
    raise BuildError(f"the downloaded packages hold none of {', '.join(candidates)}")


def partition(raw: Path, layout: Layout) -> None:
    """An empty disk with an MBR of two partitions: FAT (type ef, which both BIOS and UEFI take) and Linux."""

    def entry(active: bool, kind: int, start: int, sectors: int) -> bytes:
        # heads and cylinders beyond reach: everybody uses the sector numbers
        return struct.pack("<B3sB3sII", 0x80 if active else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)

    boot = entry(True, 0xEF, BOOT_START, layout.data_start - BOOT_START)
    table = boot + entry(False, 0x83, layout.data_start, layout.sectors - layout.data_start) + bytes(32)
    with raw.open("wb") as disk:
        disk.truncate(layout.sectors * SECTOR)
        disk.seek(440)
        disk.write(b"KILO" + bytes(2) + table + b"\x55\xaa")


def boot_partition(work: Path, tree: Path, raw: Path, layout: Layout, kernel: Path, initrd: Path) -> None:
    """`tree`: the unpacked TOOLS; `work`: a scratch directory."""
    tools = f"{tree / 'usr/bin'}:{tree / 'usr/sbin'}:{tree / 'sbin'}"
    where = f"{raw}@@{BOOT_START * SECTOR}"
    files = {
        "syslinux.cfg": f"DEFAULT l\nPROMPT 0\nLABEL l\n LINUX /vmlinuz\n INITRD /initrd\n APPEND {layout.cmdline}\n",
        "loader/loader.conf": "default l\ntimeout 0\n",
        "loader/entries/l.conf": f"title guest\nlinux /vmlinuz\ninitrd /initrd\noptions {layout.cmdline}\n",
    }
    run(
        *("mkfs.fat", "--invariant", "-F", "16", "-n", "GUESTBOOT", "--offset", str(BOOT_START)),
        *(str(raw), str(layout.boot * 1024)),
        path=tools,
    )
    run("mmd", "-i", where, "::EFI", "::EFI/BOOT", "::loader", "::loader/entries", path=tools)
    run("mcopy", "-i", where, str(kernel), "::vmlinuz", path=tools)
    run("mcopy", "-i", where, str(initrd), "::initrd", path=tools)
    loader = find(tree, "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    run("mcopy", "-i", where, str(loader), "::EFI/BOOT/BOOTX64.EFI", path=tools)
    for name, text in files.items():
        source = work / Path(name).name
        source.write_text(text)
        run("mcopy", "-i", where, str(source), f"::{name}", path=tools)
    # the installer calls mtools itself
    run("syslinux", "--install", "--offset", str(BOOT_START * SECTOR), str(raw), path=tools)
    code = find(tree, "usr/lib/syslinux/mbr/mbr.bin", "usr/lib/SYSLINUX/mbr.bin").read_bytes()
    with raw.open("r+b") as disk:
        disk.write(code[:440])


def data_partition(work: Path, raw: Path, layout: Layout, *options: str) -> None:
    """An ext4 file system, made by `mke2fs` with these options, is the second partition."""
    data = work / "data.raw"
    with data.open("wb") as stream:
        stream.truncate(layout.data * MIB)
    # a fixed UUID and hash seed: the same inputs give the same image
    fixed = "6b696c6f-6e6f-7661-8000-000000000001"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-U", fixed, "-E", f"hash_seed={fixed}", *options, str(data), timeout=600)
    with data.open("rb") as source, raw.open("r+b") as disk:
        disk.seek(layout.data_start * SECTOR)
        while block := source.read(MIB):
            if block.count(0) == len(block):
                disk.seek(len(block), os.SEEK_CUR)
            else:
                disk.write(block)
    data.unlink()
