"""One cloud for all tests of real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.cloud import UserCloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserCloud]:
    cloud = UserCloud(tmp_path_factory.mktemp("clients") / "cloud")
    cloud.up()
    yield cloud
    cloud.down()


@pytest.fixture(scope="session")
def image(cloud: UserCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("image") / "image.raw"
    file.write_bytes(bytes(range(256)) * 4096)
    options = ("--disk-format", "raw", "--container-format", "bare", "--public", "--file", str(file))
    return cloud.value("image", "create", *options, "test-image", column="id")


@pytest.fixture(scope="session")
def flavor(cloud: UserCloud) -> str:
    return cloud.value("flavor", "create", "--vcpus", "1", "--ram", "64", "--disk", "1", "test.small", column="id")
