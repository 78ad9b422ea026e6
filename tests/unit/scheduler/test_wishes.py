"""What requests ask of the scheduler: honoured, or refused by name before anything changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova import config
from kilonova.compute import placing
from kilonova.compute.servers import rebuild
from kilonova.context import RequestContext
from kilonova.db.tables import compute_nodes
from kilonova.errors import Invalid
from kilonova.scheduler.options import DEFAULT_FILTERS
from kilonova.scheduler.registry import make_rules
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import TestCloud
from tests.unit.scheduler.test_explain import cloud, server

__all__ = ["cloud"]
OTHER = "11111111-4e14-4e4c-a73d-069cbf4541e6"


@pytest.mark.parametrize(
    ("hints", "specs", "properties", "missing"),
    [
        ({"query": '["=", "$host", "a"]'}, {}, {}, "JsonFilter"),
        ({"same_host": "x"}, {}, {}, "SameHostFilter"),
        ({"different_host": ["x"]}, {}, {}, "DifferentHostFilter"),
        ({"build_near_host_ip": "192.0.2.1"}, {}, {}, "SimpleCIDRAffinityFilter"),
        ({}, {"aggregate_instance_extra_specs:ssd": "true"}, {}, "AggregateInstanceExtraSpecsFilter"),
        ({}, {"capabilities:vcpus": ">= 4"}, {}, "ComputeCapabilitiesFilter"),
        ({}, {}, {"img_hv_type": "kvm"}, "ImagePropertiesFilter"),
    ],
)
def test_what_a_filter_would_honour_is_refused_while_that_is_off(
    hints: dict[str, Any], specs: dict[str, str], properties: dict[str, str], missing: str
) -> None:
    settings = ComputeSettings()
    without = dataclasses.replace(settings.scheduler, enabled_filters=("ComputeFilter",))
    with pytest.raises(Invalid, match=f"cannot be honoured: {missing} is not enabled"):
        placing.check_wishes(dataclasses.replace(settings, scheduler=without), hints, specs, properties)
    enabled = dataclasses.replace(settings.scheduler, enabled_filters=(*DEFAULT_FILTERS, missing))
    placing.check_wishes(dataclasses.replace(settings, scheduler=enabled), hints, specs, properties)


def test_a_query_that_is_an_object_is_told_what_would_be_accepted() -> None:
    settings = ComputeSettings()
    enabled = dataclasses.replace(settings.scheduler, enabled_filters=("JsonFilter",))
    with pytest.raises(Invalid, match="a list that begins with one of"):
        placing.check_wishes(dataclasses.replace(settings, scheduler=enabled), {"query": {"a": 1}}, {}, {})


async def test_a_rebuild_is_refused_when_the_host_cannot_run_the_new_image(cloud: TestCloud) -> None:
    found = await server(cloud, "small")
    context = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-2")
    wished = rebuild.RebuildRequest(image_ref=OTHER, admin_password=None, changes={})
    for properties, said in (
        ({"trait:CUSTOM_FAST": "required"}, "its host lacks the trait CUSTOM_FAST"),
        ({"img_hv_type": "xen"}, "its host cannot run guests of the image's kind"),
    ):
        cloud.images.add(OTHER, properties=properties)
        with pytest.raises(Invalid, match=said):
            await rebuild.rebuild(cloud.rt, context, found, wished)

    async def give(tx: Any) -> None:
        await tx.execute(sa.update(compute_nodes).values(traits=["CUSTOM_FAST"]))

    cloud.images.add(OTHER, properties={"trait:CUSTOM_FAST": "required"})
    await cloud.rt.db.write(give)
    await rebuild.rebuild(cloud.rt, context, found, wished)


async def test_a_forced_host_may_be_disabled_and_a_wished_one_may_not(cloud: TestCloud) -> None:
    wished = await server(cloud, "small", host="host-2")
    assert wished.vm_state == "error"
    forced = await server(cloud, "small", host="host-2", host_forced=True)
    assert (forced.vm_state, forced.host) == ("active", "host-2")


def test_options_are_read_from_nova_conf(tmp_path: Path) -> None:
    path = tmp_path / "nova.conf"
    path.write_text(
        "[filter_scheduler]\nenabled_filters = RamFilter,NumInstancesFilter\nmax_instances_per_host = 3\n"
        "ram_weight_multiplier = -1.0\nhost_subset_size = 1\n[metrics]\nweight_setting = load=-1.0, fans=2\n"
        "[scheduler]\nmax_attempts = 5\n[DEFAULT]\ncpu_allocation_ratio = 2.0\n"
    )
    settings = config.compute_settings(config.load([path]), deployment_id="d")
    assert settings.max_attempts == 5
    assert settings.allocation.ratios((9.0, 9.0, 9.0)) == (2.0, 9.0, 9.0)
    options = settings.scheduler
    assert (options.ram_weight_multiplier, options.host_subset_size, options.max_instances_per_host) == (-1.0, 1, 3)
    assert options.metrics_weight_setting == (("load", -1.0), ("fans", 2.0))
    names = {one.name for one in make_rules(options).filters}
    assert {"NumInstancesFilter", "MetricsFilter", "ComputeFilter"} <= names
    assert "SameHostFilter" not in names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[filter_scheduler]\nenabled_filters = NoFilter", "NoFilter"),
        ("[filter_scheduler]\ntrack_instance_changes = false", "track_instance_changes"),
        ("[metrics]\nweight_setting = load", "weight_setting"),
    ],
)
def test_options_that_cannot_be_honoured_stop_the_start(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    with pytest.raises(Invalid, match=said):
        config.compute_settings(config.load([path]), deployment_id="d")
