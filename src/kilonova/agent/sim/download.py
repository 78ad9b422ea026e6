"""One download for all who wait for the same image."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from kilonova.agent.driver import ImageSource, ImageSpec, Progress
from kilonova.errors import Invalid


class Download:
    """Reads an image, compares its hash and keeps nothing. It ends early only when nobody waits any more."""

    def __init__(self, image: ImageSpec, source: ImageSource, token: str | None) -> None:
        self._listeners: list[Progress] = []
        self._percent = 0
        self._task = asyncio.get_running_loop().create_task(self._run(image, source.download(image.id, token)))

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def wait(self, progress: Progress) -> None:
        """Raises what the source raises, and Invalid when the image is not what Image states."""
        self._listeners.append(progress)
        try:
            await asyncio.shield(self._task)
        finally:
            self._listeners.remove(progress)
            if not self._listeners:
                self._task.cancel()

    async def _run(self, image: ImageSpec, chunks: AsyncIterator[bytes]) -> None:
        digest = hashlib.new(image.hash_algo) if image.hash_algo and image.hash_value else None
        size = 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if digest is not None:
                    await asyncio.to_thread(digest.update, chunk)
                await self._tell(min(99, size * 100 // max(image.size, 1)))
        finally:
            # Cancelled between two chunks, the source would keep its connection until it is collected.
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if digest is not None and digest.hexdigest() != image.hash_value:
            raise Invalid(f"The checksum of image {image.id} is {digest.hexdigest()}; Image states {image.hash_value}.")

    async def _tell(self, percent: int) -> None:
        if percent != self._percent:
            self._percent = percent
            for listener in list(self._listeners):
                await listener("image", percent)
