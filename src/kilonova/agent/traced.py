"""A driver whose verbs are spans of a trace."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

from kilonova import tracing
from kilonova.agent.driver import Driver


class _Traced:
    def __init__(self, driver: Driver, host: str) -> None:
        self._driver = driver
        self._host = host

    def __getattr__(self, name: str) -> Any:
        verb: Callable[..., Awaitable[Any]] = getattr(self._driver, name)

        @functools.wraps(verb)
        async def traced(*args: Any, **options: Any) -> Any:
            with tracing.span(f"driver: {name}", tracing.traceparent(), {"host.name": self._host}):
                return await verb(*args, **options)

        return traced


def traced(driver: Driver, host: str) -> Driver:
    """`driver`, or where a trace is being kept one that shows what is asked of it. For verbs that are awaited."""
    return driver if tracing.traceparent() is None else cast(Driver, _Traced(driver, host))
