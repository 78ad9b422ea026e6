"""NUMA cells: what flavors and images may ask for, and where on a host that fits."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from kilonova.agent.libvirt.cells import cells as libvirt_cells
from kilonova.agent.sim.cells import even_cells
from kilonova.errors import Invalid
from kilonova.numa import (
    ANY,
    LARGE,
    SMALL_KIB,
    Asked,
    Cell,
    Part,
    Placed,
    divided,
    fit,
    read_asked,
    read_cpus,
    read_page,
    read_placed,
    read_reserved,
    write_cpus,
)  # fmt: skip

HOST = divided(even_cells(2, 16, 4096, threads=2, pages=["2048:256"]), None, frozenset(range(16)))
"""Two cells of 2 GiB and four cores of two threads, all to be had, with 512 MiB in huge pages each."""
SHARED = even_cells(2, 16, 4096)


def asked(vcpus: int, memory_mb: int, **specs: str) -> Asked:
    found = read_asked(vcpus, memory_mb, {f"hw:{name}": value for name, value in specs.items()}, {})
    assert found is not None
    return found


def put(wanted: Asked, taken: list[Placed], cells: tuple[Cell, ...] = HOST, **ratios: float) -> tuple[Placed, ...]:
    found = fit(wanted, cells, taken, **ratios)
    assert not isinstance(found, str), found
    taken += found
    return found


@pytest.mark.parametrize(
    ("text", "cpus", "short"),
    [("0-3,^2,8", {0, 1, 3, 8}, "0-1,3,8"), ("4", {4}, "4"), ("7,5-6", {5, 6, 7}, "5-7"), ("", set(), "")],
)
def test_sets_of_cpus(text: str, cpus: set[int], short: str) -> None:
    assert read_cpus(text) == cpus
    assert write_cpus(cpus) == short


@pytest.mark.parametrize("text", ["a", "3-1", "1..3", "-2"])
def test_what_is_no_set_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="is no CPU"):
        read_cpus(text)


def test_sizes_of_pages() -> None:
    assert [read_page(text) for text in ("2048", "2048KB", "2MB", "2MiB", "1GB", "1G")] == [2048] * 4 + [1048576] * 2


@pytest.mark.parametrize(
    ("specs", "properties", "expected"),
    [
        ({}, {}, None),
        ({"hw:cpu_policy": "shared"}, {}, None),
        ({"hw:numa_nodes": "2"}, {}, Asked(parts=(Part(cpus=(0, 1), memory_mb=256), Part(cpus=(2, 3), memory_mb=256)))),
        (
            {"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "384", "hw:numa_cpus.1": "3",
             "hw:numa_mem.1": "128"},
            {},
            Asked(parts=(Part(cpus=(0, 1, 2), memory_mb=384), Part(cpus=(3,), memory_mb=128))),
        ),
        (
            {"hw:cpu_policy": "dedicated"},
            {"hw_cpu_thread_policy": "isolate"},
            Asked(parts=(Part(cpus=(0, 1, 2, 3), memory_mb=512),), dedicated=True, threads="isolate"),
        ),
        ({}, {"hw_numa_nodes": "1"}, Asked(parts=(Part(cpus=(0, 1, 2, 3), memory_mb=512),))),
        (
            {"hw:mem_page_size": "large"},
            {"hw_mem_page_size": "2MB"},
            Asked(parts=(Part(cpus=(0, 1, 2, 3), memory_mb=512),), page=2048),
        ),
        ({"hw:mem_page_size": "any"}, {}, Asked(parts=(Part(cpus=(0, 1, 2, 3), memory_mb=512),), page=ANY)),
    ],
)  # fmt: skip
def test_what_is_asked_for(specs: dict[str, str], properties: dict[str, str], expected: Asked | None) -> None:
    assert read_asked(4, 512, specs, properties) == expected


@pytest.mark.parametrize(
    ("specs", "properties", "message"),
    [
        (
            {"hw:cpu_policy": "mixed"},
            {},
            "flavor extra spec hw:cpu_policy=mixed cannot be honoured; accepted here: shared, dedicated",
        ),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "an image may not change that"),
        ({"hw:cpu_thread_policy": "isolate"}, {}, "asks for cpu_policy=dedicated"),
        ({"hw:numa_nodes": "5"}, {}, "from 1 to the flavor's vCPUs"),
        ({"hw:numa_nodes": "0"}, {}, "from 1 to the flavor's vCPUs"),
        ({"hw:numa_nodes": "3"}, {}, "cannot be divided evenly"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1"}, {}, "are needed for every node"),
        ({"hw:numa_cpus.0": "0-1"}, {}, "asks for numa_nodes"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.1": "0"}, {}, "names a node that"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "512"}, {}, "each of the 4 vCPUs once"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "511"}, {}, "add up to the flavor's 512 MiB"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "x", "hw:numa_mem.0": "512"}, {}, "'x' is no CPU"),
        ({}, {"hw_cpu_policy": "mixed"}, "image property hw_cpu_policy=mixed cannot be honoured"),
        ({"hw:mem_page_size": "any"}, {"hw_mem_page_size": "huge"}, "image property hw_mem_page_size=huge cannot"),
        (
            {"hw:mem_page_size": "huge"},
            {},
            "flavor extra spec hw:mem_page_size=huge cannot be honoured; accepted: small",
        ),
        ({}, {"hw_mem_page_size": "large"}, "only a flavor that says large or any allows"),
        ({"hw:mem_page_size": "2048"}, {"hw_mem_page_size": "1GB"}, "only a flavor that says large or any allows"),
    ],
)
def test_what_cannot_be_asked_for_says_why(specs: dict[str, str], properties: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_asked(4, 512, specs, properties)
    assert message in caught.value.message


def test_dedicated_cpus_fill_cores_and_are_given_once() -> None:
    taken: list[Placed] = []
    (first,) = put(asked(3, 64, cpu_policy="dedicated"), taken)
    assert first.pins == (0, 1, 2)
    # The broken core before a whole one.
    (second,) = put(asked(1, 64, cpu_policy="dedicated"), taken)
    assert second.pins == (3,)
    (third,) = put(asked(6, 64, cpu_policy="dedicated"), taken)
    assert (third.cell, len(third.pins)) == (1, 6)
    assert fit(asked(5, 64, cpu_policy="dedicated"), HOST, taken) == "has no NUMA cell with 5 free dedicated CPUs"


def test_isolated_cpus_keep_their_cores() -> None:
    taken: list[Placed] = []
    (one,) = put(asked(3, 64, cpu_policy="dedicated", cpu_thread_policy="isolate"), taken)
    assert (one.pins, one.kept_free) == ((0, 2, 4), (1, 3, 5))
    (other,) = put(asked(2, 64, cpu_policy="dedicated"), taken)
    assert other.pins == (6, 7)
    isolated = asked(5, 64, cpu_policy="dedicated", cpu_thread_policy="isolate")
    assert fit(isolated, HOST, taken) == "has no NUMA cell with 5 free dedicated CPUs on cores of their own"


def test_cores_are_required_where_they_have_threads() -> None:
    required = asked(4, 64, cpu_policy="dedicated", cpu_thread_policy="require")
    assert put(required, [])[0].pins == (0, 1, 2, 3)
    single = divided(even_cells(1, 8, 1024), None, frozenset(range(8)))
    assert fit(required, single, []) == "has no NUMA cell with 4 free dedicated CPUs that share their cores"


def test_each_of_a_servers_cells_lies_in_another_one_of_the_hosts() -> None:
    taken: list[Placed] = []
    both = put(asked(4, 64, cpu_policy="dedicated", numa_nodes="2"), taken)
    assert [(one.cell, one.cpus, len(one.pins)) for one in both] == [(0, (0, 1), 2), (1, (2, 3), 2)]
    assert fit(asked(3, 96, numa_nodes="3"), SHARED, []) == "has 2 NUMA cells, the server asks for 3"
    # The larger part first fits only one way round.
    taken = list(put(asked(5, 64, cpu_policy="dedicated"), []))
    uneven = asked(
        8, 64, cpu_policy="dedicated", numa_nodes="2",
        **{"numa_cpus.0": "0-1", "numa_mem.0": "32", "numa_cpus.1": "2-7", "numa_mem.1": "32"},
    )  # fmt: skip
    assert [one.cell for one in put(uneven, taken)] == [0, 1]
    turned = asked(
        8, 64, cpu_policy="dedicated", numa_nodes="2",
        **{"numa_cpus.0": "0-5", "numa_mem.0": "32", "numa_cpus.1": "6-7", "numa_mem.1": "32"},
    )  # fmt: skip
    assert [one.cell for one in put(turned, list(put(asked(5, 64, cpu_policy="dedicated"), [])))] == [1, 0]


def test_pages_are_given_once_and_whole() -> None:
    taken: list[Placed] = []
    assert put(asked(1, 300, mem_page_size="large", cpu_policy="dedicated"), taken)[0].page_kib == 2048
    assert put(asked(1, 300, mem_page_size="2MB", cpu_policy="dedicated"), taken)[0].cell == 1
    no_more = asked(1, 300, mem_page_size="2048", cpu_policy="dedicated")
    assert fit(no_more, HOST, taken) == "has no NUMA cell with 300 MiB in free pages (2048 KiB)"
    assert put(asked(1, 300, mem_page_size="any", cpu_policy="dedicated"), taken)[0].page_kib == SMALL_KIB
    assert isinstance(fit(asked(1, 1024, mem_page_size="1GB", cpu_policy="dedicated"), HOST, []), str)
    assert isinstance(fit(asked(1, 3, mem_page_size="2MB", cpu_policy="dedicated"), HOST, []), str)


def test_what_is_shared_goes_by_the_ratios_but_never_twice_to_one_server() -> None:
    taken: list[Placed] = []
    one = asked(8, 1500, numa_nodes="1")
    assert [put(one, taken, SHARED)[0].cell for _ in range(2)] == [0, 1]
    assert isinstance(fit(one, SHARED, taken), str)
    assert put(one, taken, SHARED, cpu_ratio=2.0, memory_ratio=2.0)[0].cell == 0
    assert isinstance(fit(asked(9, 100, numa_nodes="1"), SHARED, [], cpu_ratio=16.0), str)
    assert isinstance(fit(asked(1, 2100, numa_nodes="1"), SHARED, [], memory_ratio=16.0), str)


def test_whatever_comes_and_goes_nothing_is_given_twice() -> None:
    chance = random.Random(1)
    held: list[tuple[Placed, ...]] = []
    placed = 0
    for _ in range(3000):
        if held and chance.random() < 0.45:
            held.pop(chance.randrange(len(held)))
            continue
        nodes = chance.choice((1, 1, 2))
        specs = {"cpu_policy": "dedicated", "numa_nodes": str(nodes), "mem_page_size": chance.choice(("any", "2MB"))}
        specs["cpu_thread_policy"] = chance.choice(("prefer", "isolate", "require"))
        found = fit(asked(2 * chance.randint(1, 4), 64, **specs), HOST, [one for mine in held for one in mine])
        if isinstance(found, str):
            continue
        placed += 1
        held.append(found)
        everything = [one for mine in held for one in mine]
        cpus = [cpu for one in everything for cpu in (*one.pins, *one.kept_free)]
        assert len(cpus) == len(set(cpus))
        for cell in HOST:
            mine = [one for one in everything if one.cell == cell.id]
            assert {cpu for one in mine for cpu in one.pins} <= set(cell.dedicated)
            assert sum(one.memory_mb for one in mine if one.page_kib == 2048) <= 512
    assert placed > 500


def test_a_host_divides_its_cpus_as_configured() -> None:
    cells = even_cells(2, 8, 1024, threads=2)
    assert [(cell.cpus, cell.dedicated) for cell in divided(cells, frozenset({0, 4}), frozenset({1, 2, 3}))] == [
        ((0,), (1, 2, 3)),
        ((4,), ()),
    ]
    assert divided(cells, frozenset({0, 4}), frozenset({1, 2, 3}))[0].siblings == ((2, 3),)
    assert all(not cell.cpus for cell in divided(cells, None, frozenset({1})))
    assert all(not cell.dedicated for cell in divided(cells, None, None))
    with pytest.raises(Invalid, match="this host has no CPU 8-9; it has 0-7"):
        divided(cells, None, frozenset({8, 9}))
    with pytest.raises(Invalid, match="both have 1"):
        divided(cells, frozenset({1}), frozenset({1}))


def test_placed_cells_are_kept_as_json() -> None:
    (one,) = put(asked(2, 64, cpu_policy="dedicated", cpu_thread_policy="isolate", mem_page_size="large"), [])
    assert read_placed(msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins((one,))))) == (one,)
    assert read_placed(None) == ()


CAPABILITIES = """
<capabilities><host><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>786432</pages>
    <pages unit='KiB' size='2048'>512</pages><pages unit='KiB' size='1048576'>0</pages>
    <cpus num='2'><cpu id='0' siblings='0,2'/><cpu id='2' siblings='0,2'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>2097152</memory><cpus num='2'><cpu id='1' siblings='1'/><cpu id='3'/></cpus></cell>
</cells></topology></host></capabilities>
"""


def test_a_libvirt_hosts_cells() -> None:
    reserved = read_reserved(["node:0,size:2048,count:64", "node:1,size:1GB,count:2"])
    assert libvirt_cells(CAPABILITIES, reserved, 1, 1) == (
        Cell(id=0, memory_mb=4096, cpus=(0, 2), siblings=((0, 2),), pages=((2048, 448),)),
        Cell(id=1, memory_mb=2048, cpus=(1, 3)),
    )
    assert libvirt_cells("<capabilities/>", {}, 512, 2) == (Cell(id=0, memory_mb=512, cpus=(0, 1)),)
    with pytest.raises(Invalid, match="node:0,size:2048,count:64 is accepted"):
        read_reserved(["node:0"])


def test_large_pages_are_the_largest_that_hold_the_memory() -> None:
    cells: Any = (Cell(id=0, memory_mb=8192, cpus=(0, 1), pages=((2048, 1024), (1048576, 2))),)
    assert fit(Asked(parts=(Part(cpus=(0,), memory_mb=1024),), page=LARGE), cells, ())[0].page_kib == 1048576  # type: ignore[union-attr]
    assert fit(Asked(parts=(Part(cpus=(0,), memory_mb=1026),), page=LARGE), cells, ())[0].page_kib == 2048  # type: ignore[union-attr]
