"""Whose question it is: three ways, by what comes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kilonova.errors import Forbidden, Invalid, NotFound, Unavailable
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.signing import verify
from kilonova.networking import Document, Networking

SIGNED = ("x-instance-id", "x-instance-id-signature", "x-tenant-id")
PROVIDER, PROVIDER_SIGNATURE = "x-metadata-provider", "x-metadata-provider-signature"
FORWARDED = "x-forwarded-for"
ONCE = frozenset({*SIGNED, PROVIDER, PROVIDER_SIGNATURE, FORWARDED})
NETWORKS = 160
"""Of which ports are looked for in one question: their ids stand in a URL."""

NOBODY = NotFound("There is no such instance.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """`project_id`: None where nobody has named one."""

    server_uuid: str
    project_id: str | None
    address: str


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Raises Invalid when one that decides who asks is given twice."""
    found: dict[str, str] = {}
    twice = set()
    for raw_name, value in raw:
        name = raw_name.decode("latin-1").lower()
        if name in ONCE and name in found:
            twice.add(name)
        found[name] = value.decode("latin-1")
    if twice:
        raise Invalid(f"Header {min(twice)} is given several times.")
    return found


def key_of(raw: Iterable[tuple[bytes, bytes]], peer: str, settings: MetadataSettings) -> tuple[str, ...]:
    """What the cache goes by; checks signatures. Raises Invalid, Forbidden."""
    if not settings.service_metadata_proxy:
        return ("address", peer)
    headers = _headers(raw)
    if headers.get(PROVIDER):
        return _by_provider(headers, settings)
    for name in ("x-instance-id", "x-instance-id-signature", "x-tenant-id"):
        if name not in headers:
            raise Invalid(f"Header {name} is missing from the request.")
    instance_id, signature, tenant_id = headers[SIGNED[0]], headers[SIGNED[1]], headers[SIGNED[2]]
    if not signature or not verify(settings.shared_secret, instance_id, signature):
        raise Forbidden("Invalid proxy request signature.")
    return ("instance", instance_id, tenant_id, headers.get(FORWARDED, peer))


def _by_provider(headers: Mapping[str, str], settings: MetadataSettings) -> tuple[str, ...]:
    provider = headers[PROVIDER]
    if FORWARDED not in headers:
        raise Invalid(f"Header {FORWARDED} is missing from the request.")
    if settings.shared_secret and not verify(settings.shared_secret, provider, headers.get(PROVIDER_SIGNATURE, "")):
        raise Forbidden("Invalid proxy request signature.")
    return ("provider", provider, headers[FORWARDED].partition(",")[0].strip())


async def find(key: tuple[str, ...], network: Networking | None) -> Asker:
    """Raises NotFound, Invalid, Unavailable."""
    match key:
        case ("instance", instance_id, tenant_id, address):
            return Asker(server_uuid=instance_id, project_id=tenant_id, address=address)
        case ("address", address):
            ports = await _networking(network).find("ports", {"fixed_ips": f"ip_address={address}"})
            servers = [port for port in ports if str(port.get("device_owner", "")).startswith("compute:")]
            if len(servers) == 1:
                # Whoever has made the port: a project's server may be on another's.
                return Asker(server_uuid=servers[0]["device_id"], project_id=None, address=address)
        case ("provider", provider, address):
            ports = await _behind(_networking(network), provider, address)
            if len(ports) != 1:
                raise Invalid(f"{len(ports)} ports have this address behind the metadata provider {provider}.")
            return Asker(server_uuid=ports[0]["device_id"], project_id=ports[0]["project_id"], address=address)
    raise NOBODY


def _networking(network: Networking | None) -> Networking:
    if network is None:
        raise Unavailable("This cloud has no Networking service that could tell who asks.")
    return network


async def _behind(network: Networking, provider: str, address: str) -> list[Document]:
    subnets = await network.find("subnets", {"advanced_service_providers": [provider], "fields": ["network_id"]})
    ids = sorted({subnet["network_id"] for subnet in subnets})
    if not ids:
        raise Invalid(f"No network has the metadata provider {provider}.")
    found: list[Document] = []
    for start in range(0, len(ids), NETWORKS):
        part = {"fixed_ips": f"ip_address={address}", "network_id": ids[start : start + NETWORKS]}
        found += await network.find("ports", part)
    return found
