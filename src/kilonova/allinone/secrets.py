"""The passwords of one cloud, generated once."""

from __future__ import annotations

import secrets

import msgspec


def _password() -> str:
    # Letters and digits only: it also stands in shell and configuration files.
    return secrets.token_hex(16)


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Passwords of the cloud's users, and the key that signs what our own roles hand out."""

    admin: str = msgspec.field(default_factory=_password)
    demo: str = msgspec.field(default_factory=_password)
    nova: str = msgspec.field(default_factory=_password)
    glance: str = msgspec.field(default_factory=_password)
    neutron: str = msgspec.field(default_factory=_password)
    shared: str = msgspec.field(default_factory=_password)
