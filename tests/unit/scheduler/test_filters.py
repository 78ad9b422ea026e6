"""Every filter beside a plain predicate on one host, written anew here and asked host by host."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kilonova.errors import Invalid
from kilonova.numa import Asked, Part
from kilonova.scheduler.filters.hardware import version_satisfies
from kilonova.scheduler.filters.json_query import parse
from kilonova.scheduler.filters.match import matches
from kilonova.scheduler.node import Aggregate, Node
from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.picture import Picture
from kilonova.scheduler.registry import make_rules
from kilonova.scheduler.request import Group, PlacementRequest
from tests.support.hosts import node, request

KEYS = ("ssd", "instance_type", "filter_tenant_id", "filter_tenant_id2", "max_io_ops_per_host", "hw_disk_bus",
        "max_instances_per_host", "availability_zone", "trait:CUSTOM_A")  # fmt: skip
VALUES = ("true", "m1, m2", "m1", "p1", "p2,p3", "2", "7", "no number", "required", "virtio", "east")
TRAITS = ("CUSTOM_A", "CUSTOM_B", "HW_CPU_X86_AVX")
NAMES = [f"h{number}" for number in range(6)]

CELLS = [{"id": number, "memory_mb": 512, "cpus": [2 * number, 2 * number + 1]} for number in range(2)]
nodes = st.builds(
    lambda number, **kw: node(number, **kw),
    number=st.integers(0, 5),
    vcpus_used=st.integers(0, 5),
    memory_mb_used=st.sampled_from([0, 3584, 3585, 5000]),
    disk_gb_used=st.integers(98, 101),
    running_vms=st.integers(0, 8),
    hypervisor_type=st.sampled_from(["sim", "QEMU"]),
    hypervisor_version=st.sampled_from([2_011_001, 8_002_000, 10_000_000]),
    host_ip=st.sampled_from(["192.0.2.1", "192.0.3.1", "2001:db8::1", ""]),
    cpu_info=st.sampled_from([{}, {"arch": "x86_64", "features": ["avx", "sse"]}, {"topology": {"cores": 4}}]),
    supported=st.sampled_from([(), (("x86_64", "kvm", "hvm"),), (("x86_64", "qemu", "hvm"), ("i686", "qemu", "hvm"))]),
    traits=st.frozensets(st.sampled_from(TRAITS)),
    numa_cells=st.sampled_from([(), CELLS[:1], CELLS]),
    metrics=st.dictionaries(st.sampled_from(["cpu.percent", "load"]), st.floats(0, 1), max_size=2),
    resources=st.dictionaries(st.sampled_from(["CUSTOM_GPU"]), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)
aggregates = st.lists(
    st.tuples(st.frozensets(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))),
    max_size=4,
)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    found = {one.id: one for one in draw(st.lists(nodes, max_size=6))}
    made = [
        Aggregate(id=number, name=f"a{number}", hosts=hosts, metadata=metadata)
        for number, (hosts, metadata) in enumerate(draw(aggregates))
    ]
    picture = Picture(found.values(), made)
    picture.set_io_ops(draw(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9))))
    return picture


def mine_of(picture: Picture, one: Node) -> list[Aggregate]:
    return [aggregate for aggregate in picture._aggregates if one.host in aggregate.hosts]


def values_of(picture: Picture, one: Node, key: str) -> set[str]:
    found = set()
    for aggregate in mine_of(picture, one):
        if key in aggregate.metadata:
            found |= {part.strip() for part in aggregate.metadata[key].split(",")}
    return found


def bound_of(picture: Picture, one: Node, key: str, default: int) -> float:
    return min((float(value) for value in values_of(picture, one, key) if value.isdecimal()), default=default)


def io_ops(picture: Picture, one: Node) -> int:
    return picture._io_ops.get(one.host, 0)


def image_fits(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    wanted = [r.image_properties.get(key) for key in ("hw_architecture", "img_hv_type", "hw_vm_mode")]
    kinds = [kind for kind in one.supported if all(w is None or w == k for w, k in zip(wanted, kind, strict=True))]
    if any(wanted) and not kinds:
        return False
    version = r.image_properties.get("img_hv_requested_version")
    return version is None or version_satisfies(one.hypervisor_version, version)


def capable(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    known = {
        "hypervisor_type": one.hypervisor_type,
        "free_ram_mb": one.memory_mb_max - one.memory_mb_used,
        "num_io_ops": io_ops(picture, one),
        "cpu_info:arch": one.cpu_info.get("arch"),
        "cpu_info:features": one.cpu_info.get("features"),
        "cpu_info:topology:cores": one.cpu_info.get("topology", {}).get("cores"),
    }
    for key, wanted in r.extra_specs.items():
        if key.startswith("capabilities:"):
            value = known.get(key.removeprefix("capabilities:"))
            if value is None or not matches(str(value), wanted):
                return False
        elif key == "free_ram_mb" and not matches(str(known[key]), wanted):
            return False
    return True


def extra_specs(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    for key, wanted in r.extra_specs.items():
        name = key.removeprefix("aggregate_instance_extra_specs:")
        if ":" not in name and not any(matches(value, wanted) for value in values_of(picture, one, name)):
            return False
    return True


def tenants(picture: Picture, one: Node) -> set[str]:
    return values_of(picture, one, "filter_tenant_id") | values_of(picture, one, "filter_tenant_id2")


def near(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    if r.near_ip is None:
        return True
    network = ipaddress.ip_network(f"{r.near_ip}{r.cidr}", strict=False)
    return bool(one.host_ip) and ipaddress.ip_address(one.host_ip) in network


def anti(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    g = r.group
    return g is None or g.policy != "anti-affinity" or g.members.get(one.host, 0) < g.max_server_per_host


def together(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    if r.group is None or r.group.policy != "affinity":
        return True
    hosts = {host for host, count in r.group.members.items() if count}
    return not hosts or one.host in hosts


def isolated(picture: Picture, one: Node, r: PlacementRequest) -> bool:
    return (r.image_id == "secret") == (one.host in ("h1", "h2"))


def free(one: Node, kind: str) -> int:
    most, used = one.resources.get(kind, (0, 0))
    return most - used


Predicate = Callable[[Picture, Node, PlacementRequest], bool]
OPTIONS = SchedulerOptions(
    enabled_filters=(
        *("ComputeCapabilitiesFilter", "ImagePropertiesFilter", "AggregateInstanceExtraSpecsFilter"),
        *("AggregateImagePropertiesIsolation", "AggregateMultiTenancyIsolation", "AggregateTypeAffinityFilter"),
        *("NumInstancesFilter", "AggregateNumInstancesFilter", "IoOpsFilter", "AggregateIoOpsFilter", "MetricsFilter"),
        *("SameHostFilter", "DifferentHostFilter", "SimpleCIDRAffinityFilter", "IsolatedHostsFilter", "JsonFilter"),
    ),
    max_instances_per_host=4,
    max_io_ops_per_host=5,
    isolated_images=("secret",),
    isolated_hosts=("h1", "h2"),
    metrics_weight_setting=(("load", 1.0),),
    limit_tenants_to_placement_aggregate=True,
    placement_aggregate_required_for_tenants=True,
    enable_isolated_aggregate_filtering=True,
)
RULES = make_rules(OPTIONS)
PREDICATES: dict[str, Predicate] = {
    "the requested host": lambda p, n, r: r.host in (None, n.host) and r.node in (None, n.node),
    "ComputeFilter": lambda p, n, r: True,
    "AvailabilityZoneFilter": lambda p, n, r: (
        r.availability_zone in (None, min(values_of(p, n, "availability_zone"), default="nova"))
    ),
    "traits": lambda p, n, r: set(r.required_traits) <= n.traits and not set(r.forbidden_traits) & n.traits,
    "not enough vCPUs": lambda p, n, r: n.vcpus_max - n.vcpus_used >= r.vcpus,
    "not enough memory": lambda p, n, r: n.memory_mb_max - n.memory_mb_used >= r.memory_mb,
    "not enough disk": lambda p, n, r: r.disk_gb == 0 or n.disk_gb_max - n.disk_gb_used >= r.disk_gb,
    "not enough of other resources": lambda p, n, r: all(free(n, k) >= v for k, v in r.resources.items()),
    "NUMATopologyFilter": lambda p, n, r: r.numa is None
    or len(r.numa.parts) <= sum(
        len(r.numa.parts[0].cpus) <= len(cell["cpus"]) and r.numa.parts[0].memory_mb <= cell["memory_mb"]
        for cell in n.numa_cells
    ),
    "failed before": lambda p, n, r: n.id not in r.exclude_nodes,
    "ServerGroupAntiAffinityFilter": anti,
    "ServerGroupAffinityFilter": together,
    "aggregates of the project": lambda p, n, r: r.project_id in tenants(p, n),
    "aggregates with traits": lambda p, n, r: not any(
        a.metadata.get("trait:CUSTOM_A") == "required" and "CUSTOM_A" not in r.required_traits for a in mine_of(p, n)
    ),
    "ComputeCapabilitiesFilter": capable,
    "ImagePropertiesFilter": image_fits,
    "AggregateInstanceExtraSpecsFilter": extra_specs,
    "AggregateImagePropertiesIsolation": lambda p, n, r: all(
        not r.image_properties.get(key) or not values_of(p, n, key) or r.image_properties[key] in values_of(p, n, key)
        for key in KEYS
    ),
    "AggregateMultiTenancyIsolation": lambda p, n, r: not tenants(p, n) or r.project_id in tenants(p, n),
    "AggregateTypeAffinityFilter": lambda p, n, r: (
        r.flavor_name in (values_of(p, n, "instance_type") or {r.flavor_name})
    ),
    "NumInstancesFilter": lambda p, n, r: n.running_vms < 4,
    "AggregateNumInstancesFilter": lambda p, n, r: n.running_vms < bound_of(p, n, "max_instances_per_host", 4),
    "IoOpsFilter": lambda p, n, r: io_ops(p, n) < 5,
    "AggregateIoOpsFilter": lambda p, n, r: io_ops(p, n) < bound_of(p, n, "max_io_ops_per_host", 5),
    "MetricsFilter": lambda p, n, r: "load" in n.metrics,
    "SameHostFilter": lambda p, n, r: r.same_hosts is None or n.host in r.same_hosts,
    "DifferentHostFilter": lambda p, n, r: n.host not in r.different_hosts,
    "SimpleCIDRAffinityFilter": near,
    "IsolatedHostsFilter": isolated,
    "JsonFilter": lambda p, n, r: r.query is None or _query(json.loads(r.query), p, n),
}  # fmt: skip


def _query(query: Any, picture: Picture, one: Node) -> bool:
    values = {
        "$free_ram_mb": one.memory_mb_max - one.memory_mb_used, "$hypervisor_type": one.hypervisor_type,
        "$host": one.host, "$cpu_info.arch": one.cpu_info.get("arch"),
    }  # fmt: skip
    sign, *arguments = query
    cooked = [
        _query(argument, picture, one) if isinstance(argument, list) else values.get(argument, argument)
        for argument in arguments
    ]
    if sign == "and":
        return all(cooked)
    if sign == "or":
        return any(cooked)
    if sign == "not":
        return any(not value for value in cooked)
    if sign == "in":
        return any(cooked[0] is not None and cooked[0] == other for other in cooked[1:])
    if len(cooked) < 2:
        return False
    return all(_plain(sign, cooked[0], other) for other in cooked[1:])


def _plain(sign: str, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if sign == "=":
        return bool(left == right)
    if isinstance(left, str) != isinstance(right, str):
        return False
    return bool({"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[sign])


SPECS = st.dictionaries(
    st.sampled_from(
        ["capabilities:hypervisor_type", "capabilities:free_ram_mb", "capabilities:cpu_info:arch", "free_ram_mb",
         "capabilities:cpu_info:features", "capabilities:cpu_info:topology:cores", "capabilities:nothing", "ssd",
         "capabilities:num_io_ops", "aggregate_instance_extra_specs:ssd", "hw:cpu_policy"]
    ),
    st.sampled_from(["sim", "<in> sim", ">= 512", "= 511", "s== true", "<or> true <or> QEMU", "true", "<= 3", "!= 4",
                     "<all-in> avx sse", "<in> avx", "", "x86_64", "==", "s>= a"]),
    max_size=3,
)  # fmt: skip
LEAVES = st.tuples(
    st.sampled_from(["=", "<", ">", "<=", ">=", "in"]),
    st.sampled_from(["$free_ram_mb", "$hypervisor_type", "$host", "$cpu_info.arch"]),
    st.sampled_from([512, 4096, "sim", "h1", "x86_64"]),
).map(list)
QUERIES = st.recursive(
    LEAVES, lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner, inner).map(list), max_leaves=4
)
requests = st.builds(
    request,
    vcpus=st.integers(1, 4),
    disk_gb=st.integers(0, 2),
    resources=st.dictionaries(st.sampled_from(["CUSTOM_GPU", "CUSTOM_NONE"]), st.integers(1, 2), max_size=2),
    numa=st.none()
    | st.builds(
        lambda cells, cpus, memory_mb: Asked(
            parts=tuple(Part(cpus=tuple(range(n * cpus, (n + 1) * cpus)), memory_mb=memory_mb) for n in range(cells))
        ),
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from([256, 512, 513]),
    ),
    required_traits=st.lists(st.sampled_from(TRAITS), max_size=2).map(tuple),
    forbidden_traits=st.lists(st.sampled_from(TRAITS), max_size=1).map(tuple),
    availability_zone=st.sampled_from([None, "nova", "east", "true"]),
    host=st.sampled_from([None, "h1", "nowhere"]),
    node=st.sampled_from([None, "n1", "n2"]),
    exclude_nodes=st.lists(st.integers(0, 5), max_size=2).map(tuple),
    project_id=st.sampled_from(["p1", "p3", "p9"]),
    flavor_name=st.sampled_from(["m1", "m2", "m3"]),
    extra_specs=SPECS,
    image_id=st.sampled_from([None, "secret", "open"]),
    image_properties=st.dictionaries(
        st.sampled_from(["hw_architecture", "img_hv_type", "hw_vm_mode", "hw_disk_bus", "img_hv_requested_version"]),
        st.sampled_from(["x86_64", "qemu", "kvm", "hvm", "virtio", ">=8.2", ">2.11, !=10.0", "nonsense"]),
        max_size=3,
    ),
    group=st.none()
    | st.builds(
        Group,
        policy=st.sampled_from(["affinity", "anti-affinity", "soft-affinity"]),
        max_server_per_host=st.integers(1, 2),
        members=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=3),
    ),
    same_hosts=st.none() | st.lists(st.sampled_from([*NAMES, "gone"]), max_size=2).map(tuple),
    different_hosts=st.lists(st.sampled_from([*NAMES, "gone"]), max_size=2).map(tuple),
    near_ip=st.sampled_from([None, "192.0.2.9", "2001:db8::9"]),
    cidr=st.sampled_from(["/24", "/16", "/32"]),
    query=st.none() | QUERIES.map(json.dumps),
)


@settings(deadline=None, max_examples=300)
@given(pictures(), requests)
def test_masks_say_what_a_plain_predicate_says_of_each_host(picture: Picture, asked: PlacementRequest) -> None:
    assert {one.name for one in RULES.filters} == set(PREDICATES)
    for one in RULES.filters:
        mask = one.mask(picture, asked)
        for row, host in enumerate(picture.nodes):
            plain = PREDICATES[one.name](picture, host, asked)
            assert (mask is None or bool(mask[row])) == plain, (one.name, host)
            if not plain:
                why = one.why(picture, row, asked)
                assert why, one.name
                assert host.host not in why.split(), one.name


@pytest.mark.parametrize(
    ("value", "wanted", "verdict"),
    [
        ("4", "= 3", True), ("4", "= 5", False), ("4", "== 4.0", True), ("4", "!= 4", False), ("4", "<= 4", True),
        ("x", ">= 1", False), ("a", "s== a", True), ("a", "s!= a", False), ("b", "s> a", True), ("b", "s< a", False),
        ("a", "s<= a", True), ("12311321", "<in> 11", True), ("12311321", "<in> 9", False),
        ("ab", "<all-in> a b", True),
        ("ab", "<all-in> a c", False), ("12", "<or> 11 <or> 12", True), ("13", "<or> 11 <or> 12", False),
        ("plain", "plain", True), ("plain", "other", False), ("a b", "a b", True), ("", "", True), ("4", ">=", False),
        ("4", "> 3", False), ("<or>", "<or>", False),
    ],
)  # fmt: skip
def test_comparisons_mean_what_operators_know(value: str, wanted: str, verdict: bool) -> None:
    assert matches(value, wanted) is verdict


@given(st.text(max_size=8), st.text(max_size=12))
@example("1", "= nan")
@example("1", "s==")
def test_any_words_get_a_verdict(value: str, wanted: str) -> None:
    assert matches(value, wanted) in (True, False)


@pytest.mark.parametrize(
    ("version", "wanted", "verdict"),
    [
        (8_002_000, ">=8.2", True), (8_002_000, ">8.2", False), (8_002_001, ">8.2", True), (8_002_000, "8.2.0", True),
        (8_002_000, "<9, !=8.2", False), (8_002_000, "=8.2", True), (8_002_000, "about 8", False),
    ],
)  # fmt: skip
def test_versions_are_compared_number_by_number(version: int, wanted: str, verdict: bool) -> None:
    assert version_satisfies(version, wanted) is verdict


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '["xor", 1]', '["=", "$password", 1]', '["=", {}, 1]', '["and", []]',
        '["not",' * 60 + '["=", 1, 1]' + "]" * 60, "[" * 5000 + "]" * 5000,
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="query"):
        parse(text)
