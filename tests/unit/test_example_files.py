"""The configuration files that come with the package."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from kilonova import config
from kilonova.service import deployment

DOCS = Path(__file__).parents[2] / "docs"
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


def test_the_network_plane_is_configured_as_its_documentation_says(tmp_path: Path) -> None:
    text = (DOCS / "networking.md").read_text()
    blocks = re.findall(r"(?:^ {7}\S.*\n)+", text[text.index("## With a Neutron of your own") :], re.MULTILINE)
    role, host = (textwrap.dedent(block) for block in blocks if "[plane]" in block)
    (driver,) = (textwrap.dedent(block) for block in blocks if "[kilonova]" in block)
    (tmp_path / "network.conf").write_text(role)
    conf = config.load([tmp_path / "network.conf"])
    assert deployment.network_account(conf).username == "neutron"
    assert f"hints = {deployment.network_hints(conf)}\n" in driver
    (tmp_path / "plane.conf").write_text(host)
    plane = deployment.plane(config.load([tmp_path / "plane.conf"]))
    assert (plane.namespace, plane.tunnel_ip, plane.uplinks) == (None, "198.51.100.21", {"public": "eth1"})
    assert plane.metadata == ("http://controller01:8775", "SECRET")
    # Nobody reads what stands behind a value as a comment.
    assert not [line for line in text.splitlines() if re.match(r"\s+\w+ = .* #", line)]
