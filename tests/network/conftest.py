"""One Neutron for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.neutron import Neutron


@pytest.fixture(scope="session")
def neutron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neutron]:
    running = Neutron(tmp_path_factory.mktemp("neutron") / "cloud")
    try:
        running.start()
        yield running
    finally:
        running.close()
