"""Files in which operators say what a host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilonova.agent.driver import Inventory, Resource
from kilonova.agent.provider_config import read_provider_config
from kilonova.errors import Invalid

FILE = """
meta:
  schema_version: '1.0'
providers:
  - identification: {name: $COMPUTE_NODE}
    inventories:
      additional:
        - CUSTOM_LICENCE: {total: 10, reserved: 2, allocation_ratio: 2.0, min_unit: 1}
    traits:
      additional: [CUSTOM_QUIET]
  - identification: {name: other}
    traits:
      additional: [CUSTOM_LOUD]
"""


def test_a_host_gets_what_is_said_of_it_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FILE)
    (tmp_path / "notes.txt").write_text("nothing of ours")
    found = read_provider_config(tmp_path, "here")
    assert found.resources == {"CUSTOM_LICENCE": Resource(total=10, reserved=2, allocation_ratio=2.0)}
    assert found.resources["CUSTOM_LICENCE"].max == 16
    inventory = Inventory(
        hypervisor_type="sim", hypervisor_version=1, hypervisor_hostname="here", vcpus=1, memory_mb=1, local_gb=1,
        traits=("HW_A",),
    )  # fmt: skip
    assert found.to(inventory).traits == ("CUSTOM_QUIET", "HW_A")
    assert read_provider_config(tmp_path, "other").traits == ("CUSTOM_LOUD", "CUSTOM_QUIET")
    assert read_provider_config(tmp_path / "absent", "here").to(inventory) is inventory


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("'1.0'", "'2.0'", "schema_version"),
        ("CUSTOM_LICENCE", "LICENCE", "names like CUSTOM_X"),
        ("total: 10, ", "", "total"),
        ("min_unit: 1", "min_unit: 2", "min_unit 2 cannot be honoured"),
        ("min_unit: 1", "minimum: 2", "minimum is not known"),
        ("providers:", "providers: }", "cannot be read"),
        ("[CUSTOM_QUIET]", "[quiet]", "names like CUSTOM_X"),
        ("[CUSTOM_QUIET]", "CUSTOM_QUIET", "got `str` - at .*traits.additional"),
        ("  - identification: {name: other}\n", "  - other\n  - identification: {name: other}\n", "Expected `object`"),
        ("- CUSTOM_LICENCE: {", "- {", "Expected `object`, got `int`"),
        ("reserved: 2", "reserved: abc", "CUSTOM_LICENCE: Expected `int`, got `str`"),
        ("total: 10", "total: 0", "CUSTOM_LICENCE: Expected `int` >= 1"),
        ("meta:\n  schema_version: '1.0'", "meta: 1.0", "schema_version is None"),
    ],
)
def test_a_mistake_stops_the_start_and_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(FILE.replace(old, new))
    with pytest.raises(Invalid, match=said) as found:
        read_provider_config(tmp_path, "here")
    assert "a.yaml" in found.value.message
