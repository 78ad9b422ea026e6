"""What an aggregate looks like."""

from __future__ import annotations

import datetime as dt
from typing import Any

from kilonova.api.fields import Out, View
from kilonova.db.aggregates import Aggregate


def _text(moment: dt.datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment else None


def _created_at(aggregate: Aggregate, _: Any) -> str | None:
    return _text(aggregate.created_at)


def _updated_at(aggregate: Aggregate, _: Any) -> str | None:
    return _text(aggregate.updated_at)


def _never(aggregate: Aggregate, _: Any) -> bool:
    return False


def _none(aggregate: Aggregate, _: Any) -> None:
    return None


NEW = View(
    Out("id", "id"),
    Out("uuid", "uuid", since="2.41"),
    Out("name", "name"),
    Out("availability_zone", "availability_zone"),
    Out("created_at", _created_at),
    Out("updated_at", _updated_at),
    Out("deleted", _never),
    Out("deleted_at", _none),
)
"""Of one just made."""
AGGREGATE = View(*NEW.fields, Out("hosts", "hosts"), Out("metadata", "metadata"))
