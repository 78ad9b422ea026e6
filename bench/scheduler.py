"""One decision of the scheduler by the number of hosts: `python -m bench.scheduler` prints CPU time per decision.

The hosts differ in use, zone, traits and hardware; every decision is taken from them, as in a burst.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kilonova.scheduler.node import Aggregate, Node
from kilonova.scheduler.options import DEFAULT_FILTERS, SchedulerOptions
from kilonova.scheduler.pick import place
from kilonova.scheduler.picture import DOWN, Picture
from kilonova.scheduler.registry import make_rules
from kilonova.scheduler.request import Group, PlacementRequest

HOSTS = (100, 1_000, 10_000)
DECISIONS = 400
ROUNDS = 5
ALL = (
    *DEFAULT_FILTERS, "AggregateInstanceExtraSpecsFilter", "AggregateImagePropertiesIsolation",
    "AggregateMultiTenancyIsolation", "AggregateTypeAffinityFilter", "AggregateNumInstancesFilter",
    "AggregateIoOpsFilter", "NumInstancesFilter", "IoOpsFilter", "IsolatedHostsFilter",
)  # fmt: skip
PLAIN = PlacementRequest(vcpus=1, memory_mb=512, disk_gb=1, project_id="p", flavor_name="m1")
DEMANDING = PlacementRequest(
    vcpus=2,
    memory_mb=2048,
    disk_gb=10,
    project_id="p",
    flavor_name="m1",
    availability_zone="zone-1",
    required_traits=("HW_CPU_X86_AVX2",),
    extra_specs={"aggregate_instance_extra_specs:ssd": "true", "capabilities:hypervisor_type": "QEMU"},
    image_properties={"hw_architecture": "x86_64"},
    group=Group(policy="anti-affinity", members={f"host-{number}": 1 for number in range(20)}),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """CPU seconds: the median of the rounds."""

    hosts: int
    what: str
    cpu: float


def make_picture(count: int) -> Picture:
    chance = random.Random(count)
    nodes = [
        Node(
            id=number,
            host=f"host-{number}",
            node=f"host-{number}",
            service_id=number,
            vcpus_max=1024,
            vcpus_used=chance.randrange(200),
            memory_mb_max=524_288,
            memory_mb_used=chance.randrange(65_536),
            disk_gb_max=8_000,
            disk_gb_used=chance.randrange(1_000),
            running_vms=chance.randrange(20),
            hypervisor_type="QEMU",
            hypervisor_version=10_000_000 + number % 2,
            supported=(("x86_64", "kvm", "hvm"),),
            traits=frozenset({"HW_CPU_X86_AVX2", "COMPUTE_NODE"} if number % 3 else {"COMPUTE_NODE"}),
            host_ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        )
        for number in range(1, count + 1)
    ]
    names = [node.host for node in nodes]
    aggregates = [
        Aggregate(id=number, name=zone, hosts=frozenset(names[number::4]), metadata={"availability_zone": zone})
        for number, zone in enumerate(("zone-0", "zone-1", "zone-2", "zone-3"))
    ]
    aggregates.append(Aggregate(id=9, name="ssd", hosts=frozenset(names[::3]), metadata={"ssd": "true"}))
    picture = Picture(nodes, aggregates)
    picture.set_unusable(dict.fromkeys(chance.sample(range(1, count + 1), count // 50), DOWN))
    return picture


def measure(hosts: tuple[int, ...] = HOSTS) -> Iterator[Decision]:
    chance = random.Random(1)
    for count in hosts:
        for what, request, filters in (
            ("default filters", PLAIN, DEFAULT_FILTERS),
            ("all filters", PLAIN, ALL),
            ("all filters, zone, traits, extra specs, group", DEMANDING, ALL),
        ):
            picture, rules = make_picture(count), make_rules(SchedulerOptions(enabled_filters=filters))
            assert place(picture, request, rules, chance).candidates, what
            rounds = []
            for _ in range(ROUNDS):
                began = time.process_time()
                for _ in range(DECISIONS // ROUNDS):
                    place(picture, request, rules, chance)
                rounds.append((time.process_time() - began) / (DECISIONS // ROUNDS))
            yield Decision(count, what, statistics.median(rounds))


if __name__ == "__main__":
    for found in measure():
        print(f"{found.hosts:7,} hosts, {found.what:48} {found.cpu * 1e6:8.0f} µs")
