"""What a flavor looks like."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.fields import Out, View
from kilonova.api.requests import Linker, Request
from kilonova.db.flavors import Flavor


def _links(flavor: Flavor, links: Linker) -> Any:
    return links(flavor.flavorid)


def _swap_or_empty(flavor: Flavor, links: Linker) -> int | str:
    return flavor.swap_mb or ""


BASIC = View(
    Out("id", "flavorid"),
    Out("name", "name"),
    Out("links", _links),
    Out("description", "description", since="2.55"),
)

_DETAIL = (
    Out("id", "flavorid"),
    Out("name", "name"),
    Out("ram", "memory_mb"),
    Out("disk", "root_gb"),
    Out("swap", _swap_or_empty, until="2.74"),
    Out("swap", "swap_mb", since="2.75"),
    Out("OS-FLV-EXT-DATA:ephemeral", "ephemeral_gb"),
    Out("OS-FLV-DISABLED:disabled", "disabled", until="2.101"),
    Out("vcpus", "vcpus"),
    Out("os-flavor-access:is_public", "is_public"),
    Out("rxtx_factor", "rxtx_factor", until="2.101"),
    Out("links", _links),
    Out("description", "description", since="2.55"),
)
DETAIL = View(*_DETAIL)
DETAIL_WITH_SPECS = View(*_DETAIL, Out("extra_specs", "extra_specs", since="2.61"))


def detail_view(request: Request) -> View:
    """With extra specs, where the version has them and policy shows them."""
    if request.version >= versions.FLAVOR_EXTRA_SPECS and request.allowed("os_compute_api:os-flavor-extra-specs:index"):
        return DETAIL_WITH_SPECS
    return DETAIL


def shown(request: Request, flavor: Flavor) -> dict[str, Any]:
    return {"flavor": detail_view(request).at(request.version)(flavor, request.linker("flavors"))}
