"""`kilonova up`, `status` and `down` as processes: what dies is started again or continued."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from kilonova.allinone import processes
from tests.clients.cloud import UserCloud
from tests.support.allinone import free_offset

pytestmark = pytest.mark.timeout(1800)


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_status_succeeds_and_names_every_part(cloud: UserCloud) -> None:
    told = cloud.kilonova("status")
    assert told.returncode == 0, told.stdout
    for part in ("keystone", "glance", "compute"):
        assert part in told.stdout


def test_up_again_on_a_running_cloud_is_safe(cloud: UserCloud) -> None:
    owner = cloud.report().owner
    cloud.up()
    assert cloud.report().owner == owner
    told = cloud.kilonova("up", "--hypervisor", "sim", "--port-offset", str(cloud.offset))
    assert told.returncode == 1
    assert f"in use by process {owner.pid}" in told.stderr


def test_another_cloud_on_the_same_ports_is_refused_with_the_owner(
    cloud: UserCloud, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = UserCloud(tmp_path_factory.mktemp("other") / "cloud")
    other.offset = cloud.offset
    told = other.try_up()
    assert told.returncode == 1
    assert f"port {5000 + cloud.offset} (identity) is taken by process {cloud.part('keystone').pid}" in told.stderr
    assert "--port-offset" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("name", ["keystone", "glance"])
def test_a_killed_service_is_started_again(cloud: UserCloud, name: str) -> None:
    before = cloud.part(name)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: bool(cloud.part(name).restarts > before.restarts))
    until(lambda: cloud.report().ready)
    assert cloud.part(name).pid != before.pid
    assert cloud.kilonova("status").returncode == 0
    assert cloud.show("image", "list") is not None


def test_what_was_under_way_goes_on_after_kill_9(cloud: UserCloud, image: str, flavor: str) -> None:
    options = ("--image", image, "--flavor", flavor, "--nic", "none", "--min", "5", "--max", "5")
    cloud.openstack("server", "create", *options, "survivor")
    killed = cloud.kill_all_at_once()
    until(lambda: not any(processes.is_running(process) for process in killed), 30)
    assert cloud.kilonova("status").returncode != 0
    cloud.up()
    mine = ("server", "list", "--name", "survivor")
    until(lambda: [server["Status"] for server in cloud.show(*mine)] == ["ACTIVE"] * 5)
    cloud.openstack("server", "delete", "--wait", *[server["ID"] for server in cloud.show(*mine)])
    assert cloud.show(*mine) == []


def test_a_cloud_moves_to_other_ports_with_all_it_has(cloud: UserCloud, image: str) -> None:
    assert cloud.kilonova("down").returncode == 0
    assert cloud.kilonova("status").returncode == 3
    cloud.offset = free_offset()
    cloud.up()
    assert [found["ID"] for found in cloud.show("image", "list", "--name", "test-image")] == [image]
    urls = {endpoint["url"] for entry in cloud.show("catalog", "list") for endpoint in entry["Endpoints"]}
    assert f"http://127.0.0.1:{5000 + cloud.offset}/v3" in urls
    assert len(urls) == 5
