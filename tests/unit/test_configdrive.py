"""Config drives as a guest reads them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import msgspec
import pycdlib
import pytest

from kilonova.agent import configdrive
from kilonova.agent.driver import Secrets, ServerSpec
from kilonova.errors import Invalid, Transient
from kilonova.metadata import content
from kilonova.metadata.content import ServerFacts
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.vendor import VendorData

SPEC = ServerSpec(
    uuid="11111111-2222-3333-4444-555555555555",
    name="instance-0000002a",
    display_name="My server é",
    hostname="my-server",
    project_id="project-1",
    user_id="user-1",
    deployment_id="d",
    vcpus=1,
    memory_mb=128,
    root_gb=1,
    config_drive=True,
    availability_zone="nova",
    metadata={"role": "web"},
    key_name="key",
    public_key="ssh-ed25519 AAAA me@here",
    user_data=base64.b64encode(b"#!/bin/sh\necho hi\n").decode(),
    files={"/etc/motd": base64.b64encode(b"hello").decode()},
    flavor_name="m1.tiny",
    reservation_id="r-abcdefgh",
)


@pytest.fixture
def drive(tmp_path: Path) -> dict[str, bytes]:
    """Every file of a drive by the names that Linux shows (Rock Ridge)."""
    path = tmp_path / "disk.config"
    configdrive.write(path, configdrive.facts_of(SPEC, Secrets(admin_password="s3cret")))
    return read(path)


def read(path: Path, names: str = "rr_path") -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    found = {}
    for folder, _folders, files in iso.walk(**{names: "/"}):
        for name in files:
            out = io.BytesIO()
            full = f"{folder.rstrip('/')}/{name}"
            iso.get_file_from_iso_fp(out, **{names: full})
            found[full.removeprefix("/")] = out.getvalue()
    iso.close()
    return found


def document(drive: dict[str, bytes], version: str, name: str = "meta_data.json") -> dict[str, object]:
    loaded = json.loads(drive[f"openstack/{version}/{name}"])
    assert isinstance(loaded, dict)
    return loaded


async def test_vendor_data_is_on_the_drive_too(tmp_path: Path) -> None:
    (tmp_path / "vendor.json").write_text('{"cloud": "ours"}')
    targets = (("gone", "http://127.0.0.1:1/"),)
    more = {"vendordata_file": tmp_path / "vendor.json", "vendordata_targets": targets}
    for settings, one, two in (
        (MetadataSettings(**more), {"cloud": "ours"}, {"static": {"cloud": "ours"}}),  # type: ignore[arg-type]
        (MetadataSettings(**more, vendordata_providers=("DynamicJSON",)), None, {"gone": {}}),  # type: ignore[arg-type]
    ):
        vendor = VendorData(settings)
        facts = await configdrive.with_vendor_data(configdrive.facts_of(SPEC, Secrets()), vendor, SPEC)
        await vendor.close()
        configdrive.write(tmp_path / "disk.config", facts)
        found = read(tmp_path / "disk.config")
        assert found.get("openstack/latest/vendor_data.json") == (None if one is None else msgspec.json.encode(one))
        assert document(found, "latest", "vendor_data2.json") == two
    fatal = MetadataSettings(
        vendordata_providers=("DynamicJSON",), vendordata_targets=targets, vendordata_failure_fatal=True
    )
    vendor = VendorData(fatal)
    with pytest.raises(Transient, match="gone"):
        await configdrive.with_vendor_data(configdrive.facts_of(SPEC, Secrets()), vendor, SPEC)
    await vendor.close()


def test_the_label_is_the_one_guests_look_for(tmp_path: Path) -> None:
    configdrive.write(tmp_path / "disk.config", ServerFacts(uuid="u", display_name="d", hostname="h"))
    head = (tmp_path / "disk.config").read_bytes()[32768 : 32768 + 2048]
    assert head[1:6] == b"CD001"
    assert head[40:72].rstrip() == b"config-2"
    assert (tmp_path / "disk.config").stat().st_mode & 0o777 == 0o600


def test_both_name_systems_show_the_same_files(tmp_path: Path, drive: dict[str, bytes]) -> None:
    assert read(tmp_path / "disk.config", "joliet_path") == drive


def test_every_version_has_its_files(drive: dict[str, bytes]) -> None:
    for version in (*content.OPENSTACK_VERSIONS, "latest"):
        names = {name.rpartition("/")[2] for name in drive if name.startswith(f"openstack/{version}/")}
        expected = {"meta_data.json", "user_data"}
        if version >= content.HAVANA:
            expected.add("vendor_data.json")
        if version >= content.LIBERTY:
            expected.add("network_data.json")
        if version >= content.NEWTON_TWO:
            expected.add("vendor_data2.json")
        assert names == expected, version
    assert {name for name in drive if name.startswith("ec2/")} == {
        *("ec2/2009-04-04/meta-data.json", "ec2/2009-04-04/user-data"),
        *("ec2/latest/meta-data.json", "ec2/latest/user-data"),
    }


def test_meta_data_tells_who_the_server_is(drive: dict[str, bytes]) -> None:
    told = document(drive, "latest")
    assert len(base64.b64decode(str(told.pop("random_seed")))) == 512
    assert told == {
        "uuid": SPEC.uuid,
        "admin_pass": "s3cret",
        "name": "My server é",
        "hostname": "my-server.novalocal",
        "launch_index": 0,
        "availability_zone": "nova",
        "project_id": "project-1",
        "meta": {"role": "web"},
        "public_keys": {"key": "ssh-ed25519 AAAA me@here"},
        "keys": [{"name": "key", "type": "ssh", "data": "ssh-ed25519 AAAA me@here"}],
        "files": [{"path": "/etc/motd", "content_path": "/content/0000"}],
        "devices": [],
        "dedicated_cpus": [],
    }
    assert drive["openstack/content/0000"] == b"hello"
    assert drive["openstack/latest/user_data"] == b"#!/bin/sh\necho hi\n"


def test_older_versions_lack_what_came_later(drive: dict[str, bytes]) -> None:
    assert "random_seed" not in document(drive, content.FOLSOM)
    assert "project_id" not in document(drive, content.HAVANA)
    assert "project_id" in document(drive, content.LIBERTY)
    assert "devices" not in document(drive, content.LIBERTY)
    assert "dedicated_cpus" not in document(drive, content.ROCKY)


def test_ec2_names_are_there_for_tools_that_know_no_other(drive: dict[str, bytes]) -> None:
    told = json.loads(drive["ec2/latest/meta-data.json"])
    assert told["instance-id"] == "i-0000002a"
    assert told["hostname"] == told["local-hostname"] == "my-server.novalocal"
    assert told["instance-type"] == "m1.tiny"
    assert told["public-keys"] == {"0": {"openssh-key": "ssh-ed25519 AAAA me@here"}}
    assert told["block-device-mapping"] == {"ami": "vda", "root": "/dev/vda"}


def test_nothing_is_said_of_what_is_not_there(tmp_path: Path) -> None:
    bare = msgspec.structs.replace(SPEC, metadata={}, key_name=None, public_key=None, user_data=None, files={})
    configdrive.write(tmp_path / "bare", configdrive.facts_of(bare, Secrets()))
    drive = read(tmp_path / "bare")
    assert not set(document(drive, "latest")) & {"admin_pass", "meta", "public_keys", "keys", "files"}
    assert not [name for name in drive if "user" in name or "content" in name]


def test_the_password_is_on_the_drive_only() -> None:
    facts = configdrive.facts_of(SPEC, Secrets(admin_password="s3cret"))
    assert "admin_pass" not in content.meta_data(facts, "latest")
    assert "files" not in content.meta_data(facts, "latest")


def test_devices_are_told_as_the_version_knew_them() -> None:
    nic = {"type": "nic", "bus": "pci", "mac": "fa:16:3e:00:00:01", "vlan": 7, "vf_trusted": True, "tags": ["a"]}
    facts = ServerFacts(uuid="u", display_name="d", hostname="h", devices=(nic,))

    def keys(version: str) -> set[str]:
        devices = content.meta_data(facts, version)["devices"]
        assert isinstance(devices, list)
        return {"vlan", "vf_trusted"} & set(devices[0])

    assert keys(content.NEWTON_ONE) == set()
    assert keys(content.OCATA) == {"vlan"}
    assert keys(content.ROCKY) == keys("latest") == {"vlan", "vf_trusted"}


def test_a_host_name_without_a_domain_stands_alone() -> None:
    assert ServerFacts(uuid="u", display_name="d", hostname="h", dhcp_domain="").full_hostname == "h"


def test_user_data_that_is_no_base64_is_refused() -> None:
    with pytest.raises(Invalid, match="base64"):
        configdrive.facts_of(msgspec.structs.replace(SPEC, user_data="a"), Secrets())


def test_a_drive_that_would_be_too_large_is_refused_and_not_left_half_written(tmp_path: Path) -> None:
    facts = ServerFacts(uuid="u", display_name="d", hostname="h", files={"/a": bytes(configdrive.SIZE_LIMIT)})
    with pytest.raises(Invalid, match="config drive"):
        configdrive.write(tmp_path / "disk.config", facts)
    assert list(tmp_path.iterdir()) == []
