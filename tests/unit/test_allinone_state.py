"""The state directory: created once, checked ever after, held by one process."""

from __future__ import annotations

import collections
import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kilonova.allinone import processes, state
from kilonova.allinone.errors import CloudError, from_os_error
from kilonova.allinone.external import external_range
from kilonova.allinone.files import replace_file, tail, write_private


def test_a_new_directory_is_private_and_its_passwords_stay(tmp_path: Path) -> None:
    path = tmp_path / "cloud"
    first = state.open_state_dir(path)
    again = state.open_state_dir(path)
    assert (again.secrets, again.layout) == (first.secrets, first.layout)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "secrets.json").stat().st_mode & 0o777 == 0o600
    passwords = {first.secrets.admin, first.secrets.demo, first.secrets.nova, first.secrets.glance}
    assert len(passwords) == 4
    assert state.open_state_dir(tmp_path / "other").secrets != first.secrets


def test_a_new_clouds_external_network_is_none_of_those_in_use_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = collections.namedtuple("address", "family address")
    used = {f"kn{n}": [address(socket.AF_INET, f"172.24.{n}.1")] for n in range(1, 200)}
    monkeypatch.setattr(state.psutil, "net_if_addrs", lambda: used)
    for number in range(10):
        cloud_id = state.open_state_dir(tmp_path / str(number)).layout.cloud_id
        assert external_range(cloud_id).cidr.network_address.packed[2] >= 200


def test_a_newer_layout_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = state.open_state_dir(tmp_path / "cloud").path
    layout = json.loads((path / "layout.json").read_text())
    (path / "layout.json").write_text(json.dumps({**layout, "version": state.LAYOUT_VERSION + 1}))
    with pytest.raises(CloudError, match="newer release") as caught:
        state.open_state_dir(path)
    assert "--state-dir" in (caught.value.remedy or "")
    assert json.loads((path / "layout.json").read_text())["version"] == state.LAYOUT_VERSION + 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("layout.json", b""),
        ("layout.json", b'{"version": "one"}'),
        ("layout.json", b'{"version": 0, "cloud_id": "x"}'),
        ("layout.json", b"\xff\x00"),
        ("layout.json", None),
        ("secrets.json", b"{"),
        ("secrets.json", b'{"admin": 5}'),
        ("secrets.json", None),
    ],
)
def test_a_damaged_directory_is_named_with_the_file(tmp_path: Path, file: str, content: bytes | None) -> None:
    path = state.open_state_dir(tmp_path / "cloud").path
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(content)
    with pytest.raises(CloudError, match=rf"damaged: {file}") as caught:
        state.open_state_dir(path)
    assert caught.value.remedy


def test_somebody_elses_directory_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CloudError, match=r"thesis\.tex"):
        state.open_state_dir(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CloudError, match="not a directory"):
        state.open_state_dir(tmp_path / "file")


@pytest.mark.parametrize("name", ["a$b", "a%20b", "a?b", "a#b"])
def test_a_path_that_configuration_files_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CloudError, match="holds"):
        state.open_state_dir(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_creation_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    path = state.open_state_dir(tmp_path / "cloud").path
    for entry in ("layout.json", "log", "kilonova", "identity", "image"):
        target = path / entry
        target.unlink() if target.is_file() else target.rmdir()
    assert state.open_state_dir(path).layout.version == state.LAYOUT_VERSION


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(state.shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, 5 << 20))
    with pytest.raises(CloudError, match="full: 5 MiB free") as caught:
        state.open_state_dir(tmp_path / "cloud")
    assert "free some space" in (caught.value.remedy or "")


def test_a_write_that_meets_a_full_disk_is_told_in_the_users_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    told = from_os_error(caught.value, tmp_path)
    assert "is full" in told.message
    assert str(tmp_path) in told.message


def test_one_process_holds_a_directory_and_its_death_frees_it(tmp_path: Path) -> None:
    path = state.open_state_dir(tmp_path / "cloud").path
    script = (
        "import sys, time; from pathlib import Path; from kilonova.allinone import state\n"
        f"with state.held(Path({str(path)!r})): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CloudError, match=f"in use by process {holder.pid}"), state.held(path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with state.held(path):
        owner = processes.recall(path / "run/up.json")
    assert owner is not None


def test_private_files_are_whole_or_as_before(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    write_private(target, "one")
    with pytest.raises(TypeError):
        write_private(target, 5)  # type: ignore[arg-type]  # fails half-way, on purpose
    assert target.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_tail_gives_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, 2) == "line 99998\nline 99999"
    assert tail(tmp_path / "none") == ""


def test_threads_that_replace_one_file_at_once_do_not_take_each_others_content(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    contents = [bytes([letter]) * 1000 for letter in b"abcdefgh"] * 50
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: replace_file(path, content, durable=False), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]
