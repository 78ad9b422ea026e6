"""What a cloud is told and tells: ports, files for clients, the services' content, the commands' errors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import typer
import yaml

from kilonova import cli, config, roles
from kilonova.agent.driver import Driver
from kilonova.allinone import libvirtd, processes, services, state, status, up
from kilonova.allinone.clients import write_client_files
from kilonova.allinone.errors import CloudError
from kilonova.allinone.ports import check_free
from kilonova.allinone.settings import CloudSettings, Ports, advertised_host
from kilonova.allinone.supervisor import PartStatus
from kilonova.cli import cloud as cloud_commands
from kilonova.errors import Unavailable
from kilonova.world import World


@pytest.fixture
def opened(tmp_path: Path) -> state.StateDir:
    return state.open_state_dir(tmp_path / "cloud")


@pytest.fixture
def settings(opened: state.StateDir) -> CloudSettings:
    return up.make_settings(up.UpOptions(state_dir=opened.path, port_offset=20000), opened, "sim")


def kilonova(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kilonova.cli", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_offset_moves_every_port() -> None:
    moved = Ports.with_offset(100)
    assert (moved.identity, moved.image, moved.network) == (5100, 9392, 9796)
    assert (moved.compute, moved.metadata, moved.console) == (8874, 8875, 6180)


@pytest.mark.parametrize(
    ("bind", "told"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3")]
)
def test_clients_are_told_an_address_that_can_be_reached(bind: str, told: str) -> None:
    assert advertised_host(bind) == told


def test_urls_hold_an_ipv6_address_in_brackets(opened: state.StateDir) -> None:
    settings = up.make_settings(up.UpOptions(state_dir=opened.path, bind="::1"), opened, "sim")
    assert settings.identity_url == "http://[::1]:5000/v3"
    assert settings.compute_url == "http://[::1]:8774"


def test_a_taken_port_is_named_with_its_process(settings: CloudSettings) -> None:
    check_free(settings)
    with (
        socket.create_server(("127.0.0.1", settings.ports.compute)),
        pytest.raises(
            CloudError, match=rf"port {settings.ports.compute} \(compute\) .* process {os.getpid()}"
        ) as caught,
    ):
        check_free(settings)
    assert "--port-offset" in (caught.value.remedy or "")


def test_ports_beyond_the_last_are_refused(opened: state.StateDir) -> None:
    settings = up.make_settings(up.UpOptions(state_dir=opened.path, port_offset=60000), opened, "sim")
    with pytest.raises(CloudError, match="port 69292"):
        check_free(settings)


def test_an_address_of_another_machine_is_refused(opened: state.StateDir) -> None:
    settings = up.make_settings(up.UpOptions(state_dir=opened.path, bind="192.0.2.1"), opened, "sim")
    with pytest.raises(CloudError, match=r"192\.0\.2\.1") as caught:
        check_free(settings)
    assert "--bind" in (caught.value.remedy or "")


def test_clients_files_are_private_and_name_an_admin_and_a_member(
    settings: CloudSettings, opened: state.StateDir
) -> None:
    write_client_files(settings, opened.secrets)
    path = opened.path / "clouds.yaml"
    clouds = yaml.safe_load(path.read_text())["clouds"]
    assert clouds["kilonova"]["auth"]["project_name"] == "admin"
    assert clouds["kilonova"]["auth"]["password"] == opened.secrets.admin
    assert clouds["kilonova-demo"]["auth"]["username"] == "demo"
    assert clouds["kilonova-demo"]["auth"]["auth_url"] == settings.identity_url
    for file in (path, opened.path / "openrc"):
        assert file.stat().st_mode & 0o777 == 0o600
    script = f"OS_CLOUD=other; . {opened.path / 'openrc'}; echo ${{OS_CLOUD-none}} $OS_AUTH_URL $OS_PASSWORD"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=10, check=True)
    assert told.stdout.split() == ["none", settings.identity_url, opened.secrets.admin]


def test_the_catalog_offers_both_paths_of_compute(settings: CloudSettings, opened: state.StateDir) -> None:
    content = services.identity_content(settings, opened.secrets)
    urls = {service["type"]: service["url"] for service in content["services"]}
    assert urls["compute"].endswith(":28774/v2.1")
    assert urls["compute_legacy"].endswith(":28774/v2/%(tenant_id)s")
    assert set(urls) == {"identity", "image", "network", "compute", "compute_legacy"}
    assert {"admin", "manager", "member", "reader", "service"} == set(content["roles"])
    assert content["projects"] == ["admin", "demo", "service"]
    roles = {user["name"]: {tuple(role) for role in user["roles"]} for user in content["users"]}
    assert roles["demo"] == {("demo", "member"), ("demo", "reader")}
    assert roles["nova"] == roles["glance"] == {("service", "service"), ("service", "admin")}


def test_no_password_stands_on_a_command_line(
    settings: CloudSettings, opened: state.StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("keystone", "glance"):
        (tmp_path / package / "bin").mkdir(parents=True)
        (tmp_path / package / "bin/python").touch()
    monkeypatch.setenv("KILONOVA_SERVICES_DIR", str(tmp_path))
    for spec in (services.identity_spec(settings, opened.secrets), services.image_spec(settings, opened.secrets)):
        for secret in msgspec.structs.astuple(opened.secrets):
            assert secret not in " ".join(spec.command)
    for file in opened.path.rglob("*.conf"):
        assert file.stat().st_mode & 0o777 == 0o600


def test_services_that_are_not_installed_are_named_with_the_remedy(
    settings: CloudSettings, opened: state.StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILONOVA_SERVICES_DIR", str(tmp_path))
    with pytest.raises(CloudError, match="keystone is not installed") as caught:
        services.identity_spec(settings, opened.secrets)
    assert "make setup" in (caught.value.remedy or "")


def test_without_a_wish_the_hypervisor_is_simulated_where_libvirt_cannot_be_had_and_a_banner_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libvirtd, "probe_hypervisor", lambda: Unavailable("QEMU is not installed"))
    said: list[str] = []
    assert up.choose_hypervisor(None, said.append) == "sim"
    assert "QEMU is not installed" in "\n".join(said)
    with pytest.raises(CloudError, match="QEMU is not installed"):
        up.choose_hypervisor("libvirt", said.append)
    said.clear()
    assert up.choose_hypervisor("sim", said.append) == "sim"
    assert not said


def test_guests_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirtd.os, "geteuid", lambda: 1000)
    reason = libvirtd.probe_hypervisor()
    assert reason is not None
    assert "root" in reason.message
    assert "--hypervisor sim" in reason.message


@pytest.mark.parametrize("missing", ["qemu-system-x86_64", "libvirtd"])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    which: Callable[..., str | None] = lambda name, path: None if name == missing else f"/bin/{name}"  # noqa: E731
    monkeypatch.setattr(libvirtd.os, "geteuid", lambda: 0)
    monkeypatch.setattr(libvirtd.shutil, "which", which)
    reason = libvirtd.probe_hypervisor()
    assert reason is not None
    assert missing in reason.message
    assert "apt-get install" in reason.message


def test_sockets_of_a_deep_directory_have_a_short_name(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory"] * 12)
    assert "/run/kilonova-" in libvirtd.libvirt_uri(deep)
    assert libvirtd.libvirt_uri(deep) == libvirtd.libvirt_uri(deep)
    assert libvirtd.libvirt_uri(Path("/srv/c")) == "qemu+unix:///system?socket=/srv/c/run/libvirt/libvirt-sock"


def test_status_of_no_cloud_exits_with_3_and_says_so(tmp_path: Path) -> None:
    told = kilonova("status", "--state-dir", str(tmp_path / "none"), cwd=tmp_path)
    assert told.returncode == 3
    assert "not running" in told.stdout
    assert not (tmp_path / "none").exists()


def report_of(owner: processes.ProcessId, *, ready: bool, beat: float) -> status.Report:
    return status.Report(
        owner=owner,
        beat=beat,
        ready=ready,
        reason="" if ready else "keystone is starting",
        hypervisor="sim",
        options={},
        parts=[PartStatus(name="keystone", state="ready" if ready else "starting", pid=7, restarts=3)],
    )


@pytest.mark.parametrize(
    ("ready", "age", "code", "words"),
    # A beat that is yet to come is a fresh one, however long the command takes to start.
    [(True, -600, 0, "a server can be created"), (False, -600, 2, "keystone is starting"), (True, 60, 2, "silent")],
)
def test_status_succeeds_only_when_a_server_can_be_created(
    opened: state.StateDir, tmp_path: Path, ready: bool, age: float, code: int, words: str
) -> None:
    owner = processes.identify(os.getpid())
    assert owner is not None
    status.write_report(opened.path, report_of(owner, ready=ready, beat=time.monotonic() - age))
    told = kilonova("status", "--state-dir", str(opened.path), cwd=tmp_path)
    assert told.returncode == code
    assert words in told.stdout
    assert "keystone" in told.stdout


def test_status_says_that_the_disk_is_full(
    opened: state.StateDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = processes.identify(os.getpid())
    assert owner is not None
    status.write_report(opened.path, report_of(owner, ready=True, beat=time.monotonic()))
    monkeypatch.setattr(cloud_commands, "NO_ROOM", 1 << 40)
    with pytest.raises(typer.Exit) as ended:
        cloud_commands.status(opened.path)
    assert ended.value.exit_code == 2
    assert "is full" in capsys.readouterr().out


def test_the_report_of_a_dead_process_counts_for_nothing(opened: state.StateDir) -> None:
    owner = processes.identify(os.getpid())
    assert owner is not None
    dead = msgspec.structs.replace(owner, started=owner.started - 1)
    status.write_report(opened.path, report_of(dead, ready=True, beat=time.monotonic()))
    assert status.read_report(opened.path) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[DEFAULT]\nreserved_host_memory_md = 5\n", "reserved_host_memory_md"),
        ("[filter_scheduler]\nenabled_filters = NoSuchFilter\n", "NoSuchFilter"),
        ("[sim]\nnuma_cells = 65\n", "[sim] numa_cells = 65"),
        ("[sim]\nhosts = 3\n", "--sim-hosts"),
    ],
)
def test_a_mistake_in_a_configuration_file_stops_up_before_anything_is_made(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "nova.conf"
    file.write_text(text)
    for detach in ([], ["--detach"]):
        words = ("up", "--state-dir", "cloud", "--hypervisor", "sim", "--config-file", str(file), *detach)
        told = kilonova(*words, cwd=tmp_path)
        assert told.returncode == 1
        assert said in told.stderr
        assert "Traceback" not in told.stderr
    assert not (tmp_path / "cloud").exists()


async def test_simulated_hosts_are_what_the_configuration_file_says(
    opened: state.StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nova.conf"
    file.write_text(
        "[sim]\nvcpus = 8\nnuma_cells = 2\npci_devices = 0000:81:00.0=8086:10fb\n"
        '[pci]\ndevice_spec = {"vendor_id": "8086"}\n'
    )
    options = up.UpOptions(state_dir=opened.path, sim_hosts=2, config_files=(file,))
    made: dict[str, Driver] = {}

    async def start_agents(stack: Any, conf: Any, drivers: dict[str, Driver], **_: Any) -> None:
        made.update(drivers)

    monkeypatch.setattr(roles, "start_agents", start_agents)
    rt = SimpleNamespace(world=World(), bus=None, settings=None)
    async with contextlib.AsyncExitStack() as stack:
        one = roles.Roles(up.make_settings(options, opened, "sim"))
        await one._start_agents(stack, config.load([file]), rt, None, tmp_path / "agents")  # type: ignore[arg-type]
        found = [await driver.inventory() for driver in made.values()]
    assert [(host.vcpus, len(host.cells), len(host.pci_devices)) for host in found] == [(8, 2, 1)] * 2


def test_a_damaged_directory_is_an_error_of_one_line_and_a_remedy(opened: state.StateDir, tmp_path: Path) -> None:
    (opened.path / "layout.json").write_text("{")
    told = kilonova("up", "--state-dir", str(opened.path), "--hypervisor", "sim", cwd=tmp_path)
    assert told.returncode == 1
    error, remedy = told.stderr.splitlines()
    assert error.startswith("error: ")
    assert "damaged" in error
    assert remedy.startswith("what to do: ")


@pytest.mark.parametrize("file", ["compute.sqlite", "journal.sqlite", "sim.sqlite"])
def test_a_damaged_database_stops_up_before_anything_starts(opened: state.StateDir, tmp_path: Path, file: str) -> None:
    (opened.path / "kilonova" / file).write_bytes(b"no database" * 1000)
    told = kilonova("up", "--state-dir", str(opened.path), "--hypervisor", "sim", cwd=tmp_path)
    assert told.returncode == 1
    error, remedy = told.stderr.splitlines()
    assert f"damaged: kilonova/{file}: file is not a database" in error
    assert "backup" in remedy


def test_a_page_that_was_overwritten_is_found(opened: state.StateDir) -> None:
    file = opened.path / "kilonova/compute.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE t (a)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 1000)
        database.commit()
    state.check_databases(opened.path)
    with file.open("r+b") as stream:
        stream.seek(3 * 4096)
        stream.write(bytes(range(256)) * 16)
    with pytest.raises(CloudError, match=r"damaged: kilonova/compute\.sqlite"):
        state.check_databases(opened.path)


def test_down_needs_no_room_on_the_disk(
    opened: state.StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LEAST_FREE", 1 << 40)
    with pytest.raises(CloudError, match="is full"):
        state.open_state_dir(opened.path)
    said: list[str] = []
    up.run_down(opened.path, stop_guests=False, say=said.append)
    assert said == ["nothing was running"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/srv/cloud/run/up.lock"), "/srv/cloud/run/up.lock"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "another user"),
    ],
)
def test_what_belongs_to_another_user_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def app(prog_name: str) -> None:
        raise error

    monkeypatch.setattr("kilonova.cli.app.app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told, remedy = capsys.readouterr().err.splitlines()
    assert said in told
    assert "run as the user who" in remedy


def test_down_of_no_cloud_is_an_error_and_of_a_stopped_one_is_not(opened: state.StateDir, tmp_path: Path) -> None:
    assert kilonova("down", "--state-dir", "none", cwd=tmp_path).returncode == 1
    told = kilonova("down", "--state-dir", str(opened.path), cwd=tmp_path)
    assert told.returncode == 0
    assert "nothing was running" in told.stdout
