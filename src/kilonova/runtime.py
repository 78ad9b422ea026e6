"""What the roles of one process share: database, bus, world, clients and configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kilonova.agent.driver import ImageSpec
from kilonova.bus import Bus
from kilonova.networking import Networking
from kilonova.settings import ComputeSettings
from kilonova.world import World

if TYPE_CHECKING:
    # The image client needs `Image` in processes that have no database.
    from kilonova.db.engine import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as Image (Glance) shows it. Sizes: `size` bytes, `min_disk` GiB, `min_ram` MiB."""

    id: str
    name: str
    status: str
    owner: str | None
    visibility: str
    size: int | None
    min_disk: int
    min_ram: int
    spec: ImageSpec
    properties: dict[str, str]


class ImageCatalog(Protocol):
    """Image's API as the domain's verbs need it: `clients.image.ImageClient`, or a test's own."""

    async def get(self, image_id: str, *, project_id: str) -> Image:
        """As seen by a project. Raises NotFound, or Unavailable when Image does not answer."""
        ...


class Certificates(Protocol):
    """The key manager's certificates: `clients.key_manager.KeyManagerClient`, or a test's own."""

    async def certificate(self, secret_id: str, token: str) -> bytes:
        """As the token's owner may see it, PEM or DER. Raises NotFound, Unavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    world: World
    db: Database
    bus: Bus
    images: ImageCatalog
    image_token: Callable[[], Awaitable[str | None]]
    """A token of the service user that may download any image; None where none is needed."""
    settings: ComputeSettings
    network: Networking | None = None
    """None: a cloud without Networking, whose servers have no ports."""
    certificates: Certificates | None = None
    """None: a cloud without a key manager, which verifies no signatures of images."""
