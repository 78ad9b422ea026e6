"""The host's image cache: one verified, complete base file per image, shared by all guests made from it.

    <key>          the base file, raw or qcow2; it exists only whole and verified
    <key>.json     what it is; its time of modification is when the image was last used
    .<key>.part    a download under way, or one that a later attempt resumes
    .<key>.lock    held by whoever brings the image here

The key is the SHA-1 of the image's id, as operators know it from `_base`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import fcntl
import functools
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec

from kilonova.agent import image_file
from kilonova.agent.driver import ImageSource, ImageSpec, Progress
from kilonova.agent.image_file import Base
from kilonova.agent.threads import in_thread
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.world import World

_BATCH = 4 * 1024**2
"""Bytes handed to a thread at once: a hop per network packet would cost more than the write."""
_PIN = 900.0
"""Seconds an image is safe from eviction after it was asked for, while its guest's disks are not yet there."""
_KEY = re.compile(r"[0-9a-f]{40}")


class _Flight:
    """One image on its way, and those who wait for it."""

    __slots__ = ("last", "listeners", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Base] | None = None
        self.listeners: list[Progress] = []
        self.last: tuple[str, int] = ("image", 0)


def key_of(image_id: str) -> str:
    return hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()


class ImageCache:
    """The cache in `directory`. `reserved_bytes` of its file system are never filled by images.

    `in_use` names the keys that disks on this host are based on; it is called in a thread.
    """

    def __init__(
        self,
        directory: Path,
        world: World,
        *,
        in_use: Callable[[], set[str]],
        reserved_bytes: int = 0,
        force_raw: bool = True,
    ) -> None:
        self.directory = directory
        self._world = world
        self._in_use = in_use
        self._reserved = reserved_bytes
        self._force_raw = force_raw
        self._flights: dict[str, _Flight] = {}
        self._claims: dict[str, int] = {}
        self._pins: dict[str, list[float]] = {}

    def path_of(self, image_id: str) -> Path:
        return self.directory / key_of(image_id)

    async def find(self, image_id: str) -> Base | None:
        """The image when it is here; that counts as a use."""
        return await in_thread(lambda: self._find(image_id))

    async def ensure(self, image: ImageSpec, source: ImageSource, token: str | None, progress: Progress) -> Base:
        """The image is here, whole and verified. All who ask at once share one download.

        Raises Invalid (unusable image), HostFailure (no room), Transient (interrupted; the next call resumes).
        """
        self._pins.setdefault(key_of(image.id), []).append(self._world.monotonic() + _PIN)
        flight = self._flights.get(image.id)
        if flight is None:
            base = await self._usable(image)
            if base is not None:
                await progress("image", 100)
                return base
            # somebody else may have taken off meanwhile
            flight = self._flights.get(image.id)
        if flight is None:
            flight = self._flights[image.id] = _Flight()
            flight.task = asyncio.create_task(self._fly(image, source, token, flight))
        else:
            await progress(*flight.last)
        task = flight.task
        assert task is not None
        flight.listeners.append(progress)
        try:
            return await asyncio.shield(task)
        finally:
            flight.listeners.remove(progress)
            if not flight.listeners and not task.done():
                # the last one who wanted it has gone; what was downloaded stays for a later attempt
                self._flights.pop(image.id, None)
                task.cancel()
                await asyncio.wait({task})

    async def _usable(self, image: ImageSpec) -> Base | None:
        """The image when it is here and as much of it was verified as is asked for now."""
        base = await self.find(image.id)
        return None if base is not None and image.signature is not None and not base.signed else base

    def based(self, image_id: str) -> None:
        """A disk has been made for one who asked; from now on the disk itself keeps the image here."""
        pins = self._pins.get(key_of(image_id))
        if pins:
            pins.pop(0)

    async def evict(self, *, unused_for: float, free_bytes: int) -> list[str]:
        """Drop images unused for that many seconds, and more, oldest first, until so many bytes are free.

        Never what a disk is based on, what was just asked for or is on its way. Returns the ids of dropped images.
        """
        busy = {key_of(image_id) for image_id in self._flights}
        now = self._world.monotonic()
        pins = {key: [until for until in asked if until > now] for key, asked in self._pins.items()}
        self._pins = {key: asked for key, asked in pins.items() if asked}
        pinned = busy | set(self._pins)
        return await in_thread(lambda: self._evict(unused_for, free_bytes, pinned))

    def free_bytes(self) -> int:
        """What may still be written, less what downloads under way will need. Bytes."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize - self._reserved - sum(self._claims.values())

    # -- finding and dropping, in threads

    def _find(self, image_id: str) -> Base | None:
        path = self.path_of(image_id)
        info = path.with_suffix(".json")
        if not path.exists():
            return None
        try:
            base = msgspec.json.decode(info.read_bytes(), type=Base)
        except (FileNotFoundError, msgspec.DecodeError):
            # not of our making, or damaged: without the record nobody knows its format
            return None
        self._touch(info)
        return base

    def _touch(self, info: Path) -> None:
        os.utime(info, (self._now(), self._now()))

    def _now(self) -> float:
        return self._world.now().replace(tzinfo=dt.UTC).timestamp()

    def _evict(self, unused_for: float, free_bytes: int, pinned: set[str]) -> list[str]:
        if not self.directory.is_dir():
            return []
        used = self._in_use()
        now = self._now()
        candidates: list[tuple[float, str]] = []
        for path in self.directory.iterdir():
            key = path.name.removeprefix(".").partition(".")[0]
            if not _KEY.fullmatch(key) or path.suffix in (".json", ".lock"):
                continue
            info = self.directory / f"{key}.json"
            if key in used:
                if info.exists():
                    self._touch(info)
            elif key not in pinned:
                with contextlib.suppress(FileNotFoundError):
                    since = (path if path.name.startswith(".") or not info.exists() else info).stat().st_mtime
                    candidates.append((since, path.name))
        dropped = []
        for since, name in sorted(candidates):
            if now - since < unused_for and self.free_bytes() >= free_bytes:
                continue
            image_id = self._drop(name)
            if image_id is not None:
                dropped.append(image_id)
        return dropped

    def _drop(self, name: str) -> str | None:
        path = self.directory / name
        if name.startswith("."):
            path.unlink(missing_ok=True)
            return None
        with _file_lock(self.directory / f".{name}.lock") as locked:
            if not locked or name in self._in_use():
                return None
            info = path.with_suffix(".json")
            try:
                image_id = msgspec.json.decode(info.read_bytes(), type=Base).image_id
            except (FileNotFoundError, msgspec.DecodeError):
                image_id = name
            path.unlink(missing_ok=True)
            info.unlink(missing_ok=True)
        return image_id

    # -- bringing an image here

    async def _fly(self, image: ImageSpec, source: ImageSource, token: str | None, flight: _Flight) -> Base:
        async def progress(stage: str, percent: int) -> None:
            if (stage, percent) != flight.last:
                flight.last = (stage, percent)
                for listener in list(flight.listeners):
                    await listener(stage, percent)

        try:
            async with self._locked(image.id):
                base = await self._usable(image)
                if base is None:
                    base = await self._fetch(image, source, token, progress)
            await progress("image", 100)
            return base
        except OSError as error:
            raise _as_host_failure(error, image.id) from error
        finally:
            self._claims.pop(image.id, None)
            if self._flights.get(image.id) is flight:
                del self._flights[image.id]

    @contextlib.asynccontextmanager
    async def _locked(self, image_id: str) -> AsyncIterator[None]:
        """Against other processes on the same directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = self.directory / f".{key_of(image_id)}.lock"
        while True:
            with _file_lock(lock) as locked:
                if locked:
                    yield
                    return
            await asyncio.sleep(0.2)

    async def _fetch(self, image: ImageSpec, source: ImageSource, token: str | None, progress: Progress) -> Base:
        image_file.check_wanted(image)
        path = self.path_of(image.id)
        part = self.directory / f".{path.name}.part"
        try:
            resumed = await self._download(image, source, token, part, progress)
            if not await self._matches(image, part):
                if not resumed:
                    raise Invalid(f"The checksum of image {image.id} is not the one that Image states; it is damaged.")
                # what was left of an earlier attempt may be at fault
                await _remove(part)
                await self._download(image, source, token, part, progress)
                if not await self._matches(image, part):
                    raise Invalid(f"The checksum of image {image.id} is not the one that Image states; it is damaged.")
            await _check_signature(image, part)
            return await self._place(image, part, path, progress)
        except (Invalid, HostFailure, OSError):
            # of no use to a later attempt, and perhaps what fills the disk
            await _remove(part)
            raise

    async def _download(
        self, image: ImageSpec, source: ImageSource, token: str | None, part: Path, progress: Progress
    ) -> bool:
        """Fill `part`. Returns whether it was begun by an earlier attempt."""
        have = await in_thread(lambda: _left_by_earlier(image, part))
        if have and have == image.size:
            return True
        await self._reserve(image.id, image.size - have)
        start = have
        with part.open("ab") as stream:
            async with contextlib.aclosing(_batches(source.download(image.id, token, start))) as batches:
                async for batch in batches:
                    have += len(batch)
                    if have > image.size:
                        raise Invalid(f"Image {image.id} is larger than the {image.size} bytes that Image states.")
                    await in_thread(functools.partial(stream.write, batch))
                    self._claims[image.id] = image.size - have
                    # 100 is said when the image is verified
                    await progress("image", min(99, have * 100 // max(image.size, 1)))
            await in_thread(stream.flush)
        if have < image.size:
            raise Transient(f"The download of image {image.id} ended after {have} of {image.size} bytes.")
        return start > 0

    async def _matches(self, image: ImageSpec, part: Path) -> bool:
        if image.hash_value is None:
            return True
        algorithm, wanted = image.hash_algo or "sha512", image.hash_value.lower()
        return await in_thread(lambda: _digest(part, algorithm) == wanted, patience=600)

    async def _place(self, image: ImageSpec, part: Path, path: Path, progress: Progress) -> Base:
        """Check what the file is, convert it if wanted, and give it its name."""
        base, final = await image_file.examine(image, part), part
        base = msgspec.structs.replace(base, signed=image.signature is not None)
        if base.format == "qcow2" and self._force_raw:
            await self._reserve(image.id, await image_file.raw_bytes(part))
            final = part.with_suffix(".raw")
            await image_file.convert(part, final, progress)
            base = msgspec.structs.replace(base, format="raw")
        await in_thread(lambda: _finish(base, part, final, path), patience=600)
        return base

    async def _reserve(self, image_id: str, needed: int) -> None:
        """Room for so many bytes more. Drops unused images if that makes it. Raises HostFailure."""
        self._claims.pop(image_id, None)
        if self.free_bytes() < needed:
            await self.evict(unused_for=float("inf"), free_bytes=needed)
        free = self.free_bytes()
        if free < needed:
            raise HostFailure(
                f"The host's disk is full: image {image_id} needs {needed / 1024**2:.0f} MiB in {self.directory}, "
                f"{max(free, 0) / 1024**2:.0f} MiB are free."
            )
        self._claims[image_id] = needed


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    pending: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            pending.append(chunk)
            size += len(chunk)
            if size >= _BATCH:
                yield b"".join(pending)
                pending, size = [], 0
        if pending:
            yield b"".join(pending)
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _left_by_earlier(image: ImageSpec, part: Path) -> int:
    """How many bytes of an earlier attempt can be gone on from."""
    have = part.stat().st_size if part.exists() else 0
    if have and (image.hash_value is None or have > image.size):
        # nothing would tell whether the beginning is right
        part.unlink()
        return 0
    return have


async def _remove(path: Path) -> None:
    """In a thread: the blocks of a large file take their time to be freed."""
    await in_thread(lambda: path.unlink(missing_ok=True))


def _finish(base: Base, part: Path, final: Path, path: Path) -> None:
    """The record first: a base file that exists has its record. One that is replaced has none for a moment: nothing
    may say of bytes that they were verified when others were."""
    info, replaced = path.with_suffix(".json"), path.exists()
    with final.open("rb") as stream:
        os.fsync(stream.fileno())
    if replaced:
        info.unlink(missing_ok=True)
        final.replace(path)
    temporary = path.with_name(f".{path.name}.json.new")
    with temporary.open("wb") as record:
        record.write(msgspec.json.encode(base))
        record.flush()
        os.fsync(record.fileno())
    temporary.replace(info)
    if not replaced:
        final.replace(path)
    if part != final:
        part.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def _check_signature(image: ImageSpec, path: Path) -> None:
    """Raises Invalid unless the bytes are those that were signed, where that is asked for."""
    if image.signature is not None:
        # Few clouds sign their images: a host that never sees one need not load this.
        from kilonova import signatures

        signature = image.signature
        await in_thread(lambda: signatures.verify(image.id, signature, path), patience=600)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def _file_lock(path: Path) -> Iterator[bool]:
    """Whether the lock was free; it is held inside, and goes with the process."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _as_host_failure(error: OSError, image_id: str) -> HostFailure:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostFailure(f"The host's disk became full while image {image_id} was downloaded.")
    return HostFailure(f"The host cannot keep image {image_id}: {error.strerror} ({error.filename}).")
