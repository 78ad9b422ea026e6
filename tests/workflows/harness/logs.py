"""What the roles log, kept as text: looked through for secrets, shown when a test of the harness itself needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from typing import Any

import structlog

LINES: deque[str] = deque(maxlen=20_000)


def count(words: str) -> int:
    """Lines kept that have these words."""
    return sum(words in line for line in LINES)


def _keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    LINES.append(f"{method}: {dict(event)}")
    raise structlog.DropEvent


def capture() -> None:
    structlog.configure(processors=[structlog.processors.format_exc_info, _keep], cache_logger_on_first_use=False)
