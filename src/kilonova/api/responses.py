"""What a handler may return beside plain data."""

from __future__ import annotations

from typing import Any


class Response:
    """An answer with a status or headers of its own. `body` is data to encode, or bytes as they are; None: empty."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: Any = None, status: int | None = None, headers: dict[str, str] | None = None) -> None:
        self.body = body
        self.status = status
        self.headers = headers
