"""Images fetched before anybody boots from them, one after the other."""

from __future__ import annotations

import asyncio

import structlog

from kilonova.agent.driver import Driver, ImageSource
from kilonova.bus.messages import CacheImages

log = structlog.get_logger(__name__)


class Precache:
    def __init__(self, host: str, driver: Driver, images: ImageSource) -> None:
        self._host = host
        self._driver = driver
        self._images = images
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    def fetch(self, wanted: CacheImages) -> None:
        task = asyncio.get_running_loop().create_task(self._fetch(wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """What was downloaded stays, for whoever wants the image later."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fetch(self, wanted: CacheImages) -> None:
        async with self._one_at_a_time:
            for image in wanted.images:
                try:
                    await self._driver.ensure_image(image, self._images, wanted.secrets.image_token, _unheard)
                except Exception as error:
                    # A boot that needs the image will say what is wrong with it.
                    log.warning("agent.image_not_cached", host=self._host, image=image.id, error=str(error))
                else:
                    log.info("agent.image_cached", host=self._host, image=image.id)


async def _unheard(stage: str, percent: int) -> None:
    """Nobody waits for these images."""
