"""Settings of the HTTP layer; `config.py` fills them from nova.conf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    max_request_body_size: int = 114688
    """Bytes (`[oslo_middleware] max_request_body_size`)."""
    enable_proxy_headers_parsing: bool = False
    """Whether X-Forwarded-* and Forwarded are believed (`[oslo_middleware]`)."""
    secure_proxy_ssl_header: str | None = None
    """A header, such as `X-Forwarded-Proto`, that holds the scheme the client used (`[wsgi]`)."""
    policy_file: Path | None = None
    www_authenticate_uri: str | None = None
    """Identity's public URL, told to those who come without a good token."""
