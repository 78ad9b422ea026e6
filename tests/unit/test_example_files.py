"""The configuration files that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilonova import config
from kilonova.service import deployment

DEPLOY = Path(__file__).parents[2] / "deploy/etc"


@pytest.mark.parametrize("name", ["controller", "compute"])
def test_the_configuration_files_are_honoured_whole(name: str) -> None:
    path = DEPLOY / f"{name}.conf"
    assert config.review(path) == []
    conf = config.load([path])
    assert deployment.image_endpoint(conf) == "http://controller01:9292"
    if name == "controller":
        assert deployment.networking(conf)
        assert deployment.account(conf).username == "nova"
