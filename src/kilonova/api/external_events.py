"""`/os-server-external-events`: other services tell what happened to servers."""

from __future__ import annotations

from typing import Any, Final

from kilonova.api.fields import Choice, Field, JsonSchema, Object, Part, Schema
from kilonova.api.requests import Request
from kilonova.api.responses import Response
from kilonova.api.routing import Action, Route, route
from kilonova.api.servers.schemas import UUID
from kilonova.compute.events import Event, take

_NETWORK = ("network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted")
_LATER = (("2.51", "volume-extended"), ("2.76", "power-update"), ("2.82", "accelerator-request-bound"),
          ("2.93", "volume-reimaged"))  # fmt: skip
_NEEDS_TAG = frozenset(name for _, name in _LATER)


def _names() -> Choice:
    parts = []
    names: tuple[str, ...] = _NETWORK
    since: str | None = None
    for version, name in _LATER:
        before = f"2.{int(version.split('.')[1]) - 1}"
        parts.append(Part({"type": "string", "enum": list(names)}, since=since, until=before))
        names, since = (*names, name), version
    return Choice(*parts, Part({"type": "string", "enum": list(names)}, since=since))


_STATUS: JsonSchema = {"type": "string", "enum": ["failed", "completed", "in-progress"]}
CREATE: Final = Schema(
    Object(
        Field(
            "events",
            {
                "type": "array",
                "minItems": 1,
                "items": Object(
                    Field("name", _names(), required=True),
                    Field("server_uuid", UUID, required=True),
                    Field("status", _STATUS),
                    Field("tag", {"type": "string", "maxLength": 255}),
                ),
            },
            required=True,
        )
    )
)


async def create(request: Request) -> Response:
    events: list[dict[str, Any]] = request.body["events"]
    asked = [
        Event(
            server_uuid=event["server_uuid"],
            name=event["name"],
            status=event.get("status", "completed"),
            tag=event.get("tag"),
        )
        for event in events
    ]
    codes = await take(request.runtime, asked, _NEEDS_TAG)
    shown = [
        {**event, "status": "completed" if code == 200 else "failed", "code": code}
        for event, code in zip(events, codes, strict=True)
    ]
    return Response({"events": shown}, status=200 if set(codes) == {200} else 207)


ROUTES: tuple[Route | Action, ...] = (
    route(
        "POST",
        "/os-server-external-events",
        create,
        "server-external-events:create",
        body=CREATE,
        policy="os_compute_api:os-server-external-events:create",
    ),
)
