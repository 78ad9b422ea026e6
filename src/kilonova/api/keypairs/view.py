"""What a key pair looks like."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Out, View
from kilonova.db.key_pairs import KeyPair

_BASE = (
    Out("name", "name"),
    Out("public_key", "public_key"),
    Out("fingerprint", "fingerprint"),
    Out("type", "type", since="2.2"),
)


def _created_at(key_pair: KeyPair, _: Any) -> str:
    return key_pair.created_at.isoformat(timespec="microseconds")


def _never(key_pair: KeyPair, _: Any) -> None:
    return None


def _no(key_pair: KeyPair, _: Any) -> bool:
    return False


IN_LIST = View(*_BASE)
CREATED = View(*_BASE, Out("user_id", "user_id"))
SHOWN = View(
    *_BASE,
    Out("user_id", "user_id"),
    Out("created_at", _created_at),
    Out("deleted", _no),
    Out("deleted_at", _never),
    Out("id", "id"),
    Out("updated_at", _never),
)
