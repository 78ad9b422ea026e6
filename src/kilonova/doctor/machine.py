"""This machine: room on its disks, who can read its secrets, and its hypervisor where it is a host."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
import sys

from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.doctor.site import Site

FULL, SHORT = 512, 2048
"""MiB that are free: nothing can be counted on; little is left."""
_ASK = 60.0
"""Seconds: libvirt may have to try its emulators first."""


def disks(site: Site) -> list[Finding]:
    found: dict[int, Finding] = {}
    for what, path in site.directories.items():
        there = next((each for each in (path, *path.parents) if each.is_dir()), None)
        if there is None:
            continue
        device, free = there.stat().st_dev, shutil.disk_usage(there).free >> 20
        check, text, fix = "disk", f"{free} MiB free for {what} ({there})", f"make room on the disk of {there}"
        if free < FULL:
            found.setdefault(device, wrong(check, text, fix))
        elif free < SHORT:
            found.setdefault(device, warning(check, text, fix))
        else:
            found.setdefault(device, ok(check, text))
    return list(found.values())


def secrets(site: Site) -> list[Finding]:
    check = "secrets"
    found = []
    for path, group in site.guarded.items():
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        wide = mode & (0o007 if group else 0o077)
        good = ("750" if group else "700") if path.is_dir() else ("640" if group else "600")
        if wide:
            whom = "everybody" if mode & 0o007 else "its group"
            found.append(wrong(check, f"{path} is open to {whom} (mode {mode:o})", f"chmod {good} {path}"))
        elif mode & 0o020:
            found.append(warning(check, f"its group may write {path} (mode {mode:o})", f"chmod {good} {path}"))
    return found or [ok(check, f"{', '.join(str(path) for path in site.guarded if path.exists())}")]


async def hypervisor(site: Site) -> list[Finding]:
    """In a process of its own: a libvirt that hangs takes nobody along."""
    assert site.libvirt is not None
    check = "libvirt"
    machine = dict(entry.split("=", 1) for entry in site.conf.libvirt.hw_machine_type)
    asked = {
        "uri": site.libvirt,
        "virt_type": site.conf.libvirt.virt_type,
        "machines": machine,
        "cpu_models": list(site.conf.libvirt.cpu_models) if site.conf.libvirt.cpu_mode == "custom" else [],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kilonova.doctor.hypervisor", json.dumps(asked),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_ASK):
            said, failed = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return [wrong(check, f"{site.libvirt} does not answer within {_ASK:g} s", "systemctl restart libvirtd")]
    try:
        answers = json.loads(said)
    except ValueError:
        words = failed.decode(errors="replace").strip().splitlines()
        return [wrong(check, words[-1] if words else "no answer", "pip install 'kilonova[libvirt]'")]
    make = {"ok": lambda c, t, _: ok(c, t), "warning": warning, "wrong": wrong}
    return [make[each["result"]](each["check"], each["text"], each.get("fix") or "") for each in answers]


def is_host(site: Site, known: set[str]) -> bool:
    """Whether libvirt has to be here. `known`: hosts that the database knows."""
    return site.libvirt is not None and (site.libvirt_certain or site.host in known)
