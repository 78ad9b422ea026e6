"""Whether a process can do its work: what `/healthcheck` says of each role, at its own port and at the metrics'."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import platform
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Check = Callable[[], Awaitable[bool]]
"""Whether something that a role stands on is there. What it raises counts as no."""

PATH = "/healthcheck"
STARTING, STOPPING = "STARTING", "STOPPING"
DISABLED = "DISABLED BY FILE"
PATIENCE = 3.0
"""Seconds for each check."""

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Any, Any, Any], Awaitable[None]]
"""ASGI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """`name`: of the check, or the phase. `details`: what it met."""

    name: str
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """`detailed`: tell more than names. `off_file`: while it is there, the answer is 503 whatever the checks say."""

    detailed: bool = False
    off_file: Path | None = None


class Health:
    """`waived`: names of checks without which this role does its work all the same."""

    def __init__(
        self, *, waived: frozenset[str] = frozenset(), settings: HealthSettings | None = None, phase: str | None = None
    ) -> None:
        self._waived = waived
        self._settings = settings or HealthSettings()
        self._checks: dict[str, Check] = {}
        self.phase = phase
        """Why nothing is done at all, None while the role serves."""

    def add(self, name: str, check: Check) -> None:
        if name not in self._waived:
            self._checks[name] = check

    async def missing(self) -> list[Missing]:
        """What keeps the role from its work. Empty: nothing does."""
        if self.phase is not None:
            return [Missing(name=self.phase)]
        if self._settings.off_file is not None and self._settings.off_file.exists():
            return [Missing(name=DISABLED, details=str(self._settings.off_file))]
        found = await asyncio.gather(*(_look(name, check) for name, check in self._checks.items()))
        return [each for each in found if each is not None]

    async def answer(self, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body, in JSON for whoever asks for that and otherwise a name a line."""
        missing = await self.missing()
        status = 503 if missing else 200
        if "application/json" not in accept:
            names = "\n".join(each.name for each in missing) or "OK"
            return status, "text/plain; charset=UTF-8", names.encode()
        return status, "application/json", json.dumps(self._document(missing)).encode()

    def _document(self, missing: list[Missing]) -> dict[str, Any]:
        if not self._settings.detailed:
            return {"detailed": False, "reasons": [each.name for each in missing] or ["OK"]}
        absent = {each.name: each.details for each in missing}
        names = dict.fromkeys([*absent, *(() if self.phase else self._checks)])
        return {
            "detailed": True,
            "reasons": [
                {"class": name, "reason": name if name in absent else "OK", "details": absent.get(name, "")}
                for name in names
            ],
            "now": dt.datetime.now(dt.UTC).isoformat(),
            "platform": platform.platform(),
            "python_version": platform.python_version(),
            "threads": threading.active_count(),
        }


async def _look(name: str, check: Check) -> Missing | None:
    try:
        async with asyncio.timeout(PATIENCE):
            return None if await check() else Missing(name=name)
    except TimeoutError:
        return Missing(name=name, details=f"no answer within {PATIENCE:g} s")
    except Exception as error:
        return Missing(name=name, details=(str(error).splitlines() or [type(error).__name__])[0])


class Answering:
    """`app`, and `/healthcheck` beside it."""

    def __init__(self, app: App, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        if scope["method"] in ("GET", "HEAD"):
            status, kind, body = await self._health.answer(accept)
        else:
            status, kind, body = 405, "text/plain", b"Use GET or HEAD here."
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
