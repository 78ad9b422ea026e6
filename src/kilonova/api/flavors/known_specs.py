"""Extra specs with a meaning, and the values that each takes."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import os_resource_classes  # type: ignore[import-untyped]
import os_traits  # type: ignore[import-untyped]

from kilonova.api.types import loose_boolean
from kilonova.errors import Invalid


@dataclass(frozen=True, slots=True)
class Spec:
    """`kind`: text, whole (a whole number) or switch (a boolean)."""

    kind: str = "text"
    pattern: str | None = None
    values: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


_ANY = Spec()
_SWITCH = Spec("switch")
_WHOLE = Spec("whole")
_FROM_0 = Spec("whole", minimum=0)
_FROM_1 = Spec("whole", minimum=1)
_SHARES = Spec(values=("custom", "high", "normal", "low"))
_CPUS = Spec(pattern=r"\^?\d+(-\d+|,\^?\d+)*")
_TRAIT = Spec(values=("required", "forbidden"))

_EXACT: dict[str, Spec] = {
    "accel:device_profile": _ANY,
    "group_policy": Spec(values=("isolate", "none")),
    "hide_hypervisor_id": _SWITCH,
    "hw:boot_menu": _SWITCH,
    "hw:cpu_cores": _FROM_1,
    "hw:cpu_dedicated_mask": _CPUS,
    "hw:cpu_max_cores": _FROM_1,
    "hw:cpu_max_sockets": _FROM_1,
    "hw:cpu_max_threads": _FROM_1,
    "hw:cpu_policy": Spec(values=("dedicated", "shared", "mixed")),
    "hw:cpu_realtime": _SWITCH,
    "hw:cpu_realtime_mask": _CPUS,
    "hw:cpu_sockets": _FROM_1,
    "hw:cpu_thread_policy": Spec(values=("prefer", "isolate", "require")),
    "hw:cpu_threads": _FROM_1,
    "hw:emulator_threads_policy": Spec(values=("isolate", "share")),
    "hw:ephemeral_encryption": _SWITCH,
    "hw:ephemeral_encryption_format": Spec(values=("plain", "luks", "luksv2")),
    "hw:hide_hypervisor_id": _SWITCH,
    "hw:locked_memory": _SWITCH,
    "hw:mem_encryption": _SWITCH,
    "hw:mem_encryption_model": Spec(values=("amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx")),
    "hw:mem_page_size": Spec(pattern=r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"),
    "hw:numa_nodes": _FROM_1,
    "hw:pci_numa_affinity_policy": Spec(values=("required", "preferred", "legacy", "socket")),
    "hw:pmem": Spec(pattern=r"[a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?"),
    "hw:pmu": _SWITCH,
    "hw:redirected_usb_ports": Spec("whole", minimum=0, maximum=15),
    "hw:serial_port_count": _FROM_0,
    "hw:sound_model": Spec(values=("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio")),
    "hw:tpm_model": Spec(values=("tpm-tis", "tpm-crb")),
    "hw:tpm_secret_security": Spec(values=("user", "host", "deployment")),
    "hw:tpm_version": Spec(values=("1.2", "2.0")),
    "hw:usb_model": Spec(values=("none", "nec-xhci", "qemu-xhci")),
    "hw:vif_multiqueue_enabled": _SWITCH,
    "hw:viommu_model": Spec(values=("intel", "smmuv3", "virtio", "auto")),
    "hw:virtio_packed_ring": _SWITCH,
    "hw:watchdog_action": Spec(values=("none", "pause", "poweroff", "reset", "disabled")),
    "hw_rng:allowed": _SWITCH,
    "hw_rng:rate_bytes": _FROM_0,
    "hw_rng:rate_period": _FROM_0,
    "hw_video:ram_max_mb": _FROM_0,
    "os:secure_boot": Spec(values=("disabled", "required")),
    "pci_passthrough:alias": Spec(pattern=r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*"),
    "vmware:hw_version": _ANY,
    "vmware:storage_policy": _ANY,
}
_QUOTA_FROM_0 = """
    cpu_limit cpu_period cpu_shares cpu_shares_share disk_io_limit disk_io_shares_share disk_read_bytes_sec
    disk_read_iops_sec disk_total_bytes_sec disk_total_iops_sec disk_write_bytes_sec disk_write_iops_sec memory_limit
    memory_shares_share vif_inbound_average vif_inbound_burst vif_inbound_peak vif_limit vif_outbound_average
    vif_outbound_burst vif_outbound_peak vif_shares_share
"""
_QUOTA_WHOLE = "cpu_quota cpu_reservation disk_io_reservation memory_reservation vif_reservation"
_QUOTA_SHARES = "cpu_shares_level disk_io_shares_level memory_shares_level vif_shares_level"
_CAPABILITIES = """
    aggregates cell_uuid cpu_allocation_ratio current_workload disk_allocation_ratio disk_available_least
    disk_mb_used failed_builds free_disk_gb free_disk_mb free_ram_mb host host_ip hypervisor_hostname
    hypervisor_type hypervisor_version id local_gb local_gb_used mapped memory_mb memory_mb_used num_instances
    num_io_ops ram_allocation_ratio running_vms service_id total_usable_disk_gb total_usable_ram_mb updated uuid
    vcpus vcpus_total vcpus_used
"""
for _names, _prefix, _spec in (
    (_QUOTA_FROM_0, "quota", _FROM_0),
    (_QUOTA_WHOLE, "quota", _WHOLE),
    (_QUOTA_SHARES, "quota", _SHARES),
    (_CAPABILITIES, "capabilities", _ANY),
):
    _EXACT.update(dict.fromkeys((f"{_prefix}:{_name}" for _name in _names.split()), _spec))

_GROUP = r"[a-zA-Z0-9_-]{0,64}"
_NESTED = (
    "cpu_info instances limits metrics nodename numa_topology pci_device_pools pci_stats stats supported_hv_specs "
    "supported_instances"
)
_PATTERNS: tuple[tuple[re.Pattern[str], Spec], ...] = (
    (re.compile(r"aggregate_instance_extra_specs:.+"), _ANY),
    (re.compile(rf"capabilities:({'|'.join(_NESTED.split())})(:\w+)*"), _ANY),
    (re.compile(r"hw:numa_cpus\.\d+"), _CPUS),
    (re.compile(r"hw:numa_mem\.\d+"), _FROM_1),
    (re.compile(rf"resources{_GROUP}:CUSTOM_[A-Z0-9_]+"), _WHOLE),
    (re.compile(rf"trait{_GROUP}:CUSTOM_[A-Z0-9_]+"), _TRAIT),
)
_GROUPED = re.compile(rf"(resources|trait){_GROUP}:(\w+)")
_NAMESPACES = re.compile(
    r"accel|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|os|pci_passthrough|quota|vmware"
    rf"|resources{_GROUP}|trait{_GROUP}"
)


@functools.cache
def _classes() -> frozenset[str]:
    return frozenset(os_resource_classes.STANDARDS)


@functools.cache
def _traits() -> frozenset[str]:
    return frozenset(os_traits.get_traits())


def _find(name: str) -> Spec | None:
    spec = _EXACT.get(name)
    if spec is not None:
        return spec
    for pattern, spec in _PATTERNS:
        if pattern.fullmatch(name):
            return spec
    grouped = _GROUPED.fullmatch(name)
    if grouped:
        kind, what = grouped.groups()
        if kind == "resources" and what in _classes():
            return _WHOLE
        if kind == "trait" and what in _traits():
            return _TRAIT
    return None


def check(name: str, value: str) -> None:
    """Raises Invalid for a name that its namespace does not have, or a value that it does not take."""
    spec = _find(name)
    if spec is None:
        if ":" in name and _NAMESPACES.fullmatch(name.split(":", 1)[0]):
            raise Invalid(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
        return
    if spec.kind == "whole":
        _check_whole(value, spec)
    elif spec.kind == "switch":
        if loose_boolean(value) is None:
            raise Invalid(f"Validation failed; '{value}' is not a valid boolean-like value.")
    elif spec.pattern is not None and not re.fullmatch(spec.pattern, value):
        raise Invalid(f"Validation failed; '{value}' is not of the format '{spec.pattern}'.")
    elif spec.values and value not in spec.values:
        raise Invalid(f"Validation failed; '{value}' is not one of: {', '.join(spec.values)}.")


def _check_whole(value: str, spec: Spec) -> None:
    try:
        number = int(value)
    except ValueError:
        raise Invalid(f"Validation failed; '{value}' is not a valid integer value.") from None
    if spec.maximum is not None and number > spec.maximum:
        raise Invalid(f"Validation failed; '{number}' is greater than the max value of '{spec.maximum}'.")
    if spec.minimum is not None and number < spec.minimum:
        raise Invalid(f"Validation failed; '{number}' is less than the min value of '{spec.minimum}'.")
