"""A guest's description for libvirt, and what flavors and images ask of it."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from kilonova.agent.driver import ImageSpec, ServerSpec
from kilonova.agent.libvirt.domain_xml import Drive, Platform, build
from kilonova.agent.libvirt.hardware import Cpu, Hardware, choose_cpu
from kilonova.agent.libvirt.mark import Mark, find_mark
from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.agent.wanted import wanted
from kilonova.errors import HostFailure, Invalid
from kilonova.numa import SMALL_KIB, Placed

OPTIONS = LibvirtOptions(state_path=Path("/instances"), deployment_id="dep-1")
PLATFORM = Platform(
    arch="x86_64",
    virt_type="qemu",
    emulator="/usr/bin/qemu-system-x86_64",
    machine="pc-i440fx-7.2",
    cpu=Cpu(mode="custom", model="Nehalem", recorded="Nehalem"),
    disk_cache="none",
)
Q35 = dataclasses.replace(PLATFORM, machine="pc-q35-7.2")
SPEC = ServerSpec(
    uuid="11111111-2222-3333-4444-555555555555",
    name="instance-0000002a",
    display_name="<My> & 'server'",
    hostname="my-server",
    project_id="p",
    user_id="u",
    deployment_id="dep-1",
    vcpus=2,
    memory_mb=128,
    root_gb=1,
)
DRIVES = [
    Drive(path=Path("/instances/u/disk"), format="qcow2"),
    Drive(path=Path("/instances/u/disk.eph0"), format="raw"),
    Drive(path=Path("/instances/u/disk.config"), format="raw", cdrom=True),
]


def asking(*, properties: dict[str, str] | None = None, **extra_specs: str) -> ServerSpec:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    image = ImageSpec(id="i", size=1, disk_format="raw", properties=properties or {})
    return msgspec.structs.replace(SPEC, extra_specs=specs, image=image)


def domain(
    spec: ServerSpec = SPEC, platform: Platform = PLATFORM, options: LibvirtOptions = OPTIONS, reboot: str = ""
) -> ET.Element:
    xml, _mark = build(
        spec,
        options=options,
        platform=platform,
        wanted=wanted(spec),
        drives=DRIVES,
        console_log=Path("/instances/u/console.log"),
        reboot=reboot,
    )
    return ET.fromstring(xml)


def get(root: ET.Element, path: str, attribute: str) -> str | None:
    element = root.find(path)
    assert element is not None, path
    return element.get(attribute)


def test_a_guest_has_the_devices_of_its_host_that_are_its_own() -> None:
    spec = msgspec.structs.replace(asking(pci_passthrough__alias="nic:2"), pci_devices=("0000:81:00.1", "0001:03:1f.0"))
    found = domain(spec).findall("devices/hostdev")
    assert [get(one, "source/address", "bus") for one in found] == ["0x81", "0x03"]
    assert [get(one, "source/address", "slot") for one in found] == ["0x00", "0x1f"]
    assert {one.get("managed") for one in found} == {"yes"}
    assert domain().find("devices/hostdev") is None


PLACED = (
    Placed(cell=1, cpus=(0,), memory_mb=64, pins=(5,), page_kib=2048),
    Placed(cell=0, cpus=(1,), memory_mb=64, pins=(2,), kept_free=(3,), page_kib=SMALL_KIB),
)


def test_a_guest_lies_in_its_cells_on_its_cpus_and_pages() -> None:
    root = domain(msgspec.structs.replace(SPEC, numa=PLACED))
    assert [(one.get("vcpu"), one.get("cpuset")) for one in root.findall("cputune/vcpupin")] == [("0", "5"), ("1", "2")]
    assert get(root, "cputune/emulatorpin", "cpuset") == "2,5"
    assert [dict(one.attrib) for one in root.findall("memoryBacking/hugepages/page")] == [
        {"size": "2048", "unit": "KiB", "nodeset": "0"}
    ]
    assert dict(root.find("numatune/memory").attrib) == {"mode": "strict", "nodeset": "0-1"}  # type: ignore[union-attr]
    assert [(one.get("cellid"), one.get("nodeset")) for one in root.findall("numatune/memnode")] == [
        ("0", "1"),
        ("1", "0"),
    ]
    assert [(one.get("cpus"), one.get("memory")) for one in root.findall("cpu/numa/cell")] == [
        ("0", "65536"),
        ("1", "65536"),
    ]


def test_guests_without_cpus_of_their_own_share_those_that_are_for_it() -> None:
    shared = dataclasses.replace(OPTIONS, cpu_shared_set=frozenset({0, 1, 4}))
    assert get(domain(options=shared), "vcpu", "cpuset") == "0-1,4"
    assert get(domain(), "vcpu", "cpuset") is None
    assert domain().find("numatune") is None
    in_cells = msgspec.structs.replace(
        SPEC, numa=tuple(msgspec.structs.replace(one, pins=(), kept_free=(), page_kib=None) for one in PLACED)
    )
    root = domain(in_cells, options=shared)
    assert get(root, "vcpu", "cpuset") == "0-1,4"
    assert root.find("cputune") is None
    assert root.find("memoryBacking") is None
    assert len(root.findall("numatune/memnode")) == 2
    pinned = domain(msgspec.structs.replace(SPEC, numa=PLACED), options=shared)
    assert get(pinned, "cputune/emulatorpin", "cpuset") == "0-1,4"


def test_a_guest_has_its_size_its_names_and_its_mark() -> None:
    root = domain(reboot="m1")
    assert root.get("type") == "qemu"
    assert root.findtext("name") == SPEC.name
    assert root.findtext("uuid") == SPEC.uuid
    assert root.findtext("title") == SPEC.display_name
    assert (root.findtext("memory"), root.findtext("vcpu")) == ("128", "2")
    mark = find_mark(root)
    assert mark is not None
    assert (mark.deployment, mark.reboot, len(mark.definition)) == ("dep-1", "m1", 32)
    assert root.findtext("sysinfo/system/entry[@name='uuid']") == SPEC.uuid


def test_the_mark_names_the_same_definition_whatever_was_rebooted() -> None:
    def definition(root: ET.Element) -> str:
        mark = find_mark(root)
        assert mark is not None
        return mark.definition

    assert definition(domain(reboot="m1")) == definition(domain(reboot="m2"))
    assert definition(domain()) != definition(domain(msgspec.structs.replace(SPEC, memory_mb=256)))


def test_a_domain_without_our_mark_is_nobodys() -> None:
    assert find_mark(ET.fromstring("<domain><metadata><a xmlns='urn:x'/></metadata></domain>")) is None
    assert find_mark(ET.fromstring("<domain/>")) is None


def test_the_marks_text_has_no_prefix_as_libvirt_adds_its_own() -> None:
    assert Mark(deployment="a&b", reboot="m").xml() == '<guest deployment="a&amp;b" definition="" reboot="m" />'


@pytest.mark.parametrize(
    ("platform", "buses"),
    [(PLATFORM, [("vda", "virtio"), ("vdb", "virtio"), ("hda", "ide")]),
     (Q35, [("vda", "virtio"), ("vdb", "virtio"), ("sda", "scsi")])],
)  # fmt: skip
def test_disks_are_virtio_and_the_config_drive_is_on_a_bus_the_machine_has(
    platform: Platform, buses: list[tuple[str, str]]
) -> None:
    root = domain(platform=platform)
    assert [(target.get("dev"), target.get("bus")) for target in root.findall("devices/disk/target")] == buses
    assert [driver.get("type") for driver in root.findall("devices/disk/driver")] == ["qcow2", "raw", "raw"]
    assert root.find("devices/disk[@device='cdrom']/readonly") is not None
    scsi = root.find("devices/controller[@type='scsi'][@model='virtio-scsi']")
    assert (scsi is not None) == platform.pcie
    pci = [controller.get("model") for controller in root.findall("devices/controller[@type='pci']")]
    assert pci == (["pcie-root"] + ["pcie-root-port"] * 8 if platform.pcie else [])


def test_the_console_goes_to_a_log_that_is_never_cut_short_and_to_vnc_on_this_host_only() -> None:
    root = domain()
    assert get(root, "devices/serial/log", "file") == "/instances/u/console.log"
    assert get(root, "devices/serial/log", "append") == "on"
    assert get(root, "devices/graphics", "listen") == "127.0.0.1"
    assert get(root, "devices/graphics", "autoport") == "yes"
    without = domain(options=dataclasses.replace(OPTIONS, vnc_enabled=False))
    assert without.find("devices/graphics") is None


def test_an_emulated_guest_has_a_small_translation_cache_and_kvm_has_none() -> None:
    assert domain().findtext("features/tcg/tb-cache") == "32"
    kvm = dataclasses.replace(PLATFORM, virt_type="kvm", cpu=Cpu(mode="host-model", model=None, recorded="host-model"))
    root = domain(platform=kvm)
    assert root.find("features/tcg") is None
    assert get(root, "cpu", "mode") == "host-model"


def test_flavors_go_before_images() -> None:
    spec = asking(properties={"hw_watchdog_action": "reset", "hw_disk_bus": "scsi"}, hw__watchdog_action="pause")
    root = domain(spec)
    assert get(root, "devices/watchdog", "action") == "pause"
    assert get(root, "devices/disk/target", "bus") == "scsi"
    assert get(root, "devices/disk/target", "dev") == "sda"


@pytest.mark.parametrize(
    ("properties", "path", "attribute", "value"),
    [
        ({"hw_video_model": "virtio"}, "devices/video/model", "type", "virtio"),
        ({"hw_pointer_model": "usbtablet"}, "devices/input", "bus", "usb"),
        ({"hw_boot_menu": "true"}, "os/bootmenu", "enable", "yes"),
        ({"hw_qemu_guest_agent": "yes"}, "devices/channel/target", "name", "org.qemu.guest_agent.0"),
        ({"hw_time_hpet": "True"}, "clock/timer[@name='hpet']", "present", "yes"),
        ({"img_hide_hypervisor_id": "true"}, "features/kvm/hidden", "state", "on"),
        ({"hw_cpu_threads": "2"}, "cpu/topology", "threads", "2"),
        ({"hw_cpu_max_sockets": "1"}, "cpu/topology", "cores", "2"),
    ],
)
def test_what_an_image_asks_for_it_gets(properties: dict[str, str], path: str, attribute: str, value: str) -> None:
    assert get(domain(asking(properties=properties)), path, attribute) == value


@pytest.mark.parametrize(
    ("extra_specs", "properties", "says"),
    [
        ({"hw__emulator_threads_policy": "isolate"}, {}, "hw:emulator_threads_policy=isolate.*share"),
        ({"hw__cpu_realtime": "yes"}, {}, "hw:cpu_realtime=yes"),
        ({"quota__cpu_shares": "10"}, {}, "quota:cpu_shares=10"),
        ({"hw__pci_numa_affinity_policy": "required"}, {}, "hw:pci_numa_affinity_policy=required"),
        ({"hw__cpu_sockets": "3"}, {}, "2 vCPUs.*sockets=3"),
        ({"hw__cpu_sockets": "x"}, {}, "hw:cpu_sockets=x.*number"),
        ({}, {"hw_firmware_type": "uefi"}, "hw_firmware_type=uefi.*bios"),
        ({}, {"hw_disk_bus": "floppy"}, "hw_disk_bus=floppy.*virtio"),
        ({}, {"hw_boot_menu": "perhaps"}, "hw_boot_menu=perhaps.*true"),
        ({}, {"hw_something_new": "1"}, "hw_something_new=1"),
        ({}, {"os_secure_boot": "required"}, "os_secure_boot=required"),
        ({}, {"kernel_id": "5a3f"}, "kernel_id=5a3f"),
        ({}, {"architecture": "aarch64"}, "architecture=aarch64.*x86_64"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    extra_specs: dict[str, str], properties: dict[str, str], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        wanted(asking(properties=properties, **extra_specs))


def test_what_only_the_scheduler_reads_asks_nothing_of_the_hardware() -> None:
    spec = asking(
        properties={
            "kernel_id": "",
            "hw_rescue_bus": "virtio",
            "os_distro": "debian",
            "trait:HW_CPU_X86_AVX": "required",
            "min_ram": "1",
        },
        trait__CUSTOM_A="required",
        resources__VCPU="1",
        aggregate_instance_extra_specs__ssd="true",
        free="text",
    )
    assert wanted(spec) == wanted(SPEC)


def test_an_ide_disk_on_a_machine_without_ide_is_refused() -> None:
    with pytest.raises(Invalid, match="q35"):
        domain(asking(properties={"hw_disk_bus": "ide"}), platform=Q35)


HARDWARE = Hardware(
    arch="x86_64",
    virt_type="qemu",
    emulator="/q",
    machines={"pc": "pc-i440fx-7.2", "pc-i440fx-7.2": "pc-i440fx-7.2", "q35": "pc-q35-7.2"},
    models=("qemu64", "Nehalem", "Haswell"),
    cpu_info={},
    features=(),
)
KVM = dataclasses.replace(HARDWARE, virt_type="kvm")


@pytest.mark.parametrize(
    ("hardware", "mode", "models", "recorded", "chosen"),
    [
        (HARDWARE, None, (), None, "Nehalem"),
        (KVM, None, (), None, "host-model"),
        (KVM, "host-passthrough", (), None, "host-passthrough"),
        (HARDWARE, "none", (), None, "none"),
        (KVM, "custom", ("Nehalem", "Haswell", "Icelake-Server"), None, "Haswell"),
        (KVM, "host-passthrough", (), "Nehalem", "Nehalem"),
        (KVM, None, (), "none", "none"),
    ],
)
def test_the_cpu_is_the_recorded_one_or_the_configured_one(
    hardware: Hardware, mode: str | None, models: tuple[str, ...], recorded: str | None, chosen: str
) -> None:
    options = dataclasses.replace(OPTIONS, cpu_mode=mode, cpu_models=models)  # type: ignore[arg-type]  # a literal
    assert choose_cpu(options, hardware, recorded).recorded == chosen


def test_a_cpu_that_cannot_be_had_here_is_refused() -> None:
    with pytest.raises(HostFailure, match="Icelake"):
        choose_cpu(OPTIONS, HARDWARE, "Icelake-Server")
    with pytest.raises(HostFailure, match="cpu_models"):
        choose_cpu(dataclasses.replace(OPTIONS, cpu_mode="custom"), HARDWARE, None)


def test_machine_types_get_their_lasting_name_and_unknown_ones_are_refused() -> None:
    assert HARDWARE.machine("pc") == HARDWARE.machine("pc-i440fx-7.2") == "pc-i440fx-7.2"
    with pytest.raises(HostFailure, match=r"'microvm'.*pc, q35"):
        HARDWARE.machine("microvm")
