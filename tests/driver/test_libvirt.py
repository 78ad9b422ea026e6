"""The contract on real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kilonova.allinone.libvirtd import libvirt_uri
from tests.driver.contract import DriverContract, driver
from tests.driver.libvirt_rig import NAMESPACE, LibvirtRig

__all__ = ["driver"]


@pytest.fixture
def rig(libvirt_state: Path, tmp_path: Path, guest_image: Path) -> Iterator[LibvirtRig]:
    rig = LibvirtRig(libvirt_uri(libvirt_state), tmp_path, guest_image, NAMESPACE)
    yield rig
    rig.clean()


@pytest.mark.timeout(600)
class TestLibvirt(DriverContract):
    pass
