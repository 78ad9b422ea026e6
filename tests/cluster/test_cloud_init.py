"""A Debian with cloud-init, which finds itself by a config drive and by the metadata service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kilonova.allinone import libvirtd
from tests.support import cloudinit
from tests.support.guests import Lab

pytestmark = [
    pytest.mark.timeout(3600),
    # Of the SDK about itself.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="real guests need root, QEMU and libvirt"),
    pytest.mark.skipif(not os.environ.get("SLOW_GUESTS"), reason="of `make cluster`: minutes for one guest"),
    pytest.mark.skipif(cloudinit.missing() is not None, reason=str(cloudinit.missing())),
]

PATIENCE = 1200.0
"""Seconds; 55 on an idle machine."""

USER_DATA = """\
#cloud-config
locale: false
write_files:
- path: /etc/found
  content: by user data
runcmd:
- [sh, -c, "echo guest ready >/dev/ttyS0"]
"""
VENDOR_DATA = {"cloud-init": "#cloud-config\nntp: {enabled: false}\nfinal_message: told by the vendor\n"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("cloud-init")
    (directory / "vendor.json").write_text(json.dumps(VENDOR_DATA))
    (directory / "nova.conf").write_text(f"[api]\nvendordata_jsonfile_path = {directory}/vendor.json\n")
    lab = Lab(directory / "cloud", "--config-file", str(directory / "nova.conf"))
    try:
        lab.start(cloudinit.build_debian(Path(".cache")), ram=512, disk=3)
        yield lab
    finally:
        lab.cloud.down()


def test_cloud_init_finds_itself_by_drive_and_by_service(lab: Lab) -> None:
    lan = lab.network(lab.admin, "lan", "10.0.0.0/24", router=True)
    still = lab.admin.network.create_network(name="still")
    lab.admin.network.create_subnet(network_id=still.id, ip_version=4, cidr="10.1.0.0/24", enable_dhcp=False)
    lab.group(lab.admin, "a")
    common = {"user_data": lab.encoded(USER_DATA), "metadata": {"role": "web"}}
    drive = lab.boot(lab.admin, "by-drive", lan, "10.0.0.10", "a", config_drive=True, also=(still,), **common)
    service = lab.boot(lab.admin, "by-service", lan, "10.0.0.11", "a", **common)
    drive, service = lab.wait(lab.admin, drive, service, patience=PATIENCE)
    for server, address, source in ((drive, "10.0.0.10", "ConfigDrive"), (service, "10.0.0.11", "OpenStack")):

        def said(command: str, address: str = address) -> str:
            return lab.inside(lan, address, command, user="debian").strip()

        lab.inside(lan, address, "sudo cloud-init status --wait", user="debian")
        result = json.loads(said("cat /run/cloud-init/result.json"))["v1"]
        assert (result["errors"], f"DataSource{source}" in result["datasource"]) == ([], True), result
        told = json.loads(said("sudo cloud-init query ds.meta_data"))
        assert (told["uuid"], told["meta"]) == (server.id, {"role": "web"})
        assert said("hostname") == server.name
        assert said("cat /etc/found") == "by user data"
        assert "told by the vendor" in said("sudo cat /var/log/cloud-init-output.log")
        assert said("cat /sys/class/net/eth0/mtu") == "1450"
    (fixed,) = _addresses(lab, drive, "still")
    assert f"inet {fixed}/24" in lab.inside(lan, "10.0.0.10", "ip -4 -o addr show dev eth1", user="debian")


def _addresses(lab: Lab, server: Any, network: str) -> list[str]:
    return [each["addr"] for each in lab.admin.compute.get_server(server).addresses[network]]
