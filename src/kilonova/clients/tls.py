"""Whose certificates a client believes."""

from __future__ import annotations

import ssl


def trust(verify: bool | str) -> ssl.SSLContext | bool:
    """As httpx takes it. `verify`: a file of authorities, or whether certificates count at all."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
