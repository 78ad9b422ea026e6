"""How one host runs its guests. Names and defaults follow nova.conf."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kilonova.metadata.settings import MetadataSettings
from kilonova.numa import write_cpus
from kilonova.pci import DeviceSpec

VirtType = Literal["auto", "kvm", "qemu"]
CpuMode = Literal["host-model", "host-passthrough", "custom", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtOptions:
    """Durations in seconds, sizes in the unit their name says."""

    state_path: Path
    """`instances_path`: one directory per server, and `_base` with the cached images."""
    deployment_id: str
    """Only guests that carry it are ever touched."""
    uri: str = "qemu:///system"
    """`[libvirt] connection_uri`"""
    host_name: str = field(default_factory=socket.gethostname)
    """`host`: the name this host has in the cloud; stable, whatever the machine is called."""
    host_ip: str = "127.0.0.1"
    """`my_ip`"""
    virt_type: VirtType = "auto"
    """auto: kvm where the CPU has the extensions and /dev/kvm opens, else qemu."""
    cpu_mode: CpuMode | None = None
    """None: host-model with kvm; with qemu a model that every current guest system runs on."""
    cpu_models: tuple[str, ...] = ()
    """With cpu_mode=custom: models, the last one that the host can run is taken."""
    machine_type: str | None = None
    """`hw_machine_type`; None: pc."""
    vnc_enabled: bool = True
    vnc_listen: str = "127.0.0.1"
    """`[vnc] server_listen`"""
    vnc_proxyclient_address: str = "127.0.0.1"
    """`[vnc] server_proxyclient_address`: where console proxies reach the screens that listen there."""
    serial_proxyclient_address: str = "127.0.0.1"
    """`[serial_console] proxyclient_address`: where the agent lets console proxies in to serial lines."""
    tb_cache_mib: int = 32
    """`[libvirt] tb_cache_size`: each emulated guest's translation cache (QEMU's own default is far larger)."""
    mem_stats_period: int = 10
    """`[libvirt] mem_stats_period_seconds`"""
    num_pcie_ports: int = 8
    """Slots for hot-plug on machine type q35."""
    cpu_shared_set: frozenset[int] | None = None
    cpu_dedicated_set: frozenset[int] | None = None
    """`[compute]`, both: which of the host's CPUs guests share, and which they may have for themselves."""
    reserved_huge_pages: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """By (NUMA cell, KiB) how many pages are the host's own."""
    pci_specs: tuple[DeviceSpec, ...] = ()
    """`[pci] device_spec`"""
    force_raw_images: bool = True
    """Keep images raw in the cache: quicker, and QEMU never parses a tenant's qcow2 while a guest runs."""
    reserved_host_disk_mb: int = 0
    dhcp_domain: str = "novalocal"
    """`[api] dhcp_domain`: the domain in host names that guests are told."""
    metadata: MetadataSettings = field(default_factory=MetadataSettings)
    """Of it, what concerns vendor data: guests find it on their config drives."""
    console_log_bytes: int = 100 * 1024
    """How much of a console's end is given out."""
    netns: Path | None = None
    """Network namespace (its file) of guests' taps and bridges; None: the machine's own."""
    call_timeout: float = 30.0
    """How long libvirt may take to answer an ordinary call."""
    long_call_timeout: float = 600.0
    """The same for calls that move a guest's memory or disks."""
    threads: int = 5
    """Short calls to libvirt at once: as many as libvirtd answers on one connection (max_client_requests)."""
    slow_threads: int = 5
    """Calls at once that start, stop, save or restore a guest."""

    @property
    def shared_cpus(self) -> str | None:
        """As libvirt takes them; None: all of the host's."""
        return write_cpus(self.cpu_shared_set) if self.cpu_shared_set else None
