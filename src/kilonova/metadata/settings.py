"""Settings of the metadata service; `config.py` fills them from nova.conf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATIC, DYNAMIC = "StaticJSON", "DynamicJSON"
"""Providers of vendor data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataSettings:
    """Options of `[api]` and `[neutron]` by their names; times in seconds."""

    service_metadata_proxy: bool = False
    """Believe proxies' headers, which are signed; else who asks is told by the address that the question comes from."""
    shared_secret: str = ""
    cache_expiration: float = 15.0
    """0: every question is answered from the database."""
    dhcp_domain: str = "novalocal"
    vendordata_providers: tuple[str, ...] = ("StaticJSON",)
    vendordata_file: Path | None = None
    vendordata_targets: tuple[tuple[str, str], ...] = ()
    """(name, URL)"""
    vendordata_connect_timeout: float = 5.0
    vendordata_read_timeout: float = 5.0
    vendordata_failure_fatal: bool = False
