"""What one all-in-one cloud is made of: its directory, its ports, its hypervisor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kilonova import netns

HypervisorKind = Literal["libvirt", "sim"]
NetworkingKind = Literal["neutron", "none"]

REGION = "RegionOne"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports of one cloud. The defaults are the ones every OpenStack client and guide expects."""

    identity: int = 5000
    image: int = 9292
    network: int = 9696
    compute: int = 8774
    metadata: int = 8775
    console: int = 6080
    metrics: int = 9487

    @classmethod
    def with_offset(cls, offset: int) -> Ports:
        """Every default port moved up by `offset`, so that several clouds run side by side on one machine."""
        base = cls()
        return cls(
            identity=base.identity + offset,
            image=base.image + offset,
            network=base.network + offset,
            compute=base.compute + offset,
            metadata=base.metadata + offset,
            console=base.console + offset,
            metrics=base.metrics + offset,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """Everything that `kilonova up` decides before its roles start.

    `bind` is the address that the services listen on; `host` is the one that clients are told (the same, unless
    `bind` is a wildcard address). `libvirt_uri` is None with the simulated hypervisor. `cloud_id` marks what this
    cloud owns on the machine (domains, bridges); it is stable for a state directory.
    """

    state_dir: Path
    cloud_id: str
    bind: str
    host: str
    ports: Ports
    hypervisor: HypervisorKind
    sim_hosts: int
    libvirt_uri: str | None
    identity_url: str
    image_url: str
    service_username: str
    service_password: str
    service_project: str
    config_files: tuple[Path, ...]
    networking: NetworkingKind = "none"
    network_password: str = ""
    """Of the user `neutron`, as whom the role `network` reads and reports."""
    metadata_secret: str = ""
    """With which the plane's proxies sign what they ask the metadata service."""
    region: str = REGION

    @property
    def compute_url(self) -> str:
        """Base address of the Compute API, without a version."""
        return f"http://{host_in_url(self.host)}:{self.ports.compute}"

    @property
    def network_url(self) -> str:
        """Base address of the Networking API, without a version."""
        return f"http://{host_in_url(self.host)}:{self.ports.network}"

    @property
    def netns(self) -> Path | None:
        """The network namespace of the cloud's guests and bridges (the file); None: guests live in the machine's."""
        own = self.hypervisor == "libvirt" and self.networking == "neutron"
        return netns.path_of(netns_name(self.cloud_id)) if own else None

    @property
    def plane_dir(self) -> Path:
        """What serves in the cloud's other namespaces (dnsmasq, radvd) has its files here."""
        return plane_dir(self.state_dir)

    @property
    def log_dir(self) -> Path:
        """Where every part of the cloud writes its log."""
        return self.state_dir / "log"

    @property
    def data_dir(self) -> Path:
        """Where our own roles keep what must survive a restart (database, journals, disks)."""
        return self.state_dir / "kilonova"


def netns_name(cloud_id: str) -> str:
    """The name of the namespace of a cloud's guests; those of its networks and routers begin with it."""
    return f"kn-{cloud_id}"


def plane_dir(state_dir: Path) -> Path:
    """Files of the cloud's network plane."""
    return state_dir / "network/plane"


def host_in_url(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def advertised_host(bind: str) -> str:
    """The address clients are told for a bind address: a wildcard means this machine's loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)


def cloud_id_of(seed: str) -> str:
    """A short stable id (8 hex digits) that names what a cloud owns outside of its state directory."""
    return hashlib.sha256(seed.encode()).hexdigest()[:8]
