"""The documents a guest reads about itself, in both trees (`ec2/` and `openstack/`), at every version.

Pure: facts in, bytes out. The config drive writes all of them to an image; the metadata service serves them one by
one. Versions and names are the ones guests' tools know (cloud-init and others read them).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from kilonova.errors import Invalid

FOLSOM = "2012-08-10"
GRIZZLY = "2013-04-04"
HAVANA = "2013-10-17"
LIBERTY = "2015-10-15"
NEWTON_ONE = "2016-06-30"
NEWTON_TWO = "2016-10-06"
OCATA = "2017-02-22"
ROCKY = "2018-08-27"
VICTORIA = "2020-10-14"
EPOXY = "2025-04-04"
OPENSTACK_VERSIONS = (*(FOLSOM, GRIZZLY, HAVANA, LIBERTY, NEWTON_ONE, NEWTON_TWO, OCATA, ROCKY, VICTORIA, EPOXY),)
EC2_VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01"),
    "2009-04-04",
)
CONFIG_DRIVE_EC2_VERSIONS = ("2009-04-04", "latest")
"""The default of `config_drive_skip_versions` leaves out all the others."""
LATEST = "latest"

Value = str | int | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """All that the documents are made from. Secrets are in here: keep it in memory only.

    `user_data` is decoded; `vendor_data` is the operator's own document; `network` and `devices` are as
    network_data.json and meta_data.json show them.
    """

    uuid: str
    display_name: str
    hostname: str
    """Without the domain."""
    dhcp_domain: str = "novalocal"
    number: int = 0
    """The server's number, of which the EC2 id is made."""
    project_id: str = ""
    launch_index: int = 0
    availability_zone: str | None = None
    flavor_name: str = ""
    reservation_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    key_name: str | None = None
    key_type: str = "ssh"
    public_key: str | None = None
    user_data: bytes | None = None
    admin_password: str | None = None
    random_seed: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Injected files: path to content."""
    security_groups: tuple[str, ...] = ()
    local_ipv4: str = ""
    public_ipv4: str = ""
    image_number: int = 0
    kernel_number: int | None = None
    ramdisk_number: int | None = None
    root_device: str = "/dev/vda"
    block_devices: Mapping[str, str] = field(default_factory=dict)
    network: Mapping[str, object] = field(default_factory=dict)
    devices: tuple[Mapping[str, object], ...] = ()
    vendor_data: Mapping[str, object] | None = field(default_factory=dict)
    """None: the operator does not want any."""
    vendor_services: Mapping[str, object] = field(default_factory=dict)
    """What the operator's services say, by their names."""
    dedicated_cpus: tuple[int, ...] = ()

    @property
    def full_hostname(self) -> str:
        return f"{self.hostname}.{self.dhcp_domain}" if self.dhcp_domain else self.hostname


def decode_user_data(encoded: str | None) -> bytes | None:
    """User data as the API takes it, decoded. Raises Invalid when it is no base64."""
    if not encoded:
        return None
    try:
        return base64.b64decode(encoded, validate=False)
    except binascii.Error:
        raise Invalid("user_data must be base64 encoded.") from None


def server_number(domain_name: str) -> int:
    """The server's number out of its name on the hypervisor (`instance-0000002a`: 42); 0 when there is none."""
    found = re.search(r"([0-9a-fA-F]+)$", domain_name)
    return int(found[1], 16) if found else 0


# -- openstack/


def meta_data(facts: ServerFacts, version: str, *, with_password: bool = False) -> dict[str, object]:
    """meta_data.json. The password goes on config drives only, never over HTTP."""
    document: dict[str, object] = {"uuid": facts.uuid}
    if with_password and facts.admin_password is not None:
        document["admin_pass"] = facts.admin_password
    if facts.metadata:
        document["meta"] = dict(facts.metadata)
    if with_password and facts.files:
        document["files"] = [
            {"path": path, "content_path": f"/content/{number:04}"} for number, path in enumerate(facts.files)
        ]
    if facts.public_key and facts.key_name:
        document["public_keys"] = {facts.key_name: facts.public_key}
        document["keys"] = [{"name": facts.key_name, "type": facts.key_type, "data": facts.public_key}]
    document |= {
        "hostname": facts.full_hostname,
        "name": facts.display_name,
        "launch_index": facts.launch_index,
        "availability_zone": facts.availability_zone,
    }
    if _since(version, GRIZZLY):
        document["random_seed"] = base64.b64encode(facts.random_seed).decode()
    if _since(version, LIBERTY):
        document["project_id"] = facts.project_id
    if _since(version, NEWTON_ONE):
        document["devices"] = [_device(device, version) for device in facts.devices]
    if _since(version, VICTORIA):
        document["dedicated_cpus"] = sorted(facts.dedicated_cpus)
    return document


def network_data(facts: ServerFacts) -> dict[str, object]:
    """network_data.json: links, networks and services; empty for a server without a network."""
    return dict(facts.network)


def openstack_files(facts: ServerFacts, version: str) -> tuple[str, ...]:
    """Names in `openstack/<version>/`, in the order of the service's listing."""
    names = ["meta_data.json"]
    if facts.user_data is not None:
        names.append("user_data")
    if _since(version, GRIZZLY):
        names.append("password")
    if _since(version, HAVANA):
        names.append("vendor_data.json")
    if _since(version, LIBERTY):
        names.append("network_data.json")
    if _since(version, NEWTON_TWO):
        names.append("vendor_data2.json")
    return tuple(names)


def _device(device: Mapping[str, object], version: str) -> dict[str, object]:
    left_out = set()
    if not _since(version, OCATA):
        left_out.add("vlan")
    if not _since(version, ROCKY):
        left_out.add("vf_trusted")
    return {name: value for name, value in device.items() if name not in left_out}


def _since(version: str, first: str) -> bool:
    return version == LATEST or version >= first


# -- ec2/


def ec2_meta_data(facts: ServerFacts, version: str) -> dict[str, Value]:
    """The tree `ec2/<version>/meta-data`."""
    document: dict[str, Value] = {
        "ami-id": f"ami-{facts.image_number:08x}",
        "ami-launch-index": facts.launch_index,
        "ami-manifest-path": "FIXME",
        "instance-id": f"i-{facts.number:08x}",
        "hostname": facts.full_hostname,
        "local-ipv4": facts.local_ipv4,
        "reservation-id": facts.reservation_id,
        "security-groups": list(facts.security_groups),
    }
    if facts.public_key and facts.key_name:
        document["public-keys"] = {"0": {"openssh-key": facts.public_key}}
    if _since(version, "2007-01-19"):
        document["local-hostname"] = document["public-hostname"] = facts.full_hostname
        document["public-ipv4"] = facts.public_ipv4
    if _since(version, "2007-08-29"):
        document["instance-type"] = facts.flavor_name
    if _since(version, "2007-12-15"):
        root = facts.root_device
        devices: dict[str, Value] = {"ami": root.removeprefix("/dev/"), "root": root}
        devices.update(facts.block_devices)
        document["block-device-mapping"] = devices
        if facts.kernel_number is not None:
            document["kernel-id"] = f"aki-{facts.kernel_number:08x}"
        if facts.ramdisk_number is not None:
            document["ramdisk-id"] = f"ari-{facts.ramdisk_number:08x}"
    if _since(version, "2008-02-01"):
        document["placement"] = {"availability-zone": facts.availability_zone or ""}
    if _since(version, "2008-09-01"):
        document["instance-action"] = "none"
    return document


# -- the drive


def config_drive_files(facts: ServerFacts) -> Iterator[tuple[str, bytes]]:
    """Every file of a config drive: path inside the drive, content."""
    for version in CONFIG_DRIVE_EC2_VERSIONS:
        yield f"ec2/{version}/meta-data.json", _json(ec2_meta_data(facts, version))
        if facts.user_data is not None:
            yield f"ec2/{version}/user-data", facts.user_data
    for version in (*OPENSTACK_VERSIONS, LATEST):
        yield f"openstack/{version}/meta_data.json", _json(meta_data(facts, version, with_password=True))
        if facts.user_data is not None:
            yield f"openstack/{version}/user_data", facts.user_data
        if _since(version, HAVANA) and facts.vendor_data is not None:
            yield f"openstack/{version}/vendor_data.json", _json(facts.vendor_data)
        if _since(version, LIBERTY):
            yield f"openstack/{version}/network_data.json", _json(network_data(facts))
        if _since(version, NEWTON_TWO):
            static = {} if facts.vendor_data is None else {"static": facts.vendor_data}
            yield f"openstack/{version}/vendor_data2.json", _json(static | dict(facts.vendor_services))
    for number, content in enumerate(facts.files.values()):
        yield f"openstack/content/{number:04}", content


def _json(document: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(document)
