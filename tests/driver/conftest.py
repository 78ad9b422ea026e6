"""One private libvirt for the session; each test gets a host directory of its own on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilonova import netns
from kilonova.allinone.libvirtd import ensure_libvirtd, probe_hypervisor, stop_libvirtd
from kilonova.guest.build import build_image
from tests.driver.libvirt_rig import NAMESPACE

_CACHE = Path(os.environ.get("KILONOVA_TEST_CACHE", Path(__file__).parents[2] / ".cache")) / "guest"


@pytest.fixture(scope="session")
def guest_image() -> Path:
    return build_image(_CACHE)


@pytest.fixture(scope="session")
def libvirt_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory whose libvirtd runs."""
    unavailable = probe_hypervisor()
    if unavailable is not None:
        pytest.skip(unavailable.message)
    state = tmp_path_factory.mktemp("libvirt")
    ensure_libvirtd(state, NAMESPACE)
    yield state
    stop_libvirtd(state, guests=True)
    netns.remove(NAMESPACE.name)
