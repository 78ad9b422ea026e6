"""Signed images on a cloud that boots no others: the real Barbican and Image, the ordinary client, real guests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilonova.allinone import libvirtd
from tests.clients.cloud import UserCloud
from tests.support.barbican import PYTHON, Barbican
from tests.support.signing import signer

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="real guests need root, QEMU and libvirt"),
    pytest.mark.skipif(not PYTHON.exists(), reason="of `make cluster`: no Barbican (scripts/setup.sh --cluster)"),
]
USER = "kilonova-demo"
DATA = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[UserCloud, Barbican]]:
    directory = tmp_path_factory.mktemp("signed")
    conf = directory / "nova.conf"
    conf.write_text("[glance]\nverify_glance_signatures = True\nenable_certificate_validation = True\n")
    cloud = UserCloud(directory / "cloud")
    cloud.options = ("--hypervisor", "libvirt", "--networking", "none", "--config-file", str(conf))
    barbican = Barbican(directory / "barbican", cloud)
    try:
        cloud.up()
        barbican.start()
        yield cloud, barbican
    finally:
        barbican.close()
        cloud.down()


def upload(cloud: UserCloud, file: Path, name: str, properties: dict[str, str]) -> None:
    options = ("--disk-format", "raw", "--container-format", "bare", "--file", str(file))
    cloud.openstack("image", "create", *options, name, cloud=USER)
    said = [word for key, value in properties.items() for word in ("--property", f"{key}={value}")]
    # Said with the bytes, Image would look into the signature itself, and this is about who does not trust Image.
    cloud.openstack("image", "set", *said, name, cloud=USER)


def test_only_what_a_trusted_certificate_has_signed_is_booted(
    strict: tuple[UserCloud, Barbican], tmp_path: Path
) -> None:
    cloud, barbican = strict
    authority = signer(name="authority", authority=True)
    made = signer(issuer=authority)
    trusted, signing = barbican.store(authority.pem, USER), barbican.store(made.pem, USER)
    stranger = barbican.store(signer(name="stranger", authority=True).pem, USER)
    good, other = tmp_path / "good", tmp_path / "other"
    good.write_bytes(DATA)
    other.write_bytes(DATA[::-1])
    upload(cloud, good, "signed", made.properties(DATA, signing))
    upload(cloud, other, "forged", made.properties(DATA, signing))
    upload(cloud, good, "plain", {})
    cloud.openstack("flavor", "create", "--vcpus", "1", "--ram", "64", "--disk", "1", "test.small")

    def boot(image: str, *certificates: str) -> str:
        words = [word for one in certificates for word in ("--trusted-image-cert", one)]
        return cloud.openstack(
            "--os-compute-api-version", "2.63", "server", "create", "--image", image, "--flavor", "test.small",
            "--nic", "none", "--wait", *words, f"from-{image}", "-f", "json", cloud=USER,
        )  # fmt: skip

    server = json.loads(boot("signed", trusted))
    assert (server["status"], server["trusted_image_certificates"]) == ("ACTIVE", [trusted])
    for image, certificates, message in (
        ("signed", [stranger], "not issued by any of the trusted image certificates"),
        ("signed", [], "say trusted_image_certificates"),
        ("plain", [trusted], "is not signed"),
    ):
        with pytest.raises(AssertionError, match=message):
            boot(image, *certificates)
    # What Image itself says of the bytes is true; who signed has not signed them.
    with pytest.raises(AssertionError, match="Error creating server"):
        boot("forged", trusted)
    forged = json.loads(cloud.openstack("server", "show", "from-forged", "-f", "json", cloud=USER))
    assert forged["status"] == "ERROR"
    assert "does not fit its bytes" in forged["fault"]["message"]

    cloud.openstack(
        "--os-compute-api-version", "2.63", "server", "rebuild", "--image", "signed", "--trusted-image-cert", signing,
        "--wait", server["id"], cloud=USER,
    )  # fmt: skip
    with pytest.raises(AssertionError, match="is not signed"):
        cloud.openstack("server", "rebuild", "--image", "plain", server["id"], cloud=USER)
