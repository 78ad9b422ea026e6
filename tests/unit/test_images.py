"""The image cache: what it keeps, refuses, resumes and drops. qemu-img is the real one; no hypervisor is needed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kilonova.agent import qcow2
from kilonova.agent.driver import ImageSignature, ImageSpec
from kilonova.agent.images import ImageCache, key_of
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.world import World
from tests.support.signing import Signer, signer

MIB = 1024**2

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


class Bytes:
    """An Image service of one image."""

    def __init__(self, data: bytes, *, chunk: int = MIB) -> None:
        self.data = data
        self.chunk = chunk
        self.offsets: list[int] = []
        self.stop_after: int | None = None

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        end = len(self.data) if self.stop_after is None else self.stop_after
        self.stop_after = None
        for at in range(offset, end, self.chunk):
            await asyncio.sleep(0)
            yield self.data[at : min(at + self.chunk, end)]
        if end < len(self.data):
            raise Transient("lost")


async def no_progress(stage: str, percent: int) -> None:
    return


def spec_of(data: bytes, **changes: object) -> ImageSpec:
    spec = ImageSpec(
        id="img-1",
        size=len(data),
        disk_format="raw",
        hash_algo="sha512",
        hash_value=hashlib.sha512(data).hexdigest(),
    )
    return msgspec.structs.replace(spec, **changes)


def cache_in(path: Path, *, force_raw: bool = True, used: set[str] | None = None, reserved: int = 0) -> ImageCache:
    return ImageCache(path, World(), in_use=lambda: used or set(), force_raw=force_raw, reserved_bytes=reserved)


def qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


def qcow2_bytes(tmp_path: Path, *options: str, content: bytes = b"k" * MIB) -> bytes:
    raw, image = tmp_path / "raw", tmp_path / "made.qcow2"
    raw.write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(image))
    return image.read_bytes()


def visible(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir() if not item.name.endswith(".lock"))


DATA = os.urandom(9 * MIB + 17)


async def test_a_raw_image_is_kept_as_it_is_with_a_record_of_what_it_is(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    base = await cache.ensure(spec_of(DATA), Bytes(DATA), None, no_progress)
    assert (base.format, base.virtual_size) == ("raw", len(DATA))
    assert cache.path_of("img-1").read_bytes() == DATA
    assert visible(tmp_path) == [key_of("img-1"), f"{key_of('img-1')}.json"]
    assert await cache_in(tmp_path).find("img-1") == base


@pytest.mark.parametrize("force_raw", [True, False])
async def test_a_qcow2_image_is_kept_raw_or_as_it_is_by_configuration(tmp_path: Path, force_raw: bool) -> None:
    data = qcow2_bytes(tmp_path, "-c")
    directory = tmp_path / "cache"
    cache = cache_in(directory, force_raw=force_raw)
    base = await cache.ensure(spec_of(data, disk_format="qcow2"), Bytes(data), None, no_progress)
    assert base.format == ("raw" if force_raw else "qcow2")
    assert base.virtual_size == MIB
    kept = cache.path_of("img-1").read_bytes()
    assert kept == (b"k" * MIB if force_raw else data)
    assert len(visible(directory)) == 2


async def test_a_lost_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source = Bytes(DATA)
    source.stop_after = 6 * MIB
    with pytest.raises(Transient):
        await cache_in(tmp_path).ensure(spec_of(DATA), source, None, no_progress)
    await cache_in(tmp_path).ensure(spec_of(DATA), source, None, no_progress)
    assert source.offsets[0] == 0
    assert 0 < source.offsets[1] <= 6 * MIB
    assert cache_in(tmp_path).path_of("img-1").read_bytes() == DATA


async def test_what_an_earlier_attempt_left_wrong_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / f".{key_of('img-1')}.part").write_bytes(b"x" * MIB)
    source = Bytes(DATA)
    await cache_in(tmp_path).ensure(spec_of(DATA), source, None, no_progress)
    assert source.offsets == [MIB, 0]
    assert cache_in(tmp_path).path_of("img-1").read_bytes() == DATA


async def test_without_a_checksum_nothing_is_resumed(tmp_path: Path) -> None:
    (tmp_path / f".{key_of('img-1')}.part").write_bytes(b"x" * MIB)
    source = Bytes(DATA)
    await cache_in(tmp_path).ensure(spec_of(DATA, hash_value=None), source, None, no_progress)
    assert source.offsets == [0]
    assert cache_in(tmp_path).path_of("img-1").read_bytes() == DATA


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hash_value": "0" * 128}, "checksum"),
        ({"hash_algo": "crc8"}, "crc8"),
        ({"size": 5}, "larger than the 5 bytes"),
        ({"disk_format": "vmdk"}, "raw and qcow2"),
        ({"disk_format": "qcow2"}, "no qcow2"),
        ({"container_format": "ova"}, "bare"),
    ],
)
async def test_an_unusable_image_is_refused_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        await cache_in(tmp_path).ensure(spec_of(DATA, **changes), Bytes(DATA), None, no_progress)
    assert visible(tmp_path) == []


async def test_a_qcow2_file_declared_raw_is_refused(tmp_path: Path) -> None:
    data = qcow2_bytes(tmp_path)
    with pytest.raises(Invalid, match="states disk_format raw"):
        await cache_in(tmp_path / "cache").ensure(spec_of(data), Bytes(data), None, no_progress)


async def refused(tmp_path: Path, data: bytes, says: str) -> None:
    directory = tmp_path / "cache"
    with pytest.raises(Invalid, match=says):
        await cache_in(directory).ensure(spec_of(data, disk_format="qcow2"), Bytes(data), None, no_progress)
    assert visible(directory) == []


async def test_an_image_that_names_a_file_of_the_host_is_refused_before_any_tool_opens_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    image = tmp_path / "evil.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(image))
    await refused(tmp_path, image.read_bytes(), "backing file")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", str(image), "1M")
    await refused(tmp_path, image.read_bytes(), "external data file")


async def test_a_header_extension_that_names_a_data_file_is_refused_without_its_feature_bit(tmp_path: Path) -> None:
    data = bytearray(qcow2_bytes(tmp_path))
    (length,) = struct.unpack_from(">I", data, 100)
    name = b"/etc/shadow\0"
    struct.pack_into(f">II{len(name)}s", data, length, 0x44415441, len(name), name)
    await refused(tmp_path, bytes(data), "external data file")


@pytest.mark.parametrize("damage", ["header", "tables", "size"])
async def test_a_damaged_qcow2_image_is_refused(tmp_path: Path, damage: str) -> None:
    data = bytearray(qcow2_bytes(tmp_path))
    if damage == "header":
        data[7] = 9
    elif damage == "tables":
        struct.pack_into(">Q", data, 40, 1 << 50)
    else:
        struct.pack_into(">Q", data, 24, 1 << 62)
    await refused(tmp_path, bytes(data), "damaged|read")


def test_headers_are_read_as_qemu_reads_them(tmp_path: Path) -> None:
    image = tmp_path / "image"
    for options in (["-o", "compat=0.10"], ["-o", "compat=1.1,cluster_size=2M"]):
        qemu_img("create", "-f", "qcow2", *options, str(image), "3G")
        told = json.loads(subprocess.run(["qemu-img", "info", "--output=json", str(image)], capture_output=True).stdout)
        assert qcow2.check_self_contained(image).virtual_size == told["virtual-size"] == 3 * 1024**3


async def test_ten_at_once_download_once_and_one_who_leaves_stops_nobody(tmp_path: Path) -> None:
    source = Bytes(DATA)
    cache = cache_in(tmp_path)
    tasks = [asyncio.create_task(cache.ensure(spec_of(DATA), source, None, no_progress)) for _ in range(10)]
    while not source.offsets:
        await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert len(set(done[1:])) == 1  # type: ignore[arg-type]  # equal bases
    assert source.offsets == [0]


async def test_when_all_who_wanted_it_leave_the_download_stops_and_can_be_resumed(tmp_path: Path) -> None:
    source = Bytes(DATA, chunk=4 * MIB)
    cache = cache_in(tmp_path)
    reached = asyncio.Event()

    async def progress(stage: str, percent: int) -> None:
        if percent > 0:
            reached.set()

    tasks = [asyncio.create_task(cache.ensure(spec_of(DATA), source, None, progress)) for _ in range(2)]
    await reached.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not cache.path_of("img-1").exists()
    await cache.ensure(spec_of(DATA), source, None, no_progress)
    assert source.offsets[1] > 0
    assert cache.path_of("img-1").read_bytes() == DATA


async def test_two_processes_on_one_directory_download_once(tmp_path: Path) -> None:
    source = Bytes(DATA)
    caches = [cache_in(tmp_path) for _ in range(3)]
    await asyncio.gather(*(cache.ensure(spec_of(DATA), source, None, no_progress) for cache in caches))
    assert source.offsets == [0]


async def test_an_image_for_which_there_is_no_room_is_not_even_begun(tmp_path: Path) -> None:
    source = Bytes(DATA)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(HostFailure, match=r"disk is full.*9 MiB"):
        await cache_in(tmp_path, reserved=free - MIB).ensure(spec_of(DATA), source, None, no_progress)
    assert source.offsets == []
    assert visible(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


async def test_a_disk_that_fills_up_meanwhile_is_told_of_and_nothing_is_left(small_disk: Path) -> None:
    filler = small_disk / "filler"

    async def fill(stage: str, percent: int) -> None:
        if not filler.exists():
            usage = shutil.disk_usage(small_disk)
            filler.write_bytes(bytes(usage.free - MIB))

    source = Bytes(DATA, chunk=2 * MIB)
    with pytest.raises(HostFailure, match="disk became full"):
        await cache_in(small_disk).ensure(spec_of(DATA), source, None, fill)
    assert visible(small_disk) == ["filler"]
    filler.unlink()
    await cache_in(small_disk).ensure(spec_of(DATA), source, None, no_progress)


async def test_unused_images_make_room_for_a_new_one(small_disk: Path) -> None:
    cache = cache_in(small_disk)
    await cache.ensure(spec_of(DATA), Bytes(DATA), None, no_progress)
    other = os.urandom(8 * MIB)
    wanted = spec_of(other, id="img-2")
    await cache.ensure(spec_of(DATA), Bytes(DATA), None, no_progress)
    # Asked for twice just now: one of the two has no disk yet.
    cache.based("img-1")
    with pytest.raises(HostFailure, match="disk is full"):
        await cache.ensure(wanted, Bytes(other), None, no_progress)
    cache.based("img-1")
    await cache.ensure(wanted, Bytes(other), None, no_progress)
    assert visible(small_disk) == [key_of("img-2"), f"{key_of('img-2')}.json"]


async def test_eviction_goes_by_age_then_by_need_oldest_first_and_spares_what_is_used(tmp_path: Path) -> None:
    used = {key_of("img-0")}
    cache = cache_in(tmp_path)
    now = World().now().timestamp()
    for number in range(4):
        await cache.ensure(spec_of(DATA, id=f"img-{number}"), Bytes(DATA), None, no_progress)
        age = 1000 * (4 - number)
        os.utime(tmp_path / f"{key_of(f'img-{number}')}.json", (now - age, now - age))
    later = cache_in(tmp_path, used=used)
    assert await later.evict(unused_for=2500, free_bytes=0) == ["img-1"]
    free = later.free_bytes()
    assert await later.evict(unused_for=1e9, free_bytes=free + MIB) == ["img-2"]
    assert await later.evict(unused_for=0, free_bytes=1 << 62) == ["img-3"]
    assert visible(tmp_path) == [key_of("img-0"), f"{key_of('img-0')}.json"]


async def test_progress_only_rises_and_ends_at_a_hundred(tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []

    async def progress(stage: str, percent: int) -> None:
        said.append((stage, percent))

    await cache_in(tmp_path).ensure(spec_of(DATA), Bytes(DATA), None, progress)
    percents = [percent for stage, percent in said if stage == "image"]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100


class Killed(Exception):
    """Nothing in the cache expects it."""


def signed(made: Signer, data: bytes = DATA, said_of: bytes = DATA) -> ImageSpec:
    """An image of `data` whose signature is that of `said_of`."""
    signature = ImageSignature(
        value=made.sign(said_of), hash_method="SHA-256", key_type=made.key_type, certificate=made.pem.decode()
    )
    return spec_of(data, signature=signature)


async def test_a_signed_image_is_kept_when_its_bytes_are_those_that_were_signed(tmp_path: Path) -> None:
    made, cache = signer(), cache_in(tmp_path)
    with pytest.raises(Invalid, match="does not fit its bytes"):
        await cache.ensure(signed(made, said_of=b"others"), Bytes(DATA), None, no_progress)
    assert visible(tmp_path) == []
    assert (await cache.ensure(signed(made), Bytes(DATA), None, no_progress)).signed
    again = Bytes(DATA)
    assert (await cache.ensure(signed(made), again, None, no_progress)).signed
    assert again.offsets == []


async def test_what_came_unverified_is_verified_before_a_server_that_asks_for_it_gets_it(tmp_path: Path) -> None:
    made, cache, image = signer(), cache_in(tmp_path), Bytes(DATA)
    assert not (await cache.ensure(spec_of(DATA), image, None, no_progress)).signed
    with pytest.raises(Invalid, match="does not fit its bytes"):
        await cache.ensure(signed(made, said_of=b"others"), image, None, no_progress)
    # Servers that were made from it keep their base.
    assert cache.path_of("img-1").read_bytes() == DATA
    assert (await cache.ensure(signed(made), image, None, no_progress)).signed
    assert image.offsets == [0, 0, 0]
    assert (await cache.ensure(spec_of(DATA), image, None, no_progress)).signed


@pytest.mark.parametrize("method", ["replace", "unlink"])
async def test_no_crash_leaves_a_record_of_a_verification_beside_other_bytes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = signer(), os.urandom(MIB)
    for crash_at in range(1, 6):
        directory = tmp_path / str(crash_at)
        # What Image gave before is not what it gives now, and not what was signed.
        await cache_in(directory).ensure(spec_of(other), Bytes(other), None, no_progress)
        calls = 0
        real = getattr(Path, method)

        def crash(self: Path, *arguments: object, real: Any = real, at: int = crash_at, **more: object) -> object:
            nonlocal calls
            calls += self.parent.name == str(at)
            if calls == at:
                raise Killed
            return real(self, *arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(Path, method, crash)
            with contextlib.suppress(Killed):
                await cache_in(directory).ensure(signed(made), Bytes(DATA), None, no_progress)
        found = await cache_in(directory).find("img-1")
        if found is not None and found.signed:
            assert cache_in(directory).path_of("img-1").read_bytes() == DATA
