"""What `kilonova doctor` says of a libvirt: a real one, and one that is not as nova.conf wants it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kilonova import config
from kilonova.allinone.libvirtd import libvirt_uri
from kilonova.doctor import hypervisor, machine
from kilonova.doctor.findings import Finding
from kilonova.doctor.site import Site


async def look(tmp_path: Path, uri: str, text: str = "[libvirt]\nvirt_type = qemu\n") -> dict[str, Finding]:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    site = Site(name=str(path), conf=config.load([path]), host="h", libvirt=uri)
    return {finding.check: finding for finding in await machine.hypervisor(site)}


async def test_all_is_well(libvirt_state: Path, tmp_path: Path) -> None:
    found = await look(tmp_path, libvirt_uri(libvirt_state), "[libvirt]\nvirt_type = auto\n")
    assert {name: each.result for name, each in found.items()} == dict.fromkeys(
        ("libvirt", "libvirt: virt_type", "libvirt: emulator", "libvirt: machine"), "ok"
    )


async def test_what_is_wrong_is_named(libvirt_state: Path, tmp_path: Path) -> None:
    uri = libvirt_uri(libvirt_state)
    found = await look(tmp_path, f"qemu+unix:///system?socket={tmp_path}/none")
    assert list(found) == ["libvirt"]
    assert found["libvirt"].result == "wrong"
    assert "systemctl start libvirtd" in (found["libvirt"].fix or "")
    text = "[libvirt]\nvirt_type = qemu\ncpu_mode = custom\ncpu_models = none-such\nhw_machine_type = x86_64=pc-none\n"
    found = await look(tmp_path, uri, text)
    for check in ("libvirt: machine", "libvirt: cpu_models"):
        assert found[check].result == "wrong"
        assert "[libvirt]" in (found[check].fix or "")


def known(virt_type: str, emulator: str) -> hypervisor.hardware.Hardware:
    return hypervisor.hardware.Hardware(
        arch="x86_64", virt_type=virt_type, emulator=emulator, machines={}, models=(), cpu_info={}, features=()
    )


@pytest.mark.parametrize(("can", "virt_type", "result"), [
    (False, "kvm", "wrong"), (True, "qemu", "warning"), (True, "kvm", "ok"), (False, "qemu", "ok"),
])  # fmt: skip
def test_kvm_that_is_not_there_and_kvm_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, can: bool, virt_type: str, result: str
) -> None:
    own = SimpleNamespace(**{**vars(hypervisor.hardware), "can_kvm": lambda: can})
    monkeypatch.setattr(hypervisor, "hardware", own)
    assert hypervisor._kind(virt_type, known(virt_type, "/bin/true")).result == result


def test_an_emulator_that_cannot_be_run(tmp_path: Path) -> None:
    assert hypervisor._emulator(known("qemu", "/bin/true")).result == "ok"
    assert hypervisor._emulator(known("qemu", str(tmp_path / "qemu"))).result == "wrong"
    assert hypervisor._emulator(known("qemu", "")).result == "wrong"
