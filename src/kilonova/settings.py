"""Settings of the Compute domain with their defaults; `config.py` fills them from nova.conf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kilonova.agent.allocation import Allocation
from kilonova.console.settings import ConsoleSettings
from kilonova.scheduler.options import SchedulerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaDefaults:
    """Limits of a project that has none of its own; -1 is unlimited. Names as in `[quota]`."""

    instances: int = 10
    cores: int = 20
    ram: int = 50 * 1024
    metadata_items: int = 128
    injected_files: int = 5
    injected_file_content_bytes: int = 10 * 1024
    injected_file_path_bytes: int = 255
    key_pairs: int = 100
    server_groups: int = 10
    server_group_members: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRules:
    verify: bool = False
    """Whether every image has to be signed."""
    check_certificates: bool = False
    """Whether the signing certificate has to be trusted, too."""
    trusted: tuple[str, ...] = ()
    """Ids of the certificates that are, where an owner names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSettings:
    deployment_id: str = "kilonova"
    host: str = "localhost"
    max_limit: int = 1000
    """Most items in one page of a list (`[api] max_limit`)."""
    compute_link_prefix: str | None = None
    default_availability_zone: str = "nova"
    internal_service_availability_zone: str = "internal"
    default_schedule_zone: str | None = None
    service_down_time: float = 60.0
    report_interval: float = 10.0
    max_attempts: int = 3
    shutdown_timeout: float = 60.0
    reboot_timeout: float = 30.0
    resume_guests_state_on_host_boot: bool = False
    force_config_drive: bool = False
    password_length: int = 12
    enable_instance_password: bool = True
    instance_name_template: str = "instance-%08x"
    dhcp_domain: str = "novalocal"
    cpu_allocation_ratio: float | None = None
    ram_allocation_ratio: float | None = None
    disk_allocation_ratio: float | None = None
    initial_cpu_allocation_ratio: float = 16.0
    initial_ram_allocation_ratio: float = 1.5
    initial_disk_allocation_ratio: float = 1.0
    reserved_host_cpus: int = 0
    reserved_host_memory_mb: int = 512
    reserved_host_disk_mb: int = 0
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    vif_plugging_timeout: float = 300.0
    """Seconds that a host's network plane gets to wire a new guest's ports; 0: nobody waits for it."""
    vif_plugging_is_fatal: bool = True
    """Whether a guest whose ports are not wired in time fails on its host, instead of being started all the same."""
    reclaim_instance_interval: float = 0.0
    """Seconds for which a deleted server can be restored; 0: it goes at once."""
    running_deleted_instance_action: str = "reap"
    """What becomes of a guest of a deleted server that a host still has: noop, log, shutdown or reap."""
    running_deleted_instance_timeout: float = 0.0
    """Seconds after the deletion before that."""
    running_deleted_instance_poll_interval: float = 1800.0
    """Seconds between two looks at a host for such guests; below 0: nobody looks."""
    pci_aliases: Mapping[str, str] = field(default_factory=dict)
    """Names by which flavors ask for PCI devices, with the resource class that each stands for."""
    attach_timeout: float = 300.0
    """Seconds that a client who attaches an interface is kept waiting for it."""
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    quota: QuotaDefaults = field(default_factory=QuotaDefaults)
    signatures: SignatureRules = field(default_factory=SignatureRules)

    @property
    def allocation(self) -> Allocation:
        """Of hosts configured like this process."""
        return Allocation(
            cpu_ratio=self.cpu_allocation_ratio,
            ram_ratio=self.ram_allocation_ratio,
            disk_ratio=self.disk_allocation_ratio,
            initial_cpu_ratio=self.initial_cpu_allocation_ratio,
            initial_ram_ratio=self.initial_ram_allocation_ratio,
            initial_disk_ratio=self.initial_disk_allocation_ratio,
            reserved_cpus=self.reserved_host_cpus,
            reserved_memory_mb=self.reserved_host_memory_mb,
            reserved_disk_mb=self.reserved_host_disk_mb,
        )
