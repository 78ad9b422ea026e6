"""Networking (Neutron) as Compute needs it: its REST documents, by collection. Compute knows nothing of what is behind.

`clients.network.NetworkClient` is the real one, `testing.network.FakeNetworking` a strict one in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kilonova.errors import Conflict

Document = dict[str, Any]
Filter = str | bool | Sequence[str]


class NetworkConflict(Conflict):
    """Networking refused for the state of something; `reason` is its own name for it, e.g. MacAddressInUse."""

    def __init__(self, message: str, *, reason: str = "", details: str | None = None) -> None:
        super().__init__(message, details=details)
        self.reason = reason


class Networking(Protocol):
    """As the service user, who sees every project's resources: whoever asks for a project filters.

    Collections are named as in the REST API, e.g. `ports`, `security-groups`. Errors: Invalid, Forbidden, OverQuota,
    NotFound, NetworkConflict; Unavailable when Networking does not answer, in which case a change may have happened.
    """

    async def find(self, collection: str, filters: Mapping[str, Filter] | None = None) -> list[Document]:
        """All that match; a sequence as filter's value means any of them."""
        ...

    async def show(self, collection: str, id: str) -> Document: ...

    async def create(self, collection: str, documents: Sequence[Document]) -> list[Document]:
        """All in one call, or none."""
        ...

    async def update(self, collection: str, id: str, changes: Document) -> Document: ...

    async def delete(self, collection: str, id: str) -> None:
        """No error when it is gone already."""
        ...

    async def quota(self, project_id: str) -> Mapping[str, Mapping[str, int]]:
        """By resource (`port`, `floatingip`, ...): `limit` (-1: none) and `used`."""
        ...

    async def auto_network(self, project_id: str) -> str:
        """The id of the network that is made for the project when it has none. Raises Invalid when it cannot be."""
        ...
